"""Saved states of trials, and the key under which another trial may start from one."""

from dataclasses import dataclass

from tuner.records.numerics_record import Numerics

CheckpointKind = str  # "latest", "best", "trunk", or that of a shard: the part of another rank of a state at its step
LOOP_FOLDER = "files"  # below the folder of a trial: what the loop that trains it writes there
COMMAND_MARK = "tuner-command.json"  # among the kept files of a command: at which step they were saved, and if any were
FROZEN_FOLDER = "frozen"  # below the folder of a study: what checkpoints of its trials leave out
GROUP_FOLDER = "group-of-trial-"  # how folders of checkpoints begin that several trials share


def shard_kind(rank: int) -> CheckpointKind:
    """The kind of the part that a rank other than 0 has of a state in shards."""
    return f"shard-{rank}"


def is_shard(kind: CheckpointKind) -> bool:
    """Whether a checkpoint is the part of another rank; it is of use with the state at its step alone."""
    return kind.startswith("shard-")


@dataclass(frozen=True, slots=True)
class PrefixKey:
    """What a saved state is a function of: digests (see `design.prefix`) and the Numerics it was trained under.

    `base` stands for everything but the schedule, `path` for the learning rates and evaluations up to its step.
    """

    base: str
    path: str
    numerics: Numerics


@dataclass(frozen=True, slots=True)
class BaseFile:
    """A file of frozen parameters, which checkpoints leave out: relative to the checkpoint folder, sha256, size."""

    file: str
    digest: str
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A saved state: of a trial, after `step` updates, in `file` (relative to the checkpoint folder).

    `value` is the selection metric at that step (None where it was not evaluated). `member` tells trials apart
    that share one file. `digest` is the sha256 of the file, `num_bytes` its size. With a `prefix` it is a state
    from which other trials may start. `base` has the frozen parameters that the file leaves out; None: it is whole.
    """

    kind: CheckpointKind
    step: int
    file: str
    digest: str
    num_bytes: int
    value: float | None = None
    member: str = ""
    prefix: PrefixKey | None = None
    base: BaseFile | None = None
