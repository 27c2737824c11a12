"""The last sweep of a campaign as the Ledger holds it: its outcome, its trials, and what followed from it."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from tuner.analysis.fit_steps import fit_steps_frame
from tuner.analysis.frames import study_frames
from tuner.analysis.study_frames import StudyFrames
from tuner.analysis.sweep_outcome import Outcome, outcome_from_json, outcome_to_json
from tuner.storage.store import Ledger

CONCLUSION = "sweep"  # the kind under which the Ledger keeps it


@dataclass(frozen=True, slots=True)
class SweepRecords:
    """A sweep that has come to an end.

    frames: its grid, or its longest probe where no grid was needed to see that nothing fits.
    fits: `fit_steps_frame` of it. margin: round 1 takes so many times the steps to fit.
    """

    name: str
    outcome: Outcome
    margin: float
    frames: StudyFrames

    @property
    def fits(self) -> pd.DataFrame:
        return fit_steps_frame(self.frames)


def sweep_records(ledger: Ledger, campaign: str) -> SweepRecords | None:
    """The last sweep that came to an end, or None."""
    concluded = ledger.conclusion(campaign, CONCLUSION) if campaign in ledger.campaigns() else None
    if concluded is None:
        return None
    data: dict[str, Any] = dict(concluded)
    name, margin = str(data.pop("name")), float(data.pop("margin"))
    frames = study_frames(ledger, campaign, _telling_study(ledger, campaign, name))
    return SweepRecords(name, outcome_from_json(data), margin, frames)


def conclude_sweep(ledger: Ledger, campaign: str, name: str, outcome: Outcome, margin: float) -> None:
    """Keep the outcome of a sweep."""
    ledger.conclude(campaign, CONCLUSION, outcome_to_json(outcome) | {"name": name, "margin": margin})


def _telling_study(ledger: Ledger, campaign: str, name: str) -> str:
    studies = [row.study for row in ledger.studies(campaign) if row.study.name.startswith(f"{name}-")]
    grids = [study.name for study in studies if study.name == f"{name}-grid"]
    return grids[0] if grids else max(studies, key=lambda study: study.budget.max_train_steps).name
