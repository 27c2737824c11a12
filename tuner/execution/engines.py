"""Engines: what can start workers somewhere, restart them and ask them to stop. The Ledger decides everything else.

An engine forgets everything: which trials there are, who trains them and how far they are is in the records alone, so
that a command that uses one can be killed and run again.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from tuner.errors import InputError
from tuner.execution.remote_job import Setup, StudyTask
from tuner.shown import quoted

MOST_SEATS = 4096
_ADDRESS = re.compile(r"ray(?:://(?P<host>\[[0-9a-fA-F:]+\]|[^:/\s\[\]]+)(?::(?P<port>\d+))?/?)?")
SeatKind = Literal["idle", "stopped", "died", "fault", "draining", "waiting"]
GCS_PORT, CLIENT_PORT = 6379, 10001
SMALLEST_SHARE = 0.0001  # that Ray counts
DEFAULT_CPUS, DEFAULT_GPUS = 1.0, 0.0  # of a worker


@dataclass(frozen=True, slots=True)
class Seat:
    """Room for one worker, or for a gang: the workers that train one trial together.

    world: how many ranks there are, each a process that may be on a machine of its own. cpus, gpus: what each rank
    needs of a machine; less than 1 shares one.
    """

    number: int
    cpus: float = 1.0
    gpus: float = 0.0
    world: int = 1

    @property
    def words(self) -> str:
        """What each rank needs, to be read."""
        gpus = f" and {self.gpus:g} GPU{'s' * (self.gpus > 1)}" if self.gpus else ""
        return f"{self.cpus:g} CPU{'s' * (self.cpus != 1)}{gpus}"

    @property
    def holder(self) -> str:
        """Who is in it: "worker", or "gang of 4"."""
        return "worker" if self.world == 1 else f"gang of {self.world}"


@dataclass(frozen=True, slots=True)
class Needs:
    """What every machine must have that trains a study.

    packages: versions of installed distributions. modules: modules of the user's own code outside of the folder that is
    shipped, each with its file here. shared: files that all must see with the same content. local: files of this
    machine that others cannot use, such as an SQLite file. seats: how many will be asked for at most.
    """

    packages: Mapping[str, str] = field(default_factory=dict)
    modules: Mapping[str, str] = field(default_factory=dict)
    shared: tuple[Path, ...] = ()
    local: tuple[Path, ...] = ()
    seats: int = 1


@dataclass(frozen=True, slots=True)
class SeatEvent:
    """What an engine tells of a seat.

    idle: nothing was left for it. stopped: it saved and gave back what it had. died: its process ended by itself, or
    that of any rank of a gang.
    fault: it raised an error, of that `family` and `name` (`worker_process`). draining: its machine goes down in so
    many seconds (0: nobody knows), so it is to be stopped. waiting: it has no place yet; `text` says what is missing.
    """

    kind: SeatKind
    seat: int
    text: str = ""
    family: str = ""
    name: str = ""
    seconds: float = 0.0


class SeatEngine(Protocol):
    """Starts workers somewhere."""

    def check(self, seat: Seat, study_file: Path) -> int:
        """Reach the cluster; for how many such seats it has room now, were nobody else there.

        Raises InputError where there is none, or where it can never have such a seat, with what there is.
        """
        ...

    def compare(self, needs: Needs) -> None:
        """Raise InputError where a machine lacks what the study needs; all of them are asked before one trains."""
        ...

    def start(self, seat: Seat, setup: Setup, task: StudyTask) -> None:
        """Start a worker; again, where one has ended. A machine that is lost is replaced without being asked.

        For a gang, whose ranks can go on together alone, such a loss is the end of the seat: it died.
        """
        ...

    def events(self, timeout: float) -> Sequence[SeatEvent]:
        """What has happened since, or does within so many seconds. Raises Paused where the cluster is lost."""
        ...

    def ask_to_stop(self, seat: Seat) -> None:
        """Have its worker, or the whole gang, save what it trains, and give it back."""
        ...

    def end(self, seat: Seat) -> None:
        """Give its room back; what still runs there is killed."""
        ...

    def close(self) -> None:
        """End all workers at once, and leave the cluster."""
        ...


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """An engine as the command line names it. address: HOST:PORT; "" is the one that is found, or a new one."""

    kind: Literal["ray"]
    address: str = ""


def parsed_engine(text: str) -> EngineChoice:
    """The value of --engine: ray, or ray://HOST:PORT. Raises InputError."""
    found = _ADDRESS.fullmatch(text.strip())
    if found is None:
        raise InputError(
            f"--engine is ray (a cluster that is found here, or a new one on this machine) or ray://HOST:PORT, "
            f"got {quoted(text)}"
        )
    if not found["host"]:
        return EngineChoice("ray")
    port = int(found["port"] or GCS_PORT)
    if not 0 < port < 65536:
        raise InputError(f"--engine {text}: a port is a number from 1 to 65535, got {port}")
    if port == CLIENT_PORT:
        raise InputError(
            f"--engine {text}: port {CLIENT_PORT} is that of Ray Client, which is not used; name the port of the head "
            f"node's GCS (`ray start --head --port`, {GCS_PORT} by default), on a machine that belongs to the cluster"
        )
    return EngineChoice("ray", f"{found['host']}:{port}")


def check_share(option: str, value: float) -> None:
    """Raise InputError for a number of CPUs or GPUs that no worker can have: more than one is a whole number."""
    if not 0.0 <= value <= 1024.0 or (value > 1.0 and value != int(value)):
        raise InputError(f"{option} is a share of one (0.5), or a whole number, got {value:g}")
    if 0.0 < value < SMALLEST_SHARE:
        raise InputError(f"{option} is 0, or at least {SMALLEST_SHARE:g}, got {value:g}")


def check_needs(engine: str | None, cpus: float, gpus: float, device: str | None = None, per_gpu: int = 1) -> None:
    """Raise InputError for an engine that there is not, and for needs of its workers that cannot be, or without it.

    device, per_gpu: as --device and --workers-per-gpu say them.
    """
    if engine is None:
        if (cpus, gpus) != (DEFAULT_CPUS, DEFAULT_GPUS):
            raise InputError(
                "--cpus and --gpus say what each worker of an engine needs: give --engine ray with them. Without an "
                "engine --device, --threads and --workers-per-gpu say what this machine gives"
            )
        return
    parsed_engine(engine)
    check_share("--cpus", cpus)
    check_share("--gpus", gpus)
    if per_gpu != 1:
        raise InputError("--workers-per-gpu is for GPUs of this machine; with --engine, --gpus 0.5 lets two share one")
    kind, _, number = (device or "").partition(":")
    if kind == "cuda" and (number or not gpus):
        raise InputError(
            f"--device {device} with --engine: the engine gives each worker its GPU, as --gpus says; write --gpus 1 "
            "instead"
        )
    if kind == "cpu" and gpus:
        raise InputError(f"--device cpu and --gpus {gpus:g}: nobody would use these GPUs; leave one of the two out")
