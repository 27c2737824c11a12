"""Training from Python: whole campaigns, sweeps and rounds, in a script or in a notebook.

`study` is the path of a study file ("FILE:NAME" names one of several campaigns there; without a name the last stage is
meant), or a `Campaign` with a name, which may be defined in a notebook. A campaign that
is passed as an object trains in this process; `workers` needs a study file, because each process loads that.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack

import pandas as pd

from tuner.analysis.finding import Finding
from tuner.analysis.questions.sweep import sweep_finding
from tuner.analysis.study_frames import StudyFrames
from tuner.analysis.study_progress import Failure, failures
from tuner.api.sessions import MachineOptions, WorkerCount, opened, opened_stage, session_options
from tuner.api.showing import Display, StopFlag
from tuner.design.study_file import Declared, declared_stage, declared_stages
from tuner.errors import InputError, StorageError
from tuner.execution.averaging import mean_of_best
from tuner.execution.machine import Machine
from tuner.execution.scoring import Chosen
from tuner.reading import CampaignRecords, Winner, load
from tuner.records.sweep_outcomes import Fitted, SweepOutcome
from tuner.report.page import report_path
from tuner.report.page import write_report as write_page
from tuner.rounds.budgets import likely_budget
from tuner.rounds.controls import inherited_steps
from tuner.rounds.foreseen import check_chain
from tuner.rounds.importances import importances
from tuner.rounds.launch import Plan, Session, check_study
from tuner.rounds.opening import SessionOptions
from tuner.rounds.playbook import Decision, Ending, Playbook
from tuner.rounds.prepared_round import known_regime, launch_prepared, prepared_expansion, prepared_round
from tuner.rounds.price import Extremes, priced_campaign
from tuner.rounds.round_lengths import PlannedRound, check_transfer, planned_rounds, rounds_for, rounds_of_one_length
from tuner.rounds.sweep import chosen_sweep, run_sweep
from tuner.storage.engine import default_url
from tuner.storage.ownership import folder_to_read
from tuner.storage.store import open_ledger
from tuner.storage.studies import StudyRow
from tuner.stores.places import parsed_root
from tuner.training import checkpoints as checkpoint_files
from tuner.training.adapter_export import ExportForm, export_as

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, repr=False)
class RunResult:
    """How a run of the playbook ended.

    records: the campaign, to read. findings: what the run found, in order. decision: what a person has to decide
    before the run can go on, None where it is complete. rounds: names of the rounds' studies. best: the best
    configuration of the last round that has a complete trial, None without one. failures: trials that FAILED, with
    their reasons. report: the page that was written.

    Of several stages it is the result of the last one that was reached. earlier: those of the stages before it. left:
    the names of stages that were not begun, because this one has an open decision or FAILED trials.
    """

    records: CampaignRecords
    findings: tuple[Finding, ...]
    decision: Decision | None
    rounds: tuple[str, ...]
    best: Winner | None
    failures: tuple[Failure, ...]
    report: Path
    earlier: tuple["RunResult", ...] = ()
    left: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether no decision is open and no trial FAILED."""
        return self.decision is None and not self.failures

    @property
    def stages(self) -> tuple["RunResult", ...]:
        """The results of all stages that were reached, in their order, this one last."""
        return (*self.earlier, self)

    def __repr__(self) -> str:
        lines = [repr(one) for one in self.earlier]
        lines.append(f"{self.records.name}: {', '.join(self.rounds) or 'no round'}; report: {self.report}")
        if self.best is not None:
            lines.append(repr(self.best))
        lines += [f"{one.study} trial {one.number} FAILED: {one.reason}" for one in self.failures]
        if self.decision is not None:
            lines.append(f"question: {self.decision.text}")
            lines += [f"  yes=True would: {self.decision.proposal}"] if self.decision.proposal else []
        lines += [f"not begun: {', '.join(self.left)}"] if self.left else []
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, repr=False)
class LaunchResult:
    """A round as it stands after a launch.

    records: the campaign, to read. study: the study's name. states: how many trials are in which state. failures:
    trials that FAILED, with their reasons. warnings: sentences about the declaration, from before the training.
    """

    records: CampaignRecords
    study: str
    states: dict[str, int]
    failures: tuple[Failure, ...]
    warnings: tuple[str, ...]

    @property
    def frames(self) -> StudyFrames:
        """Trials and curves of the study."""
        return self.records.frames(study=self.study)

    def __repr__(self) -> str:
        states = ", ".join(f"{count} {state}" for state, count in self.states.items())
        return "\n".join([f"{self.records.name} {self.study}: {states}", *self.warnings])


