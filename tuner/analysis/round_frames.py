"""A round with everything that was trained for it: its study, and the studies of its widened space (B20).

`tuner boundaries --expand` makes "round-1-wide-1" in addition to "round-1". Its trials lie only where the wider space
is new, and are numbered from 1,000 on (the next widening from 2,000), so that both together are one study.
"""

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd

from tuner.analysis.frames import frames_of, measured_curves, not_promised, promises_of
from tuner.analysis.study_frames import StudyFrames
from tuner.design.file_names import declares_one
from tuner.design.stages import is_study_file, split_stage
from tuner.design.study_file import declared_stage
from tuner.errors import DeclarationError, StorageError
from tuner.records import TrialRecord
from tuner.shown import word
from tuner.storage.store import Ledger
from tuner.storage.studies import StudyRow

WIDENING_NUMBERS = 1000  # trials of the k-th widening are numbered from k times this on
_NAME = re.compile(r"round-(\d+)(?:-wide-(\d+))?")


def round_of(name: str) -> tuple[int, int] | None:
    """The number of the round and of the widening (0: none) in a study's name; None where it is no round's."""
    found = _NAME.fullmatch(name)
    return (int(found[1]), int(found[2] or 0)) if found else None


def rounds_started(ledger: Ledger, campaign: str) -> list[int]:
    """The numbers of the rounds that were started, ascending."""
    numbers = {place[0] for row in ledger.studies(campaign) if (place := round_of(row.study.name)) and place[1] == 0}
    return sorted(numbers)


def main_rounds(ledger: Ledger, campaign: str) -> list[int]:
    """As `rounds_started`, without the controls of a stage, on which nothing rests (C5)."""
    controls = {place[0] for row in ledger.studies(campaign) if row.study.start and (place := round_of(row.study.name))}
    return [number for number in rounds_started(ledger, campaign) if number not in controls]


def controls_started(ledger: Ledger, campaign: str) -> list[int]:
    """The numbers of the controls of a stage that were started, ascending."""
    main = set(main_rounds(ledger, campaign))
    return [number for number in rounds_started(ledger, campaign) if number not in main]


def round_rows(ledger: Ledger, campaign: str, number: int, *, planned: bool = False) -> list[StudyRow]:
    """The study of a round, then its widenings in order: those of which a trial has finished, or all `planned` ones.

    Raises StorageError for a round that was not launched.
    """
    rows = {place: row for row in ledger.studies(campaign) if (place := round_of(row.study.name))}
    mine = [rows[place] for place in sorted(rows) if place[0] == number]
    if (number, 0) not in rows:
        known = ", ".join(row.study.name for row in ledger.studies(campaign)) or "none"
        raise StorageError(f"round {number} of {campaign!r} was not launched; there are: {known}")
    return [row for row in mine if planned or round_of(row.study.name) == (number, 0) or _has_finished(ledger, row)]


def round_frames(ledger: Ledger, campaign: str, number: int) -> StudyFrames:
    """A round's trials and those of its widenings as one study, declared over the widest space."""
    return frames_of_rows(ledger, round_rows(ledger, campaign, number))


def frames_of_rows(ledger: Ledger, rows: list[StudyRow]) -> StudyFrames:
    """The union of studies with disjoint trial numbers, declared as the last one under the name of the first."""
    records = [record for row in rows for record in ledger.trials(row.study_id)]
    curves = [measured_curves(ledger, row.study_id) for row in rows]
    study = rows[-1].study
    if len(rows) > 1:
        study = replace(study, name=rows[0].study.name, lineage=(), num_trials=len(records))
    whole = curves[0] if len(curves) == 1 else pd.concat([one.astype({"metric": str}) for one in curves])
    frames = frames_of(study, records, whole, promises_of(ledger, rows))
    return replace(frames, weaker=not_promised(ledger, rows))


def row_of_trial(ledger: Ledger, campaign: str, number: int, trial: int) -> tuple[StudyRow, TrialRecord]:
    """A trial of a round by its number, with the study it was trained in. Raises StorageError when there is none."""
    rows = round_rows(ledger, campaign, number, planned=True)
    for row in reversed(rows[1:]):
        if trial in {record.number for record in ledger.trials(row.study_id)}:
            return row, ledger.trial(row.study_id, trial)
    return rows[0], ledger.trial(rows[0].study_id, trial)


def _has_finished(ledger: Ledger, row: StudyRow) -> bool:
    return any(count for state, count in ledger.state_counts(row.study_id).items() if state.finished)


def rounds_frames(ledger: Ledger, campaign: str) -> list[StudyFrames]:
    """Every round that was started, in order."""
    return [round_frames(ledger, campaign, number) for number in rounds_started(ledger, campaign)]


def campaign_name(ledger: Ledger, study: str) -> str:
    """The campaign that a name, a study file or FILE:NAME stands for, among those in the storage.

    A file is run only where its text does not say which campaign is meant.
    """
    known = ledger.campaigns()
    if study in known:
        return study
    if not is_study_file(study):
        raise StorageError(
            f"there is no campaign {study!r} in {ledger.safe_url}; there are: {', '.join(known) or 'none'}"
        )
    file, asked = split_stage(study)
    if asked in known and _is_of(ledger, asked, file):
        return asked
    stem = file.stem if not asked and file.stem in known else ""
    if stem and declares_one(file):
        return stem
    try:
        stage = declared_stage(study)
    except DeclarationError:
        if not stem:
            raise
        return stem  # the records of a file that does not run any more can be read
    if stage.name in known:
        return stage.name
    raise StorageError(
        f"{stage.called} was not launched in {ledger.safe_url}; run: tuner launch {word(stage.called)} --round 1"
    )


def _is_of(ledger: Ledger, campaign: str, file: Path) -> bool:
    """Whether a campaign was launched from a study file under this name."""
    recorded = recorded_study_file(ledger, campaign)
    return recorded is not None and Path(split_stage(recorded)[0]).resolve() == file.resolve()


def round_number(ledger: Ledger, campaign: str, given: int | None) -> int:
    """The round that is meant; without a number the last one launched that is no control (C5).

    Raises StorageError without any.
    """
    if given is not None:
        return given
    rounds = main_rounds(ledger, campaign)
    if not rounds:
        names = [row.study.name for row in ledger.studies(campaign)]
        file = word(recorded_study_file(ledger, campaign) or "STUDY_FILE")
        if not names:
            raise StorageError(f"no round of {campaign!r} was launched yet; run: tuner launch {file} --round 1")
        raise StorageError(
            f"no round of {campaign!r} was launched yet; run: tuner run {file}. Its other studies are "
            f"{', '.join(names)}: `tuner trials {word(campaign)} --study {word(names[-1])}` lists one"
        )
    return rounds[-1]


def recorded_study_file(ledger: Ledger, campaign: str) -> str | None:
    """The study file of the newest launch of a campaign, FILE:NAME where it had several; None without a record."""
    launches = [launch for row in ledger.studies(campaign) for launch in ledger.launches(row.study_id)]
    return next((launch.study_file for launch in reversed(launches) if launch.study_file), None)
