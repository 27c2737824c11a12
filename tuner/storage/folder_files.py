"""What lies in a checkpoint folder: files that the records name, files that they explain, and files of others.

What no record names is moved to the trash below the folder, never deleted, unless a worker of ours left it there.
"""

import hashlib
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tuner.records import FROZEN_FOLDER, GROUP_FOLDER
from tuner.security import make_private_folder
from tuner.storage.reading import CheckpointFile

OWNER_FILE = ".tuner-storage.json"
TRASH = ".trash"
_NAME = re.compile(
    r"\.?(?:(?:latest|best|trunk)-\d{9,}-(\d+)\.(?:pt|safetensors)|base-[0-9a-f]{32}\.safetensors)(?:\.\d+\.tmp)?"
)
_TRIAL = re.compile(r"(?:group-of-)?trial-\d{5,}")


@dataclass(frozen=True, slots=True)
class Contents:
    """Names of checkpoint files relative to their folder, by whose they are.

    named: a record points to them. left: written under a fence that was given out here; a worker was killed before its
    records were, or before it cleared up. foreign: no claim of this storage can have written them.
    """

    named: tuple[str, ...]
    left: tuple[str, ...]
    foreign: tuple[str, ...]


def checkpoint_names(root: Path) -> list[str]:
    """All files below a folder that are checkpoints by their names; the trash is left out, links are not followed."""
    found = []
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if name != TRASH]
        name = os.path.basename(folder)
        if name == FROZEN_FOLDER or _TRIAL.fullmatch(name):
            place = os.path.relpath(folder, root)
            found += [f"{place}/{name}" for name in files if _NAME.fullmatch(name)]
    return sorted(found)


def sorted_out(names: Sequence[str], known: Iterable[CheckpointFile], fences: Mapping[str, int]) -> Contents:
    """Whose the checkpoint files of a folder are. `names` must have been listed before the records were read."""
    paths = {file.path for file in known}
    named = [name for name in names if name in paths]
    left = [name for name in names if name not in paths and was_written_here(name, fences)]
    others = {*named, *left}
    return Contents(tuple(named), tuple(left), tuple(name for name in names if name not in others))


def was_written_here(name: str, fences: Mapping[str, int]) -> bool:
    """Whether a checkpoint file was written under a fence that this storage gave out.

    A fence is in the records before a file is written under it, so a higher one is that of another storage, or of a
    later state of this one. A base file is called after its values: it is ours where we trained any trial of the study.
    """
    folder, _, file = name.rpartition("/")
    found = _NAME.fullmatch(file)
    study, _, trial = folder.rpartition("/")
    if found is not None and found[1] is None:
        return trial == FROZEN_FOLDER and any(fence and key.startswith(f"{study}/") for key, fence in fences.items())
    known = fences.get(f"{study}/{trial.replace(GROUP_FOLDER, 'trial-')}")
    return found is not None and known is not None and int(found[1]) <= known


def is_base(path: Path) -> bool:
    """Whether a file lies where those lie that several trials share: see `training.frozen`."""
    return path.parent.name == FROZEN_FOLDER


def differences(root: Path, known: Iterable[CheckpointFile]) -> dict[str, str]:
    """Recorded files that are missing or not what was recorded, each with the reason. Reads all that are there."""
    wrong: dict[str, str] = {}
    for file in known:
        reason = difference(root, file)
        if reason:
            wrong[file.path] = reason
    return wrong


def difference(root: Path, file: CheckpointFile) -> str:
    """Why a file is not what was recorded; "" where it is."""
    path = root / file.path
    if not path.resolve().is_relative_to(root.resolve()):
        return "lies outside the folder"
    if not path.is_file():
        return "is missing"
    if path.stat().st_size != file.num_bytes:
        return "has another size"
    with path.open("rb") as opened:
        return "" if hashlib.file_digest(opened, "sha256").hexdigest() == file.digest else "has another sha256"


def new_trash(root: Path) -> Path:
    """The name of a folder in the trash that is not there yet."""
    name = time.strftime("%Y-%m-%d-%H%M%S", time.gmtime())
    taken = [root / TRASH / f"{name}{f'-{number}' if number else ''}" for number in range(1000)]
    return next(path for path in taken if not path.exists())


def move_to_trash(root: Path, paths: Sequence[Path], trash: Path) -> list[Path]:
    """Move files below `root` to the same places below `trash`; returns those that could be moved.

    What cannot be moved stays: it costs room, and no trial.
    """
    moved = []
    for path in paths:
        target = trash / path.relative_to(root)
        with suppress(OSError):
            make_private_folder(target.parent)
            path.rename(target)
            moved.append(path)
    return moved


def total_bytes(paths: Iterable[Path]) -> int:
    """The size of files; of what is gone in the meantime: 0."""
    total = 0
    for path in paths:
        with suppress(OSError):
            total += path.lstat().st_size
    return total
