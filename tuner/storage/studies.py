"""Campaigns and their studies: started, compared with their declaration, planned, concluded."""

import difflib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, Select, case, func, insert, or_, select, update

from tuner.design.identity import was_told
from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.errors import StorageError, StudyChanged
from tuner.records import Promises, State
from tuner.records.conclusions import CONCLUSIONS, Conclusion, FusionChoice, FusionChoices
from tuner.records.promises import promises_from
from tuner.shown import quoted
from tuner.storage.codec import (
    conclusion_from,
    conclusion_text,
    data_from,
    data_text,
    differences,
    point_text,
    schedule_text,
    steps_text,
    study_from,
    study_text,
)
from tuner.storage.dialects import DatabaseTime, insert_into
from tuner.storage.schema import campaign, conclusion, launch, study, trial
from tuner.storage.stored_values import refuse_strange

C = TypeVar("C", bound=Conclusion)
LONGEST_NAME = 200
LEAST_SECONDS = 0.001  # between two starts of a study, as the clock of SQLite tells them apart
_FOUND_OUT_AGAIN = "nothing rests on it, and it is found out again when it is needed"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StudyRow:
    """A study as the Ledger holds it; `fingerprint` is the digest of code and data at its first start.

    `created`: when it was started, in seconds since 1970; a study of which nothing was trained may begin again, with
    another fingerprint and at another time. `identity`: what the fingerprint stands for, by part; None for a study of
    tuner 0.1, whose fingerprint covers less.
    """

    study_id: int
    campaign: str
    study: Study
    fingerprint: str
    created: float
    identity: dict[str, object] | None = None

    @property
    def elsewhere(self) -> str:
        """Where its trials were trained, and their weights are, where that is not here: "Optuna", say; else ""."""
        return self.study.source or ("by a script that asks, tuner.asking" if was_told(self.identity) else "")


@dataclass(frozen=True, slots=True)
class Start:
    """Everything that is written when a study starts: its declaration, identity, trials and conclusions."""

    study: Study
    fingerprint: str
    identity: Mapping[str, object] | None = None
    trials: tuple[Trial, ...] = ()
    concluded: tuple[Conclusion, ...] = ()


@dataclass(frozen=True, slots=True)
class LaunchRow:
    """Somebody started to work on a study: with which command, which code, and on what."""

    launch_id: int
    started: float
    command: str
    revision: dict[str, object]
    environment: dict[str, object]
    worker: str

    @property
    def study_file(self) -> str | None:
        """The study file as that launch was given it, FILE:NAME where it had several campaigns; None without a file."""
        file, campaign = (self.environment.get(key) for key in ("study_file", "campaign_of_file"))
        if not isinstance(file, str) or not file:
            return None
        return f"{file}:{campaign}" if isinstance(campaign, str) and campaign else file

    @property
    def promises(self) -> Promises:
        """What may be relied on for the trials that it trained."""
        return promises_from(self.environment.get("promises"))

    @property
    def not_promised(self) -> str:
        """What is not promised and why, as that launch measured it of a loop of one's own; else what is missing."""
        measured = self.environment.get("not_promised")
        missing = self.promises.missing_of(("exact_resume", "follows_schedule", "deterministic"))
        return measured if isinstance(measured, str) else "; ".join(missing)


def checked_name(what: str, name: str) -> str:
    """`name`, if every database can hold it. Raises StorageError."""
    if not 1 <= len(name) <= LONGEST_NAME or "\0" in name or not _is_unicode(name):
        raise StorageError(
            f"the name of a {what} is text of 1 to {LONGEST_NAME} characters without NUL, "
            f"got {len(name)} characters: {name!r:.60}"
        )
    return name


def _is_unicode(name: str) -> bool:
    """False for half a surrogate pair, which is no character and cannot be written."""
    return name.isascii() or not any("\ud800" <= character <= "\udfff" for character in name)


def campaign_names(connection: Connection) -> list[str]:
    names = connection.scalars(select(campaign.c.name).order_by(campaign.c.name))
    return [name for name in names if isinstance(name, str) and _is_unicode(name)]


