"""What a loop promises, measured before its study is trained; and what its first steps show besides.

The loop trains a few steps: once; once more, to see whether the same seeds give the same curve; stopped in the middle
and resumed from what it kept; and as another trial with a longer budget. What differs is not promised.
"""

import logging
from collections.abc import Mapping
from statistics import median

from tuner.delegated.first_steps import FirstSteps
from tuner.delegated.looks import OTHER_SEEDS, first_feasible, first_point, left_alone, look_at, trial_at
from tuner.delegated.setup import LoopSetup
from tuner.delegated.trainee import OF_LENGTH
from tuner.design.hyperparameters import Value
from tuner.design.names import Name
from tuner.errors import Infeasible, WorkloadError
from tuner.records import MeasuredPromises, Price, Promises
from tuner.records.promises import SEEDS
from tuner.training.engine import Asked, Inspection
from tuner.training.first_loss import left_as_it_was
from tuner.training.preflight import refuse_full_disk

_log = logging.getLogger(__name__)
LONGER = 3000  # steps of the budget with which a loop is looked at once more
TIMED = (8, 16, 24)  # updates after which a look is evaluated that tells the price
TIMED_SECONDS = 10.0  # such a look is taken where it needs no longer than this
_OTHER_NUMBER = 7919  # of a trial, which no division or remainder makes the same as 0
NOT_MEASURED = "its first steps took {seconds:.0f} s, so they were not trained once more to see"


def inspected(setup: LoopSetup, asked: Asked) -> Inspection:
    """Take the first looks at a study, and note what they show.

    Raises WorkloadError where the loop does not do what was agreed, or trains a sweep with regularization; Paused
    where the disk has no room.
    """
    regularized = setup.study.augment
    with left_alone(setup):
        look = first_feasible(setup)
        if look is None:
            return Inspection()
        _check_reported(setup, look)
        if asked.without_randomness:
            _check_switched_off(setup, look)
        if regularized not in setup.looks.measured:
            know(setup, measured_promises(setup, look))
        if asked.price and regularized not in setup.looks.prices:
            setup.looks.prices[regularized] = _price(setup, look)
    if asked.room_for:
        refuse_full_disk(setup.checkpoint_root, look.latest_bytes + look.best_bytes, asked.room_for)
    return Inspection(
        unread=_unread(setup, look, asked), price=setup.looks.prices.get(regularized) if asked.price else None
    )


def _check_reported(setup: LoopSetup, look: FirstSteps) -> None:
    """Raise WorkloadError where the metric is not reported that tells whether the training set is fitted."""
    fitted = setup.study.fitted_when
    if fitted is not None and look.curve and fitted.metric not in look.reported:
        name = type(setup.workload).__name__
        raise WorkloadError(
            f"{name}.fitted_when reads {fitted.metric!r}, and {name}.train reports "
            f"{', '.join(map(repr, sorted(look.reported)))}: report it, too, where trial.evaluates(step); or leave "
            "fitted_when out, where no sweep is declared"
        )


def _check_switched_off(setup: LoopSetup, look: FirstSteps) -> None:
    name = type(setup.workload).__name__
    if "regularization_off" not in look.read:
        raise WorkloadError(
            f"{name}.train never reads trial.regularization_off, and a sweep trains without augmentation and "
            "regularization (A22, A23), because it asks for the steps that fit the training set: "
            "if trial.regularization_off: train without them"
        )
    if not follows_schedule(setup, look):
        raise WorkloadError(
            f"{name}.train never asks for the learning rate of the study, and a sweep trains at constant rates: "
            "set_rate(optimizer, trial.rate(step)) before each update, or trial.scheduler(optimizer)"
        )


def follows_schedule(setup: LoopSetup, look: FirstSteps) -> bool:
    """Whether the loop trains at the rates of the study: as it says itself, or because it asked for them."""
    said = setup.workload.follows_schedule
    return bool({"rate", "rates ahead"} & look.read) if said is None else said


