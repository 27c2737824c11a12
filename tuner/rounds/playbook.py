"""The whole playbook: sweep, regime, round 1, its findings, the longer rounds (A1-A45).

Each stage is recorded in the Ledger, so a run that was interrupted goes on; a stage that is done costs nothing.
Where a finding needs a person's decision the run stops with a `Decision`, unless it was told to take the
proposed action.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from tuner.analysis.checklist import confirming_findings
from tuner.analysis.finding import Finding, needing_action
from tuner.analysis.questions.boundary import boundary_findings
from tuner.analysis.questions.control import control_findings
from tuner.analysis.questions.failed_trials import failed_findings
from tuner.analysis.questions.isolation import isolation_findings
from tuner.analysis.questions.regime import contradiction_finding, regime_finding
from tuner.analysis.questions.sweep import sweep_finding
from tuner.analysis.round_frames import round_frames, round_rows, rounds_started
from tuner.analysis.study_frames import StudyFrames
from tuner.analysis.sweep_records import SweepRecords, sweep_records
from tuner.analysis.unfitted import Proposal, Unfitted, proposals
from tuner.design.campaign import Sweep
from tuner.errors import DeclarationError, StorageError
from tuner.records.conclusions import RegimeVerdict
from tuner.records.sweep_outcomes import Fitted, Invalid, NotFitted, SweepOutcome
from tuner.rounds.expand import expand_round
from tuner.rounds.launch import Session, refuse_all_failed
from tuner.rounds.prepared_round import Prepared, declared_regime, launch_prepared, prepared_expansion, prepared_round
from tuner.rounds.round_lengths import many_rounds_note
from tuner.rounds.sweep import MAX_EXTENSIONS, run_sweep, settled_outcome
from tuner.shown import word
from tuner.storage.studies import StudyRow


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person has to decide: the findings behind it, what `--yes` would do, and a command that does otherwise.

    proposal: "" where `--yes` cannot choose; then `lines` says what to write, and where.
    """

    text: str
    findings: tuple[Finding, ...]
    proposal: str
    instead: str = ""
    lines: tuple[Proposal, ...] = ()


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended: complete, or with a decision for a person.

    rounds: the studies of its rounds, whose trials may have FAILED.
    """

    findings: tuple[Finding, ...]
    decision: Decision | None = None
    rounds: tuple[StudyRow, ...] = ()


Tell = Callable[[str], None]


def _lines_without_a_number(outcome: SweepOutcome, records: SweepRecords) -> tuple[Proposal, ...]:
    """What to write in the study file where a sweep gave no number and nothing can be assumed."""
    if isinstance(outcome, NotFitted):
        return proposals(Unfitted(outcome, records.fits, records.frames.study))
    rates = ", ".join(f"{rate:g}" for rate in outcome.extended_grid) if isinstance(outcome, Invalid) else ""
    further = Proposal(f"Sweep(learning_rate=({rates}))", "Campaign", f"{MAX_EXTENSIONS} extensions were not enough")
    return (further, Proposal("max_train_steps=N", "the first Round", "N steps that you choose, without a sweep"))


class Playbook:
    """One run of the playbook. `tell` is told what happens; `yes` takes the proposed action of every decision.

    expand: how often the space of a round is widened where its best points press against a range (B20). retry_failed:
    train FAILED trials of every stage again; those of a stage are anyway, once.
    """

    def __init__(self, session: Session, *, yes: bool, tell: Tell, expand: int = 0, retry_failed: bool = False) -> None:
        self.session = session
        self.retry_failed = retry_failed
        self.rounds: list[StudyRow] = []
        self.yes = yes
        self.expand = expand
        self.tell = tell
        self.findings: list[Finding] = []

    def run(self) -> Ending:
        """Go through all stages that are left.

        Raises InputError, Paused, Interrupted, or TrialsFailed where a stage has no answer because trials FAILED.
        """
        self._warn_about_rounds()
        decision = self._find_regime()
        for number in range(1, len(self.session.campaign.rounds) + 1):
            if decision is not None:
                break
            decision = self._run_round(number)
        return Ending(tuple(self.findings), decision, tuple(self.rounds))

    def _warn_about_rounds(self) -> None:
        note = many_rounds_note(len(self.session.campaign.main_rounds))
        if note is not None:
            self.tell(f"note: {note}")

    def _find_regime(self) -> Decision | None:
        """Sweep where one is declared, and decide how rounds are planned (A1)."""
        campaign = self.session.campaign
        declared = declared_regime(campaign)
        if campaign.sweep is None or declared == "compute_bound":
            if declared is None and campaign.rounds[0].max_train_steps is None:
                raise DeclarationError(
                    "nothing says how long to train: declare a sweep (sweep=Sweep()), production_steps, or "
                    "max_train_steps on the first round"
                )
            self.tell(f"regime: {declared or 'undecided'}, as declared")
            return None
        outcome, decision = self._sweep_until_valid(campaign.sweep)
        if decision is not None:
            return decision
        return self._judge_regime(outcome, declared)

    def _sweep_until_valid(self, sweep: Sweep) -> tuple[SweepOutcome, Decision | None]:
        for _ in range(MAX_EXTENSIONS + 1):
            outcome = settled_outcome(self.session, sweep) or run_sweep(
                self.session, sweep, retry_failed=self.retry_failed
            )
            records = self._sweep()
            finding = self._add(sweep_finding(outcome, records.fits, records.frames.study))
            if not isinstance(outcome, Invalid):
                break
            proposal = f"extend the grid to {', '.join(f'{rate:g}' for rate in outcome.extended_grid)}"
            if not self.yes:
                return outcome, Decision("The sweep's grid ends too early. Extend it?", (finding,), proposal)
            self.tell(f"taking the proposed action: {proposal}")
            self.findings.remove(finding)  # the sweep that follows answers instead
            sweep = replace(sweep, learning_rate=outcome.extended_grid)
        if isinstance(outcome, Fitted):
            return outcome, None
        going_on = self._without_a_fit()
        if going_on and isinstance(outcome, NotFitted):
            self.tell(f"the training set was not fitted; {going_on}")
            return outcome, None
        text = "The sweep found no number of steps. How long shall trials train?"
        return outcome, Decision(text, (finding,), "", lines=_lines_without_a_number(outcome, records))

    def _without_a_fit(self) -> str:
        """How the rounds continue where no trial reached the fit criterion; "" where no declaration decides it."""
        if self.session.campaign.production_steps is not None:
            return "going on as compute-bound, to the declared production length"
        steps = self.session.campaign.rounds[0].max_train_steps
        return "" if steps is None else f"going on with the {steps:,} steps that round 1 declares"

    def _judge_regime(self, outcome: SweepOutcome, declared: str | None) -> Decision | None:
        finding = self._add(regime_finding(self._sweep().frames, outcome))
        contradiction = contradiction_finding(declared, finding) if declared else None
        if contradiction is not None:
            self._add(contradiction)
        verdict = declared or finding.verdict
        if declared is None and isinstance(outcome, NotFitted):
            # Only a production length makes rounds grow towards it; a declared round 1 is refined from its best steps.
            verdict = "undecided" if self.session.campaign.production_steps is None else "compute_bound"
        self.session.ledger.conclude(self.session.name, RegimeVerdict(verdict, finding.verdict))
        return None

    def _sweep(self) -> SweepRecords:
        records = sweep_records(self.session.ledger, self.session.name)
        if records is None:
            raise StorageError(f"the sweep of {self.session.name!r} left no record")
        return records

    def _run_round(self, number: int) -> Decision | None:
        prepared = prepared_round(self.session, number)
        self._announce(number, prepared)
        self._launch(prepared)
        declared = self.session.campaign.round(number)
        searched = declared.space is not None or declared.trials is not None
        if searched and self.expand and not self._was_answered(number):
            self._widen(number)
        frames = round_frames(self.session.ledger, self.session.name, number)
        for finding in failed_findings(frames):
            self._add(finding)
        if number == 1:
            self._check_declared_regime(frames)
        for finding in confirming_findings(self.session.ledger, self.session.name, number, frames):
            self._add(finding)
        for finding in control_findings(self.session.ledger, self.session.name, number):
            self._add(finding)
        for finding in isolation_findings(frames) if searched else ():
            self._add(finding)
        return self._judge_boundaries(number, frames) if searched else None

    def _widen(self, number: int) -> None:
        """Widen a round's ranges while its best points press against them, and train what is new."""
        ledger, name = self.session.ledger, self.session.name
        if self._widenings(number):
            self._train_widening(number)  # what an interruption left of it
        while self._widenings(number) < self.expand:
            if not needing_action(boundary_findings(round_frames(ledger, name, number))):
                break
            made, _ = expand_round(ledger, name, number)
            self.tell(f"round {number} is widened, {len(made.trials)} new points: {'; '.join(made.widened)}")
            self._train_widening(number)

    def _widenings(self, number: int) -> int:
        return len(round_rows(self.session.ledger, self.session.name, number, planned=True)) - 1

    def _train_widening(self, number: int) -> None:
        self._launch(prepared_expansion(self.session, number))

    def _launch(self, prepared: Prepared) -> None:
        """Train what is left of a round. Raises TrialsFailed where none of its trials completed because of failures."""
        row = launch_prepared(self.session, prepared, retry_failed=self.retry_failed, second_try=True)
        self.rounds.append(row)
        refuse_all_failed(self.session, row)

    def _judge_boundaries(self, number: int, frames: StudyFrames) -> Decision | None:
        boundaries = [self._add(finding) for finding in boundary_findings(frames)]
        open_ones = needing_action(boundaries)
        later = self._next_round(number)
        if not open_ones or later is None:
            return None
        names = ", ".join(finding.subject for finding in open_ones)
        decision = Decision(
            f"The best points of round {number} press against the range of {names}. Go on with them all the same?",
            tuple(open_ones),
            f"go on to round {later} with the best points found",
            f"tuner run {word(self.session.called)} --expand {self._widenings(number) + 1}",
        )
        if self.yes:
            self.tell(f"taking the proposed action: {decision.proposal}")
            return None
        return None if self._was_answered(number) else decision

    def _check_declared_regime(self, frames: StudyFrames) -> None:
        """Compare a regime that was declared without a sweep with the curves of round 1 (A1)."""
        declared = declared_regime(self.session.campaign)
        if declared is None or sweep_records(self.session.ledger, self.session.name) is not None:
            return
        contradiction = contradiction_finding(declared, self._add(regime_finding(frames, None)))
        if contradiction is not None:
            self._add(contradiction)

    def _was_answered(self, number: int) -> bool:
        """Whether a later round was started before, so that a person has decided already."""
        return any(started > number for started in rounds_started(self.session.ledger, self.session.name))

    def _next_round(self, number: int) -> int | None:
        """The round that goes on from a round; None after the last one, and after a control, from which none does."""
        main = self.session.campaign.main_rounds
        return next((one for one in main if one > number), None) if number in main else None

    def _announce(self, number: int, prepared: Prepared) -> None:
        study = prepared.study
        self.tell(
            f"round {number}: {study.goal} - {len(prepared.trials)} trials of {study.trains_in_words} "
            f"({prepared.budget.origin.sentence})"
        )
        for warning in prepared.warnings:
            self.tell(f"note: {warning}")

    def _add(self, finding: Finding) -> Finding:
        self.findings.append(finding)
        mark = "!" if finding.needs_action else " "
        self.tell(f"{mark} {finding.heading} {finding.verdict}. {finding.summary}")
        return finding