def study_rows(connection: Connection, campaign_name: str) -> list[StudyRow]:
    """The studies of a campaign in the order of their start. Raises StorageError for an unknown campaign."""
    campaign_id = _campaign_id(connection, campaign_name)
    rows = connection.execute(select(study).where(study.c.campaign_id == campaign_id).order_by(study.c.id))
    return [_study_row(row, campaign_name) for row in rows]


def study_row(connection: Connection, campaign_name: str, name: str) -> StudyRow:
    """One study. Raises StorageError saying what there is instead."""
    campaign_id = _campaign_id(connection, campaign_name)
    row = _found(connection, campaign_id, name)
    if row is None:
        known = list(connection.scalars(select(study.c.name).where(study.c.campaign_id == campaign_id)))
        raise StorageError(_unknown("study", name, known, f" in campaign {campaign_name!r}"))
    return _study_row(row, campaign_name)


def start_study(connection: Connection, campaign_name: str, start: Start) -> StudyRow:
    """Insert a study, or compare it with the one that was started under this name; then add what it lacks.

    Raises StudyChanged.
    """
    row = _inserted_or_continued(connection, campaign_name, start)
    insert_trials(connection, row.study_id, start.trials)
    for concluded in start.concluded:
        if not _is_concluded(connection, campaign_name, type(concluded), row.study_id):
            insert_conclusion(connection, campaign_name, concluded, row.study_id)
    return row


def _is_concluded(connection: Connection, campaign_name: str, kind: type[Conclusion], study_id: int) -> bool:
    """Whether a study has a conclusion of this kind; a damaged one that only saves time does not count."""
    text = connection.scalar(_newest(campaign_name, kind.KIND, study_id))
    if text is not None and kind.ONLY_SAVES_TIME:
        try:
            conclusion_from(kind, text)
        except StorageError:
            return False
    return text is not None


def _inserted_or_continued(connection: Connection, campaign_name: str, start: Start) -> StudyRow:
    declared = start.study
    new_campaign = insert_into(connection.dialect, campaign).on_conflict_do_nothing()
    connection.execute(new_campaign.values(name=checked_name("campaign", campaign_name), created=DatabaseTime()))
    campaign_id = _campaign_id(connection, campaign_name)
    new_study = insert_into(connection.dialect, study).values(
        campaign_id=campaign_id,
        name=checked_name("study", declared.name),
        kind=declared.kind,
        round=declared.round,
        declaration=study_text(declared),
        fingerprint=start.fingerprint,
        identity=None if start.identity is None else data_text(start.identity),
        created=DatabaseTime(),
    )
    inserted = connection.scalar(new_study.on_conflict_do_nothing().returning(study.c.id))
    row = study_row(connection, campaign_name, declared.name)
    return row if inserted is not None else _continued(connection, row, declared)


def _continued(connection: Connection, row: StudyRow, declared: Study) -> StudyRow:
    """The stored study, with as many trials as are declared now. Raises StudyChanged for any other difference."""
    declared = replace(declared, num_examples=row.study.num_examples)  # only shown: the data's digest compares the data
    grown = replace(row.study, num_trials=max(row.study.num_trials, declared.num_trials))
    changed = differences(row.study if declared.num_trials < grown.num_trials else grown, declared)
    if changed:
        listed = "\n".join(f"  {key}: was {old}, is now {new}" for key, old, new in changed)
        raise StudyChanged(
            f"study {row.study.name!r} of campaign {row.campaign!r} was started with another declaration:\n{listed}\n"
            "its trials can be compared with each other only under one declaration: undo the change, or give the "
            "campaign another name (num_trials alone may grow)"
        )
    if grown != row.study:
        connection.execute(update(study).where(study.c.id == row.study_id).values(declaration=study_text(grown)))
    return replace(row, study=grown)


def restarted(row: StudyRow, start: Start) -> dict[str, Any]:
    """The columns of a study that begins with another identity: now, and with the examples that there are now.

    Its starts are told apart by their times, so a later one has a later time, whatever the clock says.
    """
    now = case((DatabaseTime() > row.created, DatabaseTime()), else_=row.created + LEAST_SECONDS)
    return {
        "declaration": study_text(replace(row.study, num_examples=start.study.num_examples)),
        "fingerprint": start.fingerprint,
        "identity": None if start.identity is None else data_text(start.identity),
        "created": now,
    }


