"""Candidate and baseline of a study that was run elsewhere, compared by the replicates that are there (B31-B34).

Nothing is trained. The replicates of both points are written down as an adoption study, as a contest is that was
trained here, so that the log of adoptions, the report and every reading command know it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from tuner.analysis.finding import Finding
from tuner.analysis.frames import study_frames
from tuner.analysis.questions.adoption import KIND, adoption_finding, log_entry
from tuner.analysis.replicates import LEVEL, replicate_groups
from tuner.analysis.round_frames import round_frames, round_rows
from tuner.analysis.study_frames import StudyFrames
from tuner.design.origin import RUN_ORIGIN
from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.errors import DeclarationError, StorageError
from tuner.records import FinishedTrial, Measurement, State, TrialRecord
from tuner.records.conclusions import Adoption
from tuner.storage.store import Ledger
from tuner.storage.studies import StudyRow

MINIMUM_REPLICATES = 3  # [P] of each side: two show a spread that means nothing
_LONG = 5  # measurements: a curve of so many that is the same to the last bit is a copy, not luck
_SHOWN = 8  # points that a message lists
Row = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class ImportedContest:
    """The adoption study with its trials: even numbers are the candidate's replicates, odd ones the baseline's."""

    study: Study
    trials: tuple[FinishedTrial, ...]

    def count(self, side: int) -> int:
        """The replicates of the candidate (0) or the baseline (1)."""
        return sum(one.trial.number % 2 == side for one in self.trials)


def imported_row(ledger: Ledger, campaign: str) -> StudyRow | None:
    """The study of a campaign that was run elsewhere; None where there is no such campaign, or it is trained here."""
    if campaign not in ledger.campaigns():
        return None
    rows = [row for row in ledger.studies(campaign) if row.study.round == 1 and row.study.source]
    return rows[0] if rows else None


def imported_contest(ledger: Ledger, campaign: str, candidate: str | None, baseline: str | None) -> ImportedContest:
    """The contest of two points, each named by a trial (3), a run (3fk2j9ab) or values (lr=0.1,width=32).

    By default the candidate is the point with the best mean among those that have enough replicates, and the baseline
    the only other one. Raises DeclarationError where a name means no point or several, or replicates are too few.
    """
    frames = round_frames(ledger, campaign, 1)
    groups = replicate_groups(frames, minimum=1)
    ready = [group for group in groups if len(_judged(frames, group)) >= MINIMUM_REPLICATES]
    first = _named(frames, groups, candidate, "--candidate") if candidate else _best(frames, ready)
    others = [group for group in ready if group != first]
    if baseline is None and len(others) != 1:
        raise DeclarationError(f"name the baseline: --baseline TRIAL; {_told(frames, others)}")
    second = _named(frames, groups, baseline, "--baseline") if baseline else others[0]
    if first == second:
        raise DeclarationError(f"candidate and baseline are the same point (trial {first[0]}); name two")
    for side, group in (("candidate", first), ("baseline", second)):
        finished = len(_judged(frames, group))
        if finished < MINIMUM_REPLICATES:
            raise DeclarationError(
                f"the {side} (trial {group[0]}) has {finished} replicate{'s' * (finished != 1)} that finished, and "
                f"{MINIMUM_REPLICATES} are needed: runs of one point with other seeds; {_told(frames, ready)}"
            )
    return _contest(ledger, frames, round_rows(ledger, campaign, 1)[0], (first, second))


def settle(
    ledger: Ledger, campaign: str, made: ImportedContest, *, level: float = LEVEL, minimum_gain: float = 0.0
) -> Finding:
    """Write the contest down, answer, and keep the answer in the log of adoptions. Twice changes nothing."""
    origin = f"replicates of {made.study.lineage[0][0]}"
    ledger.import_study(campaign, made.study, origin, made.trials)
    row = ledger.study(campaign, made.study.name)
    frames = study_frames(ledger, campaign, made.study.name)
    finding = adoption_finding(frames, level=level, minimum_gain=minimum_gain)
    entry = log_entry(frames, finding)
    if ledger.conclusion(campaign, Adoption, row.study_id) != entry:
        ledger.conclude(campaign, entry, row.study_id)
    return finding


def _contest(
    ledger: Ledger, frames: StudyFrames, row: StudyRow, groups: tuple[tuple[int, ...], tuple[int, ...]]
) -> ImportedContest:
    name = frames.study.name
    places = [f"{name}/{group[0]}" for group in groups]
    records = {record.number: record for record in ledger.trials(row.study_id)}
    trials = [
        _replicate(frames, records[number], 2 * place + side)
        for side, group in enumerate(groups)
        for place, number in enumerate(_without_copies(frames, group))
    ]
    study = replace(
        frames.study,
        name=f"adopt-{places[0]}-over-{places[1]}".replace("/", "-"),
        kind=KIND,
        goal=f"Is the point of trial {places[0]} better than that of {places[1]}, in view of the variance of trials?",
        num_trials=len(trials),
        round=None,
        lineage=tuple((name, str(group[0])) for group in groups),
        scientific=(),
    )
    return ImportedContest(study, tuple(trials))


def _replicate(frames: StudyFrames, record: TrialRecord, number: int) -> FinishedTrial:
    if record.schedule is None:
        raise StorageError(f"trial {record.number} is unreadable in the Ledger: {record.reason}")
    mine = frames.curves[frames.curves["trial"] == record.number]
    rows = zip(mine["step"].tolist(), mine["metric"].tolist(), mine["value"].tolist(), strict=True)
    trial = Trial(
        number, record.point, record.seed, record.data_seed, record.schedule,
        f"{frames.study.name} trial {record.number}",
    )  # fmt: skip
    return FinishedTrial(trial, record.state, record.reason, record.step, [Measurement(*row) for row in rows])


def _judged(frames: StudyFrames, group: Sequence[int]) -> list[int]:
    """The replicates that ran to their end or diverged, copies of one run once."""
    states = frames.trials.set_index("trial")["state"]
    ended = (State.COMPLETE.value, State.INFEASIBLE.value)
    return [number for number in _without_copies(frames, group) if states[number] in ended]


def _without_copies(frames: StudyFrames, group: Sequence[int]) -> list[int]:
    """A run that was exported twice, or trained twice with one seed, is one."""
    if len(group) < 2:
        return list(group)
    metric, seen, kept = frames.study.objective.metric, set(), []
    for number in group:
        curve = frames.curve(number, metric)
        key = (tuple(curve["step"]), tuple(map(repr, curve["value"])))
        if len(curve) < _LONG or key not in seen:
            kept.append(number)
        seen.add(key)
    return kept


def _best(frames: StudyFrames, ready: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    if not ready:
        raise DeclarationError(f"no point has {MINIMUM_REPLICATES} replicates that finished; {_told(frames, ready)}")
    values = frames.complete.set_index("trial")["best_value"]
    sign = frames.study.objective.sign
    means = [sign * float(values.reindex(group).mean()) for group in ready]
    return min(zip(means, ready, strict=True), key=lambda one: (one[0] != one[0], one))[1]


def _named(frames: StudyFrames, groups: Sequence[tuple[int, ...]], name: str, option: str) -> tuple[int, ...]:
    """The replicates of the point that a name means."""
    trials = frames.trials
    if "=" in name:
        found = _with_values(trials, frames.hyperparameters, name, option)
    else:
        plain = name.removeprefix(f"{frames.study.name}/").removeprefix("1/")
        found = trials.loc[trials["origin"] == f"{RUN_ORIGIN}{name}", "trial"].tolist()
        found = found or [number for number in trials["trial"].tolist() if str(number) == plain]
    meant = [group for group in groups if set(group) & set(found)]
    if len(meant) != 1:
        told = f"means {len(meant)} points: give more of its values" if meant else "is no trial, run or point of it"
        raise DeclarationError(
            f"{option} {name:.80} {told}; a point is named by one of its trials (3), or by values ({_example(frames)})"
        )
    return meant[0]


def _with_values(trials: pd.DataFrame, names: Sequence[str], text: str, option: str) -> list[int]:
    rows = trials
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        if name not in names:
            known = ", ".join(names)
            raise DeclarationError(f"{option}: {name!r:.80} is no hyperparameter of the study; there are: {known}")
        rows = rows[[_reads_as(one, value.strip()) for one in rows[name].tolist()]]
    return [int(number) for number in rows["trial"].tolist()]


def _reads_as(value: object, text: str) -> bool:
    if str(value) == text or str(value).lower() == text.lower() in ("none", "true", "false"):
        return True
    try:
        return not isinstance(value, bool | str) and float(str(value)) == float(text)
    except ValueError:
        return False


def _told(frames: StudyFrames, ready: Sequence[tuple[int, ...]]) -> str:
    if not ready:
        return f"points with {MINIMUM_REPLICATES} or more: none"
    shown = "; ".join(f"trials {', '.join(map(str, group[:5]))}" for group in ready[:_SHOWN])
    return f"points with {MINIMUM_REPLICATES} or more: {shown}{' ...' if len(ready) > _SHOWN else ''}"


def _example(frames: StudyFrames) -> str:
    row = frames.trials.iloc[0]
    return ",".join(f"{name}={row[name]}" for name in frames.hyperparameters[:2])
