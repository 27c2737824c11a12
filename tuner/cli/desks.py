"""Opening what a command that trains needs: study file, Ledger and backend, in the order in which they can fail."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tuner.cli.options import Profile
from tuner.cli.places import checkpoint_root, exists, opened
from tuner.design.study_file import load_campaign
from tuner.design.workload import Workload
from tuner.errors import InputError
from tuner.execution.backend import Backend
from tuner.execution.fusing import parsed_fuse
from tuner.execution.in_process import InProcess
from tuner.execution.orders import Place
from tuner.execution.workers import STALL_SECONDS, Workers
from tuner.rounds.launch import Desk
from tuner.storage.engine import complete_url, default_url
from tuner.storage.store import Ledger, open_ledger

MOST_WORKERS = 256


@dataclass(frozen=True, slots=True)
class Where:
    """What the command line said about study file, storage and machine."""

    study_file: Path
    storage: str | None
    checkpoints: Path | None
    device: str | None
    threads: int
    dry_run: bool = False
    workers: str | None = None
    stall_seconds: float = STALL_SECONDS
    fuse: str = "off"
    workers_per_gpu: int = 1
    profile: Profile = Profile.exact
    create: bool = True


@contextmanager
def open_desk(where: Where, *, allow_changed_code: bool = False) -> Iterator[Desk]:
    """A desk to work at. A dry run without a storage yet gets an empty one that vanishes with it."""
    parsed_fuse(where.fuse)  # a wrong one is an error before anything else
    parsed_workers(where.workers)
    name, campaign = load_campaign(where.study_file)
    with _ledger(where) as ledger:
        root = checkpoint_root(ledger, where.checkpoints)
        with _backend(where, campaign.workload, root) as backend:
            yield Desk(
                name, campaign, ledger, backend, study_file=where.study_file, allow_changed_code=allow_changed_code
            )


@contextmanager
def _backend(where: Where, workload: Workload, root: Path) -> Iterator[Backend]:
    """What trains: this process, or worker processes that end with the command."""
    fuse = parsed_fuse(where.fuse)
    local = InProcess(
        workload, root, device=where.device, threads=where.threads, fuse=fuse, profile=where.profile.value
    )
    count = parsed_workers(where.workers)
    if where.workers is None or where.dry_run:
        yield local
        return
    place = Place(
        study_file=str(where.study_file.resolve()),
        url=complete_url(where.storage or default_url()),
        checkpoint_root=str(root.resolve()),
        device=where.device,
        threads=where.threads,
        commit_seconds=local.commit_seconds,
        lease_seconds=local.lease.seconds,
        fuse=fuse,
        profile=where.profile.value,
    )
    with closing(Workers(local, place, count, where.stall_seconds, where.workers_per_gpu)) as workers:
        yield workers


def parsed_workers(text: str | None) -> int | None:
    """What --workers says: a number of processes; None for auto and for nothing. Raises InputError."""
    if text is None or text == "auto":
        return None
    if not text.isdecimal() or not 1 <= int(text) <= MOST_WORKERS:
        raise InputError(f"--workers is auto or a number of processes from 1 to {MOST_WORKERS}, got {text!r}")
    return int(text)


@contextmanager
def _ledger(where: Where) -> Iterator[Ledger]:
    with ExitStack() as open_things:
        if where.dry_run and not exists(where.storage):
            folder = open_things.enter_context(tempfile.TemporaryDirectory())
            yield open_things.enter_context(open_ledger(str(Path(folder) / "empty.sqlite")))
        else:
            yield open_things.enter_context(opened(where.storage, create=where.create and not where.dry_run))
