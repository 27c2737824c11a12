"""A question of the checklist as data: what its answers rest on, and what each of them asks for."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from tuner.analysis.finding import NOTHING_TO_DO, Finding, Strength
from tuner.analysis.study_frames import StudyFrames


@dataclass(frozen=True, slots=True)
class Question:
    """actions: the next action by verdict; a verdict that is missing there asks for nothing.

    urgent: the verdicts that somebody (or exit code 3) should react to.
    """

    name: str
    thresholds: Mapping[str, float]
    actions: Mapping[str, str]
    urgent: tuple[str, ...] = ()

    def answer(
        self,
        frames: StudyFrames,
        verdict: str,
        summary: str,
        evidence: pd.DataFrame,
        *,
        strength: Strength = "moderate",
        caveats: tuple[str, ...] = (),
    ) -> Finding:
        """The Finding about a study; what does not decide has no strength, whatever is given."""
        return Finding(
            question=self.name,
            subject=frames.study.name,
            verdict=verdict,
            strength="none" if verdict == "inconclusive" else strength,
            summary=summary,
            evidence=evidence,
            thresholds=self.thresholds,
            action=self.actions.get(verdict, NOTHING_TO_DO),
            needs_action=verdict in self.urgent,
            caveats=caveats,
        )
