"""Where an Optuna parameter exists, and over which range, derived from the trials: Optuna does not store the reason.

A parameter that not all trials have, or that has several ranges, has a *parent*: another parameter whose value decides
it. The parent is derived from all trials; one that any trial contradicts is not accepted.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from tuner.design.hyperparameters import Condition, Span, Value

FEW_VALUES = 10  # [P] a number with more values than these orders the trials by itself: chance has to be ruled out
CHANCE = 0.01  # [P] that a parameter which decides nothing divides the trials like this
Pattern = str | None  # the distribution of a parameter in a trial as text; None where it does not exist
NOT_REACHED = "the trial ended before"  # instead of a pattern: nobody knows whether the parameter would exist there


@dataclass(frozen=True, slots=True)
class ParentParameter:
    """`branches`: where the child has which distribution. `rank`: of several parents the lowest is taken."""

    name: str
    branches: tuple[tuple[Condition, Pattern], ...]
    rank: int


def parents_of(patterns: Mapping[str, Sequence[Pattern]], trials: Sequence[FrozenTrial]) -> dict[str, ParentParameter]:
    """The parent of every parameter that has one; of several candidates the one that explains most other parameters."""
    split = [name for name, mine in patterns.items() if len({*mine} - {NOT_REACHED}) > 1]
    candidates = {name: list(_candidates(name, patterns, trials)) for name in split}
    votes = {name: sum(any(one.name == name for one in found) for found in candidates.values()) for name in patterns}
    return {
        name: min(found, key=lambda one: (one.rank, -votes[one.name])) for name, found in candidates.items() if found
    }


def patterns_of(names: Sequence[str], trials: Sequence[FrozenTrial]) -> dict[str, list[Pattern]]:
    """The distribution of every parameter in each trial.

    A trial that failed or was pruned before it reported anything may have ended before the parameter was suggested:
    NOT_REACHED where trials that have its last parameter, too, suggest this one later.
    """
    places = [{one: place for place, one in enumerate(trial.params)} for trial in trials if not _ended_early(trial)]
    return {name: _patterns(name, trials, places) for name in names}


def _patterns(name: str, trials: Sequence[FrozenTrial], places: Sequence[Mapping[str, int]]) -> list[Pattern]:
    """`places`: of every trial that has all its parameters, at which place each was suggested."""
    later: dict[str | None, bool] = {None: True}
    found: list[Pattern] = []
    for trial in trials:
        last = next(reversed(trial.params), None)
        if name in trial.distributions or not _ended_early(trial):
            found.append(repr(trial.distributions[name]) if name in trial.distributions else None)
            continue
        if last is not None and last not in later:
            both = [mine[name] > mine[last] for mine in places if name in mine and last in mine]
            later[last] = bool(both) and all(both)
        found.append(NOT_REACHED if later[last] else None)
    return found


def _ended_early(trial: FrozenTrial) -> bool:
    """Whether a trial may have ended before all its parameters were suggested."""
    return trial.state is not TrialState.COMPLETE and not trial.intermediate_values


def plain_value(value: object) -> Value:
    """A value of Optuna as one here: what is no plain finite value is named by its text, as a list is."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, None | bool | int | float | str) else str(value)


def _candidates(
    name: str, patterns: Mapping[str, Sequence[Pattern]], trials: Sequence[FrozenTrial]
) -> Iterator[ParentParameter]:
    mine = patterns[name]
    for other in patterns:
        if other == name:
            continue
        there = [place for place, trial in enumerate(trials) if other in trial.params]
        if any(mine[place] not in (None, NOT_REACHED) for place in set(range(len(trials))) - set(there)):
            continue  # it exists where the other one does not
        there = [place for place in there if mine[place] != NOT_REACHED]
        values = [plain_value(trials[place].params[other]) for place in there]
        found = _explained(other, values, [mine[place] for place in there], _is_choice(other, trials))
        if found is not None:
            yield found


def _is_choice(name: str, trials: Sequence[FrozenTrial]) -> bool:
    seen = next(trial.distributions[name] for trial in trials if name in trial.distributions)
    return isinstance(seen, CategoricalDistribution)


def _explained(parent: str, values: Sequence[Value], mine: Sequence[Pattern], choice: bool) -> ParentParameter | None:
    """The parent, where each of its values goes with one pattern, and not all with the same."""
    decided: dict[str, tuple[Value, Pattern]] = {}
    for value, pattern in zip(values, mine, strict=True):
        if decided.setdefault(repr(value), (value, pattern))[1] != pattern:
            return None
    pairs = list(decided.values())
    if len({pattern for _, pattern in pairs}) < 2:
        return None
    if choice and all(isinstance(value, str) for value, _ in pairs):
        # Each text has its own, like a branch of a study file, also where two have the same range (B13).
        alone = tuple(((parent, value), pattern) for value, pattern in pairs if pattern is not None)
        return ParentParameter(parent, alone, 0)
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value, _ in pairs)
    spans = _spans(parent, pairs) if numeric else None
    if spans is not None:
        sure = choice or len(pairs) <= FEW_VALUES or _chance(mine, 2) < CHANCE
        return ParentParameter(parent, spans, 1 if choice else 2 if len(pairs) <= FEW_VALUES else 3) if sure else None
    if choice or (len(pairs) <= FEW_VALUES and _chance(mine, 2 ** len(pairs)) < CHANCE):
        return ParentParameter(parent, tuple(_sets(parent, pairs)), 1 if choice else 2)
    return None


def _chance(mine: Sequence[Pattern], ways: int) -> float:
    """That so many trials are divided so by one of `ways` divisions that have nothing to do with it."""
    most = max(mine.count(pattern) for pattern in set(mine))
    return ways / math.comb(len(mine), most)


def _spans(parent: str, pairs: Sequence[tuple[Value, Pattern]]) -> tuple[tuple[Condition, Pattern], ...] | None:
    """A span of numbers for each pattern, open where no value lies beyond; None where the patterns interleave."""
    ordered = sorted(pairs, key=lambda pair: float(pair[0]))  # type: ignore[arg-type]
    runs = [(pattern, [value for value, _ in run]) for pattern, run in groupby(ordered, key=lambda pair: pair[1])]
    there = [pattern for pattern, _ in runs if pattern is not None]
    if len(set(there)) < len(there):
        return None
    ends = [(run[0], run[-1]) for _, run in runs]
    cuts = [_between(before[1], after[0]) for before, after in pairwise(ends)]
    found = []
    for place, (pattern, run) in enumerate(runs):
        if pattern is not None:
            low = cuts[place - 1] if place else None
            below = None if place == len(runs) - 1 else math.nextafter(cuts[place], -math.inf)
            high = run[-1] if below is not None and isinstance(run[-1], int) else below
            found.append(((parent, Span(low, high)), pattern))
    return tuple(found)


def _between(below: Value, above: Value) -> float | int:
    """Where a span begins: at the least whole number seen in it, or at the shortest number after the one below."""
    if isinstance(above, int):
        return above
    low, high = float(below), float(above)  # type: ignore[arg-type]
    shortest = (float(f"{high:.{digits}g}") for digits in range(1, 17))
    return next((one for one in shortest if low < one <= high), high)


def _sets(parent: str, pairs: Sequence[tuple[Value, Pattern]]) -> Iterator[tuple[Condition, Pattern]]:
    for pattern in dict.fromkeys(pattern for _, pattern in pairs):
        several = tuple(value for value, mine in pairs if mine == pattern)
        if pattern is not None:
            yield (parent, several if len(several) > 1 else several[0]), pattern
