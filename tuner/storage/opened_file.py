"""Whether an SQLite file is still the one that was opened, and saving what was recorded where it is not.

A file that is deleted, replaced or moved can be written to all the same, by who has opened it; who opens it next finds
nothing of that. So every transaction looks whether the path still leads to the device and inode that were opened. The
log (-wal) and its index (-shm) are watched, too: a process that finds others at their names shares no records with us.
"""

import filecmp
import os
import re
import sqlite3
import stat
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, suppress
from itertools import count
from pathlib import Path
from threading import Lock
from urllib.parse import quote

from tuner.errors import RecordsGone
from tuner.security import make_private_folder

BUSY_SECONDS = 5.0  # to wait for readers, when all that was recorded is brought into one file
_OPEN_FILES = Path("/proc/self/fd")

_Place = tuple[int, int]  # device and inode


def connect_to(path: str | Path, seconds: float) -> sqlite3.Connection:
    """A connection to a file that exists: sqlite3 by itself would create it. It may be used by several threads."""
    address = f"file:{quote(str(path))}?mode=rw"
    return sqlite3.connect(address, uri=True, timeout=seconds, check_same_thread=False)


def saved_copies(path: Path) -> list[Path]:
    """Copies that were saved next to a file when it was deleted or replaced while open, the newest last."""
    name = re.compile(rf"{re.escape(path.name)}\.saved(-\d+)?")
    found = [one for one in path.parent.glob("*.saved*") if name.fullmatch(one.name)]
    return sorted(found, key=lambda copy: copy.stat().st_mtime)