def insert_trials(connection: Connection, study_id: int, trials: Sequence[Trial]) -> int:
    """Plan trials that are not planned yet, by number; return how many were new."""
    rows = [
        {
            "study_id": study_id,
            "number": planned.number,
            "state": State.WAITING.value,
            "reason": "",
            "point": point_text(planned.point),
            "seed": planned.seed,
            "data_seed": planned.data_seed,
            "schedule": schedule_text(planned.schedule),
            "origin": planned.origin,
            "shape_group": planned.shape_group,
            "pins": steps_text(planned.pins),
            "step": 0,
            "attempt": 0,
            "fence": 0,
        }
        for planned in trials
    ]
    insertion = insert_into(connection.dialect, trial).on_conflict_do_nothing(index_elements=["study_id", "number"])
    if not rows:
        return 0
    before = _num_trials(connection, study_id)
    connection.execute(insertion, rows)
    return _num_trials(connection, study_id) - before


def _num_trials(connection: Connection, study_id: int) -> int:
    count = select(func.count()).select_from(trial).where(trial.c.study_id == study_id)
    return int(connection.execute(count).scalar_one())


def insert_launch(connection: Connection, study_id: int, launched: LaunchRow) -> int:
    """The id of the new row; of the old one where this worker wrote it already and the answer got lost."""
    mine = select(launch.c.id).where(launch.c.study_id == study_id, launch.c.worker == launched.worker)
    before = connection.scalar(mine.where(launch.c.command == launched.command)) if launched.worker else None
    if before is not None:
        return int(before)
    insertion = insert(launch).values(
        study_id=study_id,
        started=DatabaseTime(),
        command=launched.command,
        revision=data_text(launched.revision),
        environment=data_text(launched.environment),
        worker=launched.worker,
    )
    return int(connection.execute(insertion.returning(launch.c.id)).scalar_one())


def launch_rows(connection: Connection, study_id: int) -> list[LaunchRow]:
    """The launches of a study, oldest first."""
    rows = connection.execute(select(launch).where(launch.c.study_id == study_id).order_by(launch.c.id))
    return [one for row in rows if isinstance(one := _launch_row(row), LaunchRow)]


def _launch_row(row: Row[Any]) -> LaunchRow | str:
    """A launch; or why it cannot be read, which is no reason not to read the trials."""
    try:
        refuse_strange(row, launch)
        revision, environment = data_from(row.revision), data_from(row.environment)
    except StorageError as error:
        return f"launch {row.id} is unreadable in the Ledger: {error}"
    return LaunchRow(row.id, row.started, row.command, revision, environment, row.worker)


def unreadable_rows(connection: Connection, study_id: int, campaign_name: str) -> list[str]:
    """What of a study's launches and of its campaign's conclusions about it cannot be read, in words."""
    launches = connection.execute(select(launch).where(launch.c.study_id == study_id).order_by(launch.c.id))
    found = [told for row in launches if isinstance(told := _launch_row(row), str)]
    about = select(conclusion).join(campaign).where(campaign.c.name == campaign_name)
    about = about.where(or_(conclusion.c.study_id == study_id, conclusion.c.study_id.is_(None)))
    for row in connection.execute(about.order_by(conclusion.c.id)):
        try:
            refuse_strange(row, conclusion)
            _check_conclusion(row.kind, row.data)
        except StorageError as error:
            known = CONCLUSIONS.get(row.kind) if isinstance(row.kind, str) else None
            harmless = f"; {_FOUND_OUT_AGAIN}" if known is not None and known.ONLY_SAVES_TIME else ""
            found.append(f"conclusion {row.id} ({quoted(row.kind)}) is unreadable in the Ledger: {error}{harmless}")
    return found


def _check_conclusion(kind: str, text: str) -> None:
    """Raise StorageError for damaged data; a kind that a newer version wrote needs only to be JSON."""
    known = CONCLUSIONS.get(kind)
    if known is None:
        data_from(text)
    else:
        conclusion_from(known, text)


