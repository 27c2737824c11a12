"""Launching a study: check everything, plan it in the Ledger, train it. A second launch continues the study."""

import hashlib
import logging
import math
import os
import platform
import shutil
import subprocess
import sys
from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

from tuner.analysis.frames import study_frames
from tuner.analysis.questions.infeasible import FEWEST_ALIKE, spoiled_by_data
from tuner.analysis.study_progress import failures, listed
from tuner.design.campaign import Campaign
from tuner.design.identity import Identity
from tuner.design.stages import named_in
from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.errors import Interrupted, StorageError, StudyChanged, TrialsFailed, TunerError
from tuner.execution.backend import Backend, Job, Watch, silent
from tuner.execution.in_process import InProcess
from tuner.execution.inspection import inspect
from tuner.execution.loaded_workload import LoadedWorkload
from tuner.records import MeasuredPromises, Numerics, Price, Promises, State
from tuner.records.budget_origin import NOT_RECORDED, BudgetOrigin
from tuner.records.conclusions import BudgetRecord, FiniteValidation, LoopPromises, SecondTry, StageStart
from tuner.records.promises import measured_from
from tuner.rounds.comparison import StudyComparison, basis_of
from tuner.rounds.leaks import compare_inputs
from tuner.rounds.plan import round_name, with_kept_slices
from tuner.security import without_secrets
from tuner.shown import word
from tuner.storage.liveness import worker_id
from tuner.storage.store import Ledger
from tuner.storage.studies import StudyRow
from tuner.training.engine import Inspection

logger = logging.getLogger(__name__)
DRY_LOOK_SECONDS = 10.0  # a dry run looks at all validation examples where that takes no longer


def _never() -> bool:
    return False


def _unclaimed() -> None:
    """Leave the checkpoint folder to the backend, which claims the one it was given."""


def _untold() -> None:
    """Do not tell workers that a launch is at work."""


@dataclass(frozen=True, slots=True)
class Session:
    """What every part of the strategy works with: a campaign, where its records are, who trains, who watches.

    claim_folder: makes the checkpoint folder this storage's own; called before anything is written. of_file: the names
    of all campaigns of the study file. assumed_steps: updates that trials will probably inherit from an earlier stage,
    while that is not trained. at_work: tells workers that a command launches studies.
    """

    name: str
    campaign: Campaign
    ledger: Ledger
    loaded: LoadedWorkload
    backend: Backend = field(default_factory=InProcess)
    watch: Watch = silent
    stop: Callable[[], bool] = _never
    study_file: Path | None = None
    allow_changed_code: bool = False
    claim_folder: Callable[[], None] = _unclaimed
    assumed_steps: int = 0
    of_file: tuple[str, ...] = ()
    at_work: Callable[[], None] = _untold

    @property
    def called(self) -> str:
        """What a command calls this campaign: its study file, FILE:NAME where that has several, or its name."""
        return self.name if self.study_file is None else named_in(self.study_file, self.name, self.of_file)

    def job(self, row: StudyRow) -> Job:
        """What a backend trains: a study of this campaign."""
        return Job(self.ledger, row, self.loaded)


@dataclass(frozen=True, slots=True)
class Plan:
    """A study and its trials before anything is trained, with what one trial costs here.

    `trials`: those to be trained; `finished`: so many more need not be. `saved`: the first steps that each trial (those
    beyond its length: none) takes over from one trained before. fuses: whether trials may train as one stacked model.
    """

    study: Study
    trials: tuple[Trial, ...]
    price: Price
    saved: tuple[int, ...] = ()
    finished: int = 0
    fuses: bool = True

    @property
    def saved_steps(self) -> int:
        return sum(self.saved)

    @property
    def steps(self) -> int:
        """Steps that are really trained."""
        return len(self.trials) * self.study.budget.max_train_steps - self.saved_steps

    @property
    def seconds(self) -> float:
        """Estimated time of all trials, one after the other, evaluations and compiling included."""
        return self.steps * self.price.step_ms / 1e3 + self.evaluation_seconds + self.compile_seconds

    @property
    def compile_seconds(self) -> float:
        """Estimated time in which `torch.compile` compiles, once a trial."""
        return len(self.trials) * self.price.compile_ms / 1e3

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


def started_study(session: Session, name: str) -> StudyRow | None:
    """A study of this campaign that was started before; None without one."""
    if session.name not in session.ledger.campaigns():
        return None
    return next((row for row in session.ledger.studies(session.name) if row.study.name == name), None)


