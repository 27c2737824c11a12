"""Hyperparameters: a name with a range or choices, a sampling scale, a family and an off value.

The *family* decides how likely a good value stays good in a longer run (A36). Regularization and augmentation must
have an *off* value, because the sweep switches them off (A22, A23).
"""

import math
from dataclasses import dataclass
from numbers import Real
from typing import Literal, get_args

from tuner.design.names import Name
from tuner.errors import DeclarationError
from tuner.shown import quoted

LARGEST = 1e300  # so that the width of a range, and a margin around it, are finite too
TOO_LARGE = 1.7e308
LARGEST_WHOLE = 2**53  # positions in a range are floats
Value = None | bool | int | float | str
Family = Literal["warmup", "initialization", "architecture", "optimizer", "augmentation", "regularization", "schedule"]
Limits = Literal["none", "low", "high", "both"]

# Common names of regularizers: a study file need not declare their family, nor that 0 switches them off.
REGULARIZERS = ("weight_decay", "dropout", "label_smoothing", "mixup", "stochastic_depth", "drop_path", "lora_dropout")

# Common names of augmentations of captions: shares of captions, or of their tags, that change; 0 switches them off.
SHARES_OF_CAPTIONS = ("shuffle_caption", "caption_dropout", "caption_tag_dropout")
OF_CAPTIONS = (*SHARES_OF_CAPTIONS, "keep_tokens")


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from `low` to `high`, both included, sampled evenly on a linear or a log scale.

    `limits` names the ends that no value can cross (dropout >= 0): a best point there is no reason to widen the range.
    """

    low: float
    high: float
    log: bool = False
    integer: bool = False
    family: Family | None = None
    off: float | int | None = None
    limits: Limits = "none"

    def __post_init__(self) -> None:
        for bound in (self.low, self.high):
            if isinstance(bound, bool) or not isinstance(bound, Real):
                raise DeclarationError(f"a range is bounded by numbers, got {bound!r}; choice(...) takes other values")
            if (LARGEST_WHOLE if self.integer else LARGEST) < _size(bound) != math.inf:
                raise DeclarationError(
                    f"a range lies within ±{LARGEST:g}, one of whole numbers within ±2^53, got {quoted(bound)}"
                )
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise DeclarationError(
                f"a range needs finite bounds with low < high, got {self.low} and {self.high}; "
                "a value that does not vary is written as a plain number"
            )
        if self.log and self.low <= 0:
            raise DeclarationError(
                f"a log scale needs a positive lower bound, got {self.low}; start at a small positive number "
                "or use a linear scale"
            )
        if self.integer and (self.low != int(self.low) or self.high != int(self.high)):
            raise DeclarationError(
                f"integers needs whole bounds, got {self.low} and {self.high}; use uniform for real numbers"
            )
        _check_family(self.family)
        if self.limits not in get_args(Limits):
            raise DeclarationError(f"limits is one of {', '.join(get_args(Limits))}, got {self.limits!r}")

    def as_declared(self) -> str:
        """How a study file says it: log_uniform(1e-05, 0.1)."""
        word = "integers" if self.integer else "log_uniform" if self.log else "uniform"
        limits = f", limits={self.limits!r}" if self.limits != "none" else ""
        return f"{word}({self.low:g}, {self.high:g}{limits})"

    def value_at(self, unit: float) -> float | int:
        """The value at a position in [0, 1] of the sampling scale. Integers get bins of equal width."""
        low, high = self._edges()
        position = low + unit * (high - low)
        value = math.exp(position) if self.log else position
        if self.integer:
            return int(min(max(round(value), self.low), self.high))
        return min(max(value, self.low), self.high)

    def unit_of(self, value: float) -> float:
        """The position of a value on the sampling scale: 0 at `low`, 1 at `high`, below 0 or above 1 outside."""
        if self.log and value <= 0:
            return -math.inf
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        return ((math.log(value) if self.log else value) - low) / (high - low)

    def _edges(self) -> tuple[float, float]:
        margin = 0.5 - 1e-9 if self.integer else 0.0
        low, high = self.low - margin, self.high + margin
        return (math.log(low), math.log(high)) if self.log else (low, high)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few values without an order."""

    choices: tuple[Value, ...]
    family: Family | None = None
    off: Value = None
    has_off: bool = False

    def __post_init__(self) -> None:
        for value in self.choices:
            _check_value(value, "a choice")
        if len(self.choices) < 2 or len(set(map(repr, self.choices))) < len(self.choices):
            raise DeclarationError(f"a choice needs at least two different values, got {list(self.choices)}")
        _check_family(self.family)

    def value_at(self, unit: float) -> Value:
        """The value at a position in [0, 1]; each choice has an equal share."""
        return self.choices[min(int(unit * len(self.choices)), len(self.choices) - 1)]


