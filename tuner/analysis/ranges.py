"""Ranges of hyperparameters: positions on their scale (D38), wider ranges to search next, and ends that stay (B20).

Position 0 is the lower limit and 1 the upper. A range has a scale; so has a choice of numbers, [32, 64, 128, 256],
whose values have an order. Some ends cannot be moved: those that are declared, and those that the hyperparameter's name
implies. A best dropout of 0 or a best momentum near 1 shows nothing about the range, even without a declared limit:
above all in imported studies, which declare no limits.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tuner.design.hyperparameters import Choice, Hyperparameter, Range, Value

MINIMUM_LEVELS = 3  # [P] of an ordered choice: two values do not show a trend


_ANY_SIGN = {"log", "log2", "log10", "ln", "exp", "exponent", "power", "offset", "shift", "delta", "bias"}
# Of the name without separators.
_FRACTIONS = (
    "dropout", "droppath", "dropconnect", "dropblock", "droprate", "dropprob", "keeprate", "keepprob", "maskrate",
    "maskratio", "stochasticdepth", "labelsmoothing", "momentum", "oneminus", "emadecay", "subsample", "colsample",
    "warmupratio", "warmuppct", "pctstart", "replacementrate", "mutationrate", "crossoverrate", "discount",
    "shufflecaption",
)  # fmt: skip
_FRACTION_WORDS = {"drop", "prob", "probs", "probability", "fraction", "frac", "proportion", "quantile", "rho", "betas"}
_BETAS = re.compile(r"(?:adam)?(?:beta|b)[12]")
_NOT_NEGATIVE = (
    "weightdecay", "learningrate", "baserate", "regularization", "mixup", "cutmix", "clipnorm", "gradclip", "warmup",
    "patience", "decay", "penalty", "noise", "temperature", "epsilon", "jitter", "smoothing", "strength",
)  # fmt: skip
_NOT_NEGATIVE_WORDS = {
    "lr", "wd", "eta", "l1", "l2", "reg", "lambda", "alpha", "eps", "std", "sigma", "scale", "weight", "rate",
    "coef", "coefficient",
}  # fmt: skip
# Numbers of things, which may be given as real ones; no things are none. Whole ranges need no name.
_COUNTED = {"layers", "layer", "depth", "width", "units", "hidden", "heads", "channels", "filters", "blocks", "batch"}


def unit_positions(values: pd.Series, domain: Range) -> NDArray[np.float64]:
    """Positions of `values`; missing ones are NaN."""
    numbers = values.to_numpy(dtype=np.float64)
    low, high = np.log([domain.low, domain.high]) if domain.log else (domain.low, domain.high)
    return np.asarray(((np.log(numbers) if domain.log else numbers) - low) / (high - low))


@dataclass(frozen=True, slots=True)
class Axis:
    """A hyperparameter whose values have an order. levels: those of a choice, ascending; empty for a range."""

    hyperparameter: Hyperparameter
    scale: Range
    levels: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        return self.hyperparameter.name

    def bound(self, edge: str) -> float:
        """The value at an edge, "low" or "high"."""
        return self.scale.low if edge == "low" else self.scale.high

    def positions(self, values: pd.Series) -> NDArray[np.float64]:
        """Positions of the values of a column; missing ones are NaN."""
        numbers = pd.to_numeric(values, errors="coerce") if self.levels else values
        return unit_positions(numbers, self.scale)


def axis_of(hyperparameter: Hyperparameter) -> Axis | None:
    """The axis of a range, or of a choice of at least three numbers; None for what has no order."""
    domain = hyperparameter.domain
    if isinstance(domain, Range):
        return Axis(hyperparameter, domain)
    levels = ordered_levels(domain)
    if len(levels) < MINIMUM_LEVELS:
        return None
    whole = all(isinstance(value, int) for value in domain.choices)
    return Axis(hyperparameter, Range(levels[0], levels[-1], _by_ratios(levels), whole), levels)


def ordered_levels(domain: Choice) -> tuple[float, ...]:
    """The values of a choice of numbers, ascending; empty where one of them is not a finite number."""
    found = [_number(value) for value in domain.choices]
    numbers = sorted({number for number in found if number is not None})
    return tuple(numbers) if len(numbers) == len(domain.choices) else ()


def _number(value: Value) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def _by_ratios(levels: tuple[float, ...]) -> bool:
    """Whether the levels are more evenly spaced by ratios than by differences."""
    if levels[0] <= 0:
        return False
    even = [np.diff(np.log(levels)), np.diff(levels)]
    ratios, differences = (float(np.std(steps) / np.mean(steps)) for steps in even)
    return ratios < differences


def next_level(levels: tuple[float, ...], edge: str) -> float:
    """The choice beyond an edge: as far from the outermost one as that is from its neighbour, by ratio or difference.

    [32, 64, 128] goes on with 256, and below with 16; [0.1, 0.2, 0.3] with 0.4.
    """
    outer, inner = (levels[0], levels[1]) if edge == "low" else (levels[-1], levels[-2])
    if _by_ratios(levels):
        return _plain(outer * outer / inner, levels)
    return _plain(outer + (outer - inner), levels)


def _plain(value: float, levels: tuple[float, ...]) -> float:
    """A whole number where all levels are; else six digits."""
    if all(isinstance(level, int) for level in levels):
        return round(value)
    return float(f"{value:.6g}")


def next_bound(domain: Range, edge: str, end: float | None = None) -> float | int:
    """A bound further out at `edge` ("low" or "high"), not beyond `end`, which is known to be the last value.

    Log scale: half the range's decades further, at least half a decade and at most one. Linear scale: half the
    width further, but not below 0 where the range is positive, nor past halfway to 1 where it lies below 1
    (momentum, dropout). Whole numbers for integers, at least 1 where they were, and not negative where they were not.
    """
    wider = _wider_log(domain, edge) if domain.log else _wider_linear(domain, edge)
    if end is not None and (not domain.log or end > 0.0):
        wider = max(wider, end) if edge == "low" else min(wider, end)
    if not domain.integer:
        return wider
    whole = math.floor(wider) if edge == "low" else math.ceil(wider)
    return max(1, whole) if domain.low >= 1 else max(0, whole) if domain.low >= 0 else whole


def further(axis: Axis, edge: str) -> float | int:
    """The next bound of an axis, or the next choice; the bound itself where there is nothing beyond."""
    end = known_end(axis.hyperparameter.short_name, edge)
    if not axis.levels:
        return next_bound(axis.scale, edge, end)
    wider = next_level(axis.levels, edge)
    if edge == "low" and axis.levels[0] >= 0:  # what was never negative is not made so
        least = 1 if axis.scale.integer and axis.levels[0] >= 1 else 0
        wider = axis.levels[0] if wider < least else wider
    if end is not None and (wider < end if edge == "low" else wider > end):
        return axis.bound(edge)
    return wider


def closed_because(axis: Axis, edge: str) -> str | None:
    """Why an edge cannot be moved, as a sentence without its full stop; None where it can."""
    domain, bound, name = axis.hyperparameter.domain, axis.bound(edge), axis.hyperparameter.short_name
    if isinstance(domain, Range) and domain.limits in (edge, "both"):
        return f"the {edge} edge is a declared limit"
    off = domain.off
    if isinstance(off, int | float) and not isinstance(off, bool) and off == bound:
        return f"{bound:g} switches {name} off, and there is nothing beyond"
    end = known_end(name, edge)
    size = "smallest" if edge == "low" else "largest"
    if end is not None and (bound <= end if edge == "low" else bound >= end):
        return f"{bound:g} is the {size} {name} possible"
    if edge == "low" and bound == 1 and (axis.scale.integer or counts_things(name)):
        return f"1 is the smallest {name} possible"
    if edge == "low" and bound == 0 and axis.scale.integer:
        return f"0 is the smallest {name} possible"
    if further(axis, edge) == bound:
        return f"nothing lies beyond {bound:g}"
    return None


def wider_choices(domain: Choice, *added: float) -> tuple[Value, ...]:
    """The choices of an ordered domain with more of them, each at the end where it belongs in the declared order."""
    choices: tuple[Value, ...] = domain.choices
    levels = ordered_levels(domain)
    ascending = list(domain.choices) == list(levels)
    whole = all(isinstance(level, int) for level in levels)
    for value in (int(one) if whole else float(one) for one in added):
        first = (value < levels[0]) == ascending
        choices = (value, *choices) if first else (*choices, value)
    return choices


def _wider_log(domain: Range, edge: str) -> float:
    decades = min(1.0, max(0.5, 0.5 * math.log10(domain.high / domain.low)))
    wider = domain.low / 10**decades if edge == "low" else domain.high * 10**decades
    return float(f"{wider:.2g}")


def _wider_linear(domain: Range, edge: str) -> float:
    half = 0.5 * (domain.high - domain.low)
    if edge == "low":
        wider = max(0.0, domain.low - half) if domain.low > 0 else domain.low - half
    else:
        wider = domain.high + half
        if domain.low >= 0 and domain.high < 1:
            wider = min(wider, 0.5 * (domain.high + 1.0))
    return float(f"{wider:.6g}")


def known_end(name: str, edge: str) -> float | None:
    """The least ("low") or greatest ("high") value that a hyperparameter of this name can have; None: not known."""
    words = _words(name)
    joined = "".join(words)
    if _ANY_SIGN & set(words):
        return None
    if _is_fraction(joined, words):
        return 0.0 if edge == "low" else 1.0
    if edge == "low" and (
        any(part in joined for part in _NOT_NEGATIVE) or (_NOT_NEGATIVE_WORDS | _COUNTED) & set(words)
    ):
        return 0.0
    return None


def counts_things(name: str) -> bool:
    """Whether a hyperparameter of this name is a number of layers, units, examples of a batch ...: at least 1."""
    return bool(_COUNTED & set(_words(name)))


def _is_fraction(joined: str, words: Sequence[str]) -> bool:
    if any(part in joined for part in _FRACTIONS) or _FRACTION_WORDS & set(words):
        return True
    return any(_BETAS.fullmatch(part) for part in ("".join(words[-2:]), "".join(words[-3:]), words[-1]))


def _words(name: str) -> list[str]:
    """hiddenDropout_prob and hidden-dropout.prob are hidden, dropout, prob; digits stay with their word."""
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return re.findall(r"[a-z0-9]+", split.lower()) or [""]
