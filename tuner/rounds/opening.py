"""Opening a session: a campaign with its records, its checkpoint folder and what trains it.

The command line and the Python API open their sessions here, so both check the same things in the same order.
"""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from tuner.design.campaign import Campaign
from tuner.design.micro_batches import check_declared_gang
from tuner.design.own_loop import OwnLoop
from tuner.design.stages import Stage
from tuner.design.words import check_machine
from tuner.design.workload import Workload
from tuner.errors import InputError, NoLedger, StorageError
from tuner.execution.backend import Backend
from tuner.execution.engines import check_needs, parsed_engine
from tuner.execution.fork_server import ForkServer
from tuner.execution.in_process import InProcess
from tuner.execution.launched_ranks import LaunchedRanks
from tuner.execution.loaded_workload import LoadedWorkload, engine_of
from tuner.execution.machine import STALL_SECONDS, Fuse, Machine, Quota, check_ranks, check_shard
from tuner.execution.on_engine import OnEngine, SeatPlan
from tuner.execution.ray_engine import RayEngine
from tuner.execution.workers import Workers, check_workers
from tuner.rounds.launch import Session
from tuner.rounds.presence import LaunchPresence
from tuner.rounds.round_lengths import likely_inherited
from tuner.rounds.stage_start import AskedStart, start_of
from tuner.storage.engine import complete_url, default_url, parsed_url
from tuner.storage.ownership import allowed_folder, claimed_folder, folder_to_read
from tuner.storage.store import Ledger, open_ledger
from tuner.stores.places import StoredPath
from tuner.training.inherited import StartWeights
from tuner.training.settings import Profile

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """Where records and checkpoints are, and how trials are trained.

    storage: a path or URL; None is the default storage. checkpoints: a folder; None is the folder of the storage.
    workers: processes; 0 lets the backend choose, None trains in this process. keep_bytes: how much room the
    checkpoints of a study may take; None is all that they need. fork_server: what worker processes are forked from,
    where one was started before. claims_until: after this moment of the monotonic clock no trial is begun. engine:
    what starts workers elsewhere, as --engine says it; cpus, gpus: for each of them. gang: how many processes train
    each trial together. shard: "fsdp2" where each has a part of the model; "": as the campaign says. launched: they
    were started together with this command.
    """

    storage: str | None = None
    checkpoints: StoredPath | None = None
    device: str | None = None
    threads: int = 1
    workers: int | None = None
    workers_per_gpu: int = 1
    gang: int = 1
    shard: str = ""
    stall_seconds: float = STALL_SECONDS
    fuse: Fuse = "auto"
    profile: Profile = "exact"
    keep_bytes: int | None = None
    allow_changed_code: bool = False
    allow_inexact: bool = False
    fork_server: ForkServer | None = None
    claims_until: float | None = None
    engine: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    launched: LaunchedRanks | None = None


@contextmanager
def opened_session(
    stage: Stage,
    options: SessionOptions,
    *,
    dry_run: bool = False,
    create: bool = True,
) -> Iterator[Session]:
    """A session whose backend ends with the block.

    create: make the storage where there is none. dry_run: nothing is written; without a storage the session gets an
    empty one that is deleted at the end. Raises WorkloadError, before anything is made, for a campaign whose trials
    are trained elsewhere.
    """
    name, study_file = stage.name, stage.file
    campaign: Campaign = stage.campaign
    if isinstance(campaign.workload, OwnLoop):
        check_machine(campaign.workload, options.fuse, options.profile, options.gang, options.shard)
    options = replace(options, shard=options.shard or campaign.shard)
    _check_processes(campaign, options, dry_run)
    _check_inexact(campaign, options)
    check_needs(options.engine, options.cpus, options.gpus, options.device, options.workers_per_gpu)
    engine = engine_of(campaign.workload)
    most = max(stage.candidates, *(one.promote or 1 for one in campaign.rounds))
    quota = None if options.keep_bytes is None else Quota(options.keep_bytes, most)
    with _ledger(options.storage, dry_run, create) as ledger:
        root = (folder_to_read if dry_run else allowed_folder)(ledger, options.checkpoints)
        machine = replace(_machine(options, root, quota), other_numerics=campaign.other_numerics)
        loaded = LoadedWorkload(campaign.workload, machine, study_file, engine)
        asked = AskedStart(ledger, stage, root, options.checkpoints)
        loaded.campaign, loaded.inherited = (name if study_file else ""), _start_of(asked, dry_run)
        if not campaign.is_in_steps:
            campaign = campaign.in_steps(loaded.num_examples)
        presence = LaunchPresence(ledger, name)
        with nullcontext(InProcess()) if dry_run else _backend(options, loaded) as backend, presence:
            yield Session(
                name,
                campaign,
                ledger,
                loaded,
                backend,
                study_file=study_file,
                allow_changed_code=options.allow_changed_code,
                claim_folder=cache(lambda: loaded.write_to(claimed_folder(ledger, options.checkpoints))),
                of_file=stage.of_file,
                assumed_steps=likely_inherited(stage),
                at_work=presence.begin,
            )