def required_round(session: Session, number: int) -> StudyRow:
    """The study of a round that must have been launched. Raises StorageError with the command that launches it."""
    row = started_study(session, round_name(number))
    if row is not None:
        refuse_all_failed(session, row)
    if row is None or not session.ledger.state_counts(row.study_id).get(State.COMPLETE):
        raise StorageError(
            f"round {number} of {session.name!r} has no complete trial, and the next round starts from its results; "
            f"launch it first: tuner launch {word(session.called)} --round {number}"
        )
    return row


def refuse_all_failed(session: Session, row: StudyRow) -> None:
    """Raise TrialsFailed for a study of which no trial completed because trials FAILED: nothing can rest on it."""
    counts = session.ledger.state_counts(row.study_id)
    if counts[State.COMPLETE] or not counts[State.FAILED]:
        return
    told = "\n".join(f"  {line}" for line in listed(failures(session.ledger, [row])))
    again = f" --round {row.study.round} --retry-failed" if row.study.round else " --retry-failed"
    raise TrialsFailed(
        f"no trial of {row.study.name} completed, because {counts[State.FAILED]} FAILED:\n{told}\nremove the cause, "
        f"then train them again: tuner launch {word(session.called)}{again}"
    )


def plan_study(session: Session, study: Study, trials: Sequence[Trial]) -> Plan:
    """Check the workload by a whole update and measure the price of the trials that are left. Writes nothing."""
    study = _as_kept(session, study)
    inspection = check_study(session, study, trials, DRY_LOOK_SECONDS, price=True)
    started = started_study(session, study.name)
    known = session.ledger.trials(started.study_id) if started else ()
    finished = {record.number for record in known if record.state.finished}
    left = tuple(trial for trial in trials if trial.number not in finished)
    saved = session.loaded.saved_steps(session.ledger, study, left) if left else ()
    fuses = session.loaded.promises(study).fusing
    return Plan(study, left, cast(Price, inspection.price), tuple(saved), len(trials) - len(left), fuses)


def launch_study(  # noqa: PLR0913 - keywords with defaults
    session: Session,
    study: Study,
    trials: Sequence[Trial],
    *,
    retry_failed: bool = False,
    second_try: bool = False,
    budget_origin: BudgetOrigin = NOT_RECORDED,
    budget_source: str | None = None,
) -> StudyRow:
    """Check a study, write its plan to the Ledger, and train its unfinished trials.

    second_try: a number will rest on every trial, so those that FAILED are trained once more.
    budget_origin: where the budget of the study comes from. budget_source: the study from whose results it was chosen.
    Both are kept at the first start of the study, with what they were chosen under.
    """
    study = _as_kept(session, study)
    started = started_study(session, study.name)
    finite: tuple[FiniteValidation, ...] = ()
    if started is None or retry_failed or not _is_trained(session, started, study):
        inspection = check_study(session, study, trials, room=True)
        finite = (_validation(session, study),) if inspection.finite else ()
    comparison = _comparison(session)
    today = _identity_today(session, study, started)
    kept = BudgetRecord(budget_origin, budget_source, basis_of(session.campaign, session.loaded, study.round or 1))
    session.claim_folder()
    start = _kept_start(session, study, started)
    row = session.ledger.start_study(
        session.name,
        study,
        today.fingerprint,
        identity=today.as_json(),
        trials=trials,
        concluded=(kept, *finite, *start),
    )
    comparison.refuse_other(row, today)  # another process may have started the study just now
    if started is None:
        of_several = len(session.of_file) > 1
        compare_inputs(session.ledger, session.name, session.campaign, session.loaded, of_several=of_several)
    if retry_failed:
        retry(session, row)
    finished = _num_finished(session, row)
    if finished < study.num_trials:
        session.at_work()
        _work_on(session, row, finished, today)
    else:
        session.job(row).delete_strays()  # a kill right after the last commit left what it had still to delete
    if second_try:
        _try_again(session, row)
    return row


def _as_kept(session: Session, study: Study) -> Study:
    """A study with the examples of its data, and with slices of the size with which its campaign began."""
    study = replace(study, num_examples=session.loaded.num_examples)
    return with_kept_slices(study, session.campaign.workload, session.ledger, session.name)


def _kept_start(session: Session, study: Study, started: StudyRow | None) -> tuple[StageStart, ...]:
    """What the trials of a study start from, with our own copies of the weights; said at its first start (C7)."""
    inherited = session.loaded.inherited_by(study)
    if inherited is None:
        return ()
    session.loaded.inherited = kept = inherited.kept_in(session.loaded.machine.checkpoint_root)
    if started is None:
        logger.warning("%s: %s", study.name, inherited.words)
    return (kept.start,)


