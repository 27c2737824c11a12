"""Opening what a command that trains needs: study file, Ledger and backend, in the order in which they can fail."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tuner.cli.places import checkpoint_root, exists, opened
from tuner.design.study_file import load_campaign
from tuner.errors import InputError
from tuner.execution.fusing import MOST_TRIALS, Fuse
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
    fuse: str = "off"


@contextmanager
def open_desk(where: Where, *, allow_changed_code: bool = False) -> Iterator[Desk]:
    """A desk to work at. A dry run without a storage yet gets an empty one that vanishes with it."""
    fuse = parsed_fuse(where.fuse)
    name, campaign = load_campaign(where.study_file)
    with _ledger(where) as ledger:
        root = checkpoint_root(ledger, where.checkpoints)
        backend = InProcess(campaign.workload, root, device=where.device, threads=where.threads, fuse=fuse)
        yield Desk(name, campaign, ledger, backend, study_file=where.study_file, allow_changed_code=allow_changed_code)


def parsed_fuse(text: str) -> Fuse:
    """What --fuse says: off, auto, or a number of trials. Raises InputError."""
    if text in ("auto", "off"):
        return "auto" if text == "auto" else "off"
    if not text.isdecimal() or not 1 <= int(text) <= MOST_TRIALS:
        raise InputError(f"--fuse is off, auto or a number of trials from 1 to {MOST_TRIALS}, got {text!r}")
    return int(text)


@contextmanager
def _ledger(where: Where) -> Iterator[Ledger]:
    with ExitStack() as open_things:
        if where.dry_run and not exists(where.storage):
            folder = open_things.enter_context(tempfile.TemporaryDirectory())
            yield open_things.enter_context(open_ledger(str(Path(folder) / "empty.sqlite")))
        else:
            yield open_things.enter_context(opened(where.storage, create=not where.dry_run))
