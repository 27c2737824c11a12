"""What a launch says of data, models and optimizers before it trains, and of trials that all end alike."""

import json
from types import SimpleNamespace

import pytest
from support.loaded import loaded
from support.records import rows
from support.tiny import Tiny, tiny_study

from tuner import SearchSpace, choice, log_uniform
from tuner.design.points import Point
from tuner.rounds.launch import check_study
from tuner.rounds.plan import trial_at
from tuner.training.finite import check_validation
from tuner.training.preflight import check_workload

BOTH = SearchSpace(learning_rate=log_uniform(1e-3, 1e-1), optimizer=choice("sgd", "adamw"))
STUDY = """
import torch
import torch.nn.functional as F
from torch import nn
from tuner import *


class W(Workload):
    batch_size, select_by = 32, minimize("validation/loss")

    def data(self):
        x = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
        y = x.sum(1)
        {spoil}
        return Splits(training=(x[:200], y[:200]), validation=(x[200:], y[200:]))

    def model(self, point):
        return {model}

    def loss(self, model, batch, point):
        return F.mse_loss(model(batch[0])[:, 0], batch[1])

    def metrics(self, model, batch):
        return {{"loss": (model(batch[0])[:, 0] - batch[1]) ** 2}}


class Own(nn.Linear):
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


class Annealed(nn.Linear):
    calls = 0

    def forward(self, x):
        self.calls += self.training
        return super().forward(x) / (1 + 0.1 * self.calls)

    def get_extra_state(self):
        return {{"calls": self.calls}}

    def set_extra_state(self, state):
        self.calls = state["calls"]


campaign = Campaign(W(), production_steps=400, evaluations=20, rounds=[Round("q", trials={trials}, max_train_steps=60,
    space=SearchSpace(learning_rate=log_uniform(1e-3, 1e-1)))])
"""


def written(folder, spoil="pass", model="nn.Linear(8, 1)", trials=4):
    path = folder / "w.py"
    path.write_text(STUDY.format(spoil=spoil, model=model, trials=trials))
    return path


@pytest.mark.parametrize("how", [["--dry-run"], ["--fuse", "4"], ["--workers", "2"]])
def test_a_validation_label_that_is_nan_is_one_error_and_nothing_is_trained(how, tuner, tmp_path):
    run = tuner("launch", written(tmp_path, 'y[250] = float("nan")'), "--round", 1, *how)
    assert run.code == 2
    assert run.err.startswith("error: 'validation/loss' is not finite for 1 of 100 validation examples")
    assert "the first of them example 50 (counted from 0), which holds nan in tensor 1" in run.err
    assert run.err.count("\n") == 1, "the error stands alone"
    assert not list(tmp_path.glob("runs/checkpoints/*"))


@pytest.mark.parametrize("how", ["4", "off"])
def test_a_training_label_that_is_nan_is_said_before_and_after_and_by_the_check(how, tuner, tmp_path, caplog):
    study = written(tmp_path, 'y[100] = float("nan")')
    launched = tuner("launch", study, "--round", 1, "--fuse", how)
    assert launched.code == 0
    assert "the loss of a batch with training example 100 (counted from 0) is nan" in caplog.text
    said = (
        "4 of 4 trials diverged at step 4, whatever the learning rate (0.00299 to 0.0944): the cause is probably the "
        "data"
    )
    assert caplog.text.count(said) == 1
    assert "Training example 100 has nan in tensor 1." in caplog.text
    checked = tuner("check", "w", "-f", "json")
    finding = next(one for one in json.loads(checked.out)["findings"] if one["question"] == "infeasible")
    assert (checked.code, finding["verdict"]) == (3, "many_infeasible")
    assert said in finding["summary"]
    assert "hrink" not in finding["action"]


def test_the_validation_split_is_looked_at_once_for_all_launches(tuner, tmp_path, monkeypatch):
    from tuner.training import inspection

    looked = []
    monkeypatch.setattr(inspection, "check_validation", lambda *given: looked.append(1) or check_validation(*given))
    for trials in (1, 2):
        assert tuner("launch", written(tmp_path, trials=trials), "--round", 1).code == 0
    assert len(looked) == 1
    assert tuner("launch", written(tmp_path, trials=2), "--round", 2, "--dry-run").code == 2  # there is no round 2
    kept = rows(tmp_path, "select data from conclusion where kind = 'finite validation'")
    assert len(kept) == 1


def test_one_launch_tries_one_update_once(tuner, tmp_path, monkeypatch):
    from tuner.training import inspection

    tried = []
    monkeypatch.setattr(inspection, "check_workload", lambda *given: tried.append(1) or check_workload(*given))
    assert tuner("launch", written(tmp_path, trials=1), "--round", 1).code == 0
    assert len(tried) == 1


def test_the_first_trial_of_each_optimizer_is_tried(tmp_path, monkeypatch):
    """A gradient that suits one optimizer need not suit another."""
    tried = []
    monkeypatch.setattr(
        "tuner.training.inspection.check_workload", lambda setting, trial, gang: tried.append(trial.point["optimizer"])
    )
    here, nothing = loaded(Tiny(), tmp_path), SimpleNamespace(campaigns=list)
    session = SimpleNamespace(name="w", loaded=here, ledger=nothing, campaign=SimpleNamespace(workload=here.workload))
    points = [Point.of({"optimizer": name, "learning_rate": 0.1}) for name in ("sgd", "sgd", "adamw", "sgd")]
    study = tiny_study(space=BOTH)
    assert check_study(session, study, [trial_at(study, 0, point, "by hand") for point in points]).finite
    assert tried == ["sgd", "adamw"]


@pytest.mark.parametrize("how", [[], ["--dry-run"]])
def test_optimizers_of_the_model_itself_are_said_to_be_ignored(how, tuner, tmp_path, caplog):
    run = tuner("launch", written(tmp_path, model="Own(8, 1)", trials=1), "--round", 1, *how)
    assert run.code == 0
    assert (
        caplog.text.count("W.model has configure_optimizers, which is not called: each trial is trained by adamw") == 1
    )


def test_a_misspelt_hook_is_said_to_be_ignored(tuner, tmp_path, caplog):
    study = written(tmp_path, trials=1)
    study.write_text(study.read_text().replace("    def metrics(", "    data_worker = 4\n\n    def metrics(", 1))
    assert tuner("launch", study, "--round", 1, "--dry-run").code == 0
    assert caplog.text.count("nothing reads W.data_worker; did you mean data_workers? Rename it if it is your own") == 1


def test_extra_state_is_exported_beside_the_weights_and_loads_with_them(tuner, tmp_path):
    import torch
    from safetensors.torch import load_file

    assert tuner("launch", written(tmp_path, model="Annealed(8, 1)", trials=1), "--round", 1, "--fuse", "off").code == 0
    exported = tuner("best", "w", "--export", "m.safetensors")
    assert exported.code == 0
    assert "m.extra_state.pt" in exported.err
    weights, beside = (
        load_file(tmp_path / "m.safetensors"),
        torch.load(tmp_path / "m.extra_state.pt", weights_only=True),
    )
    assert weights.keys() == {"weight", "bias"}
    told = json.loads(tuner("best", "w", "-f", "json").out)
    assert beside == {"_extra_state": {"calls": told["best_step"]}}
    assert tuner("replay", tmp_path / "w.py", "--round", 1, "--trial", 0).code == 0
