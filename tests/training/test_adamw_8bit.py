"""AdamW in 8 bits: what it keeps, its loss beside AdamW's, resume and groups to the bit, and its package."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from support.fusible import Images, runs_of
from support.fusing import meaning, trained_alone, trained_together
from support.tiny import StopAt, setting_for, tiny_study
from torch import nn

from tuner import SearchSpace, log_uniform
from tuner.budget.step_budget import StepBudget
from tuner.design.optimizers import one_group
from tuner.errors import DeclarationError
from tuner.fused.making import exact_group
from tuner.rounds.plan import planned_trials
from tuner.training.checkpoints import canonical_digest
from tuner.training.compiler import plain_step
from tuner.training.optimizers import make_optimizer, packages_of_optimizers, state_bytes
from tuner.training.preflight import check_workload
from tuner.training.step_memory import memory_of_update
from tuner.training.trial_run import TrialRun

# Layers here have more than 4,096 values: smaller ones keep float32, and would test nothing.
needs_bitsandbytes = pytest.mark.needs("bitsandbytes")


def wide():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))


INPUTS = torch.randn(640, 256, generator=torch.Generator().manual_seed(1))
LABELS = (INPUTS @ torch.randn(256, 10, generator=torch.Generator().manual_seed(2))).argmax(1)


def trained(name, model, optimizer, first, last):
    """Steps first to last - 1; the loss of the last batch."""
    step = plain_step(optimizer)
    for number in range(first, last):
        batch = torch.randperm(640, generator=torch.Generator().manual_seed(number))[:32]
        optimizer.zero_grad()
        loss = F.cross_entropy(model(INPUTS[batch]), LABELS[batch])
        loss.backward()
        step()
    return float(loss.detach())


def made(name, model):
    return make_optimizer(name, one_group(model.parameters()), {"weight_decay": 0.01}, 1e-3, model)


@needs_bitsandbytes
def test_it_keeps_2_2_bytes_a_parameter_and_its_loss_is_near_that_of_adamw():
    losses = {}
    for name in ("adamw", "adamw_8bit"):
        model = wide()
        optimizer = made(name, model)
        told = state_bytes(optimizer)
        losses[name] = trained(name, model, optimizer, 0, 60)
        if name == "adamw_8bit":
            kept = {id(one): one for state in optimizer.state.values() for one in state.values()}
            tensors = [one for one in kept.values() if isinstance(one, torch.Tensor)]
            parameters = sum(one.numel() for one in model.parameters())
            assert told == sum(one.nbytes for one in tensors)
            assert told / parameters == pytest.approx(2.2, abs=0.1)
            in_8_bits = {one.numel() for one in tensors if one.dtype is torch.uint8}
            assert in_8_bits == {256 * 256}
    assert losses["adamw_8bit"] == pytest.approx(losses["adamw"], rel=0.02)
    assert losses["adamw_8bit"] != losses["adamw"]


@needs_bitsandbytes
def test_thirty_of_sixty_steps_go_on_to_the_same_bits_through_a_file():
    whole, part, later = wide(), wide(), wide()
    trained("adamw_8bit", whole, made("adamw_8bit", whole), 0, 60)
    optimizer = made("adamw_8bit", part)
    trained("adamw_8bit", part, optimizer, 0, 30)
    file = io.BytesIO()
    torch.save({"model": part.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    again = made("adamw_8bit", later)
    later.load_state_dict(state["model"])
    again.load_state_dict(state["optimizer"])
    trained("adamw_8bit", later, again, 30, 60)
    assert all(map(torch.equal, whole.parameters(), later.parameters()))


@needs_bitsandbytes
def test_the_dry_run_says_its_bytes_a_parameter(tmp_path):
    study = tiny_study(optimizer="adamw_8bit", space=SPACE, batch_size=32)
    run = TrialRun(setting_for(study, tmp_path, Wide()), planned_trials(study)[0])
    each = state_bytes(run.optimizer) / sum(one.numel() for one in run.parameters)
    assert 2.0 < each < 3.0
    assert f"({each:.3g} bytes a parameter)" in memory_of_update(run).words


class Wide(Images):
    """Two matrices of more values than are kept in float32."""

    def model(self, point):
        return nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 64), nn.ReLU(), nn.Linear(64, 10))


SPACE = SearchSpace(learning_rate=log_uniform(1e-3, 1e-2), weight_decay=log_uniform(1e-3, 0.1), label_smoothing=0.1)


@needs_bitsandbytes
def test_a_group_in_8_bits_has_the_bits_of_each_trial_alone():
    together, alone = (runs_of(Wide(), 3, SPACE, optimizer="adamw_8bit") for _ in range(2))
    exact_group(together).advance(6)
    for run, other in zip(together, alone, strict=True):
        other.advance(6)
        kinds = {one.dtype for state in run.optimizer.state.values() for one in state.values() if hasattr(one, "dtype")}
        assert torch.uint8 in kinds
        assert canonical_digest(run.state()) == canonical_digest(other.state())


@needs_bitsandbytes
def test_trials_in_8_bits_are_stopped_in_a_group_and_go_on_alone(tmp_path):
    study = tiny_study(optimizer="adamw_8bit", space=SPACE, budget=StepBudget(16, 4), num_trials=2, batch_size=32)
    trials = planned_trials(study)
    alone = trained_alone(setting_for(study, tmp_path / "alone", Wide()), trials)
    setting = setting_for(study, tmp_path / "stopped", Wide(), stop=StopAt(10))
    recorder = trained_together(setting, trials)
    trained_alone(setting_for(study, tmp_path / "stopped", Wide()), trials, recorder)
    for trial in trials:
        assert meaning(recorder, tmp_path / "stopped", trial) == meaning(alone, tmp_path / "alone", trial)


# --- The package --------------------------------------------------------------------------------------------------


def test_without_the_package_one_error_says_how_to_install_it_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    study = tiny_study(optimizer="adamw_8bit")
    with pytest.raises(DeclarationError, match=r"bitsandbytes, which is not installed: pip install 'tuner\[bnb\]'"):
        check_workload(setting_for(study, tmp_path), planned_trials(study)[0])
    assert list(tmp_path.iterdir()) == []


@needs_bitsandbytes
def test_the_version_of_the_package_is_part_of_what_decides_the_bits():
    from importlib.metadata import version

    assert packages_of_optimizers(tiny_study(optimizer="adamw_8bit")) == {"bitsandbytes": version("bitsandbytes")}
    assert packages_of_optimizers(tiny_study(optimizer="adamw")) == {}


FETCHING = """
from pathlib import Path
Path(__file__).with_name("asked").touch()
def get_kernel(*_, **__):
    Path(__file__).with_name("fetched").touch()
    raise RuntimeError("a kernel of a hub")
"""


@needs_bitsandbytes
def test_it_is_imported_when_it_is_used_fetches_nothing_and_writes_nothing_into_the_home_folder(tmp_path):
    """On some processors bitsandbytes asks the package `kernels` for code from a hub when it is imported."""
    home, shadow = tmp_path / "home", tmp_path / "shadow"
    home.mkdir()
    shadow.mkdir()
    (shadow / "kernels.py").write_text(FETCHING)
    code = """
import sys, torch
from tuner.design.optimizers import one_group
from tuner.training.optimizers import make_optimizer
weight = torch.nn.Parameter(torch.zeros(80, 80))
make_optimizer("adamw", one_group([weight]), {}, 0.1)
assert "bitsandbytes" not in sys.modules
optimizer = make_optimizer("adamw_8bit", one_group([weight]), {}, 0.1)
weight.grad = torch.ones(80, 80)
optimizer.step()
import kernels
print(round(float(weight[0, 0].detach()), 4))
"""
    environment = {**os.environ, "HOME": str(home), "PYTHONPATH": os.pathsep.join([str(shadow), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "-0.1\n", "")
    assert list(home.rglob("*")) == []
    assert {path.name for path in Path(shadow).glob("[af]*")} == {"asked"}  # by the import at the end
