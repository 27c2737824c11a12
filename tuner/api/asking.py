"""Ask and tell: a script asks for the trials of a study, trains them as it likes, and tells what came out.

The study is planned and recorded as `tuner launch` does it, and what was told is judged as ever. Several processes may
ask of one study at once, and several trials may be out at once: each claim has a lease, which a thread renews until its
trial is told, or the block ends. The trials of a process that died come back to the others.
"""

import logging
import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tuner.api.asked_trial import AskedTrial
from tuner.api.told_curves import (
    Curves,
    refuse_missing_steps,
    refuse_other_steps,
    step_of,
    steps_in_short,
    told_curves,
)
from tuner.design.campaign import Campaign
from tuner.design.identity import was_told
from tuner.design.study import Study
from tuner.design.study_file import Declared, declared_stage
from tuner.errors import InputError, LeaseLost, StudyChanged, TunerError, WorkloadError
from tuner.execution.elsewhere import Elsewhere, HandedOut, HandsOut
from tuner.execution.in_process import stop_at_the_same_failure
from tuner.execution.leases import BEATS, heartbeat, retried
from tuner.execution.machine import Machine
from tuner.execution.waiting import Waiting
from tuner.records import Claim, Measurement, State, TrialUpdate
from tuner.records.sweep_outcomes import SweepOutcome
from tuner.rounds.launch import Session
from tuner.rounds.playbook import Decision, Playbook
from tuner.rounds.prepared_round import launch_prepared, prepared_expansion, prepared_round
from tuner.rounds.stage_start import AskedStart, start_of
from tuner.rounds.sweep import chosen_sweep, run_sweep
from tuner.storage.engine import default_url
from tuner.storage.liveness import worker_id
from tuner.storage.ownership import allowed_folder
from tuner.storage.store import open_ledger
from tuner.storage.studies import StudyRow

_log = logging.getLogger(__name__)

Strategy = Callable[[bool], SweepOutcome | Decision | None]  # whether FAILED trials are tried again


def _never() -> bool:
    return False


