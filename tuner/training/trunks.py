"""States from which training goes on: a trial's own, and trunks, from which other trials may start too.

A trunk is one file with everything in it: the training state and the best weights so far. What it is a function of
stands in its key (see `design.prefix`), so that a trial finds it that would come to the same state by itself.
"""

from collections.abc import Collection
from pathlib import Path

from tuner.design.prefix import path_digests, rates_of
from tuner.records import Checkpoint, PrefixKey
from tuner.training.checkpoints import CheckpointFolder, read_state, read_weights
from tuner.training.trial_run import TrialRun


def write_trunk(folder: CheckpointFolder, run: TrialRun) -> Checkpoint:
    """Save where a trial stands, so that others may start there."""
    held = {kept.step: kept.weights for kept in run.best.kept}
    return folder.write_state("trunk", run.step, run.state() | {"best_weights": held}, None, prefix_key(run))


def prefix_key(run: TrialRun) -> PrefixKey | None:
    """What the state of a trial is a function of; None where that is not known."""
    if not run.base:
        return None
    path = path_digests(rates_of(run.trial), run.setting.study.budget, [run.step])[run.step]
    return PrefixKey(run.base, path, run.numerics)


def go_on_from(run: TrialRun, root: Path, saved: Checkpoint, weights: Collection[Checkpoint]) -> tuple[Checkpoint, ...]:
    """Load a saved state into a fresh run; returns those of `weights` (best checkpoints) that belong to it.

    Raises CorruptCheckpoint, LookupError, TypeError or ValueError when the state or its weights are not whole.
    """
    state = read_state(root, saved)
    if "best_weights" in state:
        run.load(state, state["best_weights"])
        return ()
    file_at = {kept.step: kept for kept in weights}
    bests = tuple(file_at[step] for step, _ in state["best"])
    run.load(state, {kept.step: read_weights(root, kept) for kept in bests})
    return bests