def _try_again(session: Session, row: StudyRow) -> None:
    """Train the trials that FAILED once more.

    A machine that is killed again and again gives up trials that are not to blame. Once in the life of a study, so that
    trials that are to blame come to an end.
    """
    before = set((session.ledger.conclusion(session.name, SecondTry, row.study_id) or SecondTry()).trials)
    failed = {record.number for record in session.ledger.trials(row.study_id) if record.state is State.FAILED} - before
    again = retry(session, row, failed) if failed else []
    if again:
        session.ledger.conclude(session.name, SecondTry(tuple(sorted({*before, *again}))), row.study_id)
        logger.warning("%s: trials %s FAILED and are trained once more", row.study.name, ", ".join(map(str, again)))
        work_on(session, row, _num_finished(session, row))


def retry(session: Session, row: StudyRow, numbers: Collection[int] | None = None) -> list[int]:
    """Let FAILED trials wait again; returns their numbers.

    They are resumed from their last saved state, or trained from step 0 where the code changed since the study started:
    no trial is trained half by one code and half by another.
    """
    return session.ledger.retry(row.study_id, numbers, afresh=not _comparison(session).is_as_started(row))


def work_on(session: Session, row: StudyRow, finished: int) -> None:
    """Train what is left of a study that is planned.

    Raises StudyChanged for other code than it was started with, TrialsFailed (with a list) where trials fail alike.
    """
    known_promises(session, row.study)  # before the launch is recorded
    today = _identity_today(session, row.study, row)
    session.claim_folder()
    _work_on(session, session.ledger.study(session.name, row.study.name), finished, today)


def _identity_today(session: Session, study: Study, started: StudyRow | None) -> Identity:
    """The identity of a study as it is trained now; a study of which nothing is trained yet begins with it.

    Raises StudyChanged for another identity than that of its start, where anything of it was trained.
    """
    comparison = _comparison(session)
    try:
        return comparison.today(study, started)
    except StudyChanged:
        if started is None:
            raise
        session.claim_folder()
        today = comparison.begun_again(study, started)
        if today is None:
            raise
        return today


def _work_on(session: Session, row: StudyRow, finished: int, today: Identity) -> None:
    _comparison(session).tell_what_follows(row, today)
    _record_launch(session, row, today)
    try:
        with session.watch(row.study, finished) as listener:
            session.backend.run(session.job(row), listener, session.stop)
    except TrialsFailed as error:
        raise TrialsFailed("\n  ".join([str(error), *listed(failures(session.ledger, [row]))])) from error
    except Interrupted as error:
        raise Interrupted(f"{error}{_words_left(session, row)}") from error
    _say_if_data_spoil(session, row)


def _words_left(session: Session, row: StudyRow) -> str:
    """How much of a study is left, after what was said of its interruption; "" where the database does not tell."""
    with suppress(TunerError):
        counts = session.ledger.state_counts(row.study_id)
        left = counts[State.WAITING] + counts[State.RUNNING]
        return f" ({left} of {sum(counts.values())} trials of {row.study.name} are left)"
    return ""


def _say_if_data_spoil(session: Session, row: StudyRow) -> None:
    """Warn where every trial ended alike whatever its point: then the data are to blame, and not the space."""
    counts = session.ledger.state_counts(row.study_id)
    if counts[State.COMPLETE] or counts[State.INFEASIBLE] < FEWEST_ALIKE:
        return
    spoiled = spoiled_by_data(study_frames(session.ledger, session.name, row.study.name))
    if spoiled:
        logger.warning("%s: %s", row.study.name, spoiled)


def check_study(
    session: Session,
    study: Study,
    trials: Sequence[Trial],
    look_seconds: float = math.inf,
    *,
    price: bool = False,
    room: bool = False,
) -> Inspection:
    """Inspect a study before it is trained (`execution.inspection`). Writes nothing. Raises WorkloadError, Paused.

    Validation data that were looked at for an earlier study of the campaign count as finite and are not looked at
    again; a look that would take more than `look_seconds` is only priced.
    """
    study = _as_kept(session, study)
    _recall_promises(session, study)
    known = _known_to_be_finite(session, study)
    seconds = None if known else look_seconds
    found = inspect(session.loaded, study, trials, validation_seconds=seconds, price=price, room=room)
    return replace(found, finite=True) if known else found


def _loop_promises(session: Session, study: Study, measured: MeasuredPromises) -> LoopPromises:
    """What was measured of the loop, and of which loop, on which machine."""
    numerics, fingerprint = session.loaded.setup(study).numerics.text, session.loaded.fingerprint(study)
    return LoopPromises(fingerprint, numerics, study.augment, measured.promises.to_data(), dict(measured.why))


