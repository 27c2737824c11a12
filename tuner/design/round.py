"""One round of a campaign as a study file declares it: a goal, and how the study that answers it is made."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn, Self, get_args

from tuner.budget.schedules import Transfer
from tuner.budget.step_budget import TrainingLength
from tuner.design.other_words import refuse_unknown
from tuner.design.patience import check_distance
from tuner.design.space import SearchSpace
from tuner.design.workload_checks import check_count
from tuner.errors import DeclarationError


@dataclass(frozen=True, slots=True)
class Round:
    """One goal, and the study that answers it.

    goal: the question, in words (B9).
    trials: how many points are searched. With promote=N they lie around the winner: values that transfer to longer
        training are fixed, ranges that may transfer are narrowed, and the schedule is tuned again (A36).
    space: what varies; None for a round that takes its points, or its space, from the round before.
    promote: how many of the best points of the round before are trained in this one.
    max_train_steps: the budget in steps; None: from the sweep, the round before, or the production length.
    scientific: names of the hyperparameters that the goal is about; all others that vary are nuisances, tuned so that
        the comparison is fair (B10). Empty: the goal is the best configuration.
    fresh: how many promoted points, best first, are trained a second time with new seeds; None: two, the winner and a
        rival (A32). The first training of a point continues from the shared steps before the decay, so it has the luck
        of the seeds of the round before. In a round that is no longer than the one before, every training has new
        seeds: promote=3, fresh=2 trains three points with one new seed each, and the best two with a second one.
    transfer: how schedules are carried over from the round before: "hold_then_decay", "rescale" or "retune"; None: by
        the rule of their family. A family without a rule raises an error (A40-A43).
    rate_arms: multiples of the base rate at which the winner is trained, because the best rate falls with the length of
        training (D20).
    start: "scratch" makes the round a control of a stage (`Campaign(start_from=...)`): its trials start from the
        model's own initialization (C5). None: from the weights that the campaign starts from.
    total: "equal" trains a control for as many steps as the trials it is compared with have in all, their inherited
        steps included; None: for as many as they train themselves.
    """

    goal: str
    trials: int | None = None
    space: SearchSpace | None = None
    promote: int | None = None
    max_train_steps: int | None = None
    scientific: tuple[str, ...] = ()
    fresh: int | None = None
    transfer: Transfer | None = None
    rate_arms: tuple[float, ...] = (1.0,)
    start: Literal["scratch"] | None = None
    total: Literal["equal"] | None = None
    patience_steps: int | None = None

    def __new__(cls, *_: object, **words: object) -> Self:
        refuse_unknown(cls, words)
        return object.__new__(cls)

    def __post_init__(self) -> None:
        if not self.goal.strip():
            raise DeclarationError("a round needs a goal in words (B9): the one question it answers")
        if (self.space is None) == (self.promote is None):
            raise DeclarationError(
                f"round {self.goal!r} needs either a space (new points) or promote=N (the best points of the "
                "round before), and not both"
            )
        for name in ("trials", "promote"):
            if getattr(self, name) is not None:
                check_count(f"{name} of round {self.goal!r}", getattr(self, name))
        if self.max_train_steps is not None:
            checked_steps(f"max_train_steps of round {self.goal!r}", self.max_train_steps)
        if self.space is not None:
            self._check_space(self.space)
        check_promoting(self)
        check_control(self)
        check_patience(self)

    @property
    def num_fresh(self) -> int:
        """How many promoted points are trained again with new seeds, where their first training has the old ones."""
        promoted = self.promote or 0
        return min(2, promoted) if self.fresh is None else self.fresh

    def _check_space(self, space: SearchSpace) -> None:
        if not isinstance(space, SearchSpace):
            raise DeclarationError(f"the space of round {self.goal!r} must be a SearchSpace(...), got {space!r}")
        if self.trials is None:
            raise DeclarationError(f"round {self.goal!r} has a space but no number of trials; give trials=32, say")
        if len(space) == 0:
            raise DeclarationError(f"the space of round {self.goal!r} varies nothing; give at least one range")
        self._check_roles(space)

    def _check_roles(self, space: SearchSpace) -> None:
        if isinstance(self.scientific, str):
            raise DeclarationError(
                f"scientific is a tuple of names, got {self.scientific!r}; write ({self.scientific!r},)"
            )
        object.__setattr__(self, "scientific", tuple(self.scientific))
        known = [hyperparameter.name for hyperparameter in space]
        unknown = [name for name in self.scientific if name not in known]
        if unknown or len(set(self.scientific)) < len(self.scientific):
            raise DeclarationError(
                f"scientific names {', '.join(map(str, unknown)) or 'one twice'} in round {self.goal!r}, and each "
                f"must be a hyperparameter that varies there, once: {', '.join(known)} (B10)"
            )


def check_promoting(declared: Round) -> None:
    """Raise DeclarationError for arguments that need promote=N where it is missing, and for values out of range."""
    where = f"round {declared.goal!r}"
    if declared.promote is None:
        given = [name for name, value in (("fresh", declared.fresh), ("transfer", declared.transfer)) if value]
        given += ["rate_arms"] if tuple(declared.rate_arms) != (1.0,) else []
        if given:
            raise DeclarationError(
                f"{where} has {' and '.join(given)}, which say how points of the round before are carried over, but "
                "it promotes none; give promote=N, or leave them out"
            )
        return
    if declared.fresh is not None:
        check_count(f"fresh of {where}", declared.fresh, at_least=0)
        if declared.fresh > declared.promote:
            raise DeclarationError(
                f"{where} wants {declared.fresh} promoted points with fresh seeds and promotes {declared.promote}; "
                "give fresh of at most promote"
            )
    if declared.transfer is not None and declared.transfer not in get_args(Transfer):
        raise DeclarationError(f"transfer is one of {', '.join(get_args(Transfer))}, got {declared.transfer!r}")
    _check_arms(where, declared.rate_arms)


def check_control(declared: Round) -> None:
    """Raise DeclarationError for a control of a stage that does not say how it starts or how long it trains."""
    where = f"round {declared.goal!r}"
    if declared.start not in (None, "scratch"):
        raise DeclarationError(f'start of {where} is "scratch", or is left out, got {declared.start!r}')
    if declared.total not in (None, "equal"):
        raise DeclarationError(f'total of {where} is "equal", or is left out, got {declared.total!r}')
    if declared.total is not None and declared.start is None:
        raise DeclarationError(
            f'total="equal" of {where} counts the steps that the others inherit, and belongs to a control: give '
            'start="scratch" with it'
        )
    if declared.start is not None and declared.promote is not None:
        raise DeclarationError(
            f'{where} has start="scratch" and promotes points that were found for other weights, which would not be '
            "a fair comparison (B10): give it trials=... and a space of its own"
        )
    if declared.total is not None and declared.max_train_steps is not None:
        raise DeclarationError(
            f'total="equal" and max_train_steps of {where} both say how long it trains; give one of them'
        )


def check_patience(declared: Round) -> None:
    """Raise DeclarationError for early stopping in a round whose trials are compared after equally many steps."""
    if declared.patience_steps is None:
        return
    checked_steps(f"patience_steps of round {declared.goal!r}", declared.patience_steps)
    if declared.space is not None:
        _refuse_patience(declared, "searches a space of its own")
    if declared.trials is not None:
        _refuse_patience(declared, f"searches {declared.trials} new points")
    if tuple(declared.rate_arms) != (1.0,):
        _refuse_patience(declared, "compares learning rates (rate_arms)")


def check_stopping(
    rounds: Sequence[Round], production_steps: object, distance: Callable[[int | None], int | None]
) -> None:
    """Raise DeclarationError for early stopping in a round from which another one follows, or a control.

    production_steps: of a round that declares no length. distance: of evaluations in a trial of so many steps, where it
    is known; a patience is not below it.
    """
    for number, one in enumerate(rounds, 1):
        if one.patience_steps is None:
            continue
        following = next((place for place, later in enumerate(rounds[number:], number + 1) if not later.start), None)
        if following is not None:
            _refuse_patience(one, f"is not the last one: round {following} takes its points, or its steps, from it")
        if number < len(rounds):
            _refuse_patience(one, f"is compared with a control of its length, round {number + 1} (declare that first)")
        steps = one.max_train_steps or production_steps
        every = distance(steps if isinstance(steps, int) else None)
        if every is not None and not is_open(one.patience_steps):
            check_distance(every, one.patience_steps, f"round {one.goal!r}")


def _refuse_patience(declared: Round, why: str) -> NoReturn:
    """Raise DeclarationError. why: what the round does that needs trials of equal length."""
    raise DeclarationError(
        f"patience_steps of round {declared.goal!r} would stop some of its trials before others, and the round {why}: "
        "it compares trials after equally many steps (A11). The best checkpoint of each trial is chosen afterwards "
        "(A12), so only time is lost without. Leave patience_steps out here, and give it to a last round that trains "
        "the final model: Round('The final model', promote=2, patience_steps=500)"
    )


def _check_arms(where: str, arms: object) -> None:
    usable = isinstance(arms, tuple | list) and all(isinstance(arm, int | float) for arm in arms)
    values = [float(arm) for arm in arms] if usable else []  # type: ignore[attr-defined]
    if (
        not usable
        or 1.0 not in values
        or len(set(values)) < len(values)
        or not all(0 < arm < math.inf for arm in values)
    ):
        raise DeclarationError(
            f"rate_arms of {where} are different positive multiples of the base rate, 1 among them, like (1.0, 0.5); "
            f"got {arms!r} (D20)"
        )


def is_open(steps: object) -> bool:
    """Whether a number of steps is still one of epochs or examples."""
    return isinstance(steps, TrainingLength)


def checked_steps(name: str, steps: object, at_least: int = 1) -> object:
    """`steps`, a whole number or a length in epochs or examples. Raises DeclarationError."""
    if not is_open(steps):
        check_count(name, steps, at_least)
    return steps
