"""Whether the disk has room for checkpoints, asked before a trial is trained (R19)."""

import shutil
from pathlib import Path

from tuner.design.trial import Trial
from tuner.errors import Paused
from tuner.training.best import snapshot
from tuner.training.optimizers import num_slots
from tuner.training.randomness import callers_generators_restored
from tuner.training.saving import num_bytes
from tuner.training.setup import TrainingSetup
from tuner.training.trial_run import TrialRun

CHECKPOINTS = 3  # the newest, the one before it, and the one that is being written


def check_room(setting: TrainingSetup, trial: Trial, at_once: int = 1) -> None:
    """Raise Paused when the folder of the checkpoints has no room for three of each trial that trains at once.

    Writes nothing. A group writes those of all its trials as one file.
    """
    with callers_generators_restored(setting.device):
        size = checkpoint_bytes(TrialRun(setting, trial))
    there = _existing(setting.checkpoint_root)
    free = shutil.disk_usage(there).free
    if free < CHECKPOINTS * at_once * size:
        whose = "a trial of this model is trained" if at_once == 1 else f"{at_once} such trials are trained at once"
        each = "each" if at_once == 1 else "for each of them"
        raise Paused(
            f"{there} has {free / 1e6:,.3f} MB free, and {CHECKPOINTS} checkpoints of {size / 1e6:,.3f} MB {each} must "
            f"fit before {whose}; make room there or name another disk with --checkpoints, then run the same command "
            "again to continue"
        )


def checkpoint_bytes(run: TrialRun) -> int:
    """The tensors of a trial's checkpoint, as it is once the optimizer has made a step, and of its best weights."""
    slots = num_slots(run.optimizer) * sum(parameter.nbytes for parameter in run.parameters)
    return num_bytes(run.state()) + slots + num_bytes(snapshot(run.model))


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there already."""
    return next(path for path in (folder, *folder.resolve().parents) if path.exists())
