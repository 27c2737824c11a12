"""Optuna's distributions as hyperparameters: one name under two parents is two hyperparameters (B13)."""

from collections.abc import Sequence
from dataclasses import dataclass

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

from tuner.design.hyperparameters import (
    Choice,
    Condition,
    Domain,
    Hyperparameter,
    Range,
    Span,
    Value,
    condition_words,
    fulfils,
)
from tuner.design.names import Name
from tuner.design.optimizers import default_family
from tuner.errors import DeclarationError
from tuner.interchange.optuna_conditions import (
    NOT_REACHED,
    ParentParameter,
    Pattern,
    parents_of,
    patterns_of,
    plain_value,
)
from tuner.shown import counted

Named = tuple[tuple[Condition | None, str], ...]  # of one Optuna name: where it exists, and its name here


@dataclass(frozen=True, slots=True)
class OptunaSpace:
    """What varied, in the order of its first suggestion; `names`: of each Optuna name, parents before children.

    `texts`: of each Optuna name the values that have another form here, by their repr.
    """

    hyperparameters: tuple[Hyperparameter, ...]
    names: dict[str, Named]
    texts: dict[str, dict[str, Value]]

    @classmethod
    def declared(cls, hyperparameters: Sequence[Hyperparameter]) -> "OptunaSpace":
        """The space of a study that our own export wrote: every name is as it is here."""
        names: dict[str, Named] = {h.name: ((h.condition, h.name),) for h in hyperparameters}
        return cls(tuple(hyperparameters), names, {name: {} for name in names})

    def point_values(self, trial: FrozenTrial) -> dict[str, Value]:
        """A trial's parameters under their names here."""
        values: dict[str, Value] = {}
        for name, named in self.names.items():
            if name not in trial.params:
                continue
            value = self.texts[name].get(repr(trial.params[name]), plain_value(trial.params[name]))
            for condition, here in named:
                if (
                    condition is None
                    or condition[0] == here
                    or (condition[0] in values and fulfils(condition, values[condition[0]]))
                ):
                    values[here] = value
        return values


def space_of(trials: Sequence[FrozenTrial], ignored: Sequence[str], notes: list[str]) -> OptunaSpace:
    """The space that was searched. Raises DeclarationError naming a parameter that cannot be used, with --ignore.

    A name that not all trials have, or that has several ranges, is split by the parameter that decides which; where
    none does, it is one hyperparameter over the hull of its ranges, that exists where it was suggested.
    """
    names = list(dict.fromkeys(name for trial in trials for name in trial.params if name not in ignored))
    patterns = patterns_of(names, trials)
    parents = parents_of(patterns, trials)
    texts = {name: _texts(name, trials, notes) for name in names}
    known: dict[str, Named] = {}
    found: dict[str, list[Hyperparameter]] = {}
    for name in _parents_first(names, parents):
        seen = [trial.distributions[name] for trial in trials if name in trial.distributions]
        _note_steps(name, seen, notes)
        branches = _branches(name, parents.get(name), known, seen) or [_everywhere(name, seen, patterns[name], notes)]
        known[name], found[name] = (), []
        unknown = patterns[name].count(NOT_REACHED)
        if unknown:
            notes.append(
                f"{counted(unknown, 'trial')} ended before {name} was suggested (failed or pruned): unknown there"
            )
        for condition, here, there in branches:
            domain = None if here in ignored else _checked(there, here, name, texts[name])
            if domain is None:
                notes.append(f"{here} has one value only and does not vary; it is left out")
                continue
            known[name] = (*known[name], (condition, here))
            found[name].append(Hyperparameter(here, domain, default_family(Name.of(name).short), condition))
    return OptunaSpace(tuple(one for name in names for one in found[name]), known, texts)


def domain_of(
    distributions: Sequence[BaseDistribution], name: str, texts: dict[str, Value] | None = None
) -> Domain | None:
    """The hull of distributions of one name; None where only one value is left. Raises DeclarationError.

    `texts`: the form of choices here, by their repr, where it is another.
    """
    if isinstance(distributions[0], CategoricalDistribution):
        choices: dict[str, Value] = {}
        for each in distributions:
            for choice in each.choices if isinstance(each, CategoricalDistribution) else ():
                choices[repr(choice)] = (texts or {}).get(repr(choice), plain_value(choice))
        return Choice(tuple(choices.values())) if len(choices) > 1 else None
    numeric = [each for each in distributions if isinstance(each, FloatDistribution | IntDistribution)]
    if len(numeric) < len(distributions):
        raise DeclarationError(f"{name} is a number in some trials and a choice in others; import it with --ignore it")
    low, high = min(each.low for each in numeric), max(each.high for each in numeric)
    if low == high:
        return None
    return Range(low, high, all(each.log for each in numeric), all(isinstance(e, IntDistribution) for e in numeric))


