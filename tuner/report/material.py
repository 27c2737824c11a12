"""What the report is made of, read once, so that all sections show the same moment."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from tuner.analysis.checklist import only_promoted, round_findings
from tuner.analysis.finding import Finding
from tuner.analysis.frames import study_frames
from tuner.analysis.questions.regime import contradiction_finding, regime_finding
from tuner.analysis.questions.sweep import sweep_finding
from tuner.analysis.round_frames import round_frames, round_of, round_rows, row_of_trial
from tuner.analysis.study_frames import StudyFrames
from tuner.analysis.sweep_records import SweepRecords, sweep_records
from tuner.design.origin import promoted_from
from tuner.design.study import Study
from tuner.errors import StorageError
from tuner.records import TrialRecord
from tuner.records.conclusions import RegimeVerdict
from tuner.records.hourly_price import HourlyPrice
from tuner.records.sweep_outcomes import NotFitted
from tuner.report.wording import in_words
from tuner.storage.store import Ledger
from tuner.storage.studies import LaunchRow, StudyRow

# Who trained by which door (`design.words.DOORS`).
_WHO = {
    "loop": "the training loop",
    "lightning": "the Lightning module",
    "trainer": "the Trainer",
    "command": "the command",
    "asking": "the code that asked",
}
Asks = Callable[[StudyFrames], Sequence[Finding]]  # further findings about a round


def nothing_more(frames: StudyFrames) -> list[Finding]:
    """No findings beyond the checklist."""
    return []


@dataclass(frozen=True, slots=True)
class Placed:
    """A finding with its place on the page.

    anchor: of its card. plot_anchor: of the plot that shows the evidence, "" without one. subject: what the finding is
    about, in a reader's words; for a finding about the whole campaign it is the question.
    """

    anchor: str
    subject: str
    finding: Finding
    plot_anchor: str = ""


@dataclass(frozen=True, slots=True)
class StudyMaterial:
    """A study with its records and its findings.

    place: counts from 1; the anchors of the study contain it. rows: the study as it was first launched, then the
    widenings of its space (B20), planned ones included.
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
        """The declaration over the widest space that was searched."""
        return self.frames.study

    @property
    def anchor(self) -> str:
        return f"study-{self.place}"

    @property
    def promoted(self) -> bool:
        """Whether all its configurations were chosen from an earlier round."""
        return only_promoted(self.frames)

    @property
    def trained_steps(self) -> int:
        """Steps that the trials of this study trained; the others were inherited from trials with the same prefix."""
        trials = self.frames.trials
        return int(trials["steps"].sum() - trials["inherited"].sum())

    @property
    def trained_by(self) -> Mapping[str, str]:
        """What a launch recorded of a training that is not ours: `who` trained, and what it says; empty for our own."""
        told = next((one.environment.get("trained_by") for one in reversed(self.launches)), None)
        if not isinstance(told, Mapping):
            return {}
        words = {str(name): str(value) for name, value in told.items()}
        return {"who": _WHO.get(words.get("door", ""), "the training loop")} | words

    @property
    def placed(self) -> tuple[Placed, ...]:
        """The findings with their anchors."""
        plots = [finding.asked.plot for finding in self.findings]
        return tuple(
            Placed(f"{self.anchor}-finding-{number}", finding.subject, finding, f"{self.anchor}-{plot}" if plot else "")
            for number, (finding, plot) in enumerate(zip(self.findings, plots, strict=True), 1)
        )


@dataclass(frozen=True, slots=True)
class JudgedRegime:
    """How rounds are planned (A1-A5), who decided it, and whether the curves agree.

    verdict: the regime, "" where none is recorded. how: where the verdict comes from, as a sentence. finding: the
    regime that the curves show now. contradiction: the curves disagree with what was declared.
    """

    verdict: str
    how: str
    finding: Finding | None
    contradiction: Finding | None


