"""Other SQLite storages that can be seen from here: the original of a copy, another that names the same files.

They are read past the Ledger and never written; what cannot be read is no storage of ours.
"""

import re
import sqlite3
from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tuner.storage.identity import StorageSite
from tuner.stores.places import StoredPath, root_beside

_MAGIC = b"SQLite format 3\0"
_QUERIES = (
    ("identity", "SELECT identity, copy_of, checkpoints FROM storage"),
    ("paths", "SELECT path FROM checkpoint_file"),
    ("training", "SELECT count(*) FROM trial WHERE state = 'running' AND lease_until > "
     "(julianday('now') - 2440587.5) * 86400.0"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A storage in an SQLite file. paths: its checkpoint files; training: trials that are trained at this moment."""

    file: Path
    identity: str | None
    copy_of: str | None
    checkpoints: str | None
    paths: frozenset[str]
    training: int


def neighbour_at(file: Path) -> Neighbour | None:
    """The storage in a file; None where there is none."""
    try:
        with file.open("rb") as opened:
            if opened.read(len(_MAGIC)) != _MAGIC:
                return None
        whole = not Path(
            f"{file.resolve()}-wal"
        ).exists()  # no process has it open: then reading leaves no file next to it
        url = f"{file.resolve().as_uri()}?{'immutable=1' if whole else 'mode=ro'}"
        with closing(sqlite3.connect(url, uri=True, timeout=5.0)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not {"schema_version", "checkpoint_file", "trial"} <= tables:
                return None
            rows = {name: connection.execute(query).fetchall() for name, query in _QUERIES if _in(query, tables)}
    except (OSError, sqlite3.Error, UnicodeDecodeError):
        return None
    identity, copy_of, checkpoints = (rows.get("identity") or [(None, None, None)])[0]
    paths = frozenset(str(path) for (path,) in rows["paths"])
    return Neighbour(file, identity, copy_of, checkpoints, paths, int(rows["training"][0][0]))


def _in(query: str, tables: Collection[str]) -> bool:
    return query.split(" FROM ")[1].split()[0] in tables


def original_of(identity: str, recorded: StorageSite, here: Path) -> Neighbour | None:
    """The file in which a storage was when it claimed its folder, if it is still to be seen and has that identity.

    Searched at its recorded place, and under other names there and next to `here`.
    """
    places = [Path(recorded.address), *_files_in(Path(recorded.address).parent), *_files_in(here.parent)]
    for file in dict.fromkeys(places):
        try:
            inode = file.stat().st_ino
        except (OSError, ValueError):
            continue
        if inode != here.stat().st_ino and (str(file) == recorded.address or str(inode) == recorded.key):
            found = neighbour_at(file)
            if found is not None and found.identity == identity:
                return found
    return None


def others_that_name(names: Collection[str], root: StoredPath, here: Path | None) -> list[Neighbour]:
    """Storages next to a checkpoint folder, or next to ours, whose records also name one of its files.

    A storage that chose another folder does not count, nor do a backup and what a migration keeps.
    """
    beside = [root.parent.resolve()] if isinstance(root, Path) else []
    folders = dict.fromkeys([*beside, *([here.parent.resolve()] if here else [])])
    ours = here.stat().st_ino if here else None
    found = []
    for file in (file for folder in folders for file in _files_in(folder)):
        kept = re.fullmatch(r"(.+)\.version-\d+", file.name)
        if (kept and file.with_name(kept[1]).exists()) or file.stat().st_ino == ours:
            continue
        other = neighbour_at(file)
        if other is not None and other.copy_of is None and other.paths & set(names) and _may_own(other, root):
            found.append(other)
    return found


def _may_own(other: Neighbour, root: StoredPath) -> bool:
    """Whether this may be the folder of another storage: it chose it, or none yet."""
    return other.checkpoints is None or root_beside(other.file.parent, other.checkpoints).resolve() == root.resolve()


def _files_in(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_file())
    except OSError:
        return []
