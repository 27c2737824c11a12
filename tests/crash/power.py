"""A disk that forgets whatever was not synced: what the power going out would leave of checkpoint files.

kill -9 leaves the page cache alone, so it cannot show a forgotten fsync. This notes what is synced (contents by
fsync of the file, names by fsync of the folder), and asks at every commit and every deletion what would be left.
"""

import hashlib
import os
import sqlite3
from pathlib import Path

from tuner.storage import engine


class Disk:
    """What is safe on the disk, by path: the sha256 of contents that were synced under a name that was synced."""

    def __init__(self, place):
        self.place = place
        self.contents = {}  # by inode
        self.names = {}  # by path: the inode that stands there after a power cut
        self.wrong = []
        self.commits = 0
        self._sync, self._unlink, self._failpoint = os.fsync, Path.unlink, engine.failpoint
        os.fsync = self.sync
        Path.unlink = lambda path, *arguments, **options: self.delete(path, *arguments, **options)
        engine.failpoint = self.pass_by

    def sync(self, descriptor):
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.is_dir():
            there = {entry.path: entry.inode() for entry in os.scandir(path)}
            self.names = {name: inode for name, inode in self.names.items() if Path(name).parent != path} | there
        else:
            self.contents[path.stat().st_ino] = hashlib.sha256(path.read_bytes()).hexdigest()
        self._sync(descriptor)

    def delete(self, path, *arguments, **options):
        if str(path.relative_to(self.place.checkpoints)) in self._recorded():
            self.wrong.append(f"{path.name} is deleted while the record names it")
        self._unlink(path, *arguments, **options)

    def pass_by(self, name):
        self._failpoint(name)
        if name == "tx-committed":
            self.commits += 1
            for file, digest in self._recorded().items():
                inode = self.names.get(str(self.place.checkpoints / file))
                if self.contents.get(inode) != digest:
                    self.wrong.append(f"{file} is recorded, and would not survive a power cut")

    def _recorded(self):
        connection = sqlite3.connect(self.place.folder / "tuner.sqlite")
        rows = dict(connection.execute("select path, digest from checkpoint_file").fetchall())
        connection.close()
        return rows


def synchronous(place):
    """Whether commits themselves are synced: the pragma of a connection as the program opens it (2 is FULL)."""
    database = engine.Database(engine.parsed_url(place.url))
    with database.reading() as connection:
        found = connection.exec_driver_sql("PRAGMA synchronous").scalar()
    database.close()
    return found
