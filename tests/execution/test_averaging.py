"""The mean of the best weights that a run kept, against a mean computed by hand; and the words about averages."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.numpy import load_file
from support.shell import tuner
from support.study_files import write_study

import tuner as package
from tuner import Workload, load
from tuner.design.study_file import load_campaign
from tuner.training.checkpoints import read_weights

__all__ = ["tuner"]
NORMED = ("nn.ReLU(),", "nn.BatchNorm1d(16), nn.ReLU(),")


@pytest.fixture
def study(tmp_path):
    return write_study(tmp_path, trials=3, steps=60, more="keep_best=3,", replace=[NORMED])


def test_the_mean_of_the_kept_weights_is_evaluated_and_written(tuner, tmp_path, study):
    assert tuner("launch", study, "-q").code == 0
    said = tuner("best", study, "--export", "mean.safetensors", "--average")
    assert said.code == 0, said.err
    winner = load("tiny").best()
    kept = [one for one in winner.record.checkpoints if one.kind == "best"]
    assert len(kept) == 3
    kept.sort(key=lambda one: one.step != winner.step)
    weights = [read_weights(tmp_path / "runs" / "checkpoints", one) for one in kept]
    written = load_file("mean.safetensors")
    buffers = {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert written.keys() == weights[0].keys() > buffers
    for name, value in written.items():
        expected = weights[0][name].numpy()
        if name not in buffers:
            expected = np.mean([one[name].numpy().astype(np.float64) for one in weights], axis=0).astype(np.float32)
            assert not np.array_equal(value, weights[0][name].numpy())
        assert np.array_equal(value, expected), name
    workload = load_campaign(study)[1].workload
    assert isinstance(workload, Workload)
    model = workload.model(dict(winner.record.point)).eval()
    model.load_state_dict({name: torch.from_numpy(value) for name, value in written.items()})
    x, y = workload.data().validation
    loss = F.cross_entropy(model(x), y).item()
    with safe_open("mean.safetensors", "np") as file:
        about = json.loads(file.metadata()["averaged"])
    assert about["validation/loss"] == pytest.approx(loss, rel=1e-5)
    assert about["steps"] == [one.step for one in kept]
    assert about["best_single"] == winner.selected_value
    assert f"have {winner.selected_value:.6g}" in said.err
    assert f"= {about['validation/loss']:.6g}" in said.err
    assert ("these are better" in said.err) == (about["validation/loss"] > winner.selected_value)
    path = package.export_weights(str(study), "again.safetensors", average=True)
    assert path.read_bytes() == (tmp_path / "mean.safetensors").read_bytes()


def test_what_a_mean_cannot_be_made_of_is_told(tuner, study):
    assert tuner("launch", study, "-q").code == 0
    for arguments, expected in (
        (("--average",), "add --export FILE"),
        (("--average", "--export", "a.safetensors", "--as", "merged"), "two ways to write weights"),
    ):
        refused = tuner("best", study, *arguments)
        assert (refused.code, expected in refused.err) == (2, True), refused.err
    by_name = tuner("best", "tiny", "--export", "a.safetensors", "--average")
    assert (by_name.code, by_name.out) == (2, "")
    assert f"takes the study file: tuner best {study} --export a.safetensors --average" in by_name.err
    study.write_text(study.read_text().replace("nn.ReLU()", "nn.Tanh()"))
    refused = tuner("best", study, "--export", "a.safetensors", "--average")
    assert (refused.code, "the mean of its weights would be that of another model" in refused.err) == (2, True)


def test_one_kept_checkpoint_is_no_mean(tuner, tmp_path):
    study = write_study(tmp_path, trials=2, steps=20)
    assert tuner("launch", study, "-q").code == 0
    refused = tuner("best", study, "--export", "a.safetensors", "--average")
    assert refused.code != 0
    assert "has 1 best checkpoint, and a mean needs two or more: train with Campaign(keep_best=3)" in refused.err


def test_averages_are_evaluated_selected_exported_and_scored(tuner, tmp_path):
    """A round in which ema_steps is searched."""
    space = ("learning_rate=log_uniform", "ema_steps=integers(2, 12, log=True), learning_rate=log_uniform")
    study = write_study(tmp_path, trials=3, steps=60, replace=[space])
    launched = tuner("launch", study, "-q")
    assert launched.code == 0, launched.err
    assert "ema_steps of 12 is 20% of the 60 steps of round-1" in " ".join(launched.err.split())
    winner = load("tiny").best()
    assert 2 <= winner.point["ema_steps"] <= 12
    assert tuner("best", study, "--export", "best.safetensors").code == 0
    workload = load_campaign(study)[1].workload
    assert isinstance(workload, Workload)
    model = workload.model({"dropout": 0.0}).eval()
    model.load_state_dict({name: torch.from_numpy(one) for name, one in load_file("best.safetensors").items()})
    x, y = workload.data().validation
    assert winner.selected_value == pytest.approx(F.cross_entropy(model(x), y).item(), rel=1e-5)
    assert tuner("replay", study, "--trial", winner.record.number).code == 0