@dataclass(frozen=True, slots=True)
class Constant:
    """A value that does not vary in this round, with its family, and the value at which a sweep switches it off."""

    value: Value
    family: Family | None = None
    off: Value = None
    has_off: bool = False

    def __post_init__(self) -> None:
        _check_value(self.value, "a fixed value")
        _check_family(self.family)


Domain = Range | Choice


@dataclass(frozen=True, slots=True)
class Span:
    """Values of a parent: numbers from `low` to `high`, both included; None: without a bound on that side."""

    low: float | int | None = None
    high: float | int | None = None

    def __contains__(self, value: object) -> bool:
        if self.low is None and self.high is None:
            return value is not None
        if isinstance(value, bool) or not isinstance(value, Real):
            return False
        number = float(value)
        return (self.low is None or number >= self.low) and (self.high is None or number <= self.high)


# The parent's name, and its value where the child exists: one value, one of several, or a number in a span. A study
# file declares texts (`branches`); the other forms are read from studies that were run elsewhere.
Condition = tuple[str, Value | tuple[Value, ...] | Span]


def fulfils(condition: Condition, value: object) -> bool:
    """Whether a child exists where its parent has `value`; True and "1" are not 1.

    Call it only for a parent that exists: one that does not exist has the value None, as has one whose choice is None.
    """
    wanted = condition[1]
    if isinstance(wanted, Span):
        return value in wanted
    several = wanted if isinstance(wanted, tuple) else (wanted,)
    return any(_kind(one) is _kind(value) and one == value for one in several)


def _kind(value: object) -> type:
    return float if isinstance(value, int) and not isinstance(value, bool) else type(value)


def condition_words(condition: Condition) -> str:
    """The condition as text: optimizer = sgd, num_layers >= 2, use_schedule = True, num_layers is 1 or 3."""
    parent, wanted = condition
    if isinstance(wanted, tuple):
        return f"{parent} is {' or '.join(map(str, wanted))}"
    if not isinstance(wanted, Span):
        return f"{parent} = {wanted}"
    low, high = wanted.low, wanted.high
    if low is None and high is None:
        return f"{parent} was suggested"
    if low is None or high is None:
        return f"{parent} >= {low:g}" if high is None else f"{parent} <= {high:g}"
    return f"{parent} = {low:g}" if low == high else f"{low:g} <= {parent} <= {high:g}"


@dataclass(frozen=True, slots=True)
class Hyperparameter:
    """A hyperparameter that varies: its name, and its range or choices.

    `condition`: the parent's value without which the hyperparameter does not exist (see Condition). Its name then
    begins with that value ("sgd.learning_rate"), because the same word under another value of the parent is another
    hyperparameter (B13).
    """

    name: str
    domain: Domain
    family: Family | None = None
    condition: Condition | None = None

    @property
    def short_name(self) -> str:
        return Name.of(self.name).short


def uniform(
    low: float, high: float, *, family: Family | None = None, off: float | None = None, limits: Limits = "none"
) -> Range:
    """Real numbers on a linear scale."""
    return Range(_as_float(low), _as_float(high), False, False, family, off, limits)


