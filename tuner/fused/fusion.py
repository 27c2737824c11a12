"""How many trials to stack, and whether that is faster: measured on throw-away copies of the trials.

The probe is a loss where fusing gains nothing. So it may take a small part of the work ahead, and more only after a
few trials together were seen to be faster than one.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice

import torch

from tuner.design.trial import Trial
from tuner.errors import NotFusible
from tuner.fused.cuda_graph import WARM_UP
from tuner.fused.group import Group
from tuner.fused.likeness import check_alike, largest_kind
from tuner.fused.making import make_group
from tuner.fused.obstacles import check_obstacles, check_scale, refusal
from tuner.fused.sharing import tie, tied
from tuner.training.engine import Fusion
from tuner.training.memory import free_bytes
from tuner.training.numerics import clock_of, wait_for
from tuner.training.preflight import timed_evaluation
from tuner.training.randomness import callers_generators_restored
from tuner.training.setup import TrainingSetup
from tuner.training.trial_run import TrialRun

logger = logging.getLogger(__name__)
SIZES = (4, 8, 16, 32)  # groups that are tried: two gain too little to show it, of more than 32 caches overflow
SIZES_OF_RECURRENT = (2, 8, 16, 32)  # recorded trial by trial and moment by moment, which takes long
SIZES_ON_GPU = (2, 8, 32, 128, 256)
PROBE_SECONDS = 1.0  # at most, for each shape group
PROBE_SHARE, GAIN_SHARE = 0.02, 0.2  # at most these parts of the work ahead, and of what a first group saves
FEWEST_STEPS = 2000  # ahead; of fewer a probe could take its small part for such models alone as gain little from it
PROBE_STEPS, PROBE_STEPS_OF_RECURRENT = 10, 75  # alone, of each trial of a first group: its probe takes longer
PAYS = 0.8  # of the time that a trial takes alone: of less, evaluations and caches leave nothing
SLOW_STEP = 0.1  # seconds; such steps are not waiting for Python, and stacking them fills the caches
TIMED = 5  # steps that are timed
NO_MODEL = "no model of these trials can be made"
MEMORY_SHARE = 0.5  # of what is free


def best_fusion(setup: TrainingSetup, trials: Sequence[Trial], ahead: int, *, workers: int = 1) -> Fusion:
    """Time a step alone and in groups. `ahead`: how many trials are to be trained, by `workers` processes."""
    quiet = replace(setup, stop=lambda: False)
    steps = steps_ahead(setup, ahead, workers)
    if len(trials) > 1 and steps < FEWEST_STEPS:
        return Fusion(1, f"{steps:.0f} steps of training are too few for a probe")
    alone = 0.0
    with callers_generators_restored(setup.device):
        try:
            first = runs_of(quiet, trials, 1)
            if not first:
                return Fusion(1, NO_MODEL)
            if len(trials) > 1:
                check_obstacles(first[0].model, setup.workload.loss)
            alone = _seconds_a_step(first)
            if len(trials) < 2 or alone > SLOW_STEP:
                reason = "a single trial" if len(trials) < 2 else f"steps of {alone:.2g} s gain nothing from each other"
                return Fusion(1, reason, seconds=alone, probed=len(trials) > 1)
            return _Probe(quiet, trials, alone, steps, workers).fastest(_is_recurrent(first[0].model))
        except Exception as error:
            reason = str(refusal(error, "while it was tried"))
    logger.warning("these trials are trained one by one: %s", reason)
    return Fusion(1, reason, seconds=alone, probed=True)


def evaluation_seconds(setup: TrainingSetup, trials: Sequence[Trial]) -> float:
    """Seconds of an evaluation of one such trial alone; 0 where no model can be made."""
    with callers_generators_restored(setup.device):
        first = runs_of(replace(setup, stop=lambda: False), trials, 1)
        return timed_evaluation(first[0]) if first else 0.0


def runs_of(setup: TrainingSetup, trials: Sequence[Trial], count: int) -> list[TrialRun]:
    """`count` trials or fewer with models that are alike, ready to train; without those whose model cannot be made."""
    runs: list[TrialRun] = []

    def models() -> Iterator[torch.nn.Module]:
        for run in _made(setup, trials):
            runs.append(run)
            yield run.model

    return [runs[place] for place in largest_kind(models(), count)]


def _made(setup: TrainingSetup, trials: Sequence[Trial]) -> Iterator[TrialRun]:
    """Those trials whose model can be made; what is frozen and equal to the first one's lies in its memory."""
    base: Mapping[str, torch.Tensor] = {}
    for trial in trials:
        try:
            run = TrialRun(setup, trial)
        except Exception as error:
            refusal(error, "while the model was made")  # raises what is not the model's
        else:
            base = base or tied([run.model])
            tie(run.model, base)
            yield run


def check_some_alike(setup: TrainingSetup, trials: Sequence[Trial]) -> None:
    """Raise NotFusible, naming what differs first, where no two of these trials have models that are alike."""
    quiet = replace(setup, stop=lambda: False)
    with callers_generators_restored(setup.device):
        runs = list(islice(_made(quiet, trials), 2))
        for run in runs:
            check_scale(run)
            check_obstacles(run.model, setup.workload.loss)
        models = [run.model for run in runs]
        if len(models) > 1 and len(runs_of(quiet, trials, 2)) == 1:
            check_alike(models)


def steps_ahead(setup: TrainingSetup, trials: int, workers: int) -> float:
    """How many steps each of `workers` processes has to train for so many trials."""
    return trials * setup.study.budget.max_train_steps / workers