def insert_conclusion(connection: Connection, campaign_name: str, concluded: Conclusion, study_id: int | None) -> None:
    """Write a conclusion; nothing where the newest of its kind is the same: a repeated command concludes it again.

    Raises StorageError for an unknown campaign.
    """
    values = {"campaign_id": _campaign_id(connection, campaign_name), "study_id": study_id, "kind": concluded.KIND}
    text = conclusion_text(concluded)
    if connection.scalar(_newest(campaign_name, concluded.KIND, study_id)) != text:
        connection.execute(insert(conclusion).values(**values, data=text, created=DatabaseTime()))


def first_conclusion(connection: Connection, campaign_name: str, concluded: C, study_id: int | None) -> C:
    """The conclusion of this kind that stands; else the given one. Raises StorageError for an unknown campaign."""
    _lock_conclusions(connection, campaign_name)
    stands = newest_conclusion(connection, campaign_name, type(concluded), study_id)
    if stands is None:
        insert_conclusion(connection, campaign_name, concluded, study_id)
    return stands or concluded


def add_fusion(
    connection: Connection, campaign_name: str, more: Mapping[str, FusionChoice], about: Iterable[int | None]
) -> None:
    """Add choices to what is known about studies, or (None) the campaign. Raises StorageError."""
    _lock_conclusions(connection, campaign_name)
    for study_id in about:
        known = newest_conclusion(connection, campaign_name, FusionChoices, study_id) or FusionChoices()
        whole = FusionChoices({**known.by_group, **more})
        insert_conclusion(connection, campaign_name, whole, study_id)


def _lock_conclusions(connection: Connection, campaign_name: str) -> None:
    """Whoever holds the campaign's row decides: on PostgreSQL two writers would not see each other's conclusion."""
    connection.execute(select(campaign.c.id).where(campaign.c.name == campaign_name).with_for_update())


def newest_conclusion(connection: Connection, campaign_name: str, kind: type[C], study_id: int | None) -> C | None:
    """The newest conclusion about a study, or (study_id None) about the campaign; None without one.

    Where it is damaged: a warning and None for a kind that only saves time, else StorageError is raised.
    """
    text = connection.scalar(_newest(campaign_name, kind.KIND, study_id))
    if text is None:
        return None
    try:
        return conclusion_from(kind, text)
    except StorageError as error:
        told = f"what was concluded about {campaign_name!r} ({kind.KIND}) is unreadable in the Ledger: {error}"
        if not kind.ONLY_SAVES_TIME:
            raise StorageError(f"{told}; restore a backup") from error
        _log.warning("%s; %s", told, _FOUND_OUT_AGAIN)
        return None


def _newest(campaign_name: str, kind: str, study_id: int | None) -> Select[Any]:
    """The JSON of what was concluded last."""
    return (
        select(conclusion.c.data)
        .join(campaign)
        .where(campaign.c.name == campaign_name, conclusion.c.kind == kind)
        .where(conclusion.c.study_id.is_not_distinct_from(study_id))
        .order_by(conclusion.c.id.desc())
        .limit(1)
    )


def _campaign_id(connection: Connection, name: str) -> int:
    found = connection.scalar(select(campaign.c.id).where(campaign.c.name == name))
    if found is None:
        raise StorageError(_unknown("campaign", name, campaign_names(connection), ""))
    return int(found)


def _found(connection: Connection, campaign_id: int, name: str) -> Row[Any] | None:
    return connection.execute(
        select(study).where(study.c.campaign_id == campaign_id, study.c.name == name)
    ).one_or_none()


def _study_row(row: Row[Any], campaign_name: str) -> StudyRow:
    try:
        refuse_strange(row, study)
        declared = study_from(row.declaration)
        identity = None if row.identity is None else data_from(row.identity)
        if declared.name != row.name:
            raise StorageError(f"name: its declaration is that of {quoted(declared.name)}")
    except StorageError as error:
        raise StorageError(
            f"study {quoted(row.name)} of {campaign_name!r} is unreadable in the Ledger: {error}; restore a backup"
        ) from error
    return StudyRow(row.id, campaign_name, declared, row.fingerprint, row.created, identity)


def _unknown(what: str, name: str, known: Sequence[str], where: str) -> str:
    near = difflib.get_close_matches(name, known, n=3)
    there = ", ".join(repr(one) for one in (near or known)[:20]) or "none yet: start one with `tuner launch`"
    hint = "did you mean" if near else "there is"
    return f"there is no {what} {name!r:.80}{where}; {hint} {there}"