def log_uniform(
    low: float, high: float, *, family: Family | None = None, off: float | None = None, limits: Limits = "none"
) -> Range:
    """Real numbers on a log scale; `low` must be positive."""
    return Range(_as_float(low), _as_float(high), True, False, family, off, limits)


def integers(
    low: int,
    high: int,
    *,
    log: bool = False,
    family: Family | None = None,
    off: int | None = None,
    limits: Limits = "none",
) -> Range:
    """Whole numbers from `low` to `high`, both included."""
    return Range(_as_int(low), _as_int(high), log, True, family, off, limits)


def _as_float(bound: float) -> float:
    """Whole bounds of a real range become floats; Range refuses what is not a number."""
    is_number = isinstance(bound, Real) and not isinstance(bound, bool)
    return float(bound) if is_number and _size(bound) != TOO_LARGE else bound


def _as_int(bound: float) -> int:
    """8.0 becomes 8; Range refuses what is not whole."""
    is_number = isinstance(bound, Real) and not isinstance(bound, bool)
    whole = is_number and _size(bound) <= LARGEST and bound == int(bound)
    return int(bound) if whole else bound  # type: ignore[return-value]


def _size(number: float) -> float:
    """The absolute value as a float; TOO_LARGE for a whole number above the largest float."""
    try:
        return abs(float(number))
    except OverflowError:
        return TOO_LARGE


_NO_OFF = object()


def choice(*values: Value, family: Family | None = None, off: object = _NO_OFF) -> Choice:
    """One of `values`; give `off=` for a regularizer or augmentation."""
    has_off = off is not _NO_OFF
    if has_off and not any(off is value or off == value for value in values) and off is not None:
        raise DeclarationError(f"off={off!r} is not among the choices {list(values)}")
    return Choice(tuple(values), family, off if has_off else None, has_off)  # type: ignore[arg-type]


def fixed(value: Value, *, family: Family | None = None, off: object = _NO_OFF) -> Constant:
    """A value that does not vary; a plain number or string in a search space means the same."""
    has_off = off is not _NO_OFF
    return Constant(value, family, off if has_off else None, has_off)  # type: ignore[arg-type]


def log_grid(low: float, high: float, per_decade: int = 3) -> tuple[float, ...]:
    """Values evenly spaced in log space from `low` to `high`, both included, at least `per_decade` a decade."""
    Range(low, high, log=True)  # the same rules, the same messages
    if per_decade < 1:
        raise DeclarationError(f"per_decade must be at least 1, got {per_decade}")
    decades = math.log10(high / low)
    intervals = max(1, math.ceil(decades * per_decade - 1e-9))
    between = (float(f"{low * 10 ** (decades * i / intervals):.6g}") for i in range(1, intervals))
    return (float(low), *between, float(high))


def as_number(value: object, name: str) -> float:
    """A hyperparameter's value as a float. Raises DeclarationError for one that is no number."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise DeclarationError(f"{name} must be a number, got {value!r}; correct it in the search space")
    return float(value)


def _check_value(value: object, what: str) -> None:
    if isinstance(value, list | tuple | set):
        raise DeclarationError(
            f"{what} holds None, booleans, numbers and strings, got {value!r}; "
            "write choice(1, 2, 3), not choice([1, 2, 3]), and name structures by a string"
        )
    if not isinstance(value, None | bool | int | float | str):
        raise DeclarationError(f"{what} holds None, booleans, numbers and strings, got {value!r}; name it by a string")
    if isinstance(value, float) and not math.isfinite(value):
        raise DeclarationError(f"{what} must be finite, got {value}")
    if isinstance(value, int) and _size(value) > LARGEST:
        raise DeclarationError(f"{what} lies within ±{LARGEST:g}, got {quoted(value)}; name it by a string")


def _check_family(family: str | None) -> None:
    if family is not None and family not in get_args(Family):
        raise DeclarationError(f"family is one of {', '.join(get_args(Family))}, got {family!r}")