def look_at(setup: TrainingSetup, trials: Sequence[Trial]) -> Fusion:
    """How each operation would run if these trials trained together, or why they cannot. Trains nothing that stays."""
    quiet = replace(setup, stop=lambda: False)
    with callers_generators_restored(setup.device):
        try:
            check_some_alike(setup, trials)
            runs = runs_of(quiet, trials, len(trials))
            if not runs:
                return Fusion(1, NO_MODEL)
            return Fusion(len(runs), "the same bits as each trial alone", dict(make_group(runs).ways))
        except NotFusible as error:
            return Fusion(1, str(error))


class _Probe:
    """Groups of growing size, until one is not faster than the one before, or the time for probing is over."""

    def __init__(self, setup: TrainingSetup, trials: Sequence[Trial], alone: float, steps: float, workers: int) -> None:
        self.setup = setup
        self.trials = trials
        self.alone = alone
        self.steps = steps  # of single trials, that are ahead of this process
        self.workers = workers
        self.best = Fusion(1, "training together is not faster", seconds=alone, probed=True)
        self.step = alone  # the shortest found so far, of one trial
        self.spent = 0.0
        self.full = False  # there are no more trials, or no more memory, for a larger group

    def fastest(self, recurrent: bool) -> Fusion:
        all_sizes = _sizes(self.setup.device, recurrent=recurrent)
        sizes = [size for size in all_sizes if size <= len(self.trials)] or [len(self.trials)]
        steps = sizes[0] * (PROBE_STEPS_OF_RECURRENT if recurrent else PROBE_STEPS)
        expected = 0.03 + steps * self.alone  # what it took for many kinds of models
        for size, following in zip(sizes, [*sizes[1:], sizes[-1]], strict=True):
            if expected + self.spent > self._allowed():
                return self.best if self.spent else self._too_short()
            expected = self._tried(size, following / size)
            if self.full:
                break
            if self.best.num_trials < size > sizes[0]:  # the first may be too small to gain; others are not
                break
        return self.best

    def _too_short(self) -> Fusion:
        return Fusion(1, f"{self.alone * self.steps:.2g} s of training are too short for a probe", seconds=self.alone)

    def _allowed(self) -> float:
        saved = max(0.0, self.alone - self.step) * self.steps
        return min(PROBE_SECONDS, PROBE_SHARE * self.alone * self.steps + GAIN_SHARE * saved)

    def _tried(self, size: int, growth: float) -> float:
        """Time a group; returns how long the next, so many times as large, will probably take to be timed.

        Every group is recorded again, which counts as part of its steps: many small groups of few steps do not pay.
        """
        clock = clock_of(self.setup.device)
        began = clock()
        runs = runs_of(self.setup, self.trials, size)
        if len(runs) < size:
            check_some_alike(self.setup, self.trials)
            self.full = True
            return 0.0
        group = make_group(runs)
        recorded = clock() - began
        step = _seconds_a_step(group) / size
        together = step + recorded / (size * self.setup.study.budget.max_train_steps)
        self.step = min(self.step, step)
        if size > _that_fit(group, self.setup, self.workers):
            self.full = True
        elif together < min(PAYS * self.alone, self.best.seconds):
            reason = f"{self.alone / together:.2f} times as fast as one by one ({1e6 * together:.0f} us a trial's step)"
            self.best = Fusion(size, reason, dict(group.ways), together, probed=True)
        took = clock() - began
        self.spent += took
        return min(growth, 2.0) * recorded + growth * (took - recorded)  # a larger graph is not longer


def _seconds_a_step(trained: Group | list[TrialRun]) -> float:
    """Seconds of a step of all that is given, after one to warm up."""

    def advance(updates: int) -> None:
        if isinstance(trained, Group):
            trained.advance(updates)
        else:
            trained[0].advance(trained[0].step + updates)

    run = (trained.runs if isinstance(trained, Group) else trained)[0]
    clock = clock_of(run.setup.device)
    if len(run.rates) < 2:
        return 0.0
    advance(WARM_UP + 1 if run.setup.device.type == "cuda" else 1)
    wait_for(run.setup.device)
    began = clock()
    advance(1)
    wait_for(run.setup.device)
    first = clock() - began
    left = min(TIMED, len(run.rates) - 2) if first < SLOW_STEP else 0
    if left < 1:
        return first
    began = clock()
    advance(left)
    wait_for(run.setup.device)
    return min(first, (clock() - began) / left)


def _is_recurrent(model: torch.nn.Module) -> bool:
    return any(isinstance(module, torch.nn.RNNBase) for module in model.modules())


def _sizes(device: torch.device, *, recurrent: bool = False) -> tuple[int, ...]:
    if device.type == "cuda":
        return SIZES_ON_GPU
    return SIZES_OF_RECURRENT if recurrent else SIZES


def largest_group(device: torch.device) -> int:
    """Beyond so many trials little is gained by more."""
    return _sizes(device)[-1]


def trials_that_fit(setup: TrainingSetup, trials: Sequence[Trial], *, workers: int = 1) -> int:
    """How many such trials' values, gradients and optimizer state fit into the memory that is free.

    All, where no model can be made: those trials end as soon as they begin.
    """
    with callers_generators_restored(setup.device):
        first = runs_of(setup, trials, 2)  # of two it is seen what is frozen and equal
        return _that_fit(Group(first), setup, workers) if first else len(trials)


def _that_fit(group: Group, setup: TrainingSetup, workers: int) -> int:
    """What all trials of a group share counts once, whatever their number."""
    ratio = setup.evaluation_batch_size / max(1, setup.batch_size_of(group.runs[0].trial))
    once, more = group.num_bytes_once, max(0.0, ratio / 2 - 1)
    one = (group.num_bytes - once + more * (group.pass_bytes - once)) / len(group.runs)
    room = MEMORY_SHARE * free_bytes(setup.device) / workers - once - more * (once - group.model.shared_bytes)
    return max(1, int(room / max(1.0, one)))