def known_promises(session: Session, study: Study) -> Promises:
    """What may be relied on for the trials of a study here: as it was recorded, or measured now where it was not yet.

    Raises WorkloadError for a loop that does not do what was agreed.
    """
    if session.loaded.trains_itself:
        _recall_promises(session, study)
        if session.loaded.measured(study) is None:
            check_study(session, study, ())
    return session.loaded.promises(study)


def _recall_promises(session: Session, study: Study) -> None:
    """Use what an earlier launch measured of the same loop under the same Numerics."""
    loaded = session.loaded
    if not loaded.trains_itself or loaded.measured(study) or session.name not in session.ledger.campaigns():
        return
    loaded.identity_of(study)  # with the code that runs in the first steps
    for row in reversed(session.ledger.studies(session.name)):
        kept = session.ledger.conclusion(session.name, LoopPromises, row.study_id)
        if kept is None:
            continue
        measured = measured_from({"promises": kept.promises, "why": kept.why})
        now = _loop_promises(session, study, measured)
        alike = Numerics.from_text(kept.numerics).agrees_with(Numerics.from_text(now.numerics))
        if alike and replace(now, numerics=kept.numerics) == kept:
            loaded.expect(study, measured)
            return


def _validation(session: Session, study: Study) -> FiniteValidation:
    """What was looked at for values that are not finite: these validation data, by this metric."""
    return FiniteValidation(session.loaded.parts.get("validation data"), study.objective.metric)


def _known_to_be_finite(session: Session, study: Study) -> bool:
    """Whether a study of this campaign was launched before with the same validation data and metric."""
    if session.name not in session.ledger.campaigns():
        return False
    asked = _validation(session, study)
    rows = session.ledger.studies(session.name)
    return any(session.ledger.conclusion(session.name, FiniteValidation, row.study_id) == asked for row in rows)


def _is_trained(session: Session, row: StudyRow, study: Study) -> bool:
    """Whether all trials that are declared have ended, and not all of them FAILED: such a study may begin again."""
    counts = session.ledger.state_counts(row.study_id)
    finished = sum(count for state, count in counts.items() if state.finished)
    return finished >= study.num_trials and counts[State.FAILED] < finished


def _num_finished(session: Session, row: StudyRow) -> int:
    return sum(count for state, count in session.ledger.state_counts(row.study_id).items() if state.finished)


def _comparison(session: Session) -> StudyComparison:
    return StudyComparison(session.name, session.campaign, session.ledger, session.loaded, session.allow_changed_code)


def _record_launch(session: Session, row: StudyRow, today: Identity) -> None:
    folder = session.study_file.resolve().parent if session.study_file else Path.cwd()
    known = environment() | {
        "study_file": str(session.study_file) if session.study_file else None,
        "campaign_of_file": session.name if len(session.of_file) > 1 else None,
        "data": dict(session.campaign.workload.provenance()),
        "fingerprint": today.fingerprint,
        "packages": dict(today.packages),
        "promises": session.loaded.promises(row.study).to_data(),
    }
    if session.loaded.trained_by:
        known["trained_by"] = dict(session.loaded.trained_by)
    measured = session.loaded.measured(row.study)
    if measured is not None:
        known["not_promised"] = measured.weaker
        session.ledger.conclude(session.name, _loop_promises(session, row.study, measured), row.study_id)
    session.ledger.add_launch(
        row.study_id, command=command_line(), revision=revision(folder), environment=known, worker=worker_id()
    )


PACKAGES = ("tuner", "torch", "numpy", "scipy", "pandas", "sqlalchemy")


def revision(folder: Path) -> dict[str, Any]:
    """Git's commit of `folder`, and a digest of what is not committed; empty outside a repository."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return {}
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no") or ""
    if not changed.strip():
        return {"commit": commit.strip(), "uncommitted": False}
    difference = _git(folder, "diff", "HEAD") or ""
    digest = hashlib.sha256(difference.encode()).hexdigest()[:16]
    return {"commit": commit.strip(), "uncommitted": True, "difference": digest, "files": changed.split("\n")[:20]}


def environment() -> dict[str, Any]:
    """Versions and the machine, without any environment variable."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node(),
        "cores": os.cpu_count(),
        "versions": {package: found for package in PACKAGES if (found := _version(package))},
    }


def command_line() -> str:
    """The command as it was given, without passwords in URLs."""
    told = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return without_secrets(told)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(folder: Path, *arguments: str) -> str | None:
    program = shutil.which("git")
    if program is None:
        return None
    asked = subprocess.run(  # noqa: S603 - a fixed program with fixed arguments
        [program, "-C", str(folder), *arguments], capture_output=True, text=True, check=False, timeout=20
    )
    return asked.stdout if asked.returncode == 0 else None
