"""Expand and relaunch: the next study where a round's best points press against the range (B20).

The widened study stands beside its round in the Ledger. Only points in the new region are planned; those of the old
box count as sampled, because the questions are about both together (`analysis.round_frames`).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tuner.analysis.finding import Finding
from tuner.analysis.questions.boundary import boundary_findings
from tuner.analysis.ranges import wider_choices
from tuner.analysis.round_frames import WIDENING_NUMBERS, round_frames, round_of, round_rows
from tuner.design.hyperparameters import Choice, Range
from tuner.design.points import Point
from tuner.design.quasi_random import quasi_random_points
from tuner.design.seeds import derived_seed
from tuner.design.space import SearchSpace
from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.errors import DeclarationError, StorageError
from tuner.records import State
from tuner.rounds.plan import round_name, trial_at
from tuner.shown import word
from tuner.storage.store import Ledger
from tuner.storage.studies import StudyRow

MINIMUM_NEW = 10  # [P] points in the new region, however narrow it is
_BATCH = 256
_MOST_BATCHES = 400


@dataclass(frozen=True, slots=True)
class Expansion:
    """A widened study and its trials, all of them in the new region. widened: the ranges that became wider, as text."""

    study: Study
    trials: tuple[Trial, ...]
    widened: tuple[str, ...]


def expand_round(ledger: Ledger, campaign: str, number: int) -> tuple[Expansion, StudyRow]:
    """Plan the widened study of a round from its boundary findings, with its trials in one transaction.

    Asked again before any of its trials was begun, it is the same study, and gets the trials that it lacks. Raises
    DeclarationError where nothing is to be widened, StorageError where the last widening was not trained to its end.
    """
    rows = round_rows(ledger, campaign, number, planned=True)
    last = rows[-1]
    if last.study.source:
        raise DeclarationError(
            f"{campaign!r} was trained elsewhere and cannot be launched here; `tuner boundaries {word(campaign)}` "
            "proposes the wider ranges to search there"
        )
    counts = ledger.state_counts(last.study_id)
    begun = sum(count for state, count in counts.items() if state is not State.WAITING)
    left = last.study.num_trials - sum(count for state, count in counts.items() if state.finished)
    if len(rows) > 1 and not begun:
        made = _written(rows[-2].study, last.study)
    elif len(rows) > 1 and left:
        raise StorageError(
            f"{last.study.name} of {campaign!r} has {left} trials that have not ended; train them first: "
            f"tuner launch STUDY_FILE --round {number} --expanded"
        )
    else:
        made = expansion(rows[0].study, last.study, boundary_findings(round_frames(ledger, campaign, number)))
    first = rows[0]
    row = ledger.start_study(campaign, made.study, first.fingerprint, identity=first.identity, trials=made.trials)
    return made, row


def expansion(first: Study, last: Study, findings: Sequence[Finding]) -> Expansion:
    """The next widening of a round's study, from the newest one and the findings about all of them."""
    space = last.space
    for finding in findings:
        if finding.verdict.startswith("expand_"):
            space = _widened_space(space, finding)
    if space == last.space:  # a study in which nothing is new would have no trial
        raise DeclarationError(f"no range of {first.name} is to be widened: no boundary finding says expand")
    place = (round_of(last.name) or (0, 0))[1] + 1
    name = f"{first.name}-wide-{place}"
    study = replace(
        last,
        name=name,
        hyperparameters=space.hyperparameters,
        seed=derived_seed("study", first.seed, name),
        lineage=((last.name, "all trials"),),
    )
    wanted = max(MINIMUM_NEW, math.ceil(last.num_trials * (_growth(study, last) - 1.0)))
    return _written(last, replace(study, num_trials=len(_points_outside(study, last, wanted))))


def _widened_space(space: SearchSpace, finding: Finding) -> SearchSpace:
    """The space with the edges moved that a finding names: one, or both where two values have other optima."""
    old = space[finding.subject].domain
    moved = finding.evidence[finding.evidence["expand"]]
    further = dict(zip(moved["edge"], moved["next_bound"], strict=True))
    if isinstance(old, Choice):
        return space.with_choices(finding.subject, wider_choices(old, *further.values()))
    bounds = [further.get("low", old.low), further.get("high", old.high)]
    low, high = (int(bound) if old.integer else float(bound) for bound in bounds)
    return space.widened(finding.subject, low, high)


