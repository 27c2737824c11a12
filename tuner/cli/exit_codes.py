"""The exit codes of every command: what each means, which error ends in which, and whether to start again."""

import errno
import re
from collections.abc import Iterator
from enum import IntEnum

from tuner.errors import InputError, Interrupted, Paused, TrialsFailed, TunerError


class Exit(IntEnum):
    """An exit code with its meaning and with what to do about it.

    requeue: whether the same command, started again without a change, goes on and may end better. A process that was
    killed has no code of these; it may be started again, too.
    """

    meaning: str
    then: str
    requeue: bool

    def __new__(cls, code: int, meaning: str, then: str, requeue: bool = False) -> "Exit":
        """A number with its meaning."""
        made = int.__new__(cls, code)
        made._value_ = code
        made.meaning, made.then, made.requeue = meaning, then, requeue
        return made

    FINE = 0, "done, and nothing needs action", "go on with the next command"
    FAULT = 1, "an unexpected fault", "report it; --debug shows where it happened"
    INPUT = 2, "wrong input; nothing was trained", "correct what the message names"
    FINDING = 3, "a finding or a question needs a decision", "read it: the next command stands below it"
    FAILED = (
        4,
        "some trials failed; running again without a change will not help",
        "remove the causes that are listed, then the same command with --retry-failed",
    )
    PAUSED = (
        75,
        "the machine gave way (disk, database, device), or a worker missed a launch or a change of code",
        "start the same command again: it goes on",
        True,
    )
    INTERRUPTED = 130, "stopped by Ctrl-C or a signal; all is saved", "start the same command again: it goes on", True


# The first that fits: an error, the word before its message, and the exit code.
_ENDINGS: tuple[tuple[type[TunerError], str, Exit], ...] = (
    (InputError, "error", Exit.INPUT),
    (TrialsFailed, "failed", Exit.FAILED),
    (Paused, "paused", Exit.PAUSED),
    (Interrupted, "interrupted", Exit.INTERRUPTED),
    (TunerError, "error", Exit.FAULT),
)
NO_TORCH = (
    "error: this command needs torch, which is not installed here; install it: pip install 'torch>=2.10,<2.14'. "
    "Commands that only read (check, report, import, plot, status ...) work without it"
)
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


def exit_codes_in_short() -> list[str]:
    """All of them for a help page."""
    return [f"{code.value:>3}  {code.meaning}" + " (start again)" * code.requeue for code in Exit]


def ending_of(error: Exception) -> tuple[str, Exit]:
    """What to print for an error that ended a command, and its exit code."""
    for kind, word, code in _ENDINGS:
        if isinstance(error, kind):
            return f"{word}: {error}", code
    if isinstance(error, ModuleNotFoundError) and error.name in ("torch", "safetensors"):
        return NO_TORCH, Exit.INPUT
    limit = machine_limit(error)
    if limit is not None:
        return f"paused: {limit}", Exit.PAUSED
    return f"unexpected {type(error).__name__}: {error} (--debug shows where)", Exit.FAULT


def machine_limit(error: BaseException) -> str | None:
    """Which limit of the machine was reached, and what helps; None where neither the error nor its causes are one."""
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
    if not isinstance(error, RuntimeError | ImportError) and type(error).__module__ != "sqlite3":
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
