"""A file that is written once, and digested on the way: in a folder of checkpoints, or on its way to a bucket."""

import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tuner import system
from tuner.failpoints import failpoint

Write = Callable[["DigestingFile"], object]


class DigestingFile(io.FileIO):
    """A new file that is written from its beginning to its end, and digested on the way.

    A full disk is kept as `fault` and not raised: torch's writer in C++, which calls us, would hide it in another
    error, and a full disk must be known as one.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "wb", opener=_without_links)
        self.num_bytes = 0
        self.fault: OSError | None = None
        self._sha256 = hashlib.sha256()

    @property
    def digest(self) -> str:
        """The sha256 of what was written so far."""
        return self._sha256.hexdigest()

    def write(self, content: Any, /) -> int:
        """Write all of it: the operating system may take less at a time."""
        whole = left = memoryview(content).cast("B")
        try:
            while left and self.fault is None:
                left = left[super().write(left) :]
        except OSError as error:
            self.fault = error
        self._sha256.update(whole)
        self.num_bytes += len(whole)
        return len(whole)


def _without_links(path: str, flags: int) -> int:
    """Open a file for its owner only, and not what a link of its name points to."""
    return os.open(path, flags | system.NO_LINKS, 0o600)


def fill(file: DigestingFile, write: Write) -> None:
    """Have a file written. Raises OSError, for a full disk too."""
    write(file)
    if file.fault is not None:
        raise file.fault
    failpoint("ck-written")
