"""Values and declarations as a reader wants to see them."""

import math
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from tuner.budget.schedules import ScheduleFamily
from tuner.design.hyperparameters import Domain, Range

NOTHING = "–"
STRENGTH_DOTS = {"strong": "●●●", "moderate": "●●○", "weak": "●○○", "none": "○○○"}
_LARGEST_WHOLE = 1e9  # larger whole floats are written with an exponent


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


def counted(count: int, noun: str) -> str:
    """A number with its noun: 1 trial, 2 trials."""
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{count:,} {noun if count == 1 else plural}"


def domain_words(domain: Domain) -> str:
    """The range or the choices."""
    if isinstance(domain, Range):
        return f"{readable(domain.low)} to {readable(domain.high)}"
    return ", ".join(readable(choice) if choice is not None else "none" for choice in domain.choices)


def scale_words(domain: Domain) -> str:
    """On which scale it was sampled."""
    if not isinstance(domain, Range):
        return "choice"
    return f"{'log' if domain.log else 'linear'}{', integer' if domain.integer else ''}"


def schedule_words(family: ScheduleFamily) -> str:
    """A schedule family as a phrase."""
    ending = f"to {family.final:g} of the base rate" if family.final else "to zero"
    if family.name == "constant_then_decay":
        length = f"{family.decay:.0%}" if isinstance(family.decay, float) else f"{family.decay:,} steps"
        return f"constant, then a {in_words(family.decay_shape)} decay over the last {length} {ending}"
    if family.name in ("linear", "cosine"):
        return f"{family.name} decay {ending}"
    return "constant" if family.name == "constant" else "inverse square root"
