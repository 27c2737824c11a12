"""Where a Python file comes from: the standard library, tuner, an installed distribution, or the user's own code.

A distribution is installed where a `.dist-info` beside it lists the file in its RECORD. So the files of an editable
install and of a source tree on the path are own code. A package that was installed from a folder (`pip install .`)
is own code too, because its version does not show a change.
"""

import json
import re
import site
import sysconfig
from dataclasses import dataclass
from email.parser import HeaderParser
from functools import cache
from pathlib import Path
from typing import Literal

Kind = Literal["standard", "tuner", "installed", "own"]
_TUNER = Path(__file__).resolve().parents[1]
_STANDARD = tuple({Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")})
_SITE_NAMES = ("site-packages", "dist-packages")


@dataclass(frozen=True, slots=True)
class Distribution:
    """An installed distribution: its name in lower case with dashes, and its version."""

    name: str
    version: str


def kind_of(path: Path) -> Kind:
    """Where a file comes from."""
    return _kind(path.resolve())


@cache
def _kind(path: Path) -> Kind:
    if path.is_relative_to(_TUNER):
        return "tuner"
    if distribution_of(path) is not None:
        return "installed"
    if _site_folder(path) is None and any(path.is_relative_to(folder) for folder in _STANDARD):
        return "standard"
    return "own"


@cache
def own_file(name: str) -> Path | None:
    """The path of a file of own code, from the file name in compiled code; None for any other file."""
    if name.startswith("<"):
        return None
    try:
        path = Path(name).resolve()
        return path if path.is_file() and _kind(path) == "own" else None
    except (OSError, ValueError):
        return None


def distribution_of(path: Path) -> Distribution | None:
    """The installed distribution that a file belongs to; None for the user's own files."""
    return _distribution(path.resolve())


@cache
def _distribution(path: Path) -> Distribution | None:
    for folder in path.parents:
        if _infos(folder):
            relative = path.relative_to(folder)
            top = relative.parts[0]
            regular = (folder / top / "__init__.py").is_file()  # else a namespace, which several distributions share
            return _owner(folder, f"{top}/" if regular else relative.as_posix())
        if folder.name in _SITE_NAMES:
            break
    return None


@cache
def _owner(folder: Path, listed: str) -> Distribution | None:
    """The distribution in a folder whose RECORD lists a file, or (with a slash at the end) files in a folder."""
    wanted = _plain(listed.partition("/")[0].removesuffix(".py"))
    likeliest = sorted(_infos(folder), key=lambda info: not _plain(info.name).startswith(wanted))
    for info in likeliest:
        if _lists(info, listed):
            return None if _is_from_a_folder(info) else _described(info)
    return None


def _lists(info: Path, listed: str) -> bool:
    """Whether a distribution has a file; old ones without a RECORD are matched by their top-level names."""
    record = info / "RECORD"
    if record.is_file():
        end = "" if listed.endswith("/") else ","
        return f"\n{listed}{end}" in "\n" + record.read_text(encoding="utf-8", errors="replace")
    names = info / "top_level.txt"
    top = listed.partition("/")[0].removesuffix(".py")
    return info.parent.name in _SITE_NAMES and names.is_file() and top in names.read_text(encoding="utf-8").split()


def _is_from_a_folder(info: Path) -> bool:
    origin = info / "direct_url.json"
    try:
        return "dir_info" in json.loads(origin.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def _described(info: Path) -> Distribution:
    for name in ("METADATA", "PKG-INFO"):
        if (info / name).is_file():
            told = HeaderParser().parsestr((info / name).read_text(encoding="utf-8", errors="replace"))
            return Distribution(_plain(told["Name"] or info.stem), told["Version"] or "unknown")
    return Distribution(_plain(info.stem), "unknown")


@cache
def _infos(folder: Path) -> tuple[Path, ...]:
    try:
        found = [path for path in folder.iterdir() if path.suffix in (".dist-info", ".egg-info") and path.is_dir()]
    except OSError:
        return ()
    if folder.name not in _SITE_NAMES:  # an .egg-info beside a source tree is left over from a build
        found = [path for path in found if path.suffix == ".dist-info" and (path / "RECORD").is_file()]
    return tuple(sorted(found))


@cache
def _site_folder(path: Path) -> Path | None:
    known = {Path(folder) for folder in (*site.getsitepackages(), site.getusersitepackages())}
    return next((folder for folder in path.parents if folder.name in _SITE_NAMES or folder in known), None)


def _plain(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()