def know(setup: LoopSetup, measured: MeasuredPromises) -> None:
    """Use what was measured, here or before, and say once what is not promised, and what would change that."""
    setup.looks.measured[setup.study.augment] = measured
    if measured.weaker and measured.names not in setup.looks.told:
        setup.looks.told.add(measured.names)
        _log.warning("%s promises less: %s", type(setup.workload).__name__, measured.weaker)


def measured_promises(setup: LoopSetup, look: FirstSteps) -> MeasuredPromises:
    """What the loop does again in the same way is promised.

    look: the first look at `first_point`. Where it took long nothing is promised but what it asked for. Raises
    WorkloadError where the loop fails.
    """
    why: dict[str, str] = {}
    follows = follows_schedule(setup, look)
    if not follows:
        why["follows_schedule"] = _NEVER_ASKS if setup.workload.follows_schedule is None else _OWN_SCHEDULE
    if look.seconds > setup.looks.slow_seconds:
        words = NOT_MEASURED.format(seconds=look.seconds)
        why |= dict.fromkeys(("exact_resume", "deterministic", "prefixes"), words)
        return MeasuredPromises(Promises(follows_schedule=follows), why)
    point = first_point(setup)
    again = look_at(setup, trial_at(point))
    why |= _why_other(look, again, "deterministic", "the same seeds gave another curve ({})", _SEED_IT)
    why |= _why_not_resumed(setup, look, point, why.get("deterministic", ""))
    why |= _why_no_prefixes(setup, look, point, why)
    why |= _why_seedless(setup, look, point, why)
    given = {name: name not in why for name in ("exact_resume", "prefixes", "follows_schedule", "deterministic")}
    return MeasuredPromises(Promises(fusing=False, **given), why)


_NEVER_ASKS = "it never asks for the learning rate of the study: trial.rate(step), or trial.scheduler(optimizer)"
_OWN_SCHEDULE = "it is declared to train at learning rates of its own"
_SEED_IT = (
    "seed what draws random numbers by trial.seed and trial.data_seed (a loader: generator=), and see "
    "torch.use_deterministic_algorithms for a GPU"
)
_KEEP_IT = (
    "keep all that has a state, trial.keep(model=..., optimizer=..., generator=...), and take batches from "
    "trial.batches(loader), which goes on in the middle of an epoch"
)


def _why_not_resumed(
    setup: LoopSetup, look: FirstSteps, point: Mapping[str, Value], not_the_same: str
) -> dict[str, str]:
    """Why a trial that is stopped and resumed may differ from one that ran through; empty where it does not."""
    if not_the_same:
        return {"exact_resume": not_the_same}
    if max((step for step, _ in look.curve), default=0) < setup.looks.steps[-1]:
        return {"exact_resume": "it diverged in its first look, so it was not stopped and resumed to see"}
    resumed = FirstSteps()
    try:
        for until in (1, *setup.looks.steps):  # 1: where a pass over the data has two batches, 2 is no place within it
            with left_as_it_was(setup.workload):  # as in another process, which has nothing but what was kept
                part = look_at(setup, trial_at(point), until=until, state=resumed.state or None)
            resumed = FirstSteps(curve=resumed.curve | part.curve, weights=part.weights, state=part.state)
    except (WorkloadError, Infeasible) as error:
        return {"exact_resume": f"stopped and resumed it failed: {error}"}
    return _why_other(look, resumed, "exact_resume", "stopped and resumed it gave another curve ({})", _KEEP_IT)


