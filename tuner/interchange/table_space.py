"""A space file: per hyperparameter kind, low, high, log, choices; and points read against it."""

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, get_args

import pandas as pd

from tuner.design.hyperparameters import (
    Choice,
    Condition,
    Domain,
    Family,
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
from tuner.interchange.cells import UNKNOWN, choice_of, empty_choice, is_nothing
from tuner.interchange.table_files import refuse_no_file, text_of
from tuner.security import original_cell
from tuner.shown import quoted

LARGEST = 1_000_000  # bytes of a space file
KINDS = ("float", "int", "choice")
_KEYS = {"kind", "low", "high", "log", "choices", "limits", "family", "parent", "parent_value"}
# Other tools' words (Optuna, Weights & Biases, Ray Tune): the kind here, and whether the scale is logarithmic.
_KINDS_ELSEWHERE = {
    "uniform": ("float", False), "real": ("float", False), "double": ("float", False), "number": ("float", False),
    "loguniform": ("float", True), "log_uniform_values": ("float", True), "floatdistribution": ("float", None),
    "integer": ("int", False), "int_uniform": ("int", False), "intdistribution": ("int", None),
    "categorical": ("choice", None), "choices": ("choice", None), "categoricaldistribution": ("choice", None),
    "bool": ("choice", None), "boolean": ("choice", None),
}  # fmt: skip
_KEYS_ELSEWHERE = {
    "type": "kind", "distribution": "kind", "min": "low", "max": "high", "lower": "low", "upper": "high",
    "values": "choices", "categories": "choices",
}  # fmt: skip
# Words that look like one of the above and mean something else.
_NOT_THE_SAME = {
    "log_uniform": "its limits are exponents in Weights & Biases; write log_uniform_values with the limits themselves",
    "randint": "its upper limit is left out in Ray Tune; write int with the largest value as high",
    "lograndint": "its upper limit is left out in Ray Tune; write int, log and the largest value as high",
}
ABSENT: Final = object()  # what `value_of` returns for a hyperparameter without a value; None is a value


def read_space(path: Path) -> list[Hyperparameter]:
    """The hyperparameters of a space file, in its order. Raises DeclarationError naming file and key."""
    refuse_no_file(path)
    if path.stat().st_size > LARGEST:
        raise DeclarationError(f"{path} is larger than {LARGEST:,} bytes; a space file lists hyperparameters")
    try:
        data = json.loads(text_of(path), object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError) as error:
        raise DeclarationError(f"{path} is no JSON: {error}") from error
    if not isinstance(data, dict) or not data:
        raise DeclarationError(f'{path} must be {{"name": {{"kind": "float", "low": ..., "high": ...}}, ...}}')
    found = [_hyperparameter(path, name, declared) for name, declared in data.items()]
    for hyperparameter in found:
        _check_parent(path, hyperparameter, found)
    return found


def space_text(hyperparameters: tuple[Hyperparameter, ...]) -> str:
    """The space file of a study."""
    declared = {h.name: _declared(h) for h in hyperparameters}
    return json.dumps(declared, indent=2) + "\n"


def value_of(hyperparameter: Hyperparameter, cell: object, where: str) -> Value | object:
    """A cell as a value of a hyperparameter that exists there; ABSENT where it is empty, and not known.

    An empty cell of a choice that has None (or "") means that. Raises DeclarationError for what is not in the space.
    """
    domain = hyperparameter.domain
    if isinstance(domain, Choice):
        if cell == UNKNOWN and isinstance(cell, str) and UNKNOWN not in domain.choices:
            return ABSENT
        if cell is None or cell is pd.NA or cell == "" or cell != cell:
            return next(iter(empty_choice(domain.choices, where)), ABSENT)
        try:
            return choice_of(cell, domain.choices, where)
        except DeclarationError:
            if is_nothing(cell):
                return ABSENT
            raise
    return ABSENT if is_nothing(cell) else _number_of(domain, cell, where)


def _number_of(domain: Range, cell: object, where: str) -> Value:
    text = original_cell(str(cell)).strip()
    try:
        exact = int(text) if re.fullmatch(r"[+-]?[0-9]{1,300}", text) else None
        number = float(text)
    except ValueError:
        raise DeclarationError(f"{where}: {text!r:.80} is no number") from None
    if not domain.low * (1 - 1e-9) - 1e-12 <= number <= domain.high * (1 + 1e-9) + 1e-12:
        raise DeclarationError(
            f"{where}: {number:g} lies outside {domain.low:g}..{domain.high:g}; the space file must hold the range "
            "that was searched"
        )
    if domain.integer and number != round(number):
        raise DeclarationError(f"{where}: {number:g} is not whole, and the space file says int")
    return (int(number) if exact is None else exact) if domain.integer else number


def _hyperparameter(path: Path, name: str, declared: object) -> Hyperparameter:
    where = f"{path}: {name}"
    if not isinstance(declared, dict):
        raise DeclarationError(f'{where} must be an object like {{"kind": "float", "low": 0, "high": 1}}')
    declared = _in_our_words(declared)
    unknown = sorted(set(declared) - _KEYS)
    if unknown:
        raise DeclarationError(f"{where} has unknown keys {', '.join(unknown)}; known are {', '.join(sorted(_KEYS))}")
    try:
        domain = _domain(declared)
        condition = _condition(declared) if "parent" in declared else None
        if declared.get("family") not in (None, *get_args(Family)):
            raise DeclarationError(f"family is one of {', '.join(get_args(Family))}, got {quoted(declared['family'])}")
    except KeyError as error:
        raise DeclarationError(f"{where} needs {error}") from None
    except (DeclarationError, TypeError, OverflowError) as error:
        raise DeclarationError(f"{where}: {error}") from error
    family = declared.get("family") or default_family(Name.of(name).short)
    return Hyperparameter(name, domain, family, condition)


def _check_parent(path: Path, hyperparameter: Hyperparameter, all_there: list[Hyperparameter]) -> None:
    if hyperparameter.condition is None:
        return
    parent = hyperparameter.condition[0]
    domains = {one.name: one.domain for one in all_there}
    domain = domains.get(parent)
    possible = domain.choices if isinstance(domain, Choice) else (domain.low, domain.high) if domain else ()
    if not any(fulfils(hyperparameter.condition, value) for value in possible) and not _inside(
        hyperparameter.condition, domain
    ):
        wanted = hyperparameter.condition[1]
        told = f"{parent} = {wanted!r}" if isinstance(wanted, str) else condition_words(hyperparameter.condition)
        choices = ", ".join(name for name, one in domains.items() if isinstance(one, Choice)) or "none"
        numbers = ", ".join(name for name, one in domains.items() if isinstance(one, Range)) or "none"
        raise DeclarationError(
            f"{path}: {hyperparameter.name} exists where {told}, and no choice of that name has such a value, nor a "
            f"number of that name; choices: {choices}; numbers: {numbers}"
        )


def _in_our_words(declared: Mapping[str, Any]) -> dict[str, Any]:
    """Keys and kinds of other tools, translated."""
    found = {_KEYS_ELSEWHERE.get(key, key) if _KEYS_ELSEWHERE.get(key) not in declared else key: value
             for key, value in declared.items()}  # fmt: skip
    if "kind" not in found and "choices" in found:
        found["kind"] = "choice"  # as Weights & Biases lets it be left out
    kind = str(found.get("kind", "")).lower()
    if kind not in KINDS and kind in _KINDS_ELSEWHERE:
        found["kind"], log = _KINDS_ELSEWHERE[kind]
        if log is not None:
            found.setdefault("log", log)
        if kind.startswith("bool"):
            found.setdefault("choices", [False, True])
    return found


def _inside(condition: Condition, domain: Domain | None) -> bool:
    """Whether a range has values between its ends for which a condition holds."""
    if not isinstance(domain, Range):
        return False
    wanted = condition[1]
    bounds = (
        (wanted.low, wanted.high) if isinstance(wanted, Span) else wanted if isinstance(wanted, tuple) else (wanted,)
    )
    numbers = [float(one) for one in bounds if isinstance(one, int | float) and not isinstance(one, bool)]
    return any(domain.low <= one <= domain.high for one in numbers)


def _condition(declared: Mapping[str, Any]) -> Condition:
    """`parent_value`: a value, a list of several, or {"low": ..., "high": ...} for a span of numbers."""
    parent, value = declared["parent"], declared["parent_value"]
    if not isinstance(parent, str):
        raise DeclarationError(f"parent is the name of a hyperparameter, got {parent!r}")
    if isinstance(value, dict):
        if not set(value) <= {"low", "high"}:
            raise DeclarationError(f'a span of a parent is {{"low": ..., "high": ...}}, got {value!r}')
        return parent, Span(value.get("low"), value.get("high"))
    several = value if isinstance(value, list) else [value]
    if any(not isinstance(one, None | bool | int | float | str) for one in several):
        raise DeclarationError(f"parent_value is a value of the parent, or a list of some, got {value!r}")
    return parent, tuple(value) if isinstance(value, list) else value


def _domain(declared: Mapping[str, Any]) -> Range | Choice:
    kind = declared["kind"]
    if kind == "choice":
        choices = declared["choices"]
        if not isinstance(choices, list):
            raise DeclarationError(f'choices is a list like ["relu", "tanh"], got {choices!r:.80}')
        return Choice(tuple(json.dumps(one) if isinstance(one, list | dict) else one for one in choices))
    if kind not in KINDS:
        raise DeclarationError(_told_unknown(kind))
    log, limits = declared.get("log", False), declared.get("limits", "none")
    if not isinstance(log, bool):
        raise DeclarationError(f"log is true or false, got {log!r:.80}")
    return Range(declared["low"], declared["high"], log, kind == "int", limits=limits)


def _told_unknown(kind: object) -> str:
    told = f"kind is one of {', '.join(KINDS)}, got {kind!r:.80}"
    if str(kind) in _NOT_THE_SAME:
        return f"{told}: {_NOT_THE_SAME[str(kind)]}"
    near = difflib.get_close_matches(str(kind).lower(), [*KINDS, *_KINDS_ELSEWHERE], n=1)
    return f"{told}; did you mean {near[0]}?" if near else told


def _declared(hyperparameter: Hyperparameter) -> dict[str, object]:
    domain = hyperparameter.domain
    if isinstance(domain, Choice):
        found: dict[str, object] = {"kind": "choice", "choices": list(domain.choices)}
    else:
        low, high = (int(end) if domain.integer else end for end in (domain.low, domain.high))
        found = {"kind": "int" if domain.integer else "float", "low": low, "high": high,
                 "log": domain.log, "limits": domain.limits}  # fmt: skip
    if hyperparameter.family:
        found["family"] = hyperparameter.family
    if hyperparameter.condition:
        found["parent"], value = hyperparameter.condition
        found["parent_value"] = asdict(value) if isinstance(value, Span) else value
    return found


def _without_doubles(pairs: list[tuple[str, object]]) -> dict[str, object]:
    names = [name for name, _ in pairs]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise ValueError(f"{', '.join(doubled)} stands twice")
    return dict(pairs)
