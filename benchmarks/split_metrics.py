"""What metrics of the whole split add to an evaluation of 10,000 examples, in one run.

    python benchmarks/split_metrics.py

Thread CPU time of an evaluation with and without `split_metrics`, in pairs, now one and now the other first; medians of
the times and of the pairs' ratios. Both workloads compute loss, score and label of each example; the one with metrics
of the whole split keeps them and makes an AUC of them. What the user's function costs by itself (sorting 10,000 scores)
is shown, too: the rest is the program's. A model of a few hundred numbers is evaluated in less time than the scores are
sorted; it is shown, and does not count for the goal.
"""

import itertools
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

from tuner import Workload, maximize, minimize
from tuner.training.batches import Split
from tuner.training.evaluation import evaluate

EXAMPLES, BATCH, GOAL = 10_000, 1024, 1.05


class Plain(Workload):
    """A classifier of two classes that is evaluated example by example."""

    batch_size = 64
    select_by = minimize("validation/loss")

    def metrics(self, model, batch):
        score = model(batch[0]).squeeze(1)
        loss = F.binary_cross_entropy_with_logits(score, batch[1].float(), reduction="none")
        return {"loss": loss, "score": score, "positive": batch[1] == 1}


class Ranked(Plain):
    """The same, with the AUC of the whole split."""

    select_by = maximize("validation/auc")
    not_averaged = ("score", "positive")

    def split_metrics(self, each):
        return {"auc": auc(each["score"], each["positive"])}


def auc(score, positive):
    """The share of pairs of a positive and a negative example that are in order; scores are distinct here."""
    rank = torch.empty_like(score)
    rank[score.argsort()] = torch.arange(1.0, len(score) + 1.0, dtype=score.dtype)
    ones, zeros = int(positive.sum()), int((~positive).sum())
    return float((rank[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))


class Conv(nn.Module):
    """A small residual network on 16 x 16 images."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 16, 3, padding=1)
        self.body = nn.ModuleList([nn.Conv2d(16, 16, 3, padding=1) for _ in range(4)])
        self.head = nn.Linear(16, 1)

    def forward(self, x):
        x = F.relu(self.first(x.view(-1, 1, 16, 16)))
        for layer in self.body:
            x = x + F.relu(layer(x))
        return self.head(x.mean((2, 3)))


def mlp(*widths):
    layers = [layer for a, b in itertools.pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def tiny():
    return mlp(6, 12, 1)


MODELS = {
    "MLP 6-12-1 (the tests')": (6, tiny, 200),
    "MLP 256-256-256-1": (256, lambda: mlp(256, 256, 256, 1), 150),
    "residual network, 16 x 16": (256, Conv, 20),
}


def timed(work):
    before = time.thread_time()
    work()
    return 1e3 * (time.thread_time() - before)


def measured(make, width, rounds):
    """Milliseconds of an evaluation without and with metrics of the whole split, their ratio, and of the AUC alone."""
    torch.manual_seed(0)
    x = torch.randn(EXAMPLES, width)
    split, model = Split("validation", (x, (x.mean(1) > 0).long()), torch.device("cpu")), make()
    score, positive = torch.rand(EXAMPLES, dtype=torch.float64), torch.rand(EXAMPLES) < 0.5
    arms = (
        lambda: evaluate(Plain(), model, split, batch_size=BATCH),
        lambda: evaluate(Ranked(), model, split, batch_size=BATCH),
        lambda: auc(score, positive),
    )
    found = []
    for number in range(rounds):
        order = (0, 1, 2) if number % 2 else (1, 0, 2)
        times = {arm: timed(arms[arm]) for arm in order}
        found.append((times[0], times[1], times[1] / times[0], times[2]))
    return [statistics.median(times) for times in zip(*found, strict=True)]


def main() -> int:
    torch.set_num_threads(1)
    missed = 0
    for name, (width, make, rounds) in MODELS.items():
        plain, ranked, ratio, own = measured(make, width, rounds)
        missed += make is not tiny and ratio > GOAL
        print(
            f"{name:<28} {plain:8.2f} ms without, {ranked:8.2f} ms with ({ratio - 1:+.1%}); the AUC itself {own:.2f} ms"
        )
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