def _check_processes(campaign: Campaign, options: SessionOptions, dry_run: bool) -> None:
    """Raise InputError for processes that cannot train the campaign, or not here, before a storage is made."""
    check_ranks(options.gang, options.fuse)
    check_shard(options.shard, options.gang, options.fuse)
    if isinstance(campaign.workload, Workload):
        begins = not storage_exists(options.storage)  # with the first round; a later one may have other batch sizes
        check_declared_gang(campaign.workload, options.gang, campaign.rounds[0].space if begins else None)
    here = options.engine is None and options.launched is None
    if here and not dry_run and (options.workers is not None or options.gang > 1):
        check_workers(_machine(options, Path(), None))


def _check_inexact(campaign: Campaign, options: SessionOptions) -> None:
    """Raise InputError where the study wants one set of Numerics and the command takes steps of others."""
    if options.allow_inexact and campaign.other_numerics == "refuse":
        raise InputError(
            'other_numerics="refuse" keeps trials to one set of Numerics, and --allow-inexact (allow_inexact=True) '
            "lets them start from steps trained under others: leave one of them out"
        )


def _start_of(asked: AskedStart, dry_run: bool) -> StartWeights | None:
    """What the trials start from; None of a dry run where the earlier stage has not selected anything yet."""
    try:
        return start_of(asked)
    except StorageError as error:
        if not dry_run:
            raise
        source = "" if asked.start is None else asked.start.campaign
        why = f"{asked.name} starts from {source}, which has not selected its weights yet"
        _log.warning(
            "%s: until then its steps are priced with the weights of a fresh model%s",
            why if source in asked.stage.of_file else error,
            _assumed_of(asked.stage),
        )
        return None


def _assumed_of(stage: Stage) -> str:
    """With how many inherited steps a control is priced, while they are not known; "" without such a control."""
    if not any(one.total for one in stage.campaign.rounds):
        return ""
    steps = likely_inherited(stage)
    words = (
        f"the {steps:,} inherited steps that are declared" if steps else "no inherited steps, since none are declared"
    )
    return f", and its control of equal total steps with {words}"


def _machine(options: SessionOptions, root: StoredPath, quota: Quota | None) -> Machine:
    return Machine(
        root,
        device=options.device,
        threads=options.threads,
        fuse=options.fuse,
        profile=options.profile,
        allow_inexact=options.allow_inexact,
        quota=quota,
        worker_count=1 if options.workers is None else options.workers or None,
        workers_per_gpu=options.workers_per_gpu,
        gang=options.gang,
        shard=options.shard,
        stall_seconds=options.stall_seconds,
        claims_until=options.claims_until,
    )


@contextmanager
def _backend(options: SessionOptions, loaded: LoadedWorkload) -> Iterator[Backend]:
    """What trains: this process, or worker processes that end with the session."""
    if options.engine is not None:
        choice = parsed_engine(options.engine)
        plan = SeatPlan(options.workers or 0, options.cpus, options.gpus, options.gang)
        url = complete_url(options.storage or default_url())
        with closing(OnEngine(url, RayEngine(choice.address), plan)) as on_engine:
            on_engine.check(loaded.study_file)
            yield on_engine
        return
    if options.workers is None and options.gang == 1:
        yield InProcess()
        return
    url = complete_url(options.storage or default_url())
    with closing(Workers(url, options.fork_server, options.launched)) as workers:
        yield workers


@contextmanager
def _ledger(storage: str | None, dry_run: bool, create: bool) -> Iterator[Ledger]:
    with ExitStack() as opened:
        if not dry_run:
            yield opened.enter_context(open_ledger(storage or default_url(), create=create))
            return
        there = opened.enter_context(ledger_there(storage))
        if there is None:
            empty = Path(opened.enter_context(tempfile.TemporaryDirectory())) / "empty.sqlite"
            there = opened.enter_context(open_ledger(str(empty)))
        yield there


@contextmanager
def ledger_there(storage: str | None) -> Iterator[Ledger | None]:
    """The Ledger that is there; None where nothing was recorded yet: no file, or a database without our tables."""
    with ExitStack() as opened:
        ledger = None
        if storage_exists(storage):
            with suppress(NoLedger):
                ledger = opened.enter_context(open_ledger(storage or default_url(), create=False))
        yield ledger


def storage_exists(storage: str | None) -> bool:
    """Whether a storage is there: a file that exists, or any database on a server."""
    file = parsed_url(storage or default_url())
    return file.get_backend_name() != "sqlite" or Path(file.database or "").exists()