class OpenedFile:
    """An SQLite file that is open in this process; `path` is where it is meant to be, perhaps by a symbolic link.

    A separate connection keeps the file open, and with it the log, which the last closing connection would delete.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._real = Path(os.path.realpath(path))
        self._lock = Lock()
        self._words = ""
        self._log_is_watched = False
        self._is_filled = False  # a new file is empty until its first transaction
        self._place = _place_of(path)
        self._places: dict[str, _Place | None] = {str(path): self._place}
        self._keeper = connect_to(path, BUSY_SECONDS)
        self.look()

    def look(self) -> None:
        """Raise RecordsGone, still without words, where the file is not at its path any more."""
        if not self.is_there():
            raise RecordsGone(self._words)

    def look_at_path(self) -> None:
        """The same without the log."""
        if _place_of(self.path) != self._place or self._is_emptied():
            raise RecordsGone(self._words)

    def is_there(self) -> bool:
        """Whether the path leads to the opened file, and its log is in place. Once it was not, it never is again."""
        places_hold = all(_place_of(name) == place for name, place in self._places.items())
        return not self._words and places_hold and not self._is_emptied()

    def watch_log(self) -> None:
        """Remember the log and its index. Called within a transaction: then they exist."""
        if self._log_is_watched:
            return
        self._keeper.execute("SELECT 1 FROM sqlite_master").fetchall()  # holds the log from now on
        names = [f"{self._real}{end}" for end in ("-wal", "-shm")]
        found: dict[str, _Place | None] = {name: place for name in names if (place := _place_of(name)) is not None}
        self._places, self._log_is_watched = self._places | found, True
        self._is_filled = os.stat(self.path).st_size > 0

    def connected(self, seconds: float) -> sqlite3.Connection:
        """Another connection to this very file. Raises RecordsGone, still without words."""
        self.look()
        connection = connect_to(self.path, seconds)
        try:
            self.look()
        except RecordsGone:
            connection.close()
            raise
        return connection

    def gone(self, alone: Callable[[], AbstractContextManager[None]]) -> RecordsGone:
        """What happened, once all that was recorded is in a file of a name; `alone` keeps other writers out.

        Everybody looks within the lock of a transaction, so nobody records anything after the first one that is told.
        """
        with self._lock:
            if not self._words:
                self._words = self._saved(alone)
            return RecordsGone(self._words)

    def close(self) -> None:
        self._keeper.close()

    def _is_emptied(self) -> bool:
        """Whether the file was cut to 0 bytes: the next opening would delete its log, and all records with it."""
        with suppress(OSError):
            return self._is_filled and os.stat(self.path).st_size == 0
        return False

    def _refilled(self, alone: Callable[[], AbstractContextManager[None]]) -> str:
        """Restore an emptied file from its log, which is complete unless it was copied back before."""
        told = f"{self.path} was cut to 0 bytes while it was open"
        with alone():
            if not self._is_whole():
                return (
                    f"{told}, and its log does not hold all that was recorded: put a backup in its place (tuner "
                    "adopt-storage -h), then run the same command again"
                )
            _, frames, copied = self._keeper.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if frames == copied:  # the log may stay for other readers
                return f"{told}. All that was recorded is in it again; run the same command again to continue"
            return f"{told}. {self._copied()}; then run the same command again to continue"

    def _is_whole(self) -> bool:
        with suppress(sqlite3.Error):
            return bool(self._keeper.execute("PRAGMA integrity_check").fetchone() == ("ok",))
        return False

    def _saved(self, alone: Callable[[], AbstractContextManager[None]]) -> str:
        """Save the records. Returns the sentence that names their place."""
        if self._is_emptied():
            return self._refilled(alone)
        where = self._open_at()
        there = _kind_of(self.path)
        is_at_its_path = where is not None and self._place == _place_of(self.path)
        others = [name for name, place in self._places.items() if _place_of(name) not in (None, place)]
        whole = self._log_copied_back() if where is not None and not (is_at_its_path and others) else False
        if whole and is_at_its_path:
            return (
                f"the log of {self.path} ({self._real.name}-wal or -shm) was deleted while it was open. All that was "
                "recorded is in the file itself now; run the same command again to continue"
            )
        if whole:
            put_back = f" and {there} is in its place" if there else ""
            return (
                f"{self.path} was moved to {where} while it was open{put_back}. All that was recorded is in {where}: "
                "move it back, or name it with --storage; then run the same command again to continue"
            )
        with alone():
            told = self._copied()
        self._log_copied_back()  # so that it is no log of the file that is there now
        if there is None:
            return f"{self.path} was deleted while it was open. {told}; then run the same command again to continue"
        return (
            f"{there} was put in the place of {self.path}, or of its log, while it was open. {told}. What is there now "
            "was not written to by this command: decide which of them is right, then run the same command again"
        )

    def _copied(self) -> str:
        """Write a copy, next to the file if possible. Returns how to put the copy back."""
        reasons = []
        for folder in (self._real.parent, Path(tempfile.gettempdir())):
            try:
                copy = self._copy_in(folder)
            except (OSError, sqlite3.Error) as error:
                reasons.append(f"{folder}: {error}")
                continue
            return f"Nothing that was recorded is lost: it is in {copy}. To put it back: mv {copy} {self._real}"
        return f"What was recorded could not be saved ({'; '.join(reasons)})"

    def _copy_in(self, folder: Path) -> Path:
        make_private_folder(folder)
        descriptor, name = tempfile.mkstemp(prefix=f".{self._real.name}.", dir=folder)
        try:
            os.close(descriptor)
            with closing(sqlite3.connect(name)) as copy:
                self._keeper.backup(copy)
            return _named(Path(name), folder / f"{self._real.name}.saved")
        finally:
            Path(name).unlink(missing_ok=True)

    def _log_copied_back(self) -> bool:
        """Copy the log into the opened file, wherever that is, and empty the log; False while others read it."""
        with suppress(sqlite3.Error):
            busy, _, _ = self._keeper.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            return not busy
        return False

    def _open_at(self) -> Path | None:
        """Where the opened file is by now; None where it is deleted, or the system does not tell."""
        place = self._place
        with suppress(OSError):
            for link in _OPEN_FILES.iterdir():
                if _place_of(link) == place and _place_of(target := os.readlink(link)) == place:
                    return Path(target)
        return self.path if _place_of(self.path) == place else None


def _place_of(path: str | Path) -> _Place | None:
    """Which file is there; None where none can be found."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _kind_of(path: Path) -> str | None:
    """What is there, in words; None for nothing."""
    try:
        return "a folder" if stat.S_ISDIR(os.stat(path).st_mode) else "another file"
    except OSError:
        return None


def _named(copy: Path, wanted: Path) -> Path:
    """Give a copy its name, or the next free one. An equal copy was made by another worker."""
    for number in count(1):
        name = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        try:
            os.link(copy, name)
        except FileExistsError:
            if not filecmp.cmp(copy, name, shallow=False):
                continue
        return name
    raise AssertionError("counting does not end")
