"""A tiny campaign that was run through the Python API, for all tests of a session."""

import os

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tuner
from tuner import Campaign, Round, SearchSpace, Splits, Sweep, Workload, at_most, log_uniform, minimize, uniform


class Tiny(Workload):
    """Two clouds that a small network tells apart."""

    batch_size = 8
    select_by = minimize("validation/loss")
    fitted_when = at_most("training/error_rate", 0.0)

    def data(self):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(80, 6, generator=generator)
        y = (x[:, 0] + 0.5 * x[:, 1] > 0).long()
        return Splits(training=(x[:50], y[:50]), validation=(x[50:], y[50:]))

    def model(self, point):
        return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(point["dropout"]), nn.Linear(16, 2))

    def loss(self, model, batch, point):
        return F.cross_entropy(model(batch[0]), batch[1])

    def metrics(self, model, batch):
        logits = model(batch[0])
        return {
            "loss": F.cross_entropy(logits, batch[1], reduction="none"),
            "error_rate": logits.argmax(-1) != batch[1],
        }


def declared(name="tiny", **changes):
    space = SearchSpace(learning_rate=log_uniform(1e-3, 1e-1), dropout=uniform(0.0, 0.5, limits="low"))
    rounds = [Round("a test", trials=4, max_train_steps=60, space=space)]
    sweep = Sweep(learning_rate=(0.01, 0.1, 1.0), start_steps=100, max_steps=200, seeds=1)
    return Campaign(Tiny(), **({"name": name, "rounds": rounds, "sweep": sweep, "evaluations": 20} | changes))


@pytest.fixture(scope="session")
def ran(tmp_path_factory):
    """The folder of a campaign that was run, the campaign, and what `tuner.run` returned."""
    folder = tmp_path_factory.mktemp("api")
    before = os.environ.pop("TUNER_STORAGE", None)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        campaign = declared()
        result = tuner.run(campaign, yes=True, progress=False, fuse="off")
    if before is not None:
        os.environ["TUNER_STORAGE"] = before
    return folder, campaign, result


@pytest.fixture
def campaign(ran, monkeypatch):
    """The campaign that was run; the working directory is that of its records."""
    monkeypatch.chdir(ran[0])
    monkeypatch.delenv("TUNER_STORAGE", raising=False)
    return ran[1]
