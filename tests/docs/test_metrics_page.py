"""The recipes of docs/how-to/metrics.md, run as they stand there, against scikit-learn and answers by hand."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn import metrics as sklearn_metrics

from tuner.training.batches import Split
from tuner.training.evaluation import evaluate

PAGE = (Path(__file__).parents[2] / "docs/how-to/metrics.md").read_text(encoding="utf-8")
RECIPES: dict = {}
for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
    exec(block, RECIPES)

CPU = torch.device("cpu")
N = 1003
SIZES = [1, 7, 100, N]  # of an evaluation batch; the last one is short for 7 and 100


class Given(torch.nn.Module):
    """A model that returns what it is given."""

    def forward(self, x):
        return x


def evaluated(name, tensors, size, model=None):
    split = Split("validation", tensors, CPU)
    found = evaluate(RECIPES[name](), model or Given(), split, batch_size=size)
    return {metric.removeprefix("validation/"): value for metric, value in found.items()}


def scores(step=0.0):
    """Scores and labels that overlap; `step` rounds the scores, so that many are equal."""
    generator = torch.Generator().manual_seed(0)
    y = (torch.rand(N, generator=generator) < 0.2).long()
    score = torch.rand(N, generator=generator) + 0.4 * y
    return (score / step).round() * step if step else score, y


@pytest.mark.parametrize("step", [0.0, 0.05], ids=["distinct", "ties"])
@pytest.mark.parametrize("size", SIZES)
def test_auc_and_average_precision_are_those_of_the_whole_split(size, step):
    score, y = scores(step)
    found = evaluated("Tumors", (score[:, None], y), size)
    exact = score.double().numpy()
    assert found["auc"] == pytest.approx(sklearn_metrics.roc_auc_score(y, exact), abs=1e-12)
    assert found["average_precision"] == pytest.approx(sklearn_metrics.average_precision_score(y, exact), abs=1e-12)
    assert set(found) == {"loss", "auc", "average_precision"}, "what is not averaged has no mean"
    assert RECIPES["auc"](score.double(), y == 1) == pytest.approx(found["auc"], abs=1e-12)


def test_auc_by_hand():
    """Of the pairs (0.8, 0.1), (0.8, 0.5), (0.5, 0.1), (0.5, 0.5) three are in order and one is a tie."""
    score, positive = torch.tensor([0.1, 0.5, 0.5, 0.8]), torch.tensor([False, True, False, True])
    assert RECIPES["auc"](score, positive) == 3.5 / 4
    assert RECIPES["auc"](score, positive & False) is None
    assert RECIPES["auc"](score, positive | True) is None


def test_where_a_class_is_missing_there_is_no_auc():
    score, y = scores()
    for labels in (torch.zeros_like(y), torch.ones_like(y)):
        assert set(evaluated("Tumors", (score[:, None], labels), 100)) == {"loss"}


def test_recall_at_a_precision():
    score, y = scores()
    found = RECIPES["recall_at"](0.5, score, y == 1)
    by_hand = 0.0
    for threshold in score.tolist():
        chosen = score >= threshold
        if y[chosen].float().mean() >= 0.5:
            by_hand = max(by_hand, float(y[chosen].sum() / y.sum()))
    assert found == pytest.approx(by_hand, abs=1e-6)
    assert 0.0 < found < 1.0
    assert RECIPES["recall_at"](0.5, score, y == 2) is None


@pytest.mark.parametrize("size", SIZES)
def test_f1_and_mcc(size):
    score, y = scores()
    logits = torch.stack([torch.full_like(score, 0.7), score], dim=1)
    found = evaluated("Relevance", (logits, y), size)
    predicted = (score > 0.7).long()
    assert found["f1"] == pytest.approx(sklearn_metrics.f1_score(y, predicted), abs=1e-12)
    assert found["mcc"] == pytest.approx(sklearn_metrics.matthews_corrcoef(y, predicted), abs=1e-12)
    none = evaluated("Relevance", (logits - torch.tensor([0.0, 9.0]), y), size)
    assert (none["f1"], none["mcc"]) == (0.0, 0.0)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_perplexity_weights_each_token_alike(size):
    """Texts of 4, 1 and 2 tokens to predict: by hand over the 7 tokens, not over the 3 texts."""
    texts = torch.tensor([[1, 2, 3, 4, 5], [1, 6, 0, 0, 0], [2, 3, 4, 0, 0]])
    table = torch.randn(7, 7, generator=torch.Generator().manual_seed(1))
    found = evaluated("LanguageModel", (texts,), size, torch.nn.Embedding.from_pretrained(table))
    logs = F.log_softmax(table.double(), -1)
    pairs = [(1, 2), (2, 3), (3, 4), (4, 5), (1, 6), (2, 3), (3, 4)]
    nats = -sum(float(logs[a, b]) for a, b in pairs) / 7
    assert found["nats"] == pytest.approx(nats, rel=1e-6)
    assert found["perplexity"] == pytest.approx(math.exp(nats), rel=1e-6)
    assert set(found) == {"nats", "perplexity"}


@pytest.mark.parametrize("size", SIZES)
def test_rmse_and_r2_with_targets_far_from_zero(size):
    """Sums in float32 would lose R2 with targets near 1000."""
    generator = torch.Generator().manual_seed(2)
    y = 1000 + 3 * torch.randn(N, generator=generator)
    x = y + torch.randn(N, generator=generator)
    found = evaluated("Forecast", (x[:, None], y), size)
    exact, target = x.double().numpy(), y.double().numpy()
    # The squares of `metrics` are float32, which rounds each one; what is made of them is not rounded.
    squares = ((x - y) ** 2).double().numpy()
    assert found["rmse"] == pytest.approx(math.sqrt(squares.mean()), abs=1e-12)
    assert found["r2"] == pytest.approx(1 - squares.sum() / ((target - target.mean()) ** 2).sum(), abs=1e-12)
    assert found["rmse"] == pytest.approx(np.sqrt(sklearn_metrics.mean_squared_error(target, exact)), rel=1e-6)
    assert found["r2"] == pytest.approx(sklearn_metrics.r2_score(target, exact), rel=1e-6)
    assert set(evaluated("Forecast", (x[:, None], torch.ones(N)), size)) == {"mse", "rmse"}, "no R2 of a constant"


@pytest.mark.parametrize("size", [1, 3, 10])
def test_dice_counts_each_pixel_of_the_set_once(size):
    generator = torch.Generator().manual_seed(3)
    masks = (torch.rand(10, 8, 8, generator=generator) < torch.linspace(0.0, 0.9, 10)[:, None, None]).long()
    logits = torch.randn(10, 8, 8, generator=generator) + masks
    found = evaluated("Masks", (logits, masks), size)
    # Of all pixels together, Dice is F1.
    assert found["dice"] == pytest.approx(sklearn_metrics.f1_score(masks.flatten(), logits.flatten() > 0), abs=1e-12)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_word_error_rate_of_sentences_of_different_lengths(size):
    """One word replaced, one missing, three too many: 5 edits of 6 words."""
    frames = torch.tensor([[1, 1, 0, 2, 9, 9, 0], [4, 4, 4, 0, 0, 0, 0], [7, 0, 7, 8, 0, 9, 9]])
    words = torch.tensor([[1, 2, 3], [4, 5, 0], [7, 0, 0]])
    found = evaluated("Speech", (F.one_hot(frames, 10).float(), words), size)
    assert found == {"word_error_rate": (1 + 1 + 3) / 6}


@pytest.mark.parametrize(
    ("heard", "written", "count"),
    [("", "", 0), ("abc", "", 3), ("", "ab", 2), ("kitten", "sitting", 3), ("flaw", "lawn", 2), ("same", "same", 0)],
)
def test_edits_of_known_pairs(heard, written, count):
    assert RECIPES["edits"](heard, written) == count