@dataclass(frozen=True, slots=True)
class Material:
    """A campaign as it was found. `ledger` is open, for what only one section needs.

    rounds: in the order of their start, the controls of a stage among them. stages: the studies of all its sweeps, in
    the order of their start.
    others: its adoption and exploitation studies.
    sweep: the last sweep that came to an end. regime: how rounds are planned, None before anything was trained.
    placed: the findings about the campaign as a whole: its sweep, and its regime. price: of an hour of a worker, where
    it was given.
    """

    campaign: str
    ledger: Ledger
    rounds: tuple[StudyMaterial, ...]
    stages: tuple[StudyMaterial, ...]
    others: tuple[StudyMaterial, ...]
    sweep: SweepRecords | None
    regime: JudgedRegime | None
    placed: tuple[Placed, ...]
    written: datetime
    price: HourlyPrice | None = None

    @property
    def main_rounds(self) -> tuple[StudyMaterial, ...]:
        """The rounds without the controls of a stage, on which nothing of the campaign rests (C5)."""
        return tuple(one for one in self.rounds if not one.study.start)

    @property
    def newest_first(self) -> tuple[StudyMaterial, ...]:
        """The round that was started last is what somebody should read, and act on, first; controls come last."""
        controls = (one for one in self.rounds if one.study.start)
        return (*reversed(self.main_rounds), *controls)

    def before(self, study: StudyMaterial) -> StudyMaterial | None:
        """The round before a round; None before the first one, and of a control, which continues none."""
        main = self.main_rounds
        place = next((place for place, one in enumerate(main) if one is study), 0)
        return main[place - 1] if place else None

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


def regime_of(
    concluded: RegimeVerdict | None, sweep: SweepRecords | None, rounds: Sequence[StudyFrames]
) -> JudgedRegime | None:
    """The regime as it was concluded, with its evidence; None where there is neither.

    The evidence is the sweep, whose learning rates never fall (D47); without a sweep it is the newest round.
    """
    finding = _regime_finding(sweep, rounds)
    if concluded is None:
        elsewhere = any(frames.study.source for frames in rounds)
        return None if finding is None else JudgedRegime("", _ELSEWHERE if elsewhere else _UNDECLARED, finding, None)
    verdict = concluded.verdict
    contradiction = None if finding is None else contradiction_finding(verdict, finding)
    return JudgedRegime(verdict, _how(concluded, sweep), finding, contradiction)


_UNDECLARED = (
    "No regime was concluded from a sweep. Rounds are planned as the study file declares or implies it: a production "
    "length means compute-bound. The evidence of the curves is below."
)

_ELSEWHERE = (
    "The trials were trained elsewhere, and how their number of steps was chosen is not recorded. The evidence of the "
    "curves is below."
)


def _regime_finding(sweep: SweepRecords | None, rounds: Sequence[StudyFrames]) -> Finding | None:
    if sweep is not None:
        return regime_finding(sweep.frames, sweep.outcome)
    trained = [frames for frames in rounds if len(frames.complete) and not frames.stops_early]
    return regime_finding(trained[-1]) if trained else None


def _how(concluded: RegimeVerdict, sweep: SweepRecords | None) -> str:
    verdict, evidence = concluded.verdict, concluded.evidence
    if verdict == evidence == "undecided":
        return "The evidence is not enough. Rounds are planned from the steps to fit, and refined from best steps."
    if verdict == evidence:
        return "Found from the sweep's outcome and its curves."
    shown = f"the evidence showed {in_words(evidence)}"
    if sweep is not None and isinstance(sweep.outcome, NotFitted):
        if verdict == "compute_bound":
            return f"Taken as compute-bound because the training set was not fitted (A19); {shown}."
        if verdict == "undecided":
            return f"The training set was not fitted and round 1 declares its length, refined from best steps; {shown}."
    return f"Declared in the study file; {shown}."


def read_material(
    ledger: Ledger, campaign: str, also: Asks = nothing_more, price: HourlyPrice | None = None
) -> Material:
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
    regime = regime_of(
        ledger.conclusion(campaign, RegimeVerdict), sweep, [study.frames for study in rounds if not study.study.start]
    )
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
        price,
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


def _placed(sweep: SweepRecords | None, regime: JudgedRegime | None) -> tuple[Placed, ...]:
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


def parent_of(material: Material, record: TrialRecord) -> tuple[StudyMaterial, TrialRecord] | None:
    """The trial of an earlier round whose point a trial trains again; None where its origin names none."""
    origin = promoted_from(record.origin)
    if origin is None:
        return None
    study = next((study for study in material.rounds if study.study.name == origin.study), None)
    if study is None or origin.trial not in set(study.frames.trials["trial"]):
        return None
    return study, material.record(study, origin.trial)
