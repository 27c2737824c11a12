"""Declarations as JSON text, read back through pydantic; and how two declarations differ, key by key."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cache, lru_cache
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from tuner.budget.schedules import Schedule
from tuner.design.hyperparameters import Value
from tuner.design.points import Point
from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.errors import StorageError, TunerError
from tuner.records import GroupRecord
from tuner.records.conclusions import Conclusion
from tuner.shown import quoted

T = TypeVar("T")
C = TypeVar("C", bound=Conclusion)
ABSENT = "not declared"
LONGEST_SHOWN = 200  # characters of a value in a difference
Difference = tuple[str, str, str]  # dotted key, old value, new value


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def study_text(study: Study) -> str:
    return json.dumps(asdict(study))


def study_from(text: str) -> Study:
    """The study that was stored. Raises StorageError."""
    return _read(Study, text)


def schedule_text(schedule: Schedule) -> str:
    return json.dumps(asdict(schedule))


@lru_cache(maxsize=1024)  # the trials of a study mostly share one
def schedule_from(text: str) -> Schedule:
    """The schedule that was stored. Raises StorageError."""
    return _read(Schedule, text)


def point_text(point: Point) -> str:
    return json.dumps(dict(point.values_by_name))


def point_from(text: str) -> Point:
    """The point that was stored, in declared order. Raises StorageError."""
    values = _read(dict[str, Value], text)
    strange = [name for name, value in values.items() if isinstance(value, float) and not math.isfinite(value)]
    if strange:
        raise StorageError(f"{strange[0]}: a point holds finite numbers, got {values[strange[0]]}")
    return Point(tuple(values.items()))


def trial_text(trial: Trial) -> str:
    """A trial as another process reads it."""
    return json.dumps(asdict(trial) | {"point": point_text(trial.point), "schedule": schedule_text(trial.schedule)})


def trial_from(text: str) -> Trial:
    """The trial that `trial_text` wrote. Raises StorageError."""
    fields: dict[str, Any] = data_from(text)
    point, schedule, pins = (fields.pop(name) for name in ("point", "schedule", "pins"))
    return Trial(point=point_from(point), schedule=schedule_from(schedule), pins=tuple(pins), **fields)


def steps_text(steps: Sequence[int]) -> str:
    return json.dumps(steps)


@lru_cache(maxsize=1024)
def steps_from(text: str) -> tuple[int, ...]:
    """The steps that were stored. Raises StorageError."""
    return _read(tuple[int, ...], text)


def groups_text(groups: Sequence[GroupRecord]) -> str:
    return json.dumps([asdict(group) for group in groups])


@lru_cache(maxsize=64)  # trials that differ in nothing of it share one
def groups_from(text: str) -> tuple[GroupRecord, ...]:
    """The groups that were stored. Raises StorageError."""
    return _read(tuple[GroupRecord, ...], text)


def data_text(data: Mapping[str, object]) -> str:
    """JSON of a user's dictionary. Raises StorageError for what JSON cannot hold."""
    try:
        return json.dumps(dict(data))
    except (TypeError, ValueError) as error:
        raise StorageError(f"the Ledger keeps JSON (numbers, strings, lists, dictionaries): {error}") from error


def data_from(text: str) -> dict[str, object]:
    """The dictionary that was stored. Raises StorageError."""
    try:
        data = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise StorageError(f"no JSON: {error}, got {quoted(text)}") from error
    if not isinstance(data, dict):
        raise StorageError(f"a JSON object was stored, got {type(data).__name__}")
    return data


def conclusion_text(concluded: Conclusion) -> str:
    """The JSON of a conclusion. Raises StorageError for values that JSON cannot hold."""
    return data_text(concluded.as_json())


def conclusion_from(kind: type[C], text: str) -> C:
    """The conclusion that was stored. Raises StorageError."""
    return kind.from_json(data_from(text), checked)


def checked(kind: type[T], data: object) -> T:
    """A value of a type, made of what JSON gave. Raises StorageError, which names the first key that is wrong."""
    try:
        value: T = _adapter(cast(Any, kind)).validate_python(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise StorageError(f"{key or 'value'}: {first['msg']}, got {quoted(first['input'])}") from error
    except (TypeError, ValueError, TunerError, RecursionError) as error:
        raise StorageError(f"{error}, got {quoted(data)}") from error
    return value


def _read(kind: type[T], text: str) -> T:
    try:
        data = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise StorageError(f"{error}, got {quoted(text)}") from error
    return checked(kind, data)


def differences(old: Study, new: Study) -> list[Difference]:
    """The keys in which two declarations differ; a list of named things is compared name by name."""
    before, after = (json.loads(study_text(study_from(study_text(study)))) for study in (old, new))
    return list(_differences("", before, after))


def _differences(path: str, old: object, new: object) -> Iterator[Difference]:
    named_old, named_new = _by_name(old), _by_name(new)
    if named_old is None or named_new is None:
        if repr(old) != repr(new):
            yield (path, *_in_short(json.dumps(old), json.dumps(new)))
        return
    for key in dict.fromkeys((*named_old, *named_new)):
        inner = path if key == "domain" else f"{path}.{key}".lstrip(".")
        if key not in named_new:
            yield inner, json.dumps(named_old[key]), ABSENT
        elif key not in named_old:
            yield inner, ABSENT, json.dumps(named_new[key])
        else:
            yield from _differences(inner, named_old[key], named_new[key])
    if list(named_old) != list(named_new) and set(named_old) == set(named_new):
        yield f"{path} (order)", ", ".join(named_old), ", ".join(named_new)


def _in_short(old: str, new: str) -> tuple[str, str]:
    """Two long texts from shortly before where they part, as the curve of a function has a thousand numbers."""
    if max(len(old), len(new)) <= LONGEST_SHOWN:
        return old, new
    place = next((place for place, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    start = max(0, place - LONGEST_SHOWN // 2)
    return _around(old, start), _around(new, start)


def _around(text: str, start: int) -> str:
    end = start + LONGEST_SHOWN
    return f"{'...' * (start > 0)}{text[start:end]}{'...' * (end < len(text))}"


def _by_name(value: object) -> dict[str, object] | None:
    """A dictionary, or a list of named dictionaries or of pairs as one; None for everything else."""
    if isinstance(value, dict):
        return value
    if not isinstance(value, list):
        return None
    named: dict[str, object] = {}
    for item in value:
        if isinstance(item, dict) and "name" in item:
            named[item["name"]] = {key: inner for key, inner in item.items() if key != "name"}
        elif isinstance(item, list) and len(item) == 2 and isinstance(item[0], str):
            named[item[0]] = item[1]
        else:
            return None
    return named
