"""A folder with a file or a subfolder for each run, as Lightning, Keras, Ray Tune and TensorBoard leave behind."""

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from tuner.errors import DeclarationError
from tuner.interchange.histories import Columns, history_of
from tuner.interchange.table_files import SUFFIXES, read_table, text_of
from tuner.shown import counted

HISTORY_FILES = ("progress.csv", "result.json", "metrics.csv")  # of Ray Tune, Ray Tune, Lightning
PARAMETER_FILES = ("params.json", "hparams.yaml", "hparams.json", "config.json")


@dataclass(frozen=True, slots=True)
class RunTables:
    """The contents of a folder: curves in long form, and a row of parameters for each run that has them."""

    curves: pd.DataFrame
    parameters: pd.DataFrame | None


def read_runs(root: Path, notes: list[str], columns: Columns, leave: Collection[Path]) -> RunTables:
    """The runs of a folder, in the order of their names (2 before 10). `leave`: files that are no histories.

    Raises DeclarationError naming the file of what cannot be read.
    """
    left = {path.resolve() for path in leave}
    files = [(name, path) for name, path in _histories(root) if path.resolve() not in left]
    if not files:
        raise DeclarationError(
            f"{root} has no history of a run: no {', '.join(HISTORY_FILES)} in a subfolder, and no .csv of its own for "
            "each run"
        )
    parts, silent = [], 0
    for name, path in files:
        table = _history(path)
        if table.empty:
            silent += 1
            continue
        parts.append(history_of(table, path, notes, columns, name))
    if silent:
        notes.append(f"{counted(silent, 'run')} wrote nothing yet: waiting, running, or failed at once")
    if not parts:
        raise DeclarationError(f"{root}: nothing is written in the histories of its {counted(len(files), 'run')}")
    return RunTables(pd.concat(parts, ignore_index=True), _parameters(files))


def _histories(root: Path) -> Iterator[tuple[str, Path]]:
    """The name of every run and its history: the folder that holds a file of HISTORY_FILES, else the file itself."""
    for place, folders, files in os.walk(root):
        folders.sort(key=_in_order)
        folder = Path(place)
        written = next((name for name in HISTORY_FILES if name in files), None)
        if written is not None:
            yield (folder.relative_to(root).as_posix() if folder != root else root.resolve().name), folder / written
            continue
        for name in sorted(files, key=_in_order):
            path = folder / name
            if path.suffix in SUFFIXES and not name.startswith("."):
                yield path.relative_to(root).with_suffix("").as_posix(), path


def _in_order(name: str) -> list[tuple[int, str]]:
    """version_2 comes before version_10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _history(path: Path) -> pd.DataFrame:
    """A history; empty where nothing has been written yet."""
    if not path.stat().st_size:
        return pd.DataFrame()
    return _json_lines(path) if path.suffix == ".json" else read_table(path)


def _json_lines(path: Path) -> pd.DataFrame:
    """Ray's result.json, with one object on each line. An incomplete last line is still being written."""
    rows = []
    lines = text_of(path).splitlines()
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                break
            raise DeclarationError(f"{path}: line {number} is no JSON: {error!s:.200}") from error
        if not isinstance(row, dict):
            raise DeclarationError(f"{path}: line {number} is no JSON object: {line:.80}")
        row.pop("config", None)
        rows.append({name: _number(value) for name, value in _flat(row)})
    return pd.DataFrame(rows, dtype=object)


def _number(value: object) -> object:
    """Numbers as text cells, NaN and infinities among them; true and false are none."""
    return value if value is None or isinstance(value, bool) else str(value)


def _parameters(files: list[tuple[str, Path]]) -> pd.DataFrame | None:
    """One row for each run with its parameters as cells; None where no run has a file of parameters."""
    found = {name: _parameters_beside(path) for name, path in files}
    if not any(values is not None for values in found.values()):
        return None
    for name, values in found.items():
        if values is None:
            known = ", ".join(PARAMETER_FILES)
            raise DeclarationError(f"run {name} has no parameters ({known}), and other runs have; give --points")
    rows = [{"trial": name, **(values or {})} for name, values in found.items()]
    return pd.DataFrame(rows, dtype=object).astype(object)


def _parameters_beside(history: Path) -> dict[str, str] | None:
    """The parameters that were written for a run; None without a file of them, or where it is empty."""
    if history.name not in HISTORY_FILES:
        return None
    for name in PARAMETER_FILES:
        path = history.with_name(name)
        if path.is_file():
            return (_yaml_cells(path) if path.suffix == ".yaml" else _json_cells(path)) or None
    return None


def _json_cells(path: Path) -> dict[str, str]:
    try:
        data = json.loads(text_of(path))
    except (ValueError, RecursionError) as error:
        raise DeclarationError(f"{path} is no JSON: {error!s:.200}") from error
    if not isinstance(data, dict):
        raise DeclarationError(f"{path} is no JSON object, and parameters are one")
    return {name: json.dumps(value) for name, value in _flat(data)}


def _flat(data: Mapping[str, object], above: str = "") -> Iterator[tuple[str, object]]:
    """{"model": {"act": 1}} is model/act, as Ray names it."""
    for name, value in data.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{above}{name}/")
        else:
            yield f"{above}{name}", value


def _yaml_cells(path: Path) -> dict[str, str]:
    """Every value as the text that stands there; of tags, as `!!python/tuple`, nothing is made."""
    try:
        data = yaml.load(text_of(path), yaml.BaseLoader)  # noqa: S506 - it makes texts, lists and dicts, nothing else
    except (yaml.YAMLError, RecursionError) as error:
        raise DeclarationError(f"{path} is no YAML: {' '.join(str(error).split()):.200}") from error
    if not isinstance(data, dict | None):
        raise DeclarationError(f"{path} lists no parameters by name, like `learning_rate: 0.1`")
    return {name: _yaml_cell(value) for name, value in _flat(data or {}) if value != ""}


def _yaml_cell(value: object) -> str:
    """Lists become texts: [64, 64]."""
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml_cell, value))}]"
    return "null" if value == "~" else str(value)
