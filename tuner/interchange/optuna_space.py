"""Optuna's distributions as hyperparameters: one name under two parents is two hyperparameters (B13, F9)."""

from collections.abc import Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

from tuner.design.hyperparameters import Choice, Domain, Hyperparameter, Range, Value, default_family
from tuner.errors import DeclarationError

# An Optuna name, with the value of its parent where it has one, to the name here.
Names = dict[tuple[str, object], str]


def hyperparameters_of(
    trials: Sequence[FrozenTrial], ignored: Sequence[str], notes: list[str]
) -> tuple[list[Hyperparameter], dict[str, str]]:
    """What varied, in the order of its first suggestion, and the parent of every name that was split by branches.

    A name that not all trials have, or that has several ranges, is split by the choice that decides which; where no
    choice does, it is one hyperparameter over the hull of its ranges.
    """
    names = dict.fromkeys(name for trial in trials for name in trial.params if name not in ignored)
    found: list[Hyperparameter] = []
    parents: dict[str, str] = {}
    for name in names:
        seen = [trial.distributions[name] for trial in trials if name in trial.distributions]
        parent = None if _plain(seen, len(trials)) else _parent(name, names, trials)
        if parent is None:
            _note_hull(name, seen, len(trials), notes)
            found += _varied(name, name, seen, None, notes)
            continue
        parents[name] = parent
        for value in dict.fromkeys(trial.params[parent] for trial in trials if name in trial.distributions):
            branch = [t.distributions[name] for t in trials if name in t.params and t.params.get(parent) == value]
            found += _varied(f"{value}.{name}", name, branch, (parent, str(value)), notes)
    return found, parents


def point_values(trial: FrozenTrial, known: set[str], parents: dict[str, str]) -> dict[str, Value]:
    """A trial's parameters under the names of `hyperparameters_of`."""
    values: dict[str, Value] = {}
    for name, value in trial.params.items():
        canonical = f"{trial.params[parents[name]]}.{name}" if name in parents else name
        if canonical in known:
            values[canonical] = value
    return values


def domain_of(distributions: Sequence[BaseDistribution], name: str) -> Domain | None:
    """The hull of distributions of one name; None where only one value is left. Raises DeclarationError."""
    if isinstance(distributions[0], CategoricalDistribution):
        choices: dict[str, Any] = {}
        for each in distributions:
            for choice in each.choices if isinstance(each, CategoricalDistribution) else ():
                choices[repr(choice)] = choice
        return Choice(tuple(choices.values())) if len(choices) > 1 else None
    numeric = [each for each in distributions if isinstance(each, FloatDistribution | IntDistribution)]
    if len(numeric) < len(distributions):
        raise DeclarationError(f"{name} is a number in some trials and a choice in others; import it with --ignore it")
    low, high = min(each.low for each in numeric), max(each.high for each in numeric)
    if low == high:
        return None
    return Range(low, high, all(each.log for each in numeric), all(isinstance(e, IntDistribution) for e in numeric))


def _varied(
    name: str, short: str, seen: Sequence[BaseDistribution], condition: tuple[str, str] | None, notes: list[str]
) -> list[Hyperparameter]:
    domain = domain_of(seen, name)
    if domain is None:
        notes.append(f"{name} has one value only and does not vary; it is left out")
        return []
    return [Hyperparameter(name, domain, default_family(short), condition)]


def _plain(seen: Sequence[BaseDistribution], num_trials: int) -> bool:
    return len(seen) == num_trials and all(each == seen[0] for each in seen)


def _parent(name: str, names: dict[str, None], trials: Sequence[FrozenTrial]) -> str | None:
    """The choice whose value decides whether `name` exists and over which range; None without one."""
    for parent in names:
        values = [trial.params.get(parent) for trial in trials]
        if parent == name or not all(isinstance(value, str) for value in values):
            continue
        decided: dict[object, set[str]] = {}
        for value, trial in zip(values, trials, strict=True):
            decided.setdefault(value, set()).add(repr(trial.distributions.get(name)))
        if all(len(ranges) == 1 for ranges in decided.values()) and len(set(map(str, decided.values()))) > 1:
            return parent
    return None


def _note_hull(name: str, seen: Sequence[BaseDistribution], num_trials: int, notes: list[str]) -> None:
    if any(each != seen[0] for each in seen):
        notes.append(f"{name} was searched over several ranges, which no choice explains; taken as one, over all (F9)")
    if len(seen) < num_trials:
        notes.append(f"{name} exists in {len(seen)} of {num_trials} trials, and no choice explains where")
