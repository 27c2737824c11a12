"""The names of workers, and whether a worker is dead: known of this machine's processes, of all others never guessed.

A process id means something only inside one PID namespace of one boot of one machine, and only until it is given
again. So a worker's name holds host, process id, a random part, the machine's boot id, the PID and time namespaces, and
the start time of the process. A worker of the same boot and namespaces is asked for by its process id and start time;
one that has ended, even if nobody has waited for it yet, or whose id another process has now, is dead. Of every other
worker (another machine, another container, a container that was restarted, names of tuner 0.1, systems without Linux's
/proc) nothing is known here, and its lease decides.
"""

import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

from tuner import system

_PROC = Path("/proc")
_AFTER_NAME = -3  # fields of `stat` are counted from 1, and the first two (id, name) are cut off before they are split
_STATE, _START_TIME = 3 + _AFTER_NAME, 22 + _AFTER_NAME
_ENDED = ("Z", "X", "x")


@dataclass(frozen=True, slots=True)
class _Scope:
    """Where process ids mean what they mean here: host name, boot id, inodes of the PID and the time namespace.

    The time namespace is among them because it shifts the start times that are read in it.
    """

    host: str
    boot: str
    namespaces: str


def worker_id() -> str:
    """A name for this process that is never given twice; made by the process itself, and not by one that forks it.

    host:pid:random:boot:namespaces:start, and only host:pid:random where the system does not tell the others.
    """
    short = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    scope, fields = _scope(), _stat("self")
    if scope is None or fields is None:
        return short
    return f"{short}:{scope.boot}:{scope.namespaces}:{fields[_START_TIME]}"


def dead_workers(workers: set[str]) -> set[str]:
    """Those of which it is known here that they have ended."""
    here = _scope() if workers else None
    return set() if here is None else {worker for worker in workers if _is_dead(worker, here)}


def names_here() -> tuple[str, str] | None:
    """How the names begin of those workers that can be asked for here, and what they contain; None: of none."""
    here = _scope()
    return None if here is None else (f"{here.host}:", f":{here.boot}:{here.namespaces}:")


def _is_dead(worker: str, here: _Scope) -> bool:
    host, _, rest = worker.partition(":")
    parts = rest.split(":")
    if len(parts) != 5 or not parts[0].isdecimal():
        return False
    pid, _, boot, namespaces, started = parts
    if _Scope(host, boot, namespaces) != here:
        return False
    if system.has_ended(int(pid)):
        return True
    fields = _stat(pid) if _sees_own_processes() else None
    # A process that is there and does not show itself (/proc mounted with hidepid) may be the worker.
    return fields is not None and (fields[_STATE] in _ENDED or fields[_START_TIME] != started)


def _scope() -> _Scope | None:
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        inodes = [str((_PROC / "self/ns" / kind).stat().st_ino) for kind in _namespaces()]
    except (OSError, ValueError):
        return None
    return _Scope(socket.gethostname(), boot, ".".join(inodes)) if boot and ":" not in boot else None


def _namespaces() -> tuple[str, ...]:
    return ("pid", "time") if (_PROC / "self/ns/time").exists() else ("pid",)  # Linux before 5.6 has no second kind


def _stat(process: str) -> list[str] | None:
    """The fields of /proc/PROCESS/stat from the state on; None where there are none to be read."""
    try:
        text = (_PROC / process / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    return fields if len(fields) > _START_TIME else None


def _sees_own_processes() -> bool:
    """Whether /proc shows our own PID namespace; in a new namespace it may still be that of the one around it."""
    try:
        lines = (_PROC / "self/status").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return [line.split()[1:] for line in lines if line.startswith("NSpid:")] == [[str(os.getpid())]]
