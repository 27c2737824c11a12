"""Opening what a command that trains needs: study file, Ledger and backend, in the order in which they can fail."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tuner.cli.places import checkpoint_root, exists, opened
from tuner.design.study_file import load_campaign
from tuner.execution.in_process import InProcess
from tuner.rounds.launch import Desk
from tuner.storage.store import Ledger, open_ledger


@dataclass(frozen=True, slots=True)
class Where:
    """What the command line said about study file, storage and machine."""

    study_file: Path
    storage: str | None
    checkpoints: Path | None
    device: str | None
    threads: int
    dry_run: bool = False


@contextmanager
def open_desk(where: Where, *, allow_changed_code: bool = False) -> Iterator[Desk]:
    """A desk to work at. A dry run without a storage yet gets an empty one that vanishes with it."""
    name, campaign = load_campaign(where.study_file)
    with _ledger(where) as ledger:
        root = checkpoint_root(ledger, where.checkpoints)
        backend = InProcess(campaign.workload, root, device=where.device, threads=where.threads)
        yield Desk(name, campaign, ledger, backend, study_file=where.study_file, allow_changed_code=allow_changed_code)


@contextmanager
def _ledger(where: Where) -> Iterator[Ledger]:
    with ExitStack() as open_things:
        if where.dry_run and not exists(where.storage):
            folder = open_things.enter_context(tempfile.TemporaryDirectory())
            yield open_things.enter_context(open_ledger(str(Path(folder) / "empty.sqlite")))
        else:
            yield open_things.enter_context(opened(where.storage, create=not where.dry_run))
