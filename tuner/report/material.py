"""What a report is made of: read once, so that all sections speak of the same moment."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from tuner.analysis.checklist import foundation_findings
from tuner.analysis.finding import Finding
from tuner.analysis.frames import study_frames
from tuner.analysis.study_frames import StudyFrames
from tuner.design.study import Study, StudyKind
from tuner.storage.store import Ledger
from tuner.storage.studies import LaunchRow, StudyRow

# What each kind of study is asked. A sweep is judged by its own section, never by the checklist of a round.
_QUESTIONS: Mapping[StudyKind, Callable[[StudyFrames], list[Finding]]] = {
    "round": foundation_findings,
    "sweep": lambda frames: [],
}


@dataclass(frozen=True, slots=True)
class StudyMaterial:
    """A study with its records and its findings. `place` counts from 1 and makes its anchors in the page."""

    place: int
    row: StudyRow
    frames: StudyFrames
    findings: tuple[Finding, ...]
    launches: tuple[LaunchRow, ...]

    @property
    def study(self) -> Study:
        return self.row.study

    @property
    def anchor(self) -> str:
        return f"study-{self.place}"

    def finding_anchor(self, index: int) -> str:
        """The anchor of a finding's card, by its place in `findings`."""
        return f"{self.anchor}-finding-{index + 1}"


@dataclass(frozen=True, slots=True)
class Material:
    """A campaign's studies in the order of their start. `ledger` is open, for what only one section needs."""

    campaign: str
    ledger: Ledger
    studies: tuple[StudyMaterial, ...]
    written: datetime

    @property
    def newest_first(self) -> tuple[StudyMaterial, ...]:
        """What was started last is what somebody should read, and act on, first."""
        return tuple(reversed(self.studies))

    @property
    def last_launch(self) -> LaunchRow | None:
        launches = [launch for study in self.studies for launch in study.launches]
        return max(launches, key=lambda launch: launch.started, default=None)


def read_material(ledger: Ledger, campaign: str) -> Material:
    """Everything about a campaign. Raises StorageError for an unknown one."""
    studies = []
    for place, row in enumerate(ledger.studies(campaign), 1):
        frames = study_frames(ledger, campaign, row.study.name)
        findings = tuple(_QUESTIONS[row.study.kind](frames))
        studies.append(StudyMaterial(place, row, frames, findings, tuple(ledger.launches(row.study_id))))
    return Material(campaign, ledger, tuple(studies), datetime.now(UTC))
