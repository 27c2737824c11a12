"""Runs one program and lets nothing of it live on: `python -I -S command_guard.py DESCRIPTOR PROGRAM WORDS...`.

It is a program of its own, because nothing else can end what a killed process has started. It holds one end of a
socket whose other end is tuner's. When that closes, by whatever end of tuner, the program and all that it has started
are killed; on Linux also what has left its process group or became a daemon. By the socket it is told b"T" (pass
SIGTERM on to the program's process group) and b"K" (kill all), and answers with one line how the program ended:
"exited CODE", "signal NUMBER", or "missing ERRNO" where it cannot be started.

It imports nothing of tuner and starts in about 20 ms. Linux and macOS.
"""

import ctypes
import os
import select
import signal
import sys
import time
from contextlib import suppress

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
POLL_SECONDS = 1.0  # between two looks whether tuner is still the parent
LONGEST_END_SECONDS = 5.0  # for what does not die by SIGKILL, as in a broken file system
PASSED = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")  # reach the program by themselves


def main() -> None:
    """Run the program that the arguments name."""
    life, program = int(sys.argv[1]), sys.argv[2:]
    os.set_inheritable(life, False)
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is not None:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    woken = _woken_by_children()
    parent = os.getppid()
    child, problem = _started(program, libc)
    if problem:
        _answer(life, f"missing {problem}")
        return
    _answer(life, _watch(life, woken, parent, child))


def _woken_by_children() -> int:
    """A descriptor that can be read when a child has ended. Signals are left to the program, which gets its own."""
    woken, wake = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for name in ("SIGCHLD", *PASSED):
        number = signal.Signals[name]
        if name == "SIGCHLD" or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: None)  # not SIG_IGN, which the program would inherit
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    return woken


def _started(program: list[str], libc: ctypes.CDLL | None) -> tuple[int, int]:
    """The process id of the program, and the error number where it cannot be started."""
    read, write = os.pipe()  # closed by a successful exec
    guard = os.getpid()
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            if libc is not None:
                libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
                if os.getppid() != guard:
                    os._exit(1)
            os.execv(program[0], program)  # noqa: S606 - the command of the study file
        except OSError as error:
            os.write(write, str(error.errno).encode())
        finally:
            os._exit(127)
    os.close(write)
    problem = os.read(read, 16)
    os.close(read)
    return child, int(problem or 0)


def _watch(life: int, woken: int, parent: int, child: int) -> str:
    """Wait for the end of the program, and kill what is left of it."""
    while True:
        ready, _, _ = select.select([life, woken], [], [], POLL_SECONDS)
        if woken in ready:
            with suppress(BlockingIOError):
                os.read(woken, 4096)
        if life in ready:
            told = _told(life)
            if told == b"T":
                _signal_group(child, signal.SIGTERM)
            else:
                return _all_ended(child, None)
        elif os.getppid() != parent:
            return _all_ended(child, None)
        status = _reaped(child)
        if status is not None:
            return _all_ended(child, status)


def _told(life: int) -> bytes:
    try:
        return os.read(life, 1)
    except OSError:
        return b""


def _signal_group(child: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child, number)


def _reaped(child: int) -> int | None:
    """The status of the program, once it has ended; others that ended are reaped, too."""
    found = None
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == child:
                found = status
    return found


def _all_ended(child: int, status: int | None) -> str:
    """Kill the program's group and every process that descends from this one; how the program ended, in words."""
    end = time.monotonic() + LONGEST_END_SECONDS
    while time.monotonic() < end:
        _signal_group(child, signal.SIGKILL)
        left = _descendants()
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        reaped = _reaped(child)
        status = reaped if status is None else status
        if status is not None and not left:
            break
        time.sleep(0.005)
    if status is None:
        return f"signal {int(signal.SIGKILL)}"
    code = os.waitstatus_to_exitcode(status)
    return f"exited {code}" if code >= 0 else f"signal {-code}"


def _descendants() -> list[int]:
    """Processes below this one; none where /proc does not say."""
    parents = {}
    with suppress(OSError):
        for name in os.listdir("/proc"):
            if name.isdigit():
                with suppress(OSError, ValueError, IndexError), open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
                    if fields[0] != b"Z":
                        parents[int(name)] = int(fields[1])
    below, found = {os.getpid()}, list[int]()
    while new := [pid for pid, above in parents.items() if above in below and pid not in below]:
        below |= set(new)
        found += new
    return found


def _answer(life: int, words: str) -> None:
    with suppress(OSError):
        os.write(life, f"{words}\n".encode())


if __name__ == "__main__":
    main()
