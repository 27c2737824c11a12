"""The machine that trials are trained on, and how they are trained there, as one value.

Nothing here imports torch: worker processes are started before this process imports it.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from tuner.errors import InputError
from tuner.stores.places import StoredPath, parsed_root
from tuner.training.settings import COMMIT_SECONDS, Profile

LEASE_SECONDS = 120.0
STALL_SECONDS = 1800.0  # a worker that makes no step for so long is replaced
MOST_TRIALS = 1024  # of one group
MOST_RANKS = 1024  # of one gang
RANKS_PER_CORE = 4  # [P]: a gang that shares cores shows what more cores would do, and gains nothing
Fuse = int | Literal["auto", "off"]


@dataclass(frozen=True, slots=True)
class Lease:
    """How long a claim holds without a heartbeat, and whether this process is the one to renew it."""

    seconds: float = LEASE_SECONDS
    renewed_here: bool = True


@dataclass(frozen=True, slots=True)
class Quota:
    """`num_bytes` for all checkpoints of a study. `winners`: so many of its best trials keep all of theirs.

    So does the best trial of each point that was trained with several seeds.
    """

    num_bytes: int
    winners: int = 1


@dataclass(frozen=True, slots=True)
class Machine:
    """Where and how the trials of a study are trained.

    checkpoint_root: the folder, or the place in a bucket, that all checkpoint files are below.
    device: "cpu", "cuda" or "cuda:1"; None takes CUDA where there is one.
    threads: of torch, in each process; small models lose time with more than one. The number decides the bits.
    fuse: how many trials train as one stacked model. "auto" measures what is fastest, "off" trains them one by one.
        The bits are the same.
    profile: "exact" keeps the bits of each trial alone; "fast" keeps its values up to rounding.
    allow_inexact: trials may start from prefixes that were trained under other Numerics; they are marked.
    other_numerics: what a study does that was begun under other Numerics than those here: "mark" the trials that are
        trained here, or "refuse" to train any.
    quota: how much room the checkpoints of a study may take; None is all that they need.
    commit_seconds: between durable commits of a trial in training.
    worker_count: how many processes share the trials of a study; None is as many as pay.
    workers_per_gpu: how many of these processes may share a GPU.
    gang: how many processes, its ranks, train each trial together; 1: one process does. The bits are the same.
    shard: "fsdp2" where each rank of a gang has a part of the model alone, which decides the bits; "": the whole.
    stall_seconds: a worker process without a step for so long is replaced.
    claims_until: after this moment of the machine's monotonic clock no trial is begun, because training stops soon.
    """

    checkpoint_root: StoredPath
    device: str | None = None
    threads: int = 1
    fuse: Fuse = "off"
    profile: Profile = "exact"
    allow_inexact: bool = False
    quota: Quota | None = None
    lease: Lease = Lease()
    commit_seconds: float = COMMIT_SECONDS
    worker_count: int | None = 1
    workers_per_gpu: int = 1
    gang: int = 1
    shard: str = ""
    stall_seconds: float = STALL_SECONDS
    claims_until: float | None = None
    other_numerics: str = "mark"

    @property
    def may_begin(self) -> bool:
        """Whether there is time for another trial."""
        return self.claims_until is None or time.monotonic() < self.claims_until

    def as_json(self) -> dict[str, Any]:
        """For another process: paths are absolute, and times are counted from now, because its clock may differ."""
        left = None if self.claims_until is None else self.claims_until - time.monotonic()
        return asdict(self) | {"checkpoint_root": str(self.checkpoint_root.resolve()), "claims_until": left}

    def for_worker(self, device: str | None, worker_count: int) -> "Machine":
        """The same machine as one of `worker_count` processes sees it, whose leases the coordinator renews."""
        lease = replace(self.lease, renewed_here=False)
        return replace(self, device=device, worker_count=worker_count, lease=lease)


def machine_from(data: Mapping[str, Any]) -> Machine:
    """The value that `Machine.as_json` wrote."""
    fields = dict(data)
    root, lease, quota, left = (fields.pop(name) for name in ("checkpoint_root", "lease", "quota", "claims_until"))
    until = None if left is None else time.monotonic() + left
    return Machine(
        parsed_root(root), lease=Lease(**lease), quota=Quota(**quota) if quota else None, claims_until=until, **fields
    )


def parsed_fuse(text: str) -> Fuse:
    """The value of --fuse: off, auto, or a number of trials. Raises InputError."""
    if text in ("auto", "off"):
        return "auto" if text == "auto" else "off"
    if not text.isdecimal() or not 1 <= int(text) <= MOST_TRIALS:
        raise InputError(f"--fuse is off, auto or a number of trials from 1 to {MOST_TRIALS}, got {text!r}")
    return int(text)


def check_ranks(gang: int, fuse: Fuse = "off") -> None:
    """Raise InputError for a number of ranks that no gang can have, and for one whose trials shall train together."""
    if not 1 <= gang <= MOST_RANKS or gang & (gang - 1):
        raise InputError(
            f"--gang is a power of two from 1 to {MOST_RANKS}, since gradients are added up in a tree, got {gang}"
        )
    if gang > 1 and isinstance(fuse, int) and fuse > 1:
        raise InputError(
            f"--fuse {fuse} trains {fuse} trials in one process, and --gang {gang} trains one trial in {gang} "
            "processes: leave one of them out"
        )


def check_shard(shard: str, gang: int, fuse: Fuse = "off") -> None:
    """Raise InputError for a way to cut models that there is not, and for one that has no ranks to cut them for."""
    if shard not in ("", "fsdp2"):
        raise InputError(f'models are cut into shards by "fsdp2", or not at all (""), got shard={shard!r}')
    if shard and gang == 1:
        raise InputError(
            f"shard={shard!r} gives each process a part of the model, and one process has all of it: say how many "
            "train a trial together, --gang 2, or leave shard out"
        )
    if shard and isinstance(fuse, int) and fuse > 1:
        raise InputError(
            f"--fuse {fuse} trains {fuse} models in one process, and shard={shard!r} cuts one model into parts for "
            "several: leave one of them out"
        )


def check_cores(gang: int, num_cores: int, gangs: int = 1) -> str:
    """What to tell of ranks that share cores; "" where each has its own. Raises InputError where far too many do.

    gangs: of so many ranks each, that train at the same time.
    """
    most, ranks = num_cores * RANKS_PER_CORE, gang * gangs
    if most >= gang and ranks > most:
        raise InputError(
            f"--gang {gang} --workers {gangs}: {ranks} ranks, this machine has {num_cores} "
            f"core{'s' * (num_cores > 1)}, and more than {RANKS_PER_CORE} ranks on a core only wait for one another: "
            f"say --workers {most // gang} at most"
        )
    if gang > most:
        largest = 1 << most.bit_length() - 1
        raise InputError(
            f"--gang {gang}: this machine has {num_cores} core{'s' * (num_cores > 1)}, and more than {RANKS_PER_CORE} "
            f"ranks on a core only wait for one another: say --gang {largest} at most"
        )
    if ranks > num_cores:
        return f"{ranks} ranks share {num_cores} core{'s' * (num_cores > 1)}: a step takes longer than with fewer ranks"
    return ""


def worker_devices(machine: Machine, count: int, num_gpus: int) -> list[str | None]:
    """The device of each of `count` workers: a GPU of its own, unless GPUs are shared or one device was named.

    Of gangs these are the devices of all ranks, gang after gang. Raises InputError when there are not enough GPUs.
    """
    shared, ranks = machine.workers_per_gpu, count * machine.gang
    if machine.gang > 1 and num_gpus:
        _check_gpus(machine, count, num_gpus)
    if machine.device not in (None, "cuda") or not num_gpus:
        return [machine.device] * ranks
    if ranks > num_gpus * shared:
        raise InputError(
            f"{count} workers, {num_gpus} GPU{'s' * (num_gpus > 1)} and {shared} worker{'s' * (shared > 1)} on each do "
            f"not go together: say --workers {num_gpus * shared}, "
            f"or --workers-per-gpu {-(-count // num_gpus)} (they share its memory and its time)"
        )
    return [f"cuda:{number % num_gpus}" for number in range(ranks)]


def _check_gpus(machine: Machine, count: int, num_gpus: int) -> None:
    """Raise InputError where the ranks of all gangs do not have the GPUs that they need."""
    gang, shared = machine.gang, machine.workers_per_gpu
    if machine.device == "cpu":
        return
    named = machine.device not in (None, "cuda")
    places = shared * (1 if named else num_gpus)
    if count * gang <= places:
        return
    gangs = f"{count} gangs of {gang} ranks" if count > 1 else f"a gang of {gang} ranks"
    gpus = f"--device {machine.device}" if named else f"{num_gpus} GPU{'s' * (num_gpus > 1)}"
    fewer = f"--workers {places // gang}" if places >= gang else f"--gang {1 << places.bit_length() - 1}"
    raise InputError(
        f"{gangs}, {gpus} and {shared} process{'es' * (shared > 1)} on each do not go together: say {fewer}, "
        f"{'leave out the number of the GPU, ' * (named and num_gpus > 1)}or --workers-per-gpu "
        f"{-(-count * gang * shared // places)} (they share its memory and its time)"
    )
