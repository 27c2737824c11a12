"""What an hour of a worker costs, as its user says it, and what an amount of work costs by it."""

import math
from dataclasses import dataclass

from tuner.errors import InputError
from tuner.shown import quoted

DIGITS = 3  # that are shown of an amount below 1, so that a small price is not rounded to nothing


@dataclass(frozen=True, slots=True)
class HourlyPrice:
    """The price of one worker for an hour, in a currency that only its user knows. text: as it was given."""

    text: str
    value: float

    def of(self, seconds: float) -> float:
        """What one worker costs for so many seconds."""
        return self.value * seconds / 3600.0

    def about(self, seconds: float) -> str:
        """The cost of so many seconds of work, in words."""
        return f"about {amount_words(self.of(seconds))} (at {self.text} an hour of a worker)"


def parsed_price(text: str | None) -> HourlyPrice | None:
    """The value of --price-per-hour; None without one. Raises InputError."""
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0.0):
        raise InputError(
            "--price-per-hour is what an hour of one worker costs, a number of at least 0 without a currency, like "
            f"2.50, got {quoted(text)}"
        )
    return HourlyPrice(text.strip(), abs(value))  # minus zero is zero


def amount_words(amount: float) -> str:
    """An amount with two decimals; below 1 with as many as three digits need, and at least two decimals."""
    if amount >= 1.0 or amount == 0.0:
        return f"{amount:,.2f}"
    decimals = max(2, DIGITS - 1 - math.floor(math.log10(amount)))
    told = f"{amount:.{decimals}f}"
    while told.endswith("0") and len(told.partition(".")[2]) > 2:
        told = told[:-1]
    return told