@dataclass(frozen=True, slots=True, repr=False)
class SweepResult:
    """The outcome of a sweep for the step budget.

    outcome: a number of steps, or why there is none. steps: that number, None without one. fits: one row for each
    learning rate. finding: the outcome as an answer with its evidence and the next action.
    """

    records: CampaignRecords
    outcome: SweepOutcome
    fits: pd.DataFrame
    finding: Finding

    @property
    def steps(self) -> int | None:
        return self.outcome.steps if isinstance(self.outcome, Fitted) else None

    def __repr__(self) -> str:
        return repr(self.finding)


@dataclass(frozen=True, slots=True, repr=False)
class CampaignPlan:
    """What a campaign would train, before anything is trained.

    stages: each study with its trials and its price. extremes: what the open parts cost at best and at worst. rounds:
    the rounds by length, where lengths are known or a total of steps was given.
    """

    stages: tuple[Plan, ...]
    extremes: tuple[Extremes, ...]
    rounds: tuple[PlannedRound, ...]

    @property
    def table(self) -> pd.DataFrame:
        """One row for each stage. Columns: study, trials, steps_each, steps, saved_steps, seconds, checkpoint_bytes.

        seconds: for one trial after the other on this machine. Steps and seconds are limits where trials may stop early
        (`patience_steps`). saved_steps: taken over from shorter trials.
        """
        rows = [
            {
                "study": one.study.name,
                "trials": len(one.trials),
                "steps_each": one.study.budget.max_train_steps,
                "steps": one.steps,
                "saved_steps": one.saved_steps,
                "seconds": one.seconds,
                "checkpoint_bytes": one.checkpoint_bytes,
            }
            for one in self.stages
        ]
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        limits = [one.study.limit_words for one in self.stages if one.study.limit_words]
        table = [self.table.to_string(index=False)] if self.stages else map(repr, self.rounds)
        return "\n".join([*table, *limits])


def run(
    study: Declared,
    *,
    yes: bool = False,
    expand: int = 0,
    retry_failed: bool = False,
    progress: bool | None = None,
    storage: str | None = None,
    checkpoints: str | Path | None = None,
    workers: WorkerCount = 1,
    **machine: Unpack[MachineOptions],
) -> RunResult:
    """Run the playbook: sweep, regime, round 1, its findings, the longer rounds, the report.

    The same call again continues and repeats nothing that is finished. An interrupt (Ctrl-C, or "interrupt kernel")
    saves the trials in training and raises Interrupted.

    A campaign that starts from others is trained after them, and a file with several campaigns as a whole, unless
    "FILE:NAME" names one: that one and what it starts from. A stage with an open decision or FAILED trials is the last
    one; `RunResult.stages` has the results of all.

    yes: take the proposed action of every question. expand: how often a round is widened where its best trials lie at
    a limit. retry_failed: train FAILED trials again. progress: True shows it, False does not, None shows it on a
    terminal and in a notebook. storage: a path or URL. checkpoints: a folder. workers: processes that train; "auto"
    starts as many as pay. machine: see `MachineOptions`.

    Raises InputError for what is declared wrongly, StudyChanged for other code than the study was started with,
    TrialsFailed where a stage has no answer because trials FAILED, Paused where the disk or the database gave way.

    >>> result = tuner.run(campaign)
    >>> result.rounds
    ('round-1',)
    >>> result.decision is None
    True
    >>> result.records.frames(round=1).trials["state"].unique().tolist()
    ['complete']
    """
    display = Display(progress, StopFlag())
    options = session_options(storage, checkpoints, workers, machine)
    stages = declared_stages(study)
    check_chain(stages, options.storage)
    results: list[RunResult] = []
    for stage in stages:
        with opened_stage(stage, options, display) as session:
            playbook = Playbook(session, yes=yes, tell=display.tell, expand=expand, retry_failed=retry_failed)
            result = _result(session, playbook.run(), options.storage or default_url())
        results.append(result)
        if not result.complete:
            break
    left = tuple(stage.name for stage in stages[len(results) :])
    return replace(results[-1], earlier=tuple(results[:-1]), left=left)


