"""Opening what a command that trains needs: study file, Ledger and backend, in the order in which they can fail."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from functools import cache
from pathlib import Path

from tuner.cli.places import exists, opened
from tuner.cli.training_options import Training
from tuner.design.study_file import load_campaign
from tuner.design.workload import Workload
from tuner.errors import InputError
from tuner.execution.fusing import parsed_fuse
from tuner.execution.in_process import InProcess
from tuner.execution.orders import Place
from tuner.execution.quota import Quota
from tuner.execution.workers import Workers
from tuner.rounds.launch import Session
from tuner.storage.engine import complete_url, default_url
from tuner.storage.ownership import allowed_folder, claimed_folder, folder_to_read
from tuner.storage.store import Ledger, open_ledger

MOST_WORKERS = 256
_SIZE = re.compile(r"(\d+(?:\.\d+)?) *(|[kmgt]?b|[kmgt]ib)", re.IGNORECASE)
_UNITS = {"": 1, "b": 1} | {
    f"{letter}{tail}": base**power
    for power, letter in enumerate("kmgt", 1)
    for tail, base in (("b", 1000), ("ib", 1024))
}


@contextmanager
def open_session(where: Training, *, dry_run: bool = False, create: bool = True) -> Iterator[Session]:
    """An open session. `create`: a storage, if there is none; a dry run gets an empty one that vanishes with it."""
    parsed_fuse(where.fuse)  # a wrong one is an error before anything else
    parsed_workers(where.workers)
    room = None if where.keep_checkpoints is None else parsed_bytes(where.keep_checkpoints)
    name, campaign = load_campaign(where.study)
    quota = None if room is None else Quota(room, max(one.promote or 1 for one in campaign.rounds))
    with _ledger(where.storage, dry_run, create) as ledger:
        root = (folder_to_read if dry_run else allowed_folder)(ledger, where.checkpoints)
        local = _local(where, campaign.workload, root, quota)
        with nullcontext(local) if dry_run else _backend(where, local, root, quota) as backend:
            yield Session(
                name,
                campaign,
                ledger,
                backend,
                study_file=where.study,
                allow_changed_code=where.allow_changed_code,
                claim_folder=cache(lambda: backend.work_in(claimed_folder(ledger, where.checkpoints))),
            )


def _local(where: Training, workload: Workload, root: Path, quota: Quota | None) -> InProcess:
    return InProcess(
        workload,
        root,
        device=where.device,
        threads=where.threads,
        fuse=parsed_fuse(where.fuse),
        profile=where.profile.value,
        allow_inexact=where.allow_inexact,
        quota=quota,
        study_file=where.study,
    )


@contextmanager
def _backend(where: Training, local: InProcess, root: Path, quota: Quota | None) -> Iterator[InProcess | Workers]:
    """What trains: this process, or worker processes that end with the command."""
    count = parsed_workers(where.workers)
    if where.workers is None:
        yield local
        return
    place = Place(
        study_file=str(where.study.resolve()),
        url=complete_url(where.storage or default_url()),
        checkpoint_root=str(root.resolve()),
        device=where.device,
        threads=where.threads,
        commit_seconds=local.commit_seconds,
        lease_seconds=local.lease.seconds,
        fuse=parsed_fuse(where.fuse),
        profile=where.profile.value,
        allow_inexact=where.allow_inexact,
        quota_bytes=quota.num_bytes if quota else None,
        winners=quota.winners if quota else 1,
    )
    crew = Workers(local, place, count, where.stall_timeout, where.workers_per_gpu, where.nursery)
    with closing(crew) as workers:
        yield workers


def parsed_bytes(text: str) -> int:
    """A size like 500MB, 2GB or 1.5GiB in bytes. Raises InputError."""
    found = _SIZE.fullmatch(text.strip())
    size = float(found[1]) * _UNITS[found[2].lower()] if found else 0.0
    if size < 1:
        raise InputError(f"--keep-checkpoints is a size like 500MB, 2GB or 1.5GiB, got {text!r}")
    return int(size)


def parsed_workers(text: str | None) -> int | None:
    """What --workers says: a number of processes; None for auto and for nothing. Raises InputError."""
    if text is None or text == "auto":
        return None
    if not text.isdecimal() or not 1 <= int(text) <= MOST_WORKERS:
        raise InputError(f"--workers is auto or a number of processes from 1 to {MOST_WORKERS}, got {text!r}")
    return int(text)


@contextmanager
def _ledger(storage: str | None, dry_run: bool, create: bool) -> Iterator[Ledger]:
    with ExitStack() as open_things:
        if dry_run and not exists(storage):
            folder = open_things.enter_context(tempfile.TemporaryDirectory())
            yield open_things.enter_context(open_ledger(str(Path(folder) / "empty.sqlite")))
        else:
            yield open_things.enter_context(opened(storage, create=create and not dry_run))
