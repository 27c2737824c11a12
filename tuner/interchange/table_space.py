"""A space file: per hyperparameter kind, low, high, log, choices; and points read against it (RELIABILITY 54, 59)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from tuner.design.hyperparameters import Choice, Family, Hyperparameter, Range, Value, default_family
from tuner.errors import DeclarationError
from tuner.security import original_cell
from tuner.shown import quoted

LARGEST = 1_000_000  # bytes of a space file
KINDS = ("float", "int", "choice")
_KEYS = {"kind", "low", "high", "log", "choices", "limits", "family", "parent", "parent_value"}


def read_space(path: Path) -> list[Hyperparameter]:
    """The hyperparameters of a space file, in its order. Raises DeclarationError naming file and key."""
    if not path.is_file():
        raise DeclarationError(f"there is no space file {path}")
    if path.stat().st_size > LARGEST:
        raise DeclarationError(f"{path} is larger than {LARGEST:,} bytes; a space file lists hyperparameters")
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_without_doubles)
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


def value_of(hyperparameter: Hyperparameter, text: object, where: str) -> Value:
    """A cell as a value of a hyperparameter; None where it does not exist (an empty cell).

    Raises DeclarationError for what is not in the space.
    """
    if text is None or text == "" or text != text:
        return None
    domain = hyperparameter.domain
    if isinstance(domain, Choice):
        known = {str(choice): choice for choice in domain.choices}
        if str(text) not in known:
            text = original_cell(str(text))
        if str(text) not in known:
            raise DeclarationError(f"{where}: {text!r} is not among the choices {', '.join(known)} of the space file")
        return known[str(text)]
    try:
        number = float(str(text))
    except ValueError:
        raise DeclarationError(f"{where}: {text!r} is no number") from None
    if not domain.low * (1 - 1e-9) - 1e-12 <= number <= domain.high * (1 + 1e-9) + 1e-12:
        raise DeclarationError(
            f"{where}: {number:g} lies outside {domain.low:g}..{domain.high:g}; the space file must hold the range "
            "that was searched"
        )
    if domain.integer and number != round(number):
        raise DeclarationError(f"{where}: {number:g} is not whole, and the space file says int")
    return int(number) if domain.integer else number


def _hyperparameter(path: Path, name: str, declared: object) -> Hyperparameter:
    where = f"{path}: {name}"
    if not isinstance(declared, dict):
        raise DeclarationError(f'{where} must be an object like {{"kind": "float", "low": 0, "high": 1}}')
    unknown = sorted(set(declared) - _KEYS)
    if unknown:
        raise DeclarationError(f"{where} has unknown keys {', '.join(unknown)}; known are {', '.join(sorted(_KEYS))}")
    try:
        domain = _domain(declared)
        condition = (declared["parent"], declared["parent_value"]) if "parent" in declared else None
        if condition is not None and not isinstance(condition[0], str):
            raise DeclarationError(f"parent is the name of a choice, got {quoted(condition[0])}")
        if declared.get("family") not in (None, *get_args(Family)):
            raise DeclarationError(f"family is one of {', '.join(get_args(Family))}, got {quoted(declared['family'])}")
    except KeyError as error:
        raise DeclarationError(f"{where} needs {error}") from None
    except (DeclarationError, TypeError) as error:
        raise DeclarationError(f"{where}: {error}") from error
    family = declared.get("family") or default_family(name.rpartition(".")[2])
    return Hyperparameter(name, domain, family, condition)


def _check_parent(path: Path, hyperparameter: Hyperparameter, all_there: list[Hyperparameter]) -> None:
    if hyperparameter.condition is None:
        return
    parent, value = hyperparameter.condition
    domains = {one.name: one.domain for one in all_there if one.condition is None}
    domain = domains.get(parent)
    if not isinstance(domain, Choice) or value not in domain.choices or not isinstance(value, str):
        known = ", ".join(name for name, one in domains.items() if isinstance(one, Choice)) or "none"
        raise DeclarationError(
            f"{path}: {hyperparameter.name} exists where {parent} = {value!r}, and no choice of that name has such a "
            f"text among its choices; choices: {known}"
        )


def _domain(declared: Mapping[str, Any]) -> Range | Choice:
    kind = declared["kind"]
    if kind == "choice":
        choices = declared["choices"]
        if not isinstance(choices, list):
            raise DeclarationError(f'choices is a list like ["relu", "tanh"], got {choices!r}')
        if len({str(choice) for choice in choices}) < len(choices):
            raise DeclarationError(f"two of the choices {choices} look the same in a table; name them apart")
        return Choice(tuple(choices))
    if kind not in KINDS:
        raise DeclarationError(f"kind is one of {', '.join(KINDS)}, got {kind!r}")
    log, limits = declared.get("log", False), declared.get("limits", "none")
    if not isinstance(log, bool):
        raise DeclarationError(f"log is true or false, got {log!r}")
    return Range(declared["low"], declared["high"], log, kind == "int", limits=limits)


def _declared(hyperparameter: Hyperparameter) -> dict[str, object]:
    domain = hyperparameter.domain
    if isinstance(domain, Choice):
        found: dict[str, object] = {"kind": "choice", "choices": list(domain.choices)}
    else:
        found = {"kind": "int" if domain.integer else "float", "low": domain.low, "high": domain.high,
                 "log": domain.log, "limits": domain.limits}  # fmt: skip
    if hyperparameter.family:
        found["family"] = hyperparameter.family
    if hyperparameter.condition:
        found["parent"], found["parent_value"] = hyperparameter.condition
    return found


def _without_doubles(pairs: list[tuple[str, object]]) -> dict[str, object]:
    names = [name for name, _ in pairs]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise ValueError(f"{', '.join(doubled)} stands twice")
    return dict(pairs)