def _why_no_prefixes(
    setup: LoopSetup,
    look: FirstSteps,
    point: Mapping[str, Value],
    why: Mapping[str, str],
) -> dict[str, str]:
    """Why no other trial may start from a state of this one; empty where it may."""
    before = next((why[name] for name in ("deterministic", "exact_resume", "follows_schedule") if name in why), "")
    if before:
        return {"prefixes": before}
    read = [words for name, words in OF_LENGTH.items() if name in look.read]
    read += sorted(name for name in look.read if name.startswith("{"))  # a command's
    if read:
        return {"prefixes": f"it reads {read[0]}, so that its first steps may depend on the length of the trial"}
    longer = look_at(setup, trial_at(point, number=_OTHER_NUMBER, length=LONGER))
    way_out = "its first steps must depend on trial.point, the seeds and trial.rate alone, not on trial.number"
    return _why_other(
        look, longer, "prefixes", "a longer trial of another number began with another curve ({})", way_out
    )


def _why_seedless(
    setup: LoopSetup, look: FirstSteps, point: Mapping[str, Value], why: Mapping[str, str]
) -> dict[str, str]:
    """Why fresh seeds give no other trial: then what looks like a repetition is a copy; empty where they do."""
    if "deterministic" in why or _why_other(look, look_at(setup, trial_at(point, seeds=OTHER_SEEDS)), "", "", ""):
        return {}
    return {
        SEEDS: "other seeds gave the same curve, so trials with fresh seeds are copies of one, and how much results "
        "vary between seeds cannot be measured; seed from trial.seed and trial.data_seed instead of a number, or seed "
        "nothing"
    }


def _why_other(one: FirstSteps, other: FirstSteps, promise: str, words: str, way_out: str) -> dict[str, str]:
    """The first difference of two looks in words, under the name of the promise that it breaks."""
    for step, name in sorted(one.curve.keys() | other.curve.keys()):
        before, after = (
            float.fromhex(held) if (held := look.curve.get((step, name))) else None for look in (one, other)
        )
        if repr(before) != repr(after):
            return {promise: f"{words.format(f'{name} after {step} updates: {before!r}, then {after!r}')}; {way_out}"}
    if one.weights != other.weights:
        return {promise: f"{words.format('the weights differ')}; {way_out}"}
    return {}


def _price(setup: LoopSetup, look: FirstSteps) -> Price:
    """The price of a trial: from a longer look where that is quick, because first steps are slow."""
    step, evaluation = _milliseconds(look, setup.looks.steps)
    if TIMED[-1] * step + len(TIMED) * evaluation < 1e3 * TIMED_SECONDS and look.seconds < TIMED_SECONDS:
        step, evaluation = _milliseconds(look_at(setup, trial_at(first_point(setup)), due=TIMED), TIMED)
    return Price(step, evaluation, look.latest_bytes, look.best_bytes)


def _milliseconds(look: FirstSteps, due: tuple[int, ...]) -> tuple[float, float]:
    """Of a step and of an evaluation. The first step, which compiles and allocates, counts where there is no other."""
    plain: list[float] = []
    evaluated: list[float] = []
    for (before, start), (step, end) in zip(look.times, look.times[1:], strict=False):
        if step == before:
            continue
        seconds = (end - start) / (step - before)
        (evaluated if any(before < one <= step for one in due) else plain).append(seconds)
    steps = plain[1:] or plain or evaluated or [0.0]
    of_step = median(steps)
    return 1e3 * of_step, 1e3 * max(0.0, median(evaluated) - of_step) if evaluated else 0.0


def _unread(setup: LoopSetup, look: FirstSteps, asked: Asked) -> tuple[str, ...]:
    """Hyperparameters of the space that the loop did not read, said once a study; the loop may read them elsewhere."""
    study = setup.study
    if study.kind != "round" or ("unread", study.name) in asked.known:
        return ()  # a sweep switches off what it does not need
    asked.known.add(("unread", study.name))
    read = look.point_read | ({"learning_rate"} if follows_schedule(setup, look) else set())
    names = [Name.of(name) for name in first_point(setup)]
    unread = [str(one) for one in names if not {str(one), one.short} & read and not one.is_of_the_schedule]
    for name in unread:
        _log.warning("nothing reads the hyperparameter %s of %s: it changes nothing; misspelt?", name, study.name)
    return tuple(unread)
