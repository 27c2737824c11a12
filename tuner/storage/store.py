"""The Ledger: one object for everything that is stored. Each method is one transaction."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from sqlalchemy import Connection

from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.errors import NoLedger, StorageError
from tuner.failpoints import failpoint
from tuner.records import (
    CheckpointKind,
    Claim,
    FinishedTrial,
    Measurement,
    Numerics,
    Prefix,
    State,
    TrialRecord,
    TrialUpdate,
)
from tuner.records.conclusions import Conclusion, FusionChoice, Retention, StudyNumerics
from tuner.storage import claims, curves, identity, reading, recording, studies
from tuner.storage.backups import copy_sqlite, dump_postgresql
from tuner.storage.claims import Left
from tuner.storage.curves import Measurements
from tuner.storage.dialects import sqlite_damage
from tuner.storage.engine import Database, parsed_url
from tuner.storage.filesystem import create_empty, creation_lock, make_storage_folder, refuse_network
from tuner.storage.identity import StorageIdentity, StorageSite
from tuner.storage.liveness import dead_workers
from tuner.storage.migrations import create_or_migrate
from tuner.storage.opened_file import saved_copies
from tuner.storage.reading import CheckpointFile, StudyLeft
from tuner.storage.recording import insert_finished
from tuner.storage.relay import Relay, opened_relay
from tuner.storage.studies import LaunchRow, StudyRow

C = TypeVar("C", bound=Conclusion)


def open_ledger(url: str, *, create: bool = True, relay: str = "") -> "Ledger":
    """Open the Ledger at a URL, or at the path of an SQLite file; create it where there is none.

    relay: the folder of a relay of the process that started this one, which lends it its connection to the server.

    Raises StorageError for what cannot be opened, is no Ledger, or is of a newer version.
    """
    parsed = parsed_url(url)
    file = Path(parsed.database or "") if parsed.get_backend_name() == "sqlite" else None
    if file is not None:
        _prepare_file(file, create)
    with creation_lock(file) if file is not None else nullcontext():
        if file is not None and create:
            create_empty(file)
        database = Database(parsed, relay)
        try:
            create_or_migrate(database, create=create)
        except BaseException:
            database.close()
            raise
    return Ledger(database)


def _prepare_file(file: Path, create: bool) -> None:
    saved = saved_copies(file) if not file.exists() else []
    if saved:
        raise StorageError(
            f"there is no storage at {file}, and {saved[-1]} holds what was recorded there before it was deleted: put "
            f"it back (mv {saved[-1]} {file}); or delete it, to begin with nothing"
        )
    if not create and not file.is_file():
        raise NoLedger(
            f"there is no storage at {file}; `tuner launch` creates it, --storage or TUNER_STORAGE names another"
        )
    refuse_network(file)
    make_storage_folder(file.parent)


class Ledger:
    """The record of campaigns, studies, trials and their curves. Also a Recorder. Made by `open_ledger`.

    May be used by several threads, and by as many processes as open it; not after a fork.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._metric_ids: dict[str, int] = {}
        self._given: set[tuple[int, int]] = set()  # (trial, fence) of the claims we know of

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections; the Ledger cannot be used afterwards."""
        self._database.close()

    @property
    def safe_url(self) -> str:
        """The URL without the password."""
        return self._database.safe_url

    def relay(self) -> Relay | None:
        """Lends the connection to a server to processes that this one starts; None where each has to open its own."""
        return opened_relay(self._database)

    @property
    def url(self) -> str:
        """The URL with the password, for opening the Ledger again; never for a log."""
        return self._database.url.render_as_string(hide_password=False)

    @property
    def file(self) -> Path | None:
        """The SQLite file; None for a server."""
        return self._database.file

    @property
    def folder(self) -> Path | None:
        """The folder of the SQLite file; None for a server."""
        return self._database.file and self._database.file.parent

    # What it is, and which checkpoint folders are its own

    def identity(self) -> StorageIdentity | None:
        """The identity of this storage; None where the storage was restored from a dump."""
        return self._database.read(identity.identity_of)

    def site(self) -> StorageSite:
        """Where the database lies now."""
        safe_url, file = self.safe_url, self._database.file
        return self._database.read(lambda connection: identity.site_of(connection, safe_url, file))

    def has_beside(self, key: str) -> bool:
        """Whether another database with this key (`StorageSite.key`) is on the same PostgreSQL server."""
        return self._database.read(lambda connection: identity.database_exists(connection, key))

    def next_generation(self) -> int:
        """Count one more command that writes to a checkpoint folder, and return the count."""
        return self._database.write(identity.next_generation)

    def choose_checkpoints(self, folder: str) -> None:
        """Keep the default checkpoint folder, relative to the folder of the SQLite file."""
        self._database.write(lambda connection: identity.choose_checkpoints(connection, folder))

    def become_copy(self, original: str, *, new_identity: bool = True) -> None:
        """Mark this storage as a copy of `original` (an identity) until `end_copy`; with a new identity by default."""
        self._database.write(lambda connection: identity.become_copy(connection, original, new_identity=new_identity))

    def end_copy(self) -> None:
        """Be no copy any more."""
        self._database.write(identity.end_copy)

    def fences_by_folder(self) -> dict[str, int]:
        """The highest fence given out for each trial, by the folder of its checkpoints below the checkpoint folder."""
        return self._database.read(identity.fences_by_folder)

    # Campaigns and studies

    def campaigns(self) -> list[str]:
        """Their names, in order."""
        return self._database.read(lambda connection: studies.campaign_names(connection))

    def studies(self, campaign: str) -> list[StudyRow]:
        """The studies of a campaign in the order of their start. Raises StorageError for an unknown campaign."""
        return self._database.read(lambda connection: studies.study_rows(connection, campaign))

    def study(self, campaign: str, name: str) -> StudyRow:
        """One study. Raises StorageError, with near matches, when there is none."""
        return self._database.read(lambda connection: studies.study_row(connection, campaign, name))

    def start_study(
        self,
        campaign: str,
        study: Study,
        fingerprint: str,
        *,
        identity: Mapping[str, object] | None = None,
        trials: Sequence[Trial] = (),
        concluded: Sequence[Conclusion] = (),
    ) -> StudyRow:
        """Start or continue a study, with its trials and conclusions, in one transaction.

        identity: what the fingerprint stands for, by part (JSON). trials: planned as WAITING; numbers that exist are
        left alone. concluded: conclusions about the study; kinds that it has already are left alone. So the same call
        completes a study that was written in part. Raises StudyChanged naming each key that was declared differently;
        only the number of trials may grow. Fingerprint and identity are kept from the first start, and not compared.
        """
        start = studies.Start(study, fingerprint, identity, tuple(trials), tuple(concluded))
        return self._database.write(lambda connection: studies.start_study(connection, campaign, start))

    def begin_again(
        self, row: StudyRow, study: Study, fingerprint: str, identity: Mapping[str, object], basis: Conclusion
    ) -> StudyRow:
        """Let a study begin with the code of today, where no trial is measured, saved, finished or in training.

        One transaction: identity, fingerprint and time of the start are replaced, and so is `basis`; all trials wait,
        also those that FAILED. Nothing is written where the study is not as `row` says any more: another process has
        begun it. Returns the study as it stands then.
        """
        start = studies.Start(study, fingerprint, identity, concluded=(basis,))
        return self._database.write(lambda connection: claims.begin_again(connection, row, start))

    def add_launch(
        self,
        study_id: int,
        *,
        command: str,
        revision: Mapping[str, object],
        environment: Mapping[str, object],
        worker: str,
    ) -> int:
        """Record that a worker starts to train a study; returns the id of the launch."""
        launched = LaunchRow(0, 0.0, command, dict(revision), dict(environment), worker)
        return self._database.write(lambda connection: studies.insert_launch(connection, study_id, launched))

    def launches(self, study_id: int) -> list[LaunchRow]:
        """The launches of a study, oldest first."""
        return self._database.read(lambda connection: studies.launch_rows(connection, study_id))

    def conclude(self, campaign: str, concluded: Conclusion, study_id: int | None = None) -> None:
        """Keep a conclusion about a campaign or one of its studies; the newest of a kind holds.

        Nothing is written where the newest one is the same.
        """
        self._database.write(lambda connection: studies.insert_conclusion(connection, campaign, concluded, study_id))

    def conclude_once(self, campaign: str, concluded: C, study_id: int | None = None) -> C:
        """Keep a conclusion about a campaign or study, unless one of its kind stands; returns the one that stands."""
        return self._database.write(
            lambda connection: studies.first_conclusion(connection, campaign, concluded, study_id)
        )

    def begin_under(self, row: StudyRow, mine: StudyNumerics) -> StudyNumerics:
        """The Numerics under which a study was begun: those of its first trial; `mine` where none is in training.

        The first who begins decides, in one transaction; while nothing is trained, whoever comes decides.
        """
        return self._database.write(lambda connection: claims.begin_under(connection, row, mine))

    def add_fusion(self, campaign: str, more: Mapping[str, FusionChoice], about: Collection[int | None]) -> None:
        """Add choices by shape group to what is known about studies (by id) and the campaign (None).

        One transaction; what others add at the same moment is kept.
        """
        self._database.write(lambda connection: studies.add_fusion(connection, campaign, more, about))

    def conclusion(self, campaign: str, kind: type[C], study_id: int | None = None) -> C | None:
        """The newest conclusion of a kind about exactly this campaign or study; None without one.

        Where it is damaged: a warning and None for a kind that only saves time, else StorageError is raised.
        """
        return self._database.read(lambda connection: studies.newest_conclusion(connection, campaign, kind, study_id))

    # Trials: planned, claimed, trained

    def plan_trials(self, study_id: int, trials: Sequence[Trial]) -> int:
        """Plan trials as WAITING; numbers that exist are left alone. Returns how many were new."""
        return self._database.write(lambda connection: studies.insert_trials(connection, study_id, trials))

    def import_study(self, campaign: str, study: Study, fingerprint: str, finished: Sequence[FinishedTrial]) -> int:
        """Write a study that was trained elsewhere with its trials, in one transaction; or the trials that are new.

        Returns how many were new. Raises StudyChanged where another study has the name.
        """
        self._learn_metrics({measured.metric for one in finished for measured in one.measurements})
        start = studies.Start(study, fingerprint)

        def written(connection: Connection) -> int:
            row = studies.start_study(connection, campaign, start)
            return insert_finished(connection, row.study_id, finished, self._metric_ids)

        return self._database.write(written)

    def record_finished(self, study_id: int, finished: Sequence[FinishedTrial]) -> int:
        """Write trials that were trained elsewhere, all or none; numbers that exist are left alone.

        Returns how many were new.
        """
        self._learn_metrics({measured.metric for one in finished for measured in one.measurements})
        return self._database.write(
            lambda connection: insert_finished(connection, study_id, finished, self._metric_ids)
        )

    def claim(  # noqa: PLR0913 - keywords with defaults
        self,
        study: int | StudyRow,
        *,
        worker: str,
        lease_seconds: float,
        max_trials: int = 1,
        shape_group: str | None = None,
        max_attempts: int = 5,
        numerics: Numerics | None = None,
    ) -> list[Claim]:
        """Take over trials that wait, or whose lease ran out, smallest number first; none: an empty list.

        All are of one shape group: the one given, or that of the first. Measurements beyond the checkpoint from
        which a trial resumes are deleted, because they will be replayed. A trial claimed `max_attempts` times
        since it last got beyond its farthest committed step becomes FAILED instead, and keeps its state and its curve.

        numerics: under which they will be trained. A trial that was begun under others is left to the processes that
        have those, as long as there are other trials to claim.
        study: its id; or as it was read, and then StudyChanged is raised where it has begun with other code since.
        """
        study_id = study if isinstance(study, int) else study.study_id
        terms = claims.Terms(worker, lease_seconds, max_trials, shape_group, max_attempts, numerics)
        tries = count()

        def take(connection: Connection) -> list[Claim]:
            unheard = claims.unheard_claims(connection, study_id, worker, self._given) if next(tries) else []
            taken = unheard or claims.claim_trials(connection, study_id, terms)
            if not isinstance(study, int):
                claims.refuse_begun_again(connection, study)
            return taken

        failpoint("claim")
        found = self._database.write(take)
        self._given |= {(one.trial_id, one.fence) for one in found}
        failpoint("claimed")
        return found

    def record(self, updates: Sequence[TrialUpdate]) -> None:
        """Commit all updates or none, durably. Raises LeaseLost for a trial that is not ours any more.

        RUNNING renews the lease; a finished state ends it; WAITING hands the trial back, attempt included.
        Raises StorageError for a second, different value of a metric at a step.
        """
        if not updates:
            return
        self._learn_metrics({measured.metric for one in updates for measured in one.measurements})
        self._database.write(lambda connection: recording.record_updates(connection, updates, self._metric_ids))

    def renew(self, held: Sequence[Claim]) -> list[Claim]:
        """Renew the leases; returns the claims that are still ours."""
        failpoint("heartbeat")
        return self._database.write(lambda connection: claims.renew_leases(connection, held))

    def release(self, held: Sequence[Claim], *, count_attempt: bool = False, reason: str = "") -> int:
        """Hand trials back to WAITING; returns how many were still ours.

        The attempt is given back unless it counts; then `reason` says what went wrong.
        """
        failpoint("release")
        return self._database.write(
            lambda connection: claims.release_trials(connection, held, count_attempt=count_attempt, reason=reason)
        )

    def work_left(self, study_id: int) -> Left:
        """What is left of a study: a cheap question, for workers that have no trial and ask again and again."""
        return self._database.glance(lambda connection: claims.work_left(connection, study_id))

    def workers_here(self, study_id: int) -> set[str]:
        """The workers that hold trials of a study, and of which this machine knows whether they live."""
        return self._database.glance(lambda connection: claims.workers_here(connection, study_id))

    def forget_dead_workers(self, study_id: int) -> int:
        """End the leases of workers that are known here to be dead; returns how many trials those workers had."""
        if not dead_workers(self.workers_here(study_id)):
            return 0  # nothing is written, and nothing is locked
        return self._database.write(lambda connection: claims.expire_dead_workers(connection, study_id))

    def retry(self, study_id: int, numbers: Collection[int] | None = None, *, afresh: bool = False) -> list[int]:
        """Let FAILED trials (all, or those of these numbers) wait again with new attempts; returns their numbers.

        They go on from their last saved state, or `afresh` from nothing. What cannot be read stays FAILED.
        """
        return self._database.write(
            lambda connection: claims.retry_failed(connection, study_id, numbers, afresh=afresh)
        )

    # What came out

    def trials(self, study_id: int) -> list[TrialRecord]:
        """All trials by number. One whose row cannot be read is FAILED, with that as its reason."""
        return self._database.read(lambda connection: reading.trial_records(connection, study_id))

    def trial(self, study_id: int, number: int) -> TrialRecord:
        """One trial. Raises StorageError when there is none, or when it cannot be read."""
        return self._database.read(lambda connection: reading.trial_record(connection, study_id, number))

    def measurements(self, study_id: int, metrics: Collection[str] | None = None) -> Measurements:
        """The curves of a study, of all metrics or of those named."""
        return self._database.read(lambda connection: curves.study_measurements(connection, study_id, metrics))

    def prefixes(self, bases: Collection[str]) -> dict[str, list[Prefix]]:
        """Saved states from which other trials may start, by their base digest, the furthest first.

        Their measurements are asked for apart, with `measured_until`.
        """
        return self._database.read(lambda connection: reading.prefixes_of(connection, bases))

    def measured_until(self, trial_id: int, step: int) -> tuple[Measurement, ...]:
        """The curves of a trial (by its id) up to a step."""
        return self._database.read(lambda connection: reading.measurements_until(connection, trial_id, step))

    def unfinished(self, study_id: int) -> list[Trial]:
        """The trials of a study that have no checkpoint yet, as they were planned."""
        with self._database.reading() as connection:
            return reading.unbegun_trials(connection, study_id)

    def checkpoint_bytes(self, study_id: int) -> int:
        """The size of all files that checkpoints of a study point to."""
        with self._database.reading() as connection:
            return reading.checkpoint_bytes(connection, study_id)

    def forget_checkpoints(
        self, row: StudyRow, chosen: Collection[tuple[int, CheckpointKind, int]], why: Retention
    ) -> list[str]:
        """Forget checkpoints of finished trials by (trial id, kind, step); returns the files that none names any more.

        why: concluded about the study in the same transaction, so that nobody misses the checkpoints.
        """

        def forgotten(connection: Connection) -> list[str]:
            studies.insert_conclusion(connection, row.campaign, why, row.study_id)
            return recording.forget_checkpoints(connection, chosen)

        return self._database.write(forgotten)

    @contextmanager
    def claims_held_off(self) -> Iterator[None]:
        """Meanwhile nobody claims a trial or commits one: what no trial that runs needs, none will need.

        For a moment only: every other process waits. Rows of base files that no checkpoint needs are deleted.
        """
        with self._database.writing() as connection:
            claims.hold_off_claims(connection)
            recording.delete_unused_bases(connection)
            yield

    def state_counts(self, study_id: int) -> dict[State, int]:
        """How many trials are in each state; every state is a key."""
        return self._database.glance(lambda connection: reading.count_states(connection, study_id))

    def studies_left(self, campaigns: Collection[str]) -> list[StudyLeft]:
        """The studies of some campaigns in the order of their start, each with whether anything of it is left.

        One statement, which costs the same however many trials have ended. A campaign that is not there has none.
        """
        return self._database.glance(lambda connection: reading.studies_left(connection, campaigns))

    def progress(self, study_id: int, since: float = 0.0) -> list[reading.TrialProgress]:
        """The trials that run, and those that ended at this time of the database or later; one short read."""
        return self._database.read(lambda connection: reading.trials_in_progress(connection, study_id, since))

    def first_start(self, study_id: int) -> float | None:
        """When the first trial of a study was started, in seconds since 1970; None where that was not recorded."""
        return self._database.read(lambda connection: reading.first_start(connection, study_id))

    def checkpoint_files(self) -> list[CheckpointFile]:
        """Every checkpoint file that is pointed to; what else lies in the folder may be swept."""
        return self._database.read(lambda connection: reading.checkpoint_files(connection))

    def start_files(self, study_id: int) -> list[CheckpointFile]:
        """The files of weights of an earlier stage that the trials of a study start from."""
        return self._database.read(lambda connection: reading.start_files(connection, study_id))

    def unreadable_values(self, study_id: int) -> list[tuple[int, str, int]]:
        """(trial, metric, step) of measurements that were not written by us."""
        with self._database.reading() as connection:
            return curves.unreadable_values(connection, study_id)

    def unreadable_rows(self, row: StudyRow) -> list[str]:
        """What of a study's launches, and of the conclusions about it and its campaign, cannot be read."""
        return self._database.read(lambda connection: studies.unreadable_rows(connection, row.study_id, row.campaign))

    def damage(self) -> list[str]:
        """What the database itself finds wrong with its file: pages, indexes, references. Nothing for a server."""
        if self._database.file is None:
            return []
        with self._database.reading() as connection:
            return sqlite_damage(connection)

    def backup(self, path: Path) -> None:
        """Write a consistent copy by the database's own means, also while others write. Raises StorageError."""
        if path.exists():
            raise StorageError(f"{path} exists; give the backup a name of its own")
        if self._database.file is None:
            dump_postgresql(self._database.url, path, self._database.read(identity.identity_table))
        else:
            copy_sqlite(self._database.file, path)

    def _learn_metrics(self, names: set[str]) -> None:
        """Read or create the ids of metrics, each once, because ids never change; in a separate transaction."""
        new = names - self._metric_ids.keys()
        if new:
            for name in new:
                studies.checked_name("metric", name)
            self._metric_ids.update(self._database.write(lambda connection: recording.metric_ids_of(connection, new)))
