"""Launching a study: everything is checked first, then planned in the Ledger, then trained; again means continue."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tuner.analysis.stale import CONCLUSION
from tuner.design.campaign import Campaign
from tuner.design.identity import Identity
from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.errors import StorageError
from tuner.execution.backend import Backend, Watch, silent
from tuner.records import Price, State
from tuner.rounds.basis import basis_of
from tuner.rounds.plan import round_name
from tuner.rounds.provenance import command_line, environment, revision
from tuner.rounds.same_study import Comparison
from tuner.storage.claims import worker_id
from tuner.storage.store import Ledger
from tuner.storage.studies import StudyRow


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Desk:
    """What every part of the strategy works with: a campaign, where its records are, who trains, who watches."""

    name: str
    campaign: Campaign
    ledger: Ledger
    backend: Backend
    watch: Watch = silent
    stop: Callable[[], bool] = _never
    study_file: Path | None = None
    allow_changed_code: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """A study and its trials before anything is trained, with what one trial costs here.

    `trials`: those to be trained; `finished`: so many more need not be. `saved`: the first steps that each trial (those
    beyond its length: none) takes over from one trained before.
    """

    study: Study
    trials: tuple[Trial, ...]
    price: Price
    saved: tuple[int, ...] = ()
    finished: int = 0

    @property
    def saved_steps(self) -> int:
        return sum(self.saved)

    @property
    def steps(self) -> int:
        """Steps that are really trained."""
        return len(self.trials) * self.study.budget.max_train_steps - self.saved_steps

    @property
    def seconds(self) -> float:
        """Estimated time of all trials, one after the other, evaluations included."""
        return self.steps * self.price.step_ms / 1e3 + self.evaluation_seconds

    @property
    def evaluation_seconds(self) -> float:
        """Estimated time of all evaluations."""
        due = self.study.budget.evaluation_steps
        evaluations = len(self.trials) * len(due) - sum(bisect_right(due, step) for step in self.saved)
        return evaluations * self.price.evaluation_ms / 1e3

    @property
    def checkpoint_bytes(self) -> int:
        """Disk for the latest, the best and the trunk checkpoints of all trials; a trunk holds the best weights too."""
        best = self.study.keep_best * self.price.best_bytes
        return (len(self.trials) + sum(len(trial.pins) for trial in self.trials)) * (self.price.latest_bytes + best)


def started_study(desk: Desk, name: str) -> StudyRow | None:
    """A study of this campaign as it was started before, or None."""
    if desk.name not in desk.ledger.campaigns():
        return None
    return next((row for row in desk.ledger.studies(desk.name) if row.study.name == name), None)


def required_round(desk: Desk, number: int) -> StudyRow:
    """The study of a round that must have been launched. Raises StorageError with the command that launches it."""
    row = started_study(desk, round_name(number))
    if row is None or not desk.ledger.state_counts(row.study_id).get(State.COMPLETE):
        raise StorageError(
            f"round {number} of {desk.name!r} has no complete trial, and the next round starts from its results; "
            f"launch it first: tuner launch {desk.study_file or desk.name} --round {number}"
        )
    return row


def plan_study(desk: Desk, study: Study, trials: Sequence[Trial]) -> Plan:
    """Check the workload on its first batch and measure the price of the trials that are left. Writes nothing."""
    desk.backend.check(study, trials[0])
    started = started_study(desk, study.name)
    known = desk.ledger.trials(started.study_id) if started else ()
    finished = {record.number for record in known if record.state.finished}
    left = tuple(trial for trial in trials if trial.number not in finished)
    saved = desk.backend.saved_steps(desk.ledger, study, left) if left else ()
    return Plan(study, left, desk.backend.price(study, trials[0]), tuple(saved), len(trials) - len(left))


def launch_study(
    desk: Desk,
    study: Study,
    trials: Sequence[Trial],
    *,
    retry_failed: bool = False,
    budget_origin: str = "",
    budget_source: str | None = None,
) -> StudyRow:
    """Check, write the plan to the Ledger, and train what is not finished yet. Finished trials are not repeated.

    budget_origin: where the study's budget came from, in words. budget_source: the study it was chosen from. Both are
    kept at its first start, with what they were chosen under.
    """
    started = started_study(desk, study.name)
    if started is None or _num_finished(desk, started) < study.num_trials or retry_failed:
        desk.backend.check(study, trials[0])
        desk.backend.check_room(study, trials[0])
    comparison = _comparison(desk)
    today = comparison.today(study, started)
    kept = {"origin": budget_origin, "source": budget_source, "basis": _basis(desk, study)}
    row = desk.ledger.start_study(
        desk.name, study, today.fingerprint, identity=today.as_json(), trials=trials, concluded={CONCLUSION: kept}
    )
    comparison.refuse_other(row, today)  # somebody else may have started it just now
    if retry_failed:
        desk.ledger.reset(row.study_id, [State.FAILED])
    finished = _num_finished(desk, row)
    if finished < study.num_trials:
        _work_on(desk, row, finished, today)
    return row


def work_on(desk: Desk, row: StudyRow, finished: int) -> None:
    """Train what is left of a study that is planned. Raises StudyChanged for other code than it was started with."""
    _work_on(desk, row, finished, _comparison(desk).today(row.study, row))


def _work_on(desk: Desk, row: StudyRow, finished: int, today: Identity) -> None:
    _comparison(desk).tell_what_follows(row, today)
    _record_launch(desk, row, today)
    with desk.watch(row.study, finished) as listener:
        desk.backend.run(desk.ledger, row, listener, desk.stop)


def _basis(desk: Desk, study: Study) -> dict[str, str]:
    return basis_of(desk.campaign, desk.backend, study.round or 1)


def _num_finished(desk: Desk, row: StudyRow) -> int:
    return sum(count for state, count in desk.ledger.state_counts(row.study_id).items() if state.finished)


def _comparison(desk: Desk) -> Comparison:
    return Comparison(desk.name, desk.campaign, desk.ledger, desk.backend, desk.allow_changed_code)


def _record_launch(desk: Desk, row: StudyRow, today: Identity) -> None:
    folder = desk.study_file.resolve().parent if desk.study_file else Path.cwd()
    known = environment() | {
        "study_file": str(desk.study_file) if desk.study_file else None,
        "data": dict(desk.campaign.workload.provenance()),
        "fingerprint": today.fingerprint,
        "packages": dict(today.packages),
    }
    desk.ledger.add_launch(
        row.study_id, command=command_line(), revision=revision(folder), environment=known, worker=worker_id()
    )