def _checked(seen: Sequence[BaseDistribution], here: str, name: str, texts: dict[str, Value]) -> Domain | None:
    try:
        return domain_of(seen, here, texts)
    except (DeclarationError, OverflowError) as error:
        raise DeclarationError(
            f"the parameter {name!r} cannot be used: {error}; to import the study without it: --ignore {name}"
        ) from error


def _texts(name: str, trials: Sequence[FrozenTrial], notes: list[str]) -> dict[str, Value]:
    """Names for choices that are no plain values: `[64, 64]`; beside a choice of that very text, `[64, 64] (list)`."""
    seen = [trial.distributions[name] for trial in trials if name in trial.distributions]
    choices = {repr(c): c for one in seen if isinstance(one, CategoricalDistribution) for c in one.choices}
    plain = {choice for choice in choices.values() if isinstance(choice, str)}
    found: dict[str, Value] = {}
    for text, choice in choices.items():
        value = plain_value(choice)
        if isinstance(value, str) and not isinstance(choice, str):
            found[text] = f"{value} ({type(choice).__name__})" if value in plain else value
    if found:
        listed = ", ".join(map(str, list(found.values())[:3]))
        notes.append(f"{name} has choices that are named by their text here: {listed}")
    return found


def _parents_first(names: Sequence[str], parents: dict[str, ParentParameter]) -> list[str]:
    """The names in an order in which every parent comes before its children; circles are cut where they are met."""
    ordered: dict[str, None] = {}

    def visit(name: str, above: tuple[str, ...]) -> None:
        parent = parents.get(name)
        if parent is not None and parent.name in (*above, name):
            del parents[name]
        elif parent is not None:
            visit(parent.name, (*above, name))
        ordered[name] = None

    for name in names:
        visit(name, ())
    return list(ordered)


Branch = tuple[Condition | None, str, list[BaseDistribution]]


def _everywhere(name: str, seen: Sequence[BaseDistribution], patterns: Sequence[Pattern], notes: list[str]) -> Branch:
    """The one branch of a name that no other parameter decides about."""
    reached = sum(pattern != NOT_REACHED for pattern in patterns)
    _note_hull(name, seen, reached, notes)
    return (name, Span()) if len(seen) < reached else None, name, list(seen)


def _branches(
    name: str, parent: ParentParameter | None, known: dict[str, Named], seen: Sequence[BaseDistribution]
) -> list[Branch]:
    """Where a name exists under its parent, what it is called there, and its distributions there; empty without one."""
    if parent is None:
        return []
    above = known.get(parent.name, ())
    by_pattern = {repr(one): one for one in seen}
    found: list[Branch] = []
    taken = {here for named in known.values() for _, here in named}
    for _, parent_here in above:
        for condition, pattern in parent.branches:
            here = (parent_here, condition[1])
            several = len(above) * len(parent.branches) > 1 or isinstance(condition[1], str)
            value = condition[1] if isinstance(condition[1], str) else condition_words(condition).replace(" ", "")
            before = f"{parent_here.removesuffix(parent.name)}{value}."
            short = name if not several or name.startswith(before) else before + name
            full = short if short not in taken else f"{condition_words(here).replace(' ', '')}.{name}"
            found.append((here, full, [by_pattern[str(pattern)]]))
    return found


def _note_hull(name: str, seen: Sequence[BaseDistribution], num_trials: int, notes: list[str]) -> None:
    if any(each != seen[0] for each in seen):
        notes.append(f"{name} was searched over several ranges, which no parameter explains; taken as one, over all")
    if len(seen) < num_trials:
        notes.append(
            f"{name} exists in {len(seen)} of {counted(num_trials, 'trial')}, and no other parameter explains where"
        )


def _note_steps(name: str, seen: Sequence[BaseDistribution], notes: list[str]) -> None:
    steps = {each.step or 1 for each in seen if isinstance(each, FloatDistribution | IntDistribution)} - {1}
    told = " or ".join(f"{step:g}" for step in sorted(steps))
    if told:
        notes.append(f"{name} was searched in steps of {told}; here every value of the range counts")