class AskedStudy:
    """Hands out the trials of a study, and takes what came out. Made by `tuner.asking`; threads may share it.

    outcome: of a sweep that ended; what a person has to decide, where the whole playbook was asked for and stopped at
    a question; None else. notes: sentences about the declaration.
    """

    def __init__(self, session: Session, strategy: Strategy, notes: list[str], retry_failed: bool) -> None:
        self.outcome: SweepOutcome | Decision | None = None
        self.notes = notes
        self._session, self._strategy, self._ledger = session, strategy, session.ledger
        self._retry_failed = retry_failed
        self._lock = threading.RLock()
        self._process, self._worker = os.getpid(), worker_id()
        self._row: StudyRow | None = None  # whose trials are due
        self._out: dict[int, AskedTrial] = {}  # by the id of the trial in the Ledger
        self._told: dict[int, State] = {}
        self._claims: list[Claim] = []  # of those that are out, for the heartbeat
        self._failures: list[str] = []
        self._over = self._closed = False

    @property
    def name(self) -> str:
        """The study whose trials are due; "" where all have ended."""
        return self._row.study.name if self._row else ""

    @property
    def left(self) -> int:
        """Trials of that study that have not ended: those that wait, and those that are out, here or elsewhere."""
        with self._lock:
            if self._row is None or self._over:
                return 0
            counts = retried(lambda: self._ledger.state_counts(self._due_row().study_id), _never)
            return sum(count for state, count in counts.items() if not state.finished)

    def ask(self, *, wait: bool = False) -> AskedTrial | None:
        """A trial to be trained, or None where there is none to hand out now.

        Then `left` says whether others hold some still. wait: wait for these, which come back should their processes
        die; a trial that this process holds itself is not waited for.

        Raises TrialsFailed where a sweep has no answer because trials FAILED.
        """
        waiting: Waiting | None = None
        while True:
            with self._lock:
                self._refuse_misplaced()
                trial, others = self._next()
                study_id = self._row.study_id if self._row else 0
            if trial is not None or not others or not wait or self._out:
                return trial
            if waiting is None or waiting.study_id != study_id:
                waiting = Waiting(self._ledger, study_id, lambda: bool(self._out) or self._closed)
            waiting.for_others()

    def __iter__(self) -> Iterator[AskedTrial]:
        """Trial after trial until none is left, those of processes that die meanwhile included."""
        while (trial := self.ask(wait=True)) is not None:
            yield trial

    def _next(self) -> tuple[AskedTrial | None, bool]:
        """The next trial, and whether others hold trials."""
        while not self._over:
            if self._row is None and not self._advance():
                break
            row = self._due_row()
            retried(lambda: self._ledger.forget_dead_workers(row.study_id), _never)  # noqa: B023 - called at once
            claims = retried(lambda: self._claim(row), _never)  # noqa: B023
            if claims:
                return self._hand_out(claims[0], row.study), False
            counts = retried(lambda: self._ledger.state_counts(row.study_id), _never)  # noqa: B023
            if counts[State.RUNNING]:
                return None, counts[State.RUNNING] > len(self._out)
            if not counts[State.WAITING]:
                self._row = None
        return None, False

    def _advance(self) -> bool:
        """Let the strategy go on to the next study whose trials are due; False where it has ended."""
        retry_failed, self._retry_failed = self._retry_failed, False
        try:
            self.outcome = self._strategy(retry_failed)
        except HandedOut as handed:
            self._row = handed.job.row
            return True
        self._over = True
        return False

    def _due_row(self) -> StudyRow:
        if self._row is None:
            raise InputError("no study is due")
        return self._row

    def _claim(self, row: StudyRow) -> list[Claim]:
        seconds = self._session.loaded.machine.lease.seconds
        return self._ledger.claim(row, worker=self._worker, lease_seconds=seconds)

    def _hand_out(self, claim: Claim, study: Study) -> AskedTrial:
        trial = AskedTrial(claim, study, self._session.loaded.inherited_by(study))
        self._out[claim.trial_id] = trial
        self._claims.append(claim)
        return trial

    def tell(self, trial: AskedTrial | int, curve: object = None, *, infeasible: str = "", failed: str = "") -> State:
        """Tell how a trial came out; durable when the call returns, and the state of the trial is what it returns.

        trial: or its number. curve: what was measured, as metric -> step -> value, `{"validation/loss": {100: 0.7}}`;
        other shapes are in the guide. A step is the number of updates made. What was reported before need not be told
        again. infeasible: why the point cannot be trained (out of memory, say): it is its fault. failed: why the
        training broke down, which is not the point's fault; such trials can be tried again.

        A selection metric that is NaN makes the trial infeasible, as it has diverged. Raises WorkloadError for what is
        no such curve, InputError for a trial that is not out, LeaseLost where another process has it now, and
        TrialsFailed where trials in a row fail alike. After an error the trial can be told again, but not after the
        last two.
        """
        with self._lock:
            held = self._held(trial)
            if infeasible and failed:
                raise InputError("a trial is infeasible or it failed: say one of them")
            self._refuse_unread(held)
            curves = self._joined(held, told_curves(curve, held.of_study))
            state, reason = _ending(held, curves, infeasible, failed)
            known = {step for one in curves.values() for step in one}
            step = held.max_train_steps if state is State.COMPLETE else max(known, default=0)
            update = _update(held, step, curves, state, reason)
            self._record(held, update)
            self._forget(held, state)
            stop_at_the_same_failure(update, self._failures)
            return state

    def report(self, trial: AskedTrial | int, step: int, metrics: object) -> None:
        """Report metrics of a trial in training: {metric: value}, or the value of the metric that selects.

        Durable at once, and seen by `tuner status`; `tell` ends the trial. step: the number of updates made, at which
        an evaluation is due. Raises as `tell` does.
        """
        with self._lock:
            held, at = self._held(trial), step_of(step)
            metric = held.of_study.objective.metric
            values = metrics if isinstance(metrics, Mapping) else {metric: metrics}
            curves = told_curves({at: values}, held.of_study)
            refuse_other_steps(curves, held.of_study, held.number)
            last = max((one for curve in held.reported.values() for one in curve), default=0)
            if at < last:
                raise WorkloadError(f"trial {held.number} is reported at step {at} after step {last}: go forward")
            self._joined(held, curves)
            self._record(held, _update(held, at, curves, State.RUNNING, ""))
            for name, curve in curves.items():
                held.reported.setdefault(name, {}).update(curve)

    def _joined(self, held: AskedTrial, told: Curves) -> Curves:
        """What was told with what was reported. Raises WorkloadError for steps that are not due, and second values."""
        refuse_other_steps(told, held.of_study, held.number)
        joined = {name: dict(curve) for name, curve in held.reported.items()}
        for name, curve in told.items():
            before = joined.setdefault(name, {})
            for step, value in curve.items():
                known = before.get(step, value)
                if known != value and not (math.isnan(known) and math.isnan(value)):
                    raise WorkloadError(
                        f"{name} of trial {held.number} after {step:,} updates was reported as {known!r}, and is told "
                        f"as {value!r}"
                    )
                before[step] = value
        return joined

    def _refuse_unread(self, held: AskedTrial) -> None:
        """Raise WorkloadError where the script has not read what it must have trained by."""
        told = f"trial {held.number} of {held.study} is told, and nothing has read"
        if not held.of_study.augment and not held.looked_at_regularization:
            raise WorkloadError(
                f"{told} trial.regularization_off: a sweep trains without augmentation and regularization (A22, A23), "
                "because it asks for the steps that fit the training set: if trial.regularization_off: train without "
                "them"
            )
        if not held.took_start:
            raise WorkloadError(
                f"{told} the weights that the campaign starts from, so that it was trained from others: "
                "trial.carry_into(model), trial.start_weights, or trial.write_start(folder)"
            )
        follows = self._session.loaded.promises(held.of_study).follows_schedule
        if follows and not held.looked_at_rates and len(set(held.claim.trial.schedule.fractions())) > 1:
            raise WorkloadError(
                f"{told} trial.rate(step), and follows_schedule=True says that each update is made at it: read it (or "
                "trial.rates), or leave that out"
            )

    def _held(self, trial: AskedTrial | int) -> AskedTrial:
        """The trial, which is out. Raises InputError."""
        self._refuse_misplaced()
        if isinstance(trial, int):
            found = [one for one in self._out.values() if one.number == trial]
            if not found:
                raise InputError(f"trial {trial} is not out: trials are told by the block that asked for them")
            return found[0]
        if not isinstance(trial, AskedTrial):
            raise InputError(f"tell a trial that study.ask() gave, or its number, got {trial!r:.80}")
        key = trial.claim.trial_id
        if self._out.get(key) is trial:
            return trial
        if key in self._told:
            raise InputError(f"trial {trial.number} of {trial.study} was told already: it is {self._told[key].value}")
        raise InputError(
            f"trial {trial.number} of {trial.study} was not asked for in this block, or is not out any more: a trial "
            "that is not told goes back to the others when its block ends"
        )

    def _record(self, held: AskedTrial, update: TrialUpdate) -> None:
        try:
            retried(lambda: self._ledger.record([update]), _never)
        except LeaseLost as error:
            self._forget(held, None)
            raise LeaseLost(
                f"trial {held.number} of {held.study} was handed to another process, because this one gave no sign for "
                f"longer than its lease; what was told is not written ({error})"
            ) from error

    def _forget(self, held: AskedTrial, state: State | None) -> None:
        key = held.claim.trial_id
        self._out.pop(key, None)
        self._claims[:] = [claim for claim in self._claims if claim.trial_id != key]
        if state is not None:
            self._told[key] = state

    def _refuse_misplaced(self) -> None:
        if self._closed:
            raise InputError("the block of tuner.asking has ended; ask and tell inside it")
        if os.getpid() != self._process:
            raise InputError(
                "this process was forked from the one that opened tuner.asking: open it in each process, or let the "
                "forked ones train and return what came out"
            )

    @contextmanager
    def _handing_out(self) -> Iterator["AskedStudy"]:
        """Hand out trials within the block, and keep the leases of those that are out."""
        with heartbeat(self._ledger, self._claims, self._session.loaded.machine.lease.seconds / BEATS):
            try:
                self._advance()
                yield self
            finally:
                self._close()

    def _close(self) -> None:
        """Give back what was not told."""
        with self._lock:
            self._closed = True
            if not self._out or os.getpid() != self._process:
                return
            numbers = [trial.number for trial in self._out.values()]
            try:
                self._ledger.release(self._claims)
                _log.warning("trials that were asked for and not told wait again: %s", steps_in_short(numbers))
            except TunerError as error:
                _log.warning("trials %s come back when their leases end: %s", steps_in_short(numbers), error)
            self._out.clear()
            self._claims.clear()


