"""Opening what a command that trains needs: study file, Ledger and backend, in the order in which they can fail."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from tuner.cli.given import given_root, note_stage
from tuner.cli.training_options import TrainingOptions
from tuner.design.stages import Stage
from tuner.design.study_file import declared_stage
from tuner.errors import InputError
from tuner.execution.engines import MOST_SEATS, check_needs
from tuner.execution.machine import check_ranks, check_shard, parsed_fuse
from tuner.rounds.launch import Session
from tuner.rounds.opening import SessionOptions, opened_session

MOST_WORKERS = 256
_SIZE = re.compile(r"(\d+(?:\.\d+)?) *(|[kmgt]?b|[kmgt]ib)", re.IGNORECASE)
_UNITS = {"": 1, "b": 1} | {
    f"{letter}{tail}": base**power
    for power, letter in enumerate("kmgt", 1)
    for tail, base in (("b", 1000), ("ib", 1024))
}


@contextmanager
def open_session(
    where: TrainingOptions, *, dry_run: bool = False, create: bool = True, stage: Stage | None = None
) -> Iterator[Session]:
    """An open session of a stage, or of the campaign that the options name.

    `create`: a storage, if there is none; a dry run gets an empty one that vanishes with it.
    """
    check_options(where)
    stage = declared_stage(where.study) if stage is None else stage
    note_stage(stage.called)
    room = None if where.keep_checkpoints is None else parsed_bytes(where.keep_checkpoints)
    workers = None if where.workers is None else parsed_workers(where.workers, MOST_SEATS) or 0
    options = SessionOptions(
        storage=where.storage,
        checkpoints=given_root(where.checkpoints),
        device=where.device,
        threads=where.threads,
        workers=workers,
        workers_per_gpu=where.workers_per_gpu,
        gang=where.gang,
        shard=where.shard,
        launched=where.ranks,
        stall_seconds=where.stall_timeout,
        fuse=parsed_fuse(where.fuse),
        profile=where.profile.value,
        keep_bytes=room,
        allow_changed_code=where.allow_changed_code,
        allow_inexact=where.allow_inexact,
        fork_server=where.fork_server,
        claims_until=None if where.time_limit is None else where.time_limit.claims_until,
        engine=where.engine,
        cpus=where.cpus,
        gpus=where.gpus,
    )
    with opened_session(stage, options, dry_run=dry_run, create=create) as session:
        yield session


def check_options(where: TrainingOptions) -> None:
    """Raise InputError for an option with a wrong value, before a study file is run."""
    check_ranks(where.gang, parsed_fuse(where.fuse))
    if where.shard:
        check_shard(where.shard, where.gang, parsed_fuse(where.fuse))
    most = MOST_SEATS if where.engine else MOST_WORKERS
    parsed_workers(where.workers, most)
    check_needs(where.engine, where.cpus, where.gpus, where.device, where.workers_per_gpu)
    if where.keep_checkpoints is not None:
        parsed_bytes(where.keep_checkpoints)


def parsed_bytes(text: str) -> int:
    """A size like 500MB, 2GB or 1.5GiB in bytes. Raises InputError."""
    found = _SIZE.fullmatch(text.strip())
    size = float(found[1]) * _UNITS[found[2].lower()] if found else 0.0
    if size < 1:
        raise InputError(f"--keep-checkpoints is a size like 500MB, 2GB or 1.5GiB, got {text!r}")
    return int(size)


def parsed_workers(text: str | None, most: int = MOST_WORKERS) -> int | None:
    """What --workers says: a number of processes; None for auto and for nothing. Raises InputError."""
    if text is None or text == "auto":
        return None
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise InputError(f"--workers is auto or a number of processes from 1 to {most}, got {text!r}")
    return int(text)
