"""The last sweep of a campaign as the Ledger holds it: its outcome, its trials, and what followed from it."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from tuner.analysis.fit_steps import fit_steps_frame
from tuner.analysis.frames import study_frames
from tuner.analysis.study_frames import StudyFrames
from tuner.analysis.study_progress import MOST_LISTED, first_line
from tuner.errors import TrialsFailed
from tuner.records import State
from tuner.records.conclusions import SweepConclusion
from tuner.records.sweep_outcomes import NotFitted, SweepOutcome
from tuner.shown import word
from tuner.storage.store import Ledger


@dataclass(frozen=True, slots=True)
class SweepRecords:
    """A sweep that has come to an end.

    stages: its grid alone; where no grid was needed to see that nothing fits, all stages of the greatest length.
    margin: the length of round 1 as a multiple of the steps to fit.
    """

    name: str
    outcome: SweepOutcome
    margin: float
    stages: tuple[StudyFrames, ...]

    @property
    def fits(self) -> pd.DataFrame:
        """`fit_steps_frame` of every learning rate that was trained to the greatest length, one row each."""
        return fits_of_stages([fit_steps_frame(stage) for stage in self.stages])

    @property
    def frames(self) -> StudyFrames:
        """The stage in which the outcome's learning rate was trained; of several the last."""
        if isinstance(self.outcome, NotFitted) and self.outcome.best_learning_rate is not None:
            best = self.outcome.best_learning_rate
            for stage in reversed(self.stages):
                if best in set(stage.trials["learning_rate"]):
                    return stage
        return self.stages[-1]


def fits_of_stages(stages: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The trials of several stages of one length (`fit_steps_frame`) as one, a rate once: the first of its trials.

    Equal rates have equal seeds, so their trials are equal.
    """
    if len(stages) == 1:
        return stages[0]
    every = pd.concat(stages, ignore_index=True).drop_duplicates("learning_rate")
    return every.sort_values("learning_rate").reset_index(drop=True)


def sweep_records(ledger: Ledger, campaign: str) -> SweepRecords | None:
    """The last sweep that came to an end, or None. Raises StorageError where what was concluded is damaged."""
    concluded = ledger.conclusion(campaign, SweepConclusion) if campaign in ledger.campaigns() else None
    if concluded is None:
        return None
    names = _telling_stages(ledger, campaign, concluded.name)
    stages = tuple(study_frames(ledger, campaign, stage) for stage in names)
    return SweepRecords(concluded.name, concluded.outcome, concluded.margin, stages)


def failed_rates(ledger: Ledger, campaign: str, name: str) -> list[str]:
    """The FAILED trials of a sweep in any of its stages, with rate and reason, a line each."""
    found = []
    for row in ledger.studies(campaign):
        stage = row.study.name
        if stage.startswith(f"{name}-") and ledger.state_counts(row.study_id)[State.FAILED]:
            found += failed_of(fit_steps_frame(study_frames(ledger, campaign, stage)), stage)
    return found


def failed_of(fits: pd.DataFrame, stage: str) -> list[str]:
    """The FAILED trials among those of one stage (`fit_steps_frame`), with rate and reason, a line each."""
    failed = fits[fits["state"] == "failed"]
    return [
        f"{stage} trial {row['trial']}, learning rate {row['learning_rate']:g}: {first_line(str(row['reason']))}"
        for row in failed.to_dict("records")
    ]


def refuse_failed_rates(failed: Sequence[str], study: object) -> None:
    """Raise TrialsFailed where there are any: a rate that FAILED may be the fastest, so no number rests on the others.

    study: the study file or the campaign's name, for the way out.
    """
    if failed:
        listed = "\n".join(f"  {line}" for line in (*failed[:MOST_LISTED], *["  ..."] * (len(failed) > MOST_LISTED)))
        raise TrialsFailed(
            f"{len(failed)} learning rates of the sweep FAILED, so it gives no number of steps (a rate that FAILED is "
            f"not a rate that did not fit):\n{listed}\nremove the cause, then train them again: tuner sweep "
            f"{word(study)} --retry-failed"
        )


def _telling_stages(ledger: Ledger, campaign: str, name: str) -> list[str]:
    """The grid; else all stages of the greatest length: the last probe, and the rates around its best."""
    studies = [row.study for row in ledger.studies(campaign) if row.study.name.startswith(f"{name}-")]
    grids = [study.name for study in studies if study.name == f"{name}-grid"]
    most = max(study.budget.max_train_steps for study in studies)
    return grids or [study.name for study in studies if study.budget.max_train_steps == most]
