"""Limits of the machine that no part of the program expects where it met them: who asks again gets on."""

import errno
import re
import sqlite3
from collections.abc import Iterator

AGAIN = "run again to continue"
_LIMITS = {
    errno.EMFILE: "this process may open no more files: raise the limit (ulimit -n 4096)",
    errno.ENFILE: "the machine has no more open files to give: close other programs",
    errno.ENOMEM: "memory ran out: free some, or train with fewer workers",
    errno.EAGAIN: "no more processes or threads may be started: end some, or raise the limit (ulimit -u)",
    errno.ENOSPC: "the disk is full: make room",
    errno.EDQUOT: "your share of the disk is full: make room",
    errno.EFBIG: "a file may not grow so large: raise the limit (ulimit -f)",
    errno.EROFS: "the disk is mounted read-only: mount it for writing",
    errno.EIO: "the disk does not answer as it should: look at the system's log",
    errno.ESTALE: "a network disk is gone: mount it again",
}
_NO_THREAD = "can't start new thread"
_IN_WORDS = (
    (re.compile("Too many open files", re.IGNORECASE), errno.EMFILE),
    (re.compile("Cannot allocate memory|not enough memory|out of memory|bad_alloc", re.IGNORECASE), errno.ENOMEM),
    (re.compile(_NO_THREAD), errno.EAGAIN),
    (re.compile("No space left on device|disk is full", re.IGNORECASE), errno.ENOSPC),
    (re.compile("File too large", re.IGNORECASE), errno.EFBIG),
)


def machine_limit(error: BaseException) -> str | None:
    """What of the machine is used up, and what helps; None where the error, or what it came from, is no limit."""
    for one in _causes(error):
        if isinstance(one, MemoryError):
            return f"{_LIMITS[errno.ENOMEM]}, then {AGAIN}"
        number = one.errno if isinstance(one, OSError) else _number_in_words(one)
        if number in _LIMITS and not isinstance(one, ConnectionError):
            where = f" ({one.filename})" if isinstance(one, OSError) and one.filename else ""
            return f"{_LIMITS[number]}{where}, then {AGAIN}"
    return None


def _number_in_words(error: BaseException) -> int | None:
    """Of libraries that raise an error of their own with the system's words in it."""
    if not isinstance(error, RuntimeError | ImportError | sqlite3.Error):
        return None
    return next((number for words, number in _IN_WORDS if words.search(str(error)[:2000])), None)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised from or in the middle of, and so on."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__