def _ending(held: AskedTrial, curves: Curves, infeasible: str, failed: str) -> tuple[State, str]:
    """How a trial ends. Raises WorkloadError where it was not trained to its end and nothing says why."""
    if failed or infeasible:
        return (State.FAILED, failed) if failed else (State.INFEASIBLE, infeasible)
    metric = held.of_study.objective.metric
    selected = curves.get(metric, {})
    lost = min((step for step, value in selected.items() if math.isnan(value)), default=None)
    if lost is not None:
        return State.INFEASIBLE, f"diverged: {metric} is nan at step {lost}"
    refuse_missing_steps(curves, held.of_study, held.number)
    if not any(math.isfinite(value) for value in selected.values()):
        return State.INFEASIBLE, f"{metric} was not finite at any evaluation"
    return State.COMPLETE, ""


def _update(held: AskedTrial, step: int, curves: Curves, state: State, reason: str) -> TrialUpdate:
    """What to record of a trial; what was reported before is there already."""
    new = [
        Measurement(at, name, value)
        for name, curve in curves.items()
        for at, value in sorted(curve.items())
        if at not in held.reported.get(name, {})
    ]
    return TrialUpdate(held.claim.trial_id, held.claim.fence, step, new, state=state, reason=reason)


def _sweep(session: Session) -> Strategy:
    def go_on(retry_failed: bool) -> SweepOutcome:
        return run_sweep(session, chosen_sweep(session, None, False), retry_failed=retry_failed)

    return go_on


