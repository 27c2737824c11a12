"""What a report is made of: read once, so that all sections speak of the same moment."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from tuner.analysis.checklist import only_promoted, round_findings
from tuner.analysis.finding import Finding
from tuner.analysis.frames import study_frames
from tuner.analysis.questions.sweep import sweep_finding
from tuner.analysis.round_frames import round_frames, round_of, round_rows, row_of_trial
from tuner.analysis.study_frames import StudyFrames
from tuner.analysis.sweep_records import SweepRecords, sweep_records
from tuner.design.study import Study
from tuner.errors import StorageError
from tuner.records import TrialRecord
from tuner.records.conclusions import RegimeVerdict
from tuner.report.judged_regime import Regime, regime_of
from tuner.storage.store import Ledger
from tuner.storage.studies import LaunchRow, StudyRow

Asks = Callable[[StudyFrames], Sequence[Finding]]  # further questions about a round


def nothing_more(frames: StudyFrames) -> list[Finding]:
    """The checklist is all that is asked."""
    return []


@dataclass(frozen=True, slots=True)
class Placed:
    """A finding with the anchor of its card, and that of the plot which shows what it speaks of ("": none).

    subject: what it is about, as a reader knows it: for the whole campaign's findings that is their question.
    """

    anchor: str
    subject: str
    finding: Finding
    plot_anchor: str = ""


@dataclass(frozen=True, slots=True)
class StudyMaterial:
    """A study with its records and its findings. `place` counts from 1 and makes its anchors in the page.

    rows: the study as it was launched first, then the widenings of its space (B20), planned ones included.
    """

    place: int
    rows: tuple[StudyRow, ...]
    frames: StudyFrames
    findings: tuple[Finding, ...]
    launches: tuple[LaunchRow, ...]

    @property
    def row(self) -> StudyRow:
        return self.rows[0]

    @property
    def study(self) -> Study:
        """Declared over the widest space that was searched."""
        return self.frames.study

    @property
    def anchor(self) -> str:
        return f"study-{self.place}"

    @property
    def promoted(self) -> bool:
        """Whether it only trains points that were chosen from an earlier round."""
        return only_promoted(self.frames)

    @property
    def placed(self) -> tuple[Placed, ...]:
        """Its findings with their anchors."""
        plots = [finding.asked.plot for finding in self.findings]
        return tuple(
            Placed(f"{self.anchor}-finding-{number}", finding.subject, finding, f"{self.anchor}-{plot}" if plot else "")
            for number, (finding, plot) in enumerate(zip(self.findings, plots, strict=True), 1)
        )


@dataclass(frozen=True, slots=True)
class Material:
    """A campaign as it was found. `ledger` is open, for what only one section needs.

    rounds: in the order of their start. stages: the studies of all its sweeps, in the order of their start.
    others: its adoption and exploitation studies.
    sweep: the last sweep that came to an end. regime: how rounds are planned, None before anything was trained.
    placed: the findings about the campaign as a whole: its sweep, and its regime.
    """

    campaign: str
    ledger: Ledger
    rounds: tuple[StudyMaterial, ...]
    stages: tuple[StudyMaterial, ...]
    others: tuple[StudyMaterial, ...]
    sweep: SweepRecords | None
    regime: Regime | None
    placed: tuple[Placed, ...]
    written: datetime

    @property
    def newest_first(self) -> tuple[StudyMaterial, ...]:
        """The round that was started last is what somebody should read, and act on, first."""
        return tuple(reversed(self.rounds))

    @property
    def studies(self) -> tuple[StudyMaterial, ...]:
        """All of them, in the order of their start."""
        return tuple(sorted((*self.stages, *self.rounds, *self.others), key=lambda study: study.row.study_id))

    def record(self, study: StudyMaterial, trial: int) -> TrialRecord:
        """A trial of a study, in whichever widening it was trained; of an unreadable one its number and the reason."""
        try:
            if study.study.round is None or len(study.rows) == 1:
                return self.ledger.trial(study.row.study_id, trial)
            return row_of_trial(self.ledger, self.campaign, study.study.round, trial)[1]
        except StorageError:
            every = (one for row in study.rows for one in self.ledger.trials(row.study_id))
            found = next((one for one in every if one.number == trial), None)
            if found is None:
                raise
            return found

    @property
    def last_launch(self) -> LaunchRow | None:
        launches = [launch for study in self.studies for launch in study.launches]
        return max(launches, key=lambda launch: launch.started, default=None)


def read_material(ledger: Ledger, campaign: str, also: Asks = nothing_more) -> Material:
    """Everything about a campaign. Raises StorageError for an unknown one."""
    rounds: list[StudyMaterial] = []
    stages: list[StudyMaterial] = []
    others: list[StudyMaterial] = []
    of_kind = {"round": rounds, "sweep": stages}
    for row in ledger.studies(campaign):
        mine = of_kind.get(row.study.kind, others)
        if not _is_widening(row):
            mine.append(_study(ledger, campaign, row, len(mine) + 1, also))
    sweep = sweep_records(ledger, campaign)
    regime = regime_of(ledger.conclusion(campaign, RegimeVerdict), sweep, [study.frames for study in rounds])
    return Material(
        campaign,
        ledger,
        tuple(rounds),
        tuple(stages),
        tuple(others),
        sweep,
        regime,
        _placed(sweep, regime),
        datetime.now(UTC),
    )


def _study(ledger: Ledger, campaign: str, row: StudyRow, place: int, also: Asks) -> StudyMaterial:
    """A round is one study with its widenings, whose trials fill the wider space, and is judged as one."""
    numbers = round_of(row.study.name)
    rows = round_rows(ledger, campaign, numbers[0], planned=True) if numbers else [row]
    frames = round_frames(ledger, campaign, numbers[0]) if numbers else study_frames(ledger, campaign, row.study.name)
    launches = tuple(launch for one in rows for launch in ledger.launches(one.study_id))
    # A sweep is judged as a whole, never by the checklist of a round.
    found = (*round_findings(ledger, campaign, frames), *also(frames)) if row.study.kind == "round" else ()
    return StudyMaterial(place, tuple(rows), frames, found, launches)


def _is_widening(row: StudyRow) -> bool:
    numbers = round_of(row.study.name)
    return numbers is not None and numbers[1] > 0


def _placed(sweep: SweepRecords | None, regime: Regime | None) -> tuple[Placed, ...]:
    found = []
    if sweep is not None:
        found.append(
            Placed("sweep-finding", "sweep", sweep_finding(sweep.outcome, sweep.fits, sweep.frames.study), "sweep-plot")
        )
    if regime is not None and regime.contradiction is not None:
        found.append(Placed("regime-contradiction", "declared regime", regime.contradiction))
    if regime is not None and regime.finding is not None:
        found.append(Placed("regime-finding", "regime", regime.finding))
    return tuple(found)
