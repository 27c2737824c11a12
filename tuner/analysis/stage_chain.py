"""Campaigns that start from each other, as they are recorded: which from which, and the steps behind their weights."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from tuner.design.stages import START_FROM
from tuner.records import TrialRecord
from tuner.records.conclusions import Selected, StageStart
from tuner.storage.store import Ledger
from tuner.storage.studies import StudyRow


def recorded_start(ledger: Ledger, campaign: str) -> StageStart | None:
    """What the studies of a campaign start from, as the first of them recorded it; None before."""
    if campaign not in ledger.campaigns():
        return None
    found = (ledger.conclusion(campaign, StageStart, row.study_id) for row in ledger.studies(campaign))
    return next((one for one in found if one is not None), None)


def start_of_trial(ledger: Ledger, row: StudyRow, record: TrialRecord) -> Selected | None:
    """The weights that a trial started from; None where it started from the model's own."""
    start = ledger.conclusion(row.campaign, StageStart, row.study_id)
    if start is None:
        return None
    chosen = dict(record.point).get(START_FROM, 1)
    place = chosen - 1 if isinstance(chosen, int) and 1 <= chosen <= len(start.candidates) else 0
    return start.candidates[place]


@dataclass(frozen=True, slots=True)
class RecordedStage:
    """A stage as it is recorded.

    start: what its trials start from; None of a first stage, and of one that was not launched. trained_steps: that all
    its trials trained, those of its sweep and its controls included. max_train_steps: of the trials of its last study
    that belongs to no control, None before any; a limit where `stops_early`.
    """

    campaign: str
    start: StageStart | None
    trained_steps: int
    max_train_steps: int | None
    stops_early: bool = False

    @property
    def inherited_steps(self) -> int:
        """Updates behind the weights that its trials start from."""
        return self.start.inherited_steps if self.start else 0

    @property
    def steps_in_all(self) -> int:
        """Own and inherited steps of a trial of its last round."""
        return self.inherited_steps + (self.max_train_steps or 0)

    @property
    def limit(self) -> str:
        """What stands before the steps of a trial, where trials may stop early."""
        return "at most " if self.stops_early else ""

    @property
    def starts_from(self) -> str:
        """What its trials start from, for a person; "" where that is the model's own initialization."""
        return start_words(self.start)

    @property
    def sentence(self) -> str:
        """What its trials start from, and the steps behind that; "" of a first stage."""
        if self.start is None:
            return ""
        return f"{self.campaign} started from {self.starts_from}; {self.inherited_steps:,} inherited steps"


def start_words(start: StageStart | None) -> str:
    """What trials start from, for a person: the candidates, the best first; "" without a start."""
    return "; ".join(one.words for one in start.candidates) if start else ""


def recorded_stage(ledger: Ledger, campaign: str) -> RecordedStage:
    """A campaign as a stage; one that was not launched has no steps."""
    rows = ledger.studies(campaign) if campaign in ledger.campaigns() else []
    records = [record for row in rows for record in ledger.trials(row.study_id)]
    main = [row.study for row in rows if not row.study.start and row.study.kind == "round"]
    return RecordedStage(
        campaign,
        recorded_start(ledger, campaign),
        sum(record.step - record.inherited.steps for record in records),
        main[-1].budget.max_train_steps if main else None,
        bool(main and main[-1].patience_steps),
    )


def chain_of(ledger: Ledger, campaign: str) -> list[RecordedStage]:
    """The stages that led to a campaign, the first of all first, itself last; of other storages none."""
    known = ledger.campaigns()
    found = [recorded_stage(ledger, campaign)]
    while (start := found[0].start) is not None:
        source = start.candidates[0].campaign
        if start.candidates[0].storage or source not in known or source in {one.campaign for one in found}:
            break
        found.insert(0, recorded_stage(ledger, source))
    return found


def started_from(ledger: Ledger, campaign: str) -> list[str]:
    """The campaigns of a storage that start from this one."""
    others = [name for name in ledger.campaigns() if name != campaign]
    starts = {name: recorded_start(ledger, name) for name in others}
    first = {name: start.candidates[0] for name, start in starts.items() if start}
    return [name for name, one in first.items() if one.campaign == campaign and not one.storage]


def chain_frame(stages: Sequence[RecordedStage]) -> pd.DataFrame:
    """A row for each stage, in steps: those of all its trials; of one of its last round, own, inherited and in all."""
    rows = [
        {
            "stage": one.campaign,
            "starts from": one.starts_from or "-",
            "trained": f"{one.trained_steps:,}",
            "own": "-" if one.max_train_steps is None else f"{one.limit}{one.max_train_steps:,}",
            "inherited": f"{one.inherited_steps:,}",
            "in all": "-" if one.max_train_steps is None else f"{one.limit}{one.steps_in_all:,}",
        }
        for one in stages
    ]
    if len(stages) > 1:
        trained = sum(one.trained_steps for one in stages)
        rows.append(dict.fromkeys(rows[0], "") | {"stage": "all", "trained": f"{trained:,}"})
    return pd.DataFrame(rows)
