"""A process as it would be on another operating system, as far as Python shows the difference.

`python -m support.platforms win32 COMMAND [ARGS] -- COMMAND ...` runs commands of tuner one after the other, each with
a line "=== exit code N" after it. What tuner uses is imported before: its parts ask for the platform, too.
"""

import enum
import importlib
import importlib.abc
import io
import os
import signal
import sys
from contextlib import suppress
from types import ModuleType

POSIX_MODULES = ("fcntl", "resource", "pwd", "grp", "termios")
USED = (
    "numpy", "scipy.stats", "pandas", "torch", "torch._dynamo", "sqlalchemy.dialects.sqlite", "sqlite3", "pydantic",
    "typer.testing", "rich.progress", "jinja2", "matplotlib.pyplot", "yaml", "optuna",
    "sklearn.ensemble", "subprocess", "tempfile",
)  # fmt: skip
OF_LINUX = ("sched_getaffinity", "pipe2", "posix_fadvise")
OF_POSIX = (
    "fork", "register_at_fork", "getuid", "geteuid", "getppid", "killpg", "setsid", "getpgid", "O_NOFOLLOW",
    "O_NONBLOCK", "O_DIRECTORY", "O_CLOEXEC", "pread", "pwrite", "fchmod", "getloadavg", "uname",
)  # fmt: skip
POSIX_SIGNALS = ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGKILL", "SIGSTOP", "SIGTSTP", "SIGCHLD")
SIGNAL_FUNCTIONS = ("pthread_sigmask", "pthread_kill", "set_wakeup_fd", "sigwait")


class NotThere(importlib.abc.MetaPathFinder):
    """Imports of some modules fail."""

    def find_spec(self, name, path=None, target=None):
        if name in POSIX_MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}")


def become(platform):
    """Take from this process what `platform` ("darwin" or "win32") does not have."""
    for name in USED:
        with suppress(ImportError):  # an extra that is not installed is not used
            importlib.import_module(name)
    for name in OF_LINUX:
        delattr(os, name)
    hide_proc()
    if platform == "win32":
        without_posix()
    sys.platform = platform


def hide_proc():
    """Files of Linux's kernel are not there."""

    def without(function):
        def guarded(path, *arguments, **options):
            if isinstance(path, str | os.PathLike) and os.fspath(path).startswith(("/proc", "/sys")):
                raise FileNotFoundError(2, "No such file or directory", os.fspath(path))
            return function(path, *arguments, **options)

        return guarded

    for name in ("stat", "open", "listdir", "scandir", "readlink"):
        setattr(os, name, without(getattr(os, name)))
    io.open = without(io.open)


def without_posix():
    sys.meta_path.insert(0, NotThere())
    for name in POSIX_MODULES:
        sys.modules.pop(name, None)
    msvcrt = ModuleType("msvcrt")
    vars(msvcrt).update(LK_NBLCK=2, locking=locking)
    sys.modules["msvcrt"] = msvcrt
    for name in OF_POSIX:
        delattr(os, name)
    for name in (*POSIX_SIGNALS, *SIGNAL_FUNCTIONS):
        delattr(signal, name)
    vars(signal)["Signals"] = enum.IntEnum("Signals", {"SIGINT": 2, "SIGTERM": 15, "SIGBREAK": 21})
    kill = os.kill

    def kill_of_windows(pid, number):
        assert number, "Windows sends Ctrl-C for number 0"
        kill(pid, number)

    os.kill = kill_of_windows
    opened = os.open

    def open_of_windows(path, *arguments, **options):
        if os.path.isdir(path):
            raise PermissionError(13, "Permission denied", path)
        return opened(path, *arguments, **options)

    os.open = open_of_windows


LOCKED: list[int] = []  # the descriptors that a lock was asked for, in order


def locking(descriptor, mode, num_bytes):
    """As msvcrt does it: refused at first, as by somebody who holds the lock for a moment."""
    LOCKED.append(descriptor)
    if len(LOCKED) == 1:
        raise PermissionError(13, "Permission denied")


def main():
    platform, *words = sys.argv[1:]
    become(platform)
    from tuner.cli import app

    while words:
        end = words.index("--") if "--" in words else len(words)
        sys.argv, words = ["tuner", *words[:end]], words[end + 1 :]
        sys.stdout.write(f"\n=== exit code {app.run()}\n")
        sys.stdout.flush()
    if platform == "win32":
        sys.stdout.write(f"{len(LOCKED)} locks\n")


if __name__ == "__main__":
    main()
