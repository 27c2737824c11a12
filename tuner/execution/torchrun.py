"""One command of several that torchrun, srun or mpirun has started together, as its environment says.

The command of rank 0 does what it was asked for, and coordinates one worker; the commands of the other ranks follow it.
Nothing here imports torch: see `execution.machine`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from tuner.errors import InputError
from tuner.execution.machine import check_ranks

_NAMES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, slots=True)
class Torchrun:
    """Where this command stands among all of them.

    local_rank: among those of this machine. host, port: of the store where they meet. hosted: whether that is there
    already, as torchrun's own; else rank 0 hosts it. name: in front of our keys in it, another one at each start.
    """

    rank: int
    world: int
    local_rank: int
    host: str
    port: int
    hosted: bool
    name: str

    def device(self, asked: str | None, num_gpus: int) -> str | None:
        """The device of this rank: a GPU of its own, unless the command names one. Raises InputError."""
        if asked not in (None, "cuda") or not num_gpus:
            return asked
        if self.local_rank >= num_gpus:
            raise InputError(
                f"rank {self.rank} is process {self.local_rank + 1} of this machine, which has {num_gpus} "
                f"GPU{'s' * (num_gpus > 1)}: start {num_gpus} (--nproc-per-node), or let all share one (--device "
                "cuda:0)"
            )
        return f"cuda:{self.local_rank}"


def torchrun_of(environment: Mapping[str, str]) -> Torchrun | None:
    """What started this command together with others; None where it was started alone. Raises InputError."""
    if any(not environment.get(name) for name in _NAMES):
        return None
    numbers = {name: _whole(environment, name) for name in ("RANK", "WORLD_SIZE", "MASTER_PORT")}
    rank, world, port = numbers.values()
    if world == 1:
        return None
    if rank >= world or not 0 < port < 65536:
        raise InputError(f"RANK={rank}, WORLD_SIZE={world}, MASTER_PORT={port} in the environment do not go together")
    local = _whole(environment, "LOCAL_RANK") if environment.get("LOCAL_RANK") else 0
    start = [environment.get(f"TORCHELASTIC_{name}", "") for name in ("RUN_ID", "RESTART_COUNT")]
    hosted = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return Torchrun(rank, world, local, environment["MASTER_ADDR"], port, hosted, "-".join(["tuner", *start]))


def _whole(environment: Mapping[str, str], name: str) -> int:
    if not environment[name].isdecimal():
        raise InputError(f"{name}={environment[name]!r} in the environment is no number; torchrun sets it")
    return int(environment[name])


def check_torchrun(one: Torchrun, gang: int, workers: str | None, engine: str | None) -> None:
    """Raise InputError for options that say something else than what started the command."""
    if gang not in (1, one.world):
        raise InputError(
            f"--gang {gang}, and {one.world} processes were started together (WORLD_SIZE): they are one gang, so leave "
            f"--gang out, or start {gang}"
        )
    if workers not in (None, "1"):
        raise InputError(
            f"--workers {workers}, and {one.world} processes were started together (WORLD_SIZE): they are one worker, "
            "so leave --workers out; without torchrun, --gang and --workers start several gangs on this machine"
        )
    if engine is not None:
        raise InputError(
            f"--engine {engine} starts the processes of a gang itself (--gang {one.world}), and {one.world} were "
            "started together already (WORLD_SIZE): leave one of the two out"
        )
    check_ranks(one.world)
