"""Whether a trial is one that its study declares: its point lies in the space, its schedule has the budget's length."""

import math
from collections.abc import Iterator, Mapping

from tuner.design.hyperparameters import Choice, Domain, Range, Value
from tuner.design.study import Study
from tuner.records import TrialRecord
from tuner.shown import quoted

_ROOM = 1e-9  # relative: a bound that went through a text or a logarithm
_SEARCHED = "quasi-random"  # so begins the origin of a point that was drawn from the study's own space


def declaration_problems(study: Study, record: TrialRecord) -> Iterator[str]:
    """What of a readable trial is not as its study declares, in words.

    A promoted point was searched in the space of another round, perhaps in another branch, and an arm has another rate
    than was searched: of those only the types of values are looked at. What is not known elsewhere is no problem.
    """
    if record.schedule is None:
        return
    steps = len(record.schedule)
    if steps != study.budget.max_train_steps:
        yield f"its schedule has {steps:,} steps, and the budget of the study is {study.budget.max_train_steps:,}"
    yield from _point_problems(study, dict(record.point.values_by_name), _is_searched(study, record))


def _is_searched(study: Study, record: TrialRecord) -> bool:
    """Whether the point came from this study's own space, so that its values lie in the ranges declared here."""
    if study.source or study.sampler:
        return True
    return study.kind == "round" and record.origin.startswith(_SEARCHED)


def _point_problems(study: Study, point: Mapping[str, Value], searched: bool) -> Iterator[str]:
    if study.hyperparameters and not point:
        yield f"its point has no {quoted(study.hyperparameters[0].name)}, and nothing else"
        return
    if searched and not study.source:
        yield from _name_problems(study, point)
    for hyperparameter in study.hyperparameters:
        name = hyperparameter.name
        told = _value_problem(hyperparameter.domain, point[name], searched) if name in point else ""
        if told:
            yield f"{quoted(name)} is {quoted(point[name])}, {told}"


def _name_problems(study: Study, point: Mapping[str, Value]) -> Iterator[str]:
    """A point has what exists at its place in the space, and nothing else."""
    known = {name: constant.value for name, constant in study.fixed} | dict(point)
    for hyperparameter in study.hyperparameters:
        name, condition = hyperparameter.name, hyperparameter.condition
        exists = condition is None or known.get(condition[0]) == condition[1]
        if exists and name not in point:
            yield f"its point has no {quoted(name)}"
        if condition is not None and not exists and name in point:
            yield f"its point has {quoted(name)}, which exists only where {condition[0]} is {quoted(condition[1])}"
    declared = {one.name for one in study.hyperparameters} | {name for name, _ in study.fixed}
    for name in point.keys() - declared:
        yield f"its point has {quoted(name)}, which the study does not declare"


def _value_problem(domain: Domain, value: Value, searched: bool) -> str:
    if isinstance(domain, Choice):
        among = any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in domain.choices)
        return "" if among or not searched else f"none of the choices {quoted(list(domain.choices))}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "no number"
    if domain.integer and searched and value != math.floor(value):
        return "no whole number"
    return "" if not searched or _lies_within(domain, value) else f"outside {domain.low:g} to {domain.high:g}"


def _lies_within(domain: Range, value: float) -> bool:
    room = _ROOM * max(abs(domain.low), abs(domain.high), domain.high - domain.low)
    low_room = _ROOM * abs(domain.low) if domain.log else room
    return domain.low - low_room <= value <= domain.high + room
