"""Training prefixes: what the first steps of a trial are a function of, as digests.

Two trials whose digests agree up to step s have the same bits there: weights, optimizer state, curve and best
checkpoint. So the second may start from a state that the first has saved, whatever the rest of its schedule is. One
digest (`base_digest`) covers everything that does not change while a trial trains: the workload's code, arguments and
data (`design.identity`), the point without its schedule, and the seeds. The other (`path_digests`) covers the learning
rates of steps 0..s-1 and the evaluations up to step s, because measurements and best weights are shared as well.
"""

import hashlib
import json
import struct
from bisect import bisect_right
from collections.abc import Iterable, Sequence

from tuner.budget.schedules import learning_rates
from tuner.budget.step_budget import StepBudget
from tuner.design.names import Name
from tuner.design.study import Study
from tuner.design.trial import Trial

_VERSION = 1  # raised when a version of tuner trains the same declaration to other bits


def base_digest(study: Study, trial: Trial, workload: str) -> str:
    """A digest of everything that decides a training but schedule and Numerics. `workload`: digest of code and data."""
    point = {name: value for name, value in trial.point.values_by_name if not Name.of(name).is_of_the_schedule}
    decisive = [
        _VERSION, workload, study.optimizer, study.batch_size, study.augment, sorted(point.items()), trial.seed,
        trial.data_seed, study.objective.metric, study.objective.direction, study.keep_best,
        *["traced"] * bool(study.traced_every),  # what a trial that is not traced left holds no traces
        *_declared(study, trial),
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()


def _declared(study: Study, trial: Trial) -> list[tuple[str, object]]:
    """What decides bits only where it is declared: digests of studies that do not stay what they were."""
    point = trial.point
    decisive: dict[str, tuple[object, object]] = {
        "slices": (study.slices_of(point), 1),
        "precision": (study.precision_of(point), ""),
        "ema_steps": (study.ema_steps_of(point), 0),
    }
    return [(name, value) for name, (value, usual) in decisive.items() if value != usual]


def path_digests(rates: Sequence[float], budget: StepBudget, steps: Iterable[int]) -> dict[int, str]:
    """For each of `steps`: a digest of the learning rates before it, to the last bit, and of the evaluations up to it.

    `rates`: the learning rate of every step of a trial; steps beyond the trial's end are left out.
    """
    evaluated = budget.evaluation_steps
    known, found, done = hashlib.sha256(), {}, 0
    for step in sorted({step for step in steps if step <= len(rates)}):
        known.update(struct.pack(f"<{step - done}d", *rates[done:step]))
        whole = known.copy()
        whole.update(json.dumps(evaluated[: bisect_right(evaluated, step)]).encode())
        found[step], done = whole.hexdigest(), step
    return found


def rates_of(trial: Trial) -> tuple[float, ...]:
    """The learning rate of every step of a trial."""
    return learning_rates(trial.schedule, trial.point.number("learning_rate"))