def _result(session: Session, ending: Ending, url: str) -> RunResult:
    """How a run of one campaign ended; its report is written."""
    page = report_path(session.ledger, session.name)
    write_page(session.ledger, session.name, page, importances)
    records = CampaignRecords(session.name, url)
    return RunResult(
        records=records,
        findings=ending.findings,
        decision=ending.decision,
        rounds=tuple(row.study.name for row in ending.rounds),
        best=_best(records, ending.rounds),
        failures=tuple(failures(session.ledger, ending.rounds)),
        report=page,
    )


def launch(
    study: Declared,
    round: int = 1,
    *,
    max_train_steps: int | None = None,
    trials: int | None = None,
    expanded: bool = False,
    retry_failed: bool = False,
    progress: bool | None = None,
    storage: str | None = None,
    checkpoints: str | Path | None = None,
    workers: WorkerCount = 1,
    **machine: Unpack[MachineOptions],
) -> LaunchResult:
    """Train the trials of one round. The same call again continues and repeats nothing that is finished.

    max_train_steps: the budget in steps, over the declared one. trials: how many in all, over the declared number.
    expanded: train the newest widened study of the round. The other arguments are those of `run`.

    Raises DeclarationError where the budget is not known, StorageError where the round before is missing, and what
    `run` raises.

    >>> launched = tuner.launch(campaign, round=1)
    >>> launched.study, launched.states
    ('round-1', {'complete': 4})
    """
    display = Display(progress, StopFlag())
    options = session_options(storage, checkpoints, workers, machine)
    with opened(study, options, display) as session:
        widened = prepared_expansion(session, round) if expanded else None
        prepared = widened or prepared_round(session, round, max_train_steps, trials)
        check_study(session, prepared.study, prepared.trials)
        for warning in prepared.warnings:
            display.tell(f"note: {warning}")
        row = launch_prepared(session, prepared, retry_failed=retry_failed)
        counts = session.ledger.state_counts(row.study_id)
        return LaunchResult(
            records=CampaignRecords(session.name, options.storage or default_url()),
            study=row.study.name,
            states={state.value: count for state, count in counts.items() if count},
            failures=tuple(failures(session.ledger, [row])),
            warnings=tuple(prepared.warnings),
        )


def sweep(
    study: Declared,
    *,
    learning_rates: Sequence[float] | None = None,
    extend: bool = False,
    again: bool = False,
    retry_failed: bool = False,
    progress: bool | None = None,
    storage: str | None = None,
    checkpoints: str | Path | None = None,
    workers: WorkerCount = 1,
    **machine: Unpack[MachineOptions],
) -> SweepResult:
    """Find the step budget: sweep constant learning rates without regularization, and count the steps to fit (A18).

    learning_rates: a grid in place of the declared one. extend: extend the grid of the last sweep, which ended too
    early to show the fastest rate. again: sweep again although a sweep ended, because the model,
    the data or the batch size changed. The other arguments are those of `run`.

    Raises what `run` raises.

    >>> result = tuner.sweep(campaign)
    >>> result.fits["learning_rate"].tolist()
    [0.01, 0.1, 1.0]
    >>> result.finding.question
    'sweep'
    """
    display = Display(progress, StopFlag())
    options = session_options(storage, checkpoints, workers, machine)
    with opened(study, options, display) as session:
        declared = chosen_sweep(session, learning_rates, extend)
        outcome = run_sweep(session, declared, again=again, retry_failed=retry_failed)
        records = CampaignRecords(session.name, options.storage or default_url())
        swept = records.sweep()
        finding = sweep_finding(outcome, swept.fits, swept.frames.study)
        return SweepResult(records, outcome, swept.fits, finding)


