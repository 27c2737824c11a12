"""LightningWorkload: the curve of Lightning alone, exact after every stop, and each breach is told by name."""

import subprocess
import sys
import warnings
from dataclasses import replace

import lightning.pytorch as pl
import pytest
import pytorch_lightning
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint, WeightAveraging
from support.lightning_nets import (
    Data, DrawsAtTheEndNet, Manual, Net, NoisyNet, OwnGeneratorNet, ProcessesNet, Scheduled, StreamNet, TwoLoadersNet,
    workload_of,
)  # fmt: skip
from support.loops import X, Y, setup_for, train_loop
from support.tiny import CPU, CuttingRecorder, MemoryRecorder, StopAt, tiny_study
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tuner import LightningWorkload, minimize
from tuner.delegated import looks
from tuner.delegated.lightning_metrics import trained_name, validated_name
from tuner.design.prefix import rates_of
from tuner.errors import DeclarationError, Infeasible, WorkloadError
from tuner.records import State
from tuner.rounds.plan import planned_trials
from tuner.training.checkpoints import read_state, read_weights
from tuner.training.randomness import callers_generators_restored, seed_global_generators

STUDY = tiny_study(batch_size=0, optimizer=None)
TRIAL = planned_trials(STUDY)[0]
DUE = STUDY.budget.evaluation_steps
RATE = TRIAL.point["learning_rate"]


def whole(workload, folder, study=STUDY):
    recorder = MemoryRecorder()
    return train_loop(setup_for(workload, folder, study), recorder, TRIAL), recorder


def kept_at_the_end(folder, recorder):
    """Each checkpoint by kind and step: the tensors of its state, or its weights."""
    found = {}
    for one in recorder.updates[-1].checkpoints:
        read = read_weights if one.kind == "best" else read_state
        found[one.kind, one.step] = bits(read(folder, one))
    return found


def bits(value):
    if isinstance(value, torch.Tensor):
        return value.dtype, value.tolist()
    if isinstance(value, dict):
        return {key: bits(held) for key, held in value.items()}
    return [bits(held) for held in value] if isinstance(value, list | tuple) else value


class Recorded(pl.Callback):
    """The metrics after each update of a Trainer without us."""

    def __init__(self):
        self.curve = {}

    def on_validation_end(self, trainer, pl_module):
        for number, split in enumerate(("validation", "training")):
            for name in ("loss", "error_rate"):
                value = trainer.callback_metrics[f"val_{name}/dataloader_idx_{number}"].item()
                self.curve[trainer.global_step, f"{split}/{name}"] = value.hex()


@pytest.mark.parametrize("kind", [Net, NoisyNet])
def test_the_curve_is_that_of_a_trainer_without_us(kind, tmp_path):
    class Alone(kind):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            rates = rates_of(TRIAL)
            schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rates[min(step, 23)] / RATE)
            return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    update, recorder = whole(workload_of(kind), tmp_path)
    assert update.state is State.COMPLETE
    recorded = Recorded()
    with callers_generators_restored(CPU), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seed_global_generators(TRIAL.seed, CPU)
        pl.Trainer(
            max_steps=24, max_epochs=-1, val_check_interval=1, num_sanity_val_steps=0, callbacks=[recorded],
            logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu",
            enable_model_summary=False, default_root_dir=tmp_path,
        ).fit(Alone(RATE))  # fmt: skip
    ours = {key: float.fromhex(value) for key, value in recorder.measurements.items()}
    theirs = {key: float.fromhex(value) for key, value in recorded.curve.items() if key[0] in DUE}
    assert ours == pytest.approx(theirs, rel=1e-5)  # the factors of LambdaLR round otherwise
    assert {step for step, _ in ours} == set(DUE)


def ema():
    return {"trainer": lambda point: {"callbacks": [EMAWeightAveraging(decay=0.7)]}}


EXACT = {
    "net": (Net, {}),
    "noise": (NoisyNet, {}),
    "stream": (StreamNet, {}),
    "generator": (OwnGeneratorNet, {}),
    "two loaders": (TwoLoadersNet, {}),
    "hooks": (DrawsAtTheEndNet, {}),
    "manual": (Manual, {}),
    "accumulation": (NoisyNet, {"trainer": {"accumulate_grad_batches": 3, "gradient_clip_val": 0.5}}),
    "averaging": (NoisyNet, ema()),
    "bf16": (NoisyNet, {"trainer": {"precision": "bf16-mixed"}}),
    "datamodule": (Net, {"datamodule": Data}),
    "own schedule": (Scheduled, {"schedule": "module"}),
    "short passes": (NoisyNet, {"trainer": {"limit_train_batches": 3}}),
}


@pytest.mark.parametrize("case", EXACT)
def test_a_trial_that_is_stopped_has_the_same_bits(case, tmp_path):
    kind, changes = EXACT[case]
    _, expected = whole(workload_of(kind, **changes), tmp_path / "whole")
    assert expected.updates[-1].state is State.COMPLETE
    states = kept_at_the_end(tmp_path / "whole", expected)
    for question in (1, 2, 6, 7, 8, 11, 14, 20, 24):  # the end of a pass is after 7 batches
        folder, recorder = tmp_path / str(question), MemoryRecorder()
        setup = setup_for(workload_of(kind, **changes), folder, stop=StopAt(question))
        assert train_loop(setup, recorder, TRIAL).state is State.RUNNING
        assert train_loop(setup_for(workload_of(kind, **changes), folder), recorder, TRIAL).state is State.COMPLETE
        assert recorder.measurements == expected.measurements
        assert kept_at_the_end(folder, recorder) == states


def test_batches_of_loading_processes_are_the_same_after_a_stop(tmp_path):
    _, expected = whole(workload_of(ProcessesNet), tmp_path / "whole")
    for question in (3, 8):
        folder, recorder = tmp_path / str(question), MemoryRecorder()
        train_loop(setup_for(workload_of(ProcessesNet), folder, stop=StopAt(question)), recorder, TRIAL)
        train_loop(setup_for(workload_of(ProcessesNet), folder), recorder, TRIAL)
        assert recorder.measurements == expected.measurements