def _written(old: Study, study: Study) -> Expansion:
    """The expansion that a widened study stands for: all of it follows from the study and the one before it."""
    start = (round_of(study.name) or (0, 0))[1] * WIDENING_NUMBERS
    trials = [
        trial_at(study, start + place, point, f"{study.name} point {index}")
        for place, (index, point) in enumerate(_points_outside(study, old, study.num_trials))
    ]
    return Expansion(study, tuple(trials), tuple(_widened(old, study)))


def _widened(old: Study, study: Study) -> Iterator[str]:
    """What became wider, in words."""
    for hyperparameter in study.hyperparameters:
        wide, narrow = hyperparameter.domain, old.space[hyperparameter.name].domain
        if isinstance(wide, Range) and isinstance(narrow, Range):
            for edge, before, bound in (("low", narrow.low, wide.low), ("high", narrow.high, wide.high)):
                if before != bound:
                    yield f"{hyperparameter.name}: {edge} {before:g} → {bound:g}"
        elif isinstance(wide, Choice) and isinstance(narrow, Choice):
            added = [str(value) for value in wide.choices if value not in narrow.choices]
            if added:
                yield f"{hyperparameter.name}: also {', '.join(added)}"


def planned_expansion(ledger: Ledger, campaign: str, number: int) -> tuple[Study, tuple[Trial, ...]]:
    """The newest widened study of a round with all its trials, also those that were not written with it.

    Raises StorageError where there is none.
    """
    rows = round_rows(ledger, campaign, number, planned=True)
    if len(rows) < 2:
        raise StorageError(
            f"{round_name(number)} of {campaign!r} was not expanded; run: tuner boundaries {word(campaign)} "
            f"--round {number} --expand"
        )
    row = rows[-1]
    records = ledger.trials(row.study_id)
    known = {
        record.number: trial_at(row.study, record.number, record.point, record.origin, record.schedule)
        for record in records
    }
    if len(known) == row.study.num_trials:
        return row.study, tuple(known.values())
    return row.study, tuple(known.get(one.number, one) for one in _written(rows[-2].study, row.study).trials)


def _points_outside(study: Study, old: Study, wanted: int) -> list[tuple[int, Point]]:
    """So many points of the wide space outside the old box, with their index."""
    found: list[tuple[int, Point]] = []
    for batch in range(_MOST_BATCHES):
        points = quasi_random_points(study.space, seed=study.seed, start=batch * _BATCH, count=_BATCH)
        found += [(batch * _BATCH + i, point) for i, point in enumerate(points) if not inside(point, old)]
        if len(found) >= wanted:
            break
    return found[:wanted]


def inside(point: Point, study: Study) -> bool:
    """Whether a study's ranges and choices hold a point."""
    values = dict(point.values_by_name)
    for hyperparameter in study.hyperparameters:
        value, domain = values.get(hyperparameter.name), hyperparameter.domain
        if isinstance(domain, Range) and isinstance(value, int | float) and not domain.low <= value <= domain.high:
            return False
        if isinstance(domain, Choice) and hyperparameter.name in values and value not in domain.choices:
            return False
    return True


def _growth(wide: Study, old: Study) -> float:
    """How many times larger the wide space is, on its sampling scales."""
    growth = 1.0
    before = {h.name: h.domain for h in old.hyperparameters}
    for hyperparameter in wide.hyperparameters:
        domain, narrow = hyperparameter.domain, before[hyperparameter.name]
        if isinstance(domain, Range) and isinstance(narrow, Range):
            growth /= domain.unit_of(narrow.high) - domain.unit_of(narrow.low)
        elif isinstance(domain, Choice) and isinstance(narrow, Choice):
            growth *= len(domain.choices) / len(narrow.choices)
    return growth
