"""What lies in a checkpoint folder: files that the records name, files that they explain, and files of others.

What no record names is moved to the trash below the folder, never deleted, unless a worker of ours left it there.
"""

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
from tuner.stores.places import ObjectPath, StoredPath, lies_below, name_below, sha256_of

TRASH = ".trash"
_NAME = re.compile(
    r"\.?(?:(?:latest|best|trunk|shard)-\d{9,}-(\d+)(?:-\d+of\d+)?\.(?:pt|safetensors)|base-[0-9a-f]{32}\.safetensors)"
    r"(?:\.\d+\.tmp)?"
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


def checkpoint_names(root: StoredPath) -> list[str]:
    """All files below a folder that are checkpoints by their names; the trash is left out, links are not followed."""
    if isinstance(root, ObjectPath):
        found = [path for path in root.below() if _is_checkpoint(path.parent.name, path.name)]
        return sorted(name for path in found if not (name := name_below(path, root)).startswith(f"{TRASH}/"))
    names: list[str] = []
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if name != TRASH]
        name = os.path.basename(folder)
        place = os.path.relpath(folder, root)
        names += [f"{place}/{file}" for file in files if _is_checkpoint(name, file)]
    return sorted(names)


def _is_checkpoint(folder: str, name: str) -> bool:
    return bool((folder == FROZEN_FOLDER or _TRIAL.fullmatch(folder)) and _NAME.fullmatch(name))


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


def is_base(path: StoredPath) -> bool:
    """Whether a file lies where those lie that several trials share: see `training.frozen`."""
    return path.parent.name == FROZEN_FOLDER


def differences(root: StoredPath, known: Iterable[CheckpointFile]) -> dict[str, str]:
    """Recorded files that are missing or not what was recorded, each with the reason. Reads all that are there."""
    wrong: dict[str, str] = {}
    for file in known:
        reason = difference(root, file)
        if reason:
            wrong[file.path] = reason
    return wrong


def difference(root: StoredPath, file: CheckpointFile) -> str:
    """Why a file is not what was recorded; "" where it is."""
    path = root / file.path
    if not lies_below(path, root):
        return "lies outside the folder"
    if not path.is_file():
        return "is missing"
    if path.stat().st_size != file.num_bytes:
        return "has another size"
    return "" if sha256_of(path) == file.digest else "has another sha256"


def new_trash(root: StoredPath) -> StoredPath:
    """The name of a folder in the trash that is not there yet."""
    name = time.strftime("%Y-%m-%d-%H%M%S", time.gmtime())
    taken = [root / TRASH / f"{name}{f'-{number}' if number else ''}" for number in range(1000)]
    return next(path for path in taken if not path.exists())


def move_to_trash(root: StoredPath, paths: Sequence[StoredPath], trash: StoredPath) -> list[StoredPath]:
    """Move files below `root` to the same places below `trash`; returns those that could be moved.

    What cannot be moved stays: it costs room, and no trial.
    """
    moved = []
    for path in paths:
        target = trash / name_below(path, root)
        with suppress(OSError):
            if isinstance(path, Path) and isinstance(target, Path):
                make_private_folder(target.parent)
                path.rename(target)
            elif isinstance(path, ObjectPath) and isinstance(target, ObjectPath):
                path.rename(target)
            moved.append(path)
    return moved


def total_bytes(paths: Iterable[StoredPath]) -> int:
    """The size of files; of what is gone in the meantime: 0."""
    total = 0
    for path in paths:
        with suppress(OSError):
            total += (path.lstat() if isinstance(path, Path) else path.stat()).st_size
    return total
