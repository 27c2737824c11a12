"""What operating systems do differently: file locks, processors, processes, durable names.

tuner is written for Linux, where every part of it is tested. On macOS and Windows studies are read, imported, checked
and trained in one process; the fallbacks are here, and what has none is refused with one line.

| what                             | Linux                      | macOS             | Windows                          |
|----------------------------------|----------------------------|-------------------|----------------------------------|
| lock of a storage being created  | flock                      | flock             | msvcrt.locking                   |
| processors this process may use  | sched_getaffinity          | all of them       | all of them                      |
| whether a worker has died        | its pid, start and boot    | its lease decides | its lease decides                |
| a new file name survives a crash | fsync of its folder        | fsync             | NTFS keeps a journal of names    |
| names that are symbolic links    | not followed (O_NOFOLLOW)  | not followed      | followed                         |
| several worker processes         | forked, or started         | started           | refused: there is no select()    |
| the program of a Command         | ends, with all it started  | ends, its group   | refused                          |
| the interface of an address      | known                      | torch looks for it | torch looks for it              |
"""

import ctypes
import errno
import importlib
import os
import signal
import socket
import stat
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tuner.errors import InputError


def _module(name: str) -> Any:
    """A module of some operating systems; None elsewhere."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


fcntl, msvcrt = _module("fcntl"), _module("msvcrt")
FORKS_WHOLE = sys.platform == "linux" and hasattr(os, "fork")  # a fork of a process that imported torch is whole
NO_LINKS = getattr(os, "O_NOFOLLOW", 0)  # flags of os.open
NO_WAIT = getattr(os, "O_NONBLOCK", 0)
BINARY = getattr(os, "O_BINARY", 0)
LOCK_PAUSE = 0.05
_PR_SET_PDEATHSIG = 1
_SIOCGIFADDR = 0x8915  # netdevice(7): the address of an interface


def num_cores() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def refuse_workers() -> None:
    """Raise InputError where worker processes cannot be watched."""
    if sys.platform == "win32":
        raise InputError("--workers needs Linux or macOS; on Windows a study is trained in one process: leave it out")


def refuse_programs() -> None:
    """Raise InputError where a program that a study starts could outlive its end."""
    if sys.platform == "win32":
        raise InputError("a Command needs Linux or macOS: on Windows nothing ends what its program has started")


def lock(descriptor: int) -> None:
    """Wait for the only lock of an open file. The lock ends with the descriptor, or with its process."""
    if fcntl is not None:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return
    while msvcrt is not None:
        try:  # one byte, also of an empty file; msvcrt's own waiting gives up after 10 s
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            return
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EDEADLK):
                raise
        time.sleep(LOCK_PAUSE)


def lock_shared(descriptor: int) -> None:
    """Lock an open file or folder together with others: nobody has it alone meanwhile. Nothing on Windows."""
    if fcntl is not None:
        fcntl.flock(descriptor, fcntl.LOCK_SH)


def locked_now(descriptor: int) -> bool:
    """Take the only lock of an open file, without waiting; False where somebody has it, or that cannot be known."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: its new files are there after any crash."""
    if sys.platform == "win32":  # a folder cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def own_temporary_folder(name: str) -> Path:
    """The folder NAME-USER below that for temporary files, which nobody but this user can enter; made where missing.

    Raises PermissionError where it is a link, somebody else's, or open to others.
    """
    user = os.getuid() if hasattr(os, "getuid") else "user"
    folder = Path(tempfile.gettempdir(), f"{name}-{user}")
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    own = not hasattr(os, "getuid") or (found.st_uid == user and not found.st_mode & 0o077)
    if not stat.S_ISDIR(found.st_mode) or not own:
        raise PermissionError(
            errno.EPERM, "it is not a folder of this user alone: remove it, or set TMPDIR to a folder of yours", folder
        )
    return folder


def interface_of(address: str) -> str:
    """The network interface with this IPv4 address, as "eth0"; "" where none is found. 127.0.0.2 is of the loopback."""
    if sys.platform != "linux":
        return ""
    wanted = "127.0.0.1" if address.startswith("127.") else address
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # it has none
                found = fcntl.ioctl(asked.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()))
                if socket.inet_ntoa(found[20:24]) == wanted:
                    return name
    return ""


def has_ended(pid: int) -> bool:
    """Whether no process has this id. False where that cannot be known."""
    if sys.platform == "win32":  # os.kill would send Ctrl-C
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):  # somebody else's process; no process id
        return False
    return False


def after_fork_in_child(call: Callable[[], object]) -> None:
    """Call something first in every process that user code forks from this one."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=call)


def end_with_the_parent(parent: int = 0) -> None:
    """Have the kernel end this process when its parent ends; at once where `parent`, its pid, has ended already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if parent and os.getppid() != parent:
            os._exit(1)