def _playbook(session: Session, yes: bool, notes: list[str]) -> Strategy:
    def go_on(retry_failed: bool) -> Decision | None:
        notes.clear()
        return Playbook(session, yes=yes, tell=notes.append, retry_failed=retry_failed).run().decision

    return go_on


def _round(
    session: Session, number: int, size: tuple[int | None, int | None], expanded: bool, notes: list[str]
) -> Strategy:
    def go_on(retry_failed: bool) -> None:
        widened = prepared_expansion(session, number) if expanded else None
        prepared = widened or prepared_round(session, number, *size)
        for note in prepared.warnings:
            if note not in notes:
                notes.append(note)
                _log.warning("note: %s", note)
        launch_prepared(session, prepared, retry_failed=retry_failed)

    return go_on


def _refuse_launched(session: Session) -> None:
    """Raise StudyChanged where trials of this campaign were trained by this program: they could not be compared."""
    if session.name not in session.ledger.campaigns():
        return
    others = [
        row for row in session.ledger.studies(session.name) if not row.study.source and not was_told(row.identity)
    ]
    if others:
        raise StudyChanged(
            f"{others[0].study.name} of {session.name!r} was trained by `tuner launch` or `tuner run`, and trials that "
            "are told could not be compared with its trials: give the campaign another name"
        )


