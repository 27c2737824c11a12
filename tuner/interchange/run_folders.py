"""A folder with a file or a subfolder for each run, as Lightning, Keras, Ray Tune and TensorBoard leave behind."""

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from tuner.errors import DeclarationError
from tuner.interchange.histories import Columns, history_of
from tuner.interchange.table_files import SUFFIXES, read_table, text_of

HISTORY_FILES = ("progress.csv", "result.json", "metrics.csv")  # of Ray Tune, Ray Tune, Lightning
PARAMETER_FILES = ("params.json", "hparams.yaml", "hparams.json", "config.json")
_KEY = re.compile(r"(?P<indent> *)(?P<name>[^\s#'\"-][^:]*|'[^']*'|\"[^\"]*\"):(?: +(?P<value>.*))?")


@dataclass(frozen=True, slots=True)
class Runs:
    """What a folder holds: the curves in long form, and a row a run of its parameters where files hold them."""

    curves: pd.DataFrame
    parameters: pd.DataFrame | None


def read_runs(root: Path, notes: list[str], columns: Columns, leave: Collection[Path]) -> Runs:
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
        notes.append(f"{silent} runs have nothing written yet: they are waiting, running, or failed at once")
    if not parts:
        raise DeclarationError(f"{root}: nothing is written in the histories of its {len(files)} runs")
    return Runs(pd.concat(parts, ignore_index=True), _parameters(files))


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
    """A table, empty where nothing is written yet."""
    if not path.stat().st_size:
        return pd.DataFrame()
    return _json_lines(path) if path.suffix == ".json" else read_table(path)


def _json_lines(path: Path) -> pd.DataFrame:
    """Ray's result.json: an object a line. A last line that is not whole is being written just now."""
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
    """A row a run with its parameters as cells; None where no run has a file of them."""
    found = {name: _parameters_beside(path) for name, path in files}
    if not any(values is not None for values in found.values()):
        return None
    for name, values in found.items():
        if values is None:
            known = ", ".join(PARAMETER_FILES)
            raise DeclarationError(f"run {name} has no file of its parameters ({known}), and others do; give --points")
    rows = [{"trial": name, **(values or {})} for name, values in found.items()]
    return pd.DataFrame(rows, dtype=object).astype(object)


def _parameters_beside(history: Path) -> dict[str, str] | None:
    if history.name not in HISTORY_FILES:
        return None
    for name in PARAMETER_FILES:
        path = history.with_name(name)
        if path.is_file():
            return _yaml_cells(path) if path.suffix == ".yaml" else _json_cells(path)
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
    """The plain part of YAML that Lightning writes: names, nested by indentation, and values. Lists become texts."""
    found: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in text_of(path).splitlines():
        item = line.strip()
        if item.startswith("- ") and above:
            name = "/".join(part for _, part in above)
            found[name] = f"{found[name][:-1]}, {item[2:]}]" if found.get(name) else f"[{item[2:]}]"
            continue
        read = _KEY.fullmatch(line.rstrip())
        if read is None:
            continue
        indent = len(read["indent"])
        above = [*(one for one in above if one[0] < indent), (indent, _unquoted(read["name"]))]
        value = (read["value"] or "").strip()
        if value:
            found["/".join(part for _, part in above)] = _unquoted(value)
    return found


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1].replace("''", "'") if text[0] == "'" else text[1:-1]
    return "null" if text == "~" else text
