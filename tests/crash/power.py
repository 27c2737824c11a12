"""A disk whose power may go out at any moment: what is left of checkpoint files, and what the program makes of it.

kill -9 leaves the page cache alone, so it cannot show a forgotten fsync. This notes every operation on files and
folders. A content is safe once its file was synced, a name once its folder was; what was not synced yet may survive
or not: every beginning of it is a state of the disk that a power cut leaves, with the contents that were never synced
or without them. Commits of SQLite are safe at once, which `synchronous` checks.
"""

import hashlib
import os
import sqlite3
from pathlib import Path
from unittest.mock import patch

from tuner.failpoints import failpoint
from tuner.storage import engine
from tuner.stores import digesting

LOST = b""  # a file that has its name and not its content


class Disk:
    """Everything below a place's checkpoint folder, from the moment at which this is made in the process.

    `states` are those that a power cut could leave: by number of the commit and digests of the files, the files.
    """

    def __init__(self, place):
        self.root = place.checkpoints
        self.database = place.folder / "tuner.sqlite"
        self.commits = []  # the database after each, and what it names: digests by file
        self.safe_names, self.names = {}, {}  # by path: the number of a file, or None for a folder
        self.safe_contents = {}  # by number of the file
        self.waiting = []  # changes of names that were not synced: (path, number of the file; -1: the name is gone)
        self.files = 0
        self.states = {}
        self._committed()
        self._watch()
        self._note()

    def _watch(self):
        """Stand between the program and what it does to files."""
        sync, unlink, replace, mkdir = os.fsync, Path.unlink, Path.replace, Path.mkdir
        opened, passed = digesting.DigestingFile.__init__, failpoint

        def after(work, note):
            def watched(*arguments, **options):
                result = work(*arguments, **options)
                if note(*arguments) is not False:
                    self._note()
                return result

            return watched

        os.fsync = after(sync, self._synced)
        Path.unlink = after(unlink, lambda path, *_: self._changed(path, -1))
        Path.replace = after(replace, self._moved)
        Path.mkdir = after(mkdir, lambda path, *_: self._changed(path, None))
        digesting.DigestingFile.__init__ = after(opened, lambda file, path: self._created(path))
        patch.object(engine, "failpoint", after(passed, self._passed)).start()

    def _created(self, path):
        self.files += 1
        self._changed(path, self.files)

    def _moved(self, old, new):
        self._changed(new, self.names[str(old)])
        self._changed(old, -1)
        # A rename is one change: the new name and the end of the old one come together.
        self.waiting[-2:] = [self.waiting[-2] + self.waiting[-1]]

    def _changed(self, path, number):
        if not path.is_relative_to(self.root):
            return False
        change = (str(path), number)
        _apply(self.names, change)
        self.waiting.append(change)
        return True

    def _synced(self, descriptor):
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if not os.path.isdir(path):
            if path in self.names:
                self.safe_contents[self.names[path]] = Path(path).read_bytes()
            return
        ours = [change for change in self.waiting if os.path.dirname(change[0]) == path]
        for change in ours:
            _apply(self.safe_names, change)
            self.waiting.remove(change)

    def _passed(self, name):
        if name != "tx-committed":
            return False
        self._committed()
        return True

    def _committed(self):
        connection = sqlite3.connect(self.database)
        named = connection.execute("select path, digest from checkpoint_file").fetchall()
        self.commits.append((connection.serialize(), dict(named)))
        connection.close()

    def _note(self):
        """Note the states in which a power cut at this moment could leave the disk."""
        unsafe = {
            number: Path(path).read_bytes()
            for path, number in self.names.items()
            if number is not None and number not in self.safe_contents
        }
        for count in range(len(self.waiting) + 1):
            names = dict(self.safe_names)
            for change in self.waiting[:count]:
                _apply(names, change)
            for contents in (self.safe_contents, self.safe_contents | unsafe):
                files = {
                    path: contents.get(number, LOST)
                    for path, number in names.items()
                    if number is not None and self._is_reachable(path, names)
                }
                key = (len(self.commits) - 1, *sorted((path, _digest(content)) for path, content in files.items()))
                self.states.setdefault(key, files)

    def _is_reachable(self, path, names):
        folders = [str(folder) for folder in Path(path).parents if folder.is_relative_to(self.root)]
        return all(folder in names for folder in folders)

    def wrong(self):
        """What the record names and a power cut would take, in any of the states."""
        return [
            f"after commit {commit} {file} is recorded, and would not survive a power cut"
            for (commit, *_), files in self.states.items()
            for file, digest in self.commits[commit][1].items()
            if _digest(files.get(str(self.root / file), LOST)) != digest
        ]

    def leave(self, first, stride, place_of):
        """Write every `stride`-th state as a study of its own: `place_of(number)` says where. Returns how many."""
        chosen = list(self.states.items())[first::stride]
        for number, ((commit, *_), files) in enumerate(chosen):
            place = place_of(number)
            (place.folder / "tuner.sqlite").write_bytes(self.commits[commit][0])
            for path, content in files.items():
                file = place.checkpoints / Path(path).relative_to(self.root)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
        return len(chosen)


def _apply(names, change):
    for path, number in zip(change[::2], change[1::2], strict=True):
        if number == -1:
            names.pop(path, None)
        else:
            names[path] = number


def _digest(content):
    return hashlib.sha256(content).hexdigest()


def synchronous(place):
    """Whether commits themselves are synced: the pragma of a connection as the program opens it (2 is FULL)."""
    database = engine.Database(engine.parsed_url(place.url))
    with database.reading() as connection:
        found = connection.exec_driver_sql("PRAGMA synchronous").scalar()
    database.close()
    return found
