"""Stages against answers from outside: PCA's floor, and problems that were planted so that pretraining must help."""

import pytest
import torch
from sklearn.datasets import load_digits
from support.hidden_factors import Compressing, Labelled
from torch import nn

import tuner
from tuner import Campaign, Round, SearchSpace, Splits, Workload, best_of, log_uniform, minimize

SEEDS = tuple(range(20))


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.delenv("TUNER_STORAGE", raising=False)
    monkeypatch.chdir(tmp_path)


def finished(*stages):
    """Run campaigns in this order; what `tuner.run` returned for the last."""
    results = [tuner.run(campaign, yes=True, progress=False) for campaign in stages]
    assert [result.decision for result in results] == [None] * len(stages)
    return results[-1]


class LinearAutoencoder(Workload):
    """Digits of 8 x 8 pixels through `width` numbers and back, by linear maps with offsets."""

    batch_size = 100
    select_by = minimize("validation/error")
    width = 16

    def data(self):
        images = torch.tensor(load_digits()["data"] / 16, dtype=torch.float32)
        return Splits(training=(images[:1000],), validation=(images[1000:],))

    def model(self, point):
        return nn.ModuleDict({"encoder": nn.Linear(64, self.width), "decoder": nn.Linear(self.width, 64)})

    def loss(self, model, batch, point):
        return self.errors(model, batch).mean()

    def metrics(self, model, batch):
        return {"error": self.errors(model, batch)}

    def errors(self, model, batch):
        return (model["decoder"](model["encoder"](batch[0])) - batch[0]).square().mean(1)


def floor_of_pca():
    """The least mean squared error of the training digits through 16 numbers, by singular values (Eckart-Young)."""
    (images,) = LinearAutoencoder().data().training
    centred = (images - images.mean(0)).double()
    return float((torch.linalg.svdvals(centred)[LinearAutoencoder.width :] ** 2).sum() / centred.numel())


def test_a_linear_autoencoder_reaches_the_floor_of_pca_and_is_handed_over_there():
    pretraining = Campaign(
        LinearAutoencoder(),
        name="linear",
        evaluations=20,
        rounds=[Round("Which rate?", trials=2, max_train_steps=1500, space=SearchSpace(
            learning_rate=log_uniform(1e-2, 2e-2),
        ))],
    )  # fmt: skip
    first = finished(pretraining).records.frames(round=1)
    best = first.complete.sort_values("best_value").iloc[0]
    errors = first.curve(best["trial"], "training/error").set_index("step")["value"]
    floor = floor_of_pca()
    assert floor <= errors.min() <= 1.01 * floor

    # One step at a rate that moves nothing: the later stage begins where the earlier one ended.
    still = SearchSpace(learning_rate=log_uniform(1e-12, 1e-11))
    held = Round("Nothing is moved", trials=1, max_train_steps=1, space=still)
    later = finished(Campaign(LinearAutoencoder(), name="held", start_from=best_of(pretraining), rounds=[held]))
    carried = later.records.frames(round=1).curve(0, "training/error")["value"].iloc[-1]
    assert carried == pytest.approx(errors[best["best_step"]], rel=1e-6)


def stages(seeds, labels=30):
    """Pretraining, and labels with a control: the problems with these seeds."""
    rates = log_uniform(3e-3, 3e-2)
    pretraining = Campaign(
        Compressing(seeds),
        name="compressed",
        evaluations=20,
        rounds=[Round("Which rate?", trials=2, max_train_steps=400, space=SearchSpace(learning_rate=rates))],
    )
    return pretraining, Campaign(
        Labelled(seeds, labels),
        name="labelled",
        start_from=best_of(pretraining, "encoder.*"),
        evaluations=20,
        rounds=[
            Round("On the pretrained encoder", trials=3, max_train_steps=100, space=SearchSpace(
                learning_rate=log_uniform(1e-2, 1.0), encoder="frozen",
            )),
            Round("From scratch, equal total steps", trials=3, start="scratch", total="equal", space=SearchSpace(
                learning_rate=log_uniform(1e-3, 1e-1), encoder="trained",
            )),
        ],
    )  # fmt: skip


def errors(result, seeds, number):
    """The error rate of each problem at the best step of the best trial of a round."""
    frames = result.records.frames(round=number)
    best = frames.complete.sort_values("best_value").iloc[0]
    curves = [frames.curve(best["trial"], f"validation/wrong_{seed}").set_index("step")["value"] for seed in seeds]
    return torch.tensor([float(curve[best["best_step"]]) for curve in curves])


@pytest.mark.slow
def test_where_pretraining_must_help_it_is_better_in_18_of_20_problems():
    result = finished(*stages(SEEDS))
    staged, scratch = errors(result, SEEDS, 1), errors(result, SEEDS, 2)
    assert int((staged < scratch).sum()) >= 18
    assert float(staged.mean()) < 0.14  # PCA and ridge regression reach 0.115 with as many labels


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_problems_one_by_one_with_stages_of_their_own(tmp_path, monkeypatch):
    better = 0
    for seed in SEEDS:
        (tmp_path / str(seed)).mkdir()
        monkeypatch.chdir(tmp_path / str(seed))
        result = finished(*stages((seed,)))
        better += bool(errors(result, (seed,), 1) < errors(result, (seed,), 2))
    assert better >= 18
