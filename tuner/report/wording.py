"""Values and declarations as text for a reader."""

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from tuner.budget.schedules import Piece, Schedule, ScheduleFamily
from tuner.design.hyperparameters import Domain, Range
from tuner.shown import counted

NOTHING = "–"
_LARGEST_WHOLE = 1e9  # larger whole numbers get an exponent


def readable(value: Any) -> str:
    """Four significant digits, whole numbers in groups of three, yes and no, a dash for nothing."""
    value = value.item() if hasattr(value, "item") else value
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer() and abs(value) < _LARGEST_WHOLE):
        return f"{int(value):,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def readable_moment(seconds: float) -> str:
    """Seconds since 1970, as the Ledger keeps them, in UTC."""
    return moment(datetime.fromtimestamp(seconds, UTC))


def moment(when: datetime) -> str:
    return when.strftime("%Y-%m-%d %H:%M UTC")


def in_words(identifier: str) -> str:
    """maybe_too_short → maybe too short."""
    return identifier.replace("_", " ")


def domain_words(domain: Domain) -> str:
    """The range or the choices."""
    if isinstance(domain, Range):
        return f"{readable(domain.low)} to {readable(domain.high)}"
    return ", ".join(readable(choice) if choice is not None else "none" for choice in domain.choices)


def scale_words(domain: Domain) -> str:
    """The scale that was sampled."""
    if not isinstance(domain, Range):
        return "choice"
    return f"{'log' if domain.log else 'linear'}{', integer' if domain.integer else ''}"


def schedule_words(family: ScheduleFamily, trained: Iterable[Schedule]) -> str:
    """The schedules of trained trials as one phrase. Pieces that differ between trials show their range of steps.

    family: the declared family; it knows whether the schedules of trials from elsewhere are known.
    """
    if family.kind.unknown:
        return f"{family.kind.unknown}{' (trained elsewhere)' if family.kind.importable else ''}"
    different = list(dict.fromkeys(trained))
    if len({tuple(piece.shape for piece in schedule.pieces) for schedule in different}) != 1:
        return f"{len(different)} different schedules" if different else "no trial yet"
    return ", ".join(_piece_words(alike) for alike in zip(*(one.pieces for one in different), strict=True))


def _piece_words(pieces: Sequence[Piece]) -> str:
    """One piece of schedules that have it in common."""
    lengths, ends = [piece.steps for piece in pieces], sorted({piece.end for piece in pieces})
    steps = counted(max(lengths), "step")
    over = steps if min(lengths) == max(lengths) else f"{min(lengths):,} to {steps}"
    goal = " or ".join(f"{end:g} of the base rate" if end else "zero" for end in ends)
    return pieces[0].kind.words.format(over=over, goal=goal)
