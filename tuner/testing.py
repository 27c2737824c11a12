"""Tests of your own training: which promises it keeps, and what to change. Nothing heavy is imported before a check."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from tuner.design.campaign import Campaign
from tuner.design.hyperparameters import Value
from tuner.design.workload import Trainable
from tuner.records.promises import EngineCheck

__all__ = ["EngineCheck", "check_engine"]


def check_engine(
    trained: Campaign | Trainable | str | Path,
    *,
    point: Mapping[str, Value] | None = None,
    device: str | None = None,
    steps: int = 4,
    patience: float = 600.0,
) -> EngineCheck:
    """Train a few steps of throw-away trials, and say which promises hold and what to change. Writes nothing.

    trained: a Campaign, or its study file ("FILE:NAME" names one of several), which is looked at in the middle of its
    first round's space, and as its sweep trains where it has one; or a workload, with the `point` at which it is looked
    at. steps: updates of each look, at least 2; what is
    found rests on these alone. A loop that iterates over a loader by itself is checked past its first epoch with more
    steps than an epoch has; where it takes `trial.batches(loader)`, its place in the data is ours to keep. device: as
    --device. patience: seconds; where one look took longer, no further one is taken, and nothing more is promised.

    Print what it returns, or ask it: `check_engine(campaign).require("exact_resume", "deterministic")` in a test. What
    is wrong with the workload is told, not raised. Raises DeclarationError for a workload without a point that has a
    learning_rate.
    """
    made: EngineCheck = import_module("tuner.rounds.engine_check").checked(trained, point, device, steps, patience)
    return made