def plan(
    study: Declared,
    *,
    total_steps: int | None = None,
    rounds: int | None = None,
    storage: str | None = None,
    device: str | None = None,
    threads: int = 1,
) -> CampaignPlan:
    """What a campaign would train, how long that takes here, and how much disk. Nothing is trained or written.

    total_steps: plan trials for so many steps in all, over the declared numbers. rounds: with total_steps, so many
    rounds. The workload is tried by one update to measure the price.

    Raises DeclarationError where no such plan exists, WorkloadError where the workload cannot be trained.

    >>> tuner.plan(campaign, storage="new.sqlite").table[["study", "trials", "steps_each"]].values.tolist()
    [['sweep', 3, 200], ['sweep, fresh seeds', 1, 400], ['round-1', 4, 60]]
    """
    if rounds is not None and total_steps is None:
        raise InputError("rounds plans rounds for a total of steps; give total_steps with it")
    options = SessionOptions(storage=storage, device=device, threads=threads)
    with opened(study, options, Display(False, StopFlag()), dry_run=True) as session:
        compute_bound, inherited = known_regime(session) == "compute_bound", inherited_steps(session).steps
        if compute_bound:
            check_transfer(session.campaign)
        if total_steps is None:
            lines = tuple(priced_campaign(session))
            return CampaignPlan(
                stages=tuple(line for line in lines if isinstance(line, Plan)),
                extremes=tuple(line for line in lines if isinstance(line, Extremes)),
                rounds=planned_rounds(session.campaign, inherited) if compute_bound else (),
            )
        if compute_bound:
            return CampaignPlan((), (), rounds_for(session.campaign, total_steps, rounds, inherited))
        steps = likely_budget(session).steps
        return CampaignPlan((), (), rounds_of_one_length(session.campaign, steps, total_steps, rounds, inherited))


def export_weights(
    study: Declared,
    target: str | Path,
    round: int | str | None = None,
    *,
    as_: ExportForm | None = None,
    average: bool = False,
    checkpoints: str | Path | None = None,
    storage: str | None = None,
    device: str | None = None,
) -> Path:
    """Write the weights of the best configuration's selected run, at its best step, as a safetensors file.

    round: its number, or a study by its name; None is the last round. ``as_``: how adapters of `with_lora` are written:
    "merged" adds them to the weights, under the names of the base; "peft" writes a folder in the format of peft; None
    leaves all as the model has it. average: the mean of the weights of all best checkpoints that the run kept
    (`Campaign(keep_best=3)`), computed in float64, with the buffers of the best ones; it is evaluated on the validation
    split first (on `device`), and the file's header and a logged line say its value beside the best single one; for
    that `study` is a study file or a `Campaign`. checkpoints: the folder, where it is not the storage's own.

    Weights of a run that stopped early carry that in the metadata of the file, as `stopped_early`.

    Of a training that kept files in place of weights they are written into a folder, `target` without ".safetensors".
    Returns the path of what was written.

    Raises StorageError where the run has no checkpoint here, or for a mean fewer than two, or that folder is there
    already, or `as_` is given for weights without adapters; CorruptCheckpoint where the file is damaged; StudyChanged
    where a mean would be evaluated with other code or data than the run was trained with.

    >>> tuner.export_weights("tiny", "model.safetensors").name
    'model.safetensors'
    """
    records = load(study, storage)
    winner = records.best(round)
    if winner.checkpoint is None:
        elsewhere = winner.row.elsewhere
        where = f"was trained elsewhere ({elsewhere})" if elsewhere else "has no checkpoint of its best step"
        raise StorageError(f"trial {winner.record.number} {where}, so there are no weights to write")
    with open_ledger(records.storage, create=False) as ledger:
        root = folder_to_read(ledger, None if checkpoints is None else parsed_root(checkpoints))
        if average:
            if as_ is not None:
                raise InputError(f"as_={as_!r} and average=True are two ways to write weights; choose one of them")
            chosen = Chosen(winner.row, winner.record, winner.checkpoint, winner.step, winner.selected_value)
            stage = declared_stage(study)
            mean = mean_of_best(ledger, chosen, stage.campaign.workload, Machine(root, device), stage.file)
            _log.log(logging.WARNING if mean.worse else logging.INFO, "%s", mean.words)
            written = mean.write(Path(target)).path
            checkpoint_files.note_in_header(written, winner.notes)
            return written
    if as_ is not None:
        written = export_as(root, winner.checkpoint, Path(target), as_).path
    else:
        written = checkpoint_files.export_weights(root, winner.checkpoint, Path(target)).path
    checkpoint_files.note_in_header(written, winner.notes)
    return written


def _best(records: CampaignRecords, rounds: Sequence[StudyRow]) -> Winner | None:
    if not rounds:
        return None
    try:
        return records.best()
    except StorageError:  # no trial is complete with a finite value
        return None