@contextmanager
def _opened(study: Declared, follows_schedule: bool, storage: str | None) -> Iterator[Session]:
    """A session whose trials are trained elsewhere.

    Raises InputError before anything is written, StudyChanged for a campaign that this program trained.
    """
    stage = declared_stage(study)
    campaign: Campaign = stage.campaign
    loaded = Elsewhere(campaign.workload, Machine(Path()), stage.file, follows_schedule)
    with open_ledger(storage or default_url()) as ledger:
        loaded.write_to(root := allowed_folder(ledger, None))
        loaded.inherited = start_of(AskedStart(ledger, stage, root))
        if not campaign.is_in_steps:
            campaign = campaign.in_steps(loaded.num_examples)
        session = Session(
            stage.name, campaign, ledger, loaded, HandsOut(), study_file=stage.file, of_file=stage.of_file
        )
        _refuse_launched(session)
        yield session


@contextmanager
def asking(
    study: Declared,
    round: int | None = 1,
    *,
    sweep: bool = False,
    max_train_steps: int | None = None,
    trials: int | None = None,
    expanded: bool = False,
    retry_failed: bool = False,
    yes: bool = False,
    follows_schedule: bool = False,
    storage: str | None = None,
) -> Iterator[AskedStudy]:
    """Ask for the trials of a study and tell what came out, for training that fits no loop of this program's.

    study: a `Campaign` with a name, or the path of a study file; its workload is `OwnLoop(select_by=...)`, whose
    `train` is not called. round: its number; None goes through the whole playbook, sweep and all rounds, as
    `tuner.run` does with `yes`. sweep: ask for the trials of the sweep. max_train_steps, trials, expanded,
    retry_failed: as for `tuner.launch`. follows_schedule: promise that each update is made at `trial.rate(step)`; else
    reports say that the rates are not known. storage: a path or URL.

    Trials that were not told when the block ends, by an error or Ctrl-C too, wait again. Weights are not kept.

    Raises InputError for what is declared wrongly, StudyChanged where `tuner launch` began the study, StorageError
    where the round before is missing.

    >>> from tuner import Campaign, OwnLoop, Round, SearchSpace, log_uniform, minimize
    >>> space = SearchSpace(learning_rate=log_uniform(1e-3, 1.0))
    >>> first = Round("a test", trials=3, max_train_steps=100, space=space)
    >>> told = Campaign(OwnLoop(select_by=minimize("validation/loss")), name="told", rounds=[first])
    >>> with tuner.asking(told) as study:
    ...     for trial in study:
    ...         error = abs(trial.point["learning_rate"] - 0.1)
    ...         curve = {step: error + 1 / step for step in trial.evaluation_steps}
    ...         state = study.tell(trial, {"validation/loss": curve})
    >>> tuner.load("told").frames(round=1).trials["state"].tolist()
    ['complete', 'complete', 'complete']
    """
    if (sweep or round is None) and not follows_schedule:
        raise InputError(
            "a sweep trains at constant rates, and only the script knows at which it trains: make each update at "
            "trial.rate(step), and say tuner.asking(..., follows_schedule=True)"
        )
    if sweep and (max_train_steps or trials or expanded):
        raise InputError("a sweep finds the number of steps, and has as many trials as its grid: leave these out")
    with _opened(study, follows_schedule, storage) as session:
        notes: list[str] = []
        if sweep:
            strategy = _sweep(session)
        elif round is None:
            strategy = _playbook(session, yes, notes)
        else:
            strategy = _round(session, round, (max_train_steps, trials), expanded, notes)
        with AskedStudy(session, strategy, notes, retry_failed)._handing_out() as asked:
            yield asked
