"""`tuner launch`: training with progress, and the price of a launch before it."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace

from rich.table import Table
from rich.text import Text

from tuner.analysis.study_progress import failures, listed
from tuner.budget.step_budget import MINIMUM_EVALUATIONS
from tuner.cli.exit_codes import Exit
from tuner.cli.given import command
from tuner.cli.output import console, next_step, readable_bytes, readable_seconds, say
from tuner.cli.sessions import open_session
from tuner.cli.training_options import LaunchOptions
from tuner.cli.watching import stop_on_signal, watch
from tuner.errors import TrialsFailed
from tuner.execution.inspection import inspect
from tuner.execution.recorded_fusions import recorded_fusions
from tuner.records import Price, State, StepMemory
from tuner.records.hourly_price import HourlyPrice, amount_words, parsed_price
from tuner.rounds.launch import Plan, Session, check_study, plan_study
from tuner.rounds.prepared_round import Prepared, launch_prepared, prepared_expansion, prepared_round
from tuner.shown import shown
from tuner.storage.studies import StudyRow

LOOKED_AT = 4  # trials that a dry run stacks
MUCH_EVALUATION = 1 / 3  # of a study's time
NO_GAIN = 1.05  # of the speed in float32; a precision that is not faster saves no time
MUCH_FETCHING = 0.1  # of a step
HARDLY_MS = 1.0  # to fetch a batch
_LESS = "lower training_evaluation_examples of the workload, or "


def launch(options: LaunchOptions) -> Exit:
    """Train a round, or go on with it."""
    price = parsed_price(options.price_per_hour)
    with open_session(options, dry_run=options.dry_run) as session:
        expansion = prepared_expansion(session, options.round_number) if options.expanded else None
        prepared = expansion or prepared_round(session, options.round_number, options.max_train_steps, options.trials)
        if not options.dry_run:
            return run_launch(session, prepared, retry_failed=options.retry_failed, quiet=options.quiet)
        print_plan(plan_study(session, prepared.study, prepared.trials), price=price)
        if options.verbose:
            print_fusion(session, prepared)
    return Exit.FINE


def print_plan(*plans: Plan, price: HourlyPrice | None = None) -> None:
    """Trials, steps, time, cost and disk of studies that were not started, and that nothing was trained."""
    print_studies(*plans, price=price)
    say_dry_run(plans)


def print_studies(*plans: Plan, price: HourlyPrice | None = None) -> None:
    """Trials, steps, time, disk and, where the price of an hour is given, cost of studies that were not started."""
    console().print(_table_of_plans(plans, price))
    if price is not None:
        say(cost_words(price, sum(map(process_seconds, plans)), ranks_of(plans)))
    for plan in plans:
        if words := plan.study.slices_in_words:
            say(f"{plan.study.name}: each batch is computed in {words}")
        if plan.study.limit_words:
            say(plan.study.limit_words)
        if plan.finished:
            say(f"{plan.study.name}: {plan.finished} more trials are finished already and are not repeated")
    _say_saved(plans)
    for plan in plans:
        if plan.evaluation_seconds > MUCH_EVALUATION * plan.seconds > 0.0:
            say(
                f"evaluations take {plan.evaluation_seconds / plan.seconds:.0%} of the time of {plan.study.name}. "
                f"To shorten it, {_LESS if plan.fuses else ''}evaluate less often "
                f"(evaluations, evaluate_every of Campaign; verdicts need at least {MINIMUM_EVALUATIONS} evaluations)"
            )
    _say_fetching(plans)
    _say_precisions(plans)
    _say_compiling(plans)
    _say_memory(plans)
    say_gang(plans)


def say_gang(plans: Sequence[Plan]) -> None:
    """What a gang takes, and whether it is the better way, for the study that takes longest."""
    longest = max(plans, key=lambda plan: plan.seconds)
    if longest.price.gang is not None:
        study = longest.study
        for words in longest.price.gang.words(study.name, len(longest.trials), study.budget.max_train_steps):
            say(words)


def _say_saved(plans: Sequence[Plan]) -> None:
    if saved := sum(plan.saved_steps for plan in plans):
        share = saved / (saved + sum(plan.steps for plan in plans))
        say(
            f"saved: {saved:,} steps ({share:.0%}) are inherited from trials that begin with the same steps; the bits "
            "are the same"
        )


def cost_words(price: HourlyPrice, seconds: float, ranks: int = 1) -> str:
    """What work that is planned will cost, however many workers share it. ranks: of a gang, which cost as much each."""
    counted = f"; each of the {ranks} processes of a gang counts" if ranks > 1 else ""
    return (
        f"cost: {price.about(seconds)}, an estimate from the times{counted}; several workers share the work and cost "
        "as much together, and more where they wait or start"
    )


def ranks_of(plans: Sequence[Plan]) -> int:
    """How many processes train each trial of these plans."""
    return max(plan.price.ranks for plan in plans)


def process_seconds(plan: Plan) -> float:
    """Estimated time of all processes that train: of one, or of each rank of a gang, with its exchanges."""
    return plan.price.process_seconds(plan.steps, plan.evaluation_seconds, plan.compile_seconds)


def say_dry_run(plans: Sequence[Plan]) -> None:
    """The last words of a dry run."""
    together = "together (--fuse) or " if all(plan.fuses for plan in plans) else ""
    say(
        "This was a dry run: nothing was trained or written. Time estimates assume one trial at a time under the "
        f"current machine load; trials that train {together}in several processes (--workers) take less"
    )


def _say_fetching(plans: Sequence[Plan]) -> None:
    """One line where fetching costs something, of the first plan that says so: all share the data."""
    line = next(filter(None, (fetching_words(plan.price) for plan in plans)), "")
    if line:
        say(line)


def _say_precisions(plans: Sequence[Plan]) -> None:
    """One line for each precision that is declared: how fast it is on this machine."""
    speeds = {name: speed for plan in reversed(plans) for name, speed in plan.price.precisions}
    for name, speed in speeds.items():
        say(precision_words(name, speed))


def precision_words(name: str, speed: float) -> str:
    """How fast a precision is here, and what follows where it gains nothing."""
    words = f"{name} is {speed:.2g}x of float32 on this processor, in steps a second"
    return f"{words}: it saves no time here" if speed < NO_GAIN else words


def _say_compiling(plans: Sequence[Plan]) -> None:
    """One line where a study compiles its model: trials that are short may take longer with it."""
    slowest = max(plans, key=lambda plan: plan.price.compile_ms)
    if slowest.price.compile_ms:
        say(
            f"torch.compile takes {readable_seconds(slowest.price.compile_ms / 1e3)} at the beginning of each trial, "
            f"{slowest.compile_seconds / max(1e-9, slowest.seconds):.0%} of the time of {slowest.study.name}; a trial "
            "trains alone where its model is compiled"
        )


def _say_memory(plans: Sequence[Plan]) -> None:
    """What a trial takes, once for all plans that take the same, and how many trials fit together."""
    told: set[object] = set()
    for plan in plans:
        memory = plan.price.memory
        known = memory and (plan.study.batch_size, memory.parameters, memory.optimizer)
        if memory is not None and known not in told:
            told.add(known)
            say(memory_words(plan.price, memory))


def memory_words(price: Price, memory: StepMemory) -> str:
    """The memory of a trial and what of it fits here, for a person."""
    words = f"{memory.words}; {readable_bytes(memory.free)} free"
    if price.ranks > 1:
        return f"{words}; each of the {price.ranks} processes of a gang takes as much{_too_much(price, memory)}"
    return words + (f", enough for about {price.together:,} trials together" if price.together > 1 else "")


def _too_much(price: Price, memory: StepMemory) -> str:
    """That all ranks of a gang together do not fit into the memory of this machine; "" where they do, or have GPUs."""
    needed = price.ranks * memory.needed
    if price.gang is None or price.gang.on_gpu or needed <= memory.free:
        return ""
    return f", {readable_bytes(needed)} in all, which is more than there is: take fewer ranks, or several machines"


_SPARED = ("ms/evaluation", "ms/step", "epochs", "disk")  # columns that go first where there is no room for all


def _table_of_plans(plans: Sequence[Plan], price: HourlyPrice | None = None) -> Table:
    """A row for each study; columns that say nothing, and those that have no room on the terminal, are left out."""
    columns: dict[str, list[str]] = {
        "trials": [str(len(plan.trials)) for plan in plans],
        "steps each": [f"{plan.study.budget.max_train_steps:,}" for plan in plans],
        "epochs": [plan.study.in_epochs(plan.study.budget.max_train_steps) for plan in plans],
        "steps": [f"{plan.steps:,}" for plan in plans],
        "saved": [f"{plan.saved_steps:,}" for plan in plans],
        "ms/step": [f"{plan.price.step_ms:.3g}" for plan in plans],
        "ms/evaluation": [f"{plan.price.evaluation_ms:.3g}" for plan in plans],
        "time": [readable_seconds(plan.seconds) for plan in plans],
        **({} if price is None else {"cost": [amount_words(price.of(process_seconds(plan))) for plan in plans]}),
        "disk": [readable_bytes(plan.checkpoint_bytes) for plan in plans],
    }
    if not any(plan.saved_steps for plan in plans):
        del columns["saved"]
    if not any(plan.study.steps_per_epoch for plan in plans):
        del columns["epochs"]
    widths = {name: max(len(one) for one in (name, *texts)) + 2 for name, texts in columns.items()}
    room = console().width - max(len("study"), *(len(shown(plan.study.name)) for plan in plans))
    for name in _SPARED:
        if sum(widths.values()) > room:
            widths.pop(name, None)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("study", no_wrap=True)
    for name in widths:
        table.add_column(name, justify="right", no_wrap=True)
    for row, plan in enumerate(plans):
        table.add_row(Text(shown(plan.study.name)), *(columns[name][row] for name in widths))
    return table


def fetching_words(price: Price) -> str:
    """What the fetching of batches costs, and how many loading processes would hide it; empty where it is nothing."""
    fetch, step, useful, processes = (
        f"{price.fetch_ms:.2g}" if price.fetch_ms < 1 else f"{price.fetch_ms:,.0f}", f"{price.step_ms:,.3g}",
        price.useful_processes, price.loading_processes,
    )  # fmt: skip
    if processes:
        many = f"{processes} loading process{'es' * (processes > 1)}"
        beside = f" beside each of {price.trainers} that train" if price.trainers > 1 else ""
        words = f"{many}{beside}: a step takes {step} ms, and fetching its batch {fetch} ms of another process"
        if price.fetch_ms < HARDLY_MS:
            return f"{words}; that is nothing to hide: data_workers = 0 trains faster"
        return words
    if price.fetch_ms < MUCH_FETCHING * price.step_ms:
        return ""
    much = f"fetching takes {fetch} of {step} ms of a step"
    shared = "trials that train together (--fuse) fetch each batch once for all of them"
    if not useful:
        return f"{much}; {shared}" if price.fetch_ms >= HARDLY_MS else ""
    return f"{much}; data_workers = {useful} would hide {_how_much(price)} of it, with the same bits; {shared}"


def _how_much(price: Price) -> str:
    """Of the fetching: a step is as long as its longer part."""
    rest = price.step_ms - price.fetch_ms
    left = max(0.0, price.fetch_ms / price.useful_processes - rest)
    return "most" if left < price.fetch_ms / 2 else f"{1 - left / price.fetch_ms:.0%}"


def print_fusion(session: Session, prepared: Prepared) -> None:
    """How the first trials of one shape would train together, operation by operation."""
    kind = prepared.trials[0].shape_group
    together = [trial for trial in prepared.trials if trial.shape_group == kind][:LOOKED_AT]
    choice = inspect(session.loaded, prepared.study, together, validation_seconds=None, fusion=True).fusion
    if choice is None:
        return
    if not choice.ways:
        say(f"trials of this study cannot be fused: {choice.reason}")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("operation")
    table.add_column("all trials at once by")
    for name, way in sorted(choice.ways.items(), key=lambda item: (item[1], item[0])):
        table.add_row(Text(shown(name)), way)
    console().print(table)
    say(
        f"trials of this study can be fused ({choice.reason}). loop: the operation runs once for each trial. "
        f"Shape group: {kind}"
    )


def told_failures(session: Session, rows: Sequence[StudyRow], again: str = "the command") -> Exit:
    """List the trials of some studies that FAILED, with their reasons, and say whether any did by an exit code.

    again: what trains them when it is repeated.
    """
    failed = failures(session.ledger, rows)
    if not failed:
        return Exit.FINE
    who, whose = ("trial", "its point") if len(failed) == 1 else ("trials", "their points")
    say(f"{len(failed)} {who} FAILED, not because of {whose}:")
    for line in listed(failed):
        say(f"  {line}")
    say(
        f"remove the cause, then repeat {again} with --retry-failed: the trials continue from their last saved "
        "state. Running again without a change will not help"
    )
    return Exit.FAILED


def run_launch(session: Session, prepared: Prepared, *, retry_failed: bool, quiet: bool) -> Exit:
    """Train what is left of a study while somebody watches, say where it stands, and return the exit code."""
    study = prepared.study
    check_study(session, study, prepared.trials)  # before the first word, so that an error stands alone
    say(f"{session.name} {study.name}: {study.goal}")
    say(f"{len(prepared.trials)} trials of {study.trains_in_words}, {prepared.budget.origin.sentence}")
    for warning in prepared.warnings:
        say(f"note: {warning}")
    row = _launched(session, prepared, retry_failed=retry_failed, quiet=quiet)
    counts = session.ledger.state_counts(row.study_id)
    states = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    early = sum(record.stopped_early for record in session.ledger.trials(row.study_id))
    states += f" ({early} stopped early)" * bool(early)
    for words in _how_trained(session, row):
        say(words)
    say(f"{session.name} {study.name}: {states}; records in {session.ledger.safe_url}")
    code = told_failures(session, [row])
    about = ("--round", study.round)
    if counts[State.COMPLETE] and study.patience_steps:  # no question about steps or ranges is for such a round
        next_step(command("best", session.name, after=about), command("trials", session.name, after=about))
    elif counts[State.COMPLETE]:
        next_step(command("best-steps", session.name, after=about), command("boundaries", session.name, after=about))
    elif code is Exit.FAILED:
        next_step(command("trials", session.name, after=about))
    sys.stderr.flush()
    return code


def _launched(session: Session, prepared: Prepared, *, retry_failed: bool, quiet: bool) -> StudyRow:
    """Train what is left; where trials fail alike, and the others need not be tried, say so and stop."""
    with stop_on_signal() as asked:
        try:
            watched = replace(session, stop=asked.is_set, watch=watch(quiet))
            return launch_prepared(watched, prepared, retry_failed=retry_failed)
        except TrialsFailed as error:
            say(f"failed: {str(error).splitlines()[0]}")  # they are listed below
            return session.ledger.study(session.name, prepared.study.name)


def _how_trained(session: Session, row: StudyRow) -> Iterator[str]:
    """Whether trials trained together, and why, for each of their shapes."""
    made = recorded_fusions(session.ledger, row)
    for group, choice in sorted(made.items()):
        kind, *parts = group.split()  # the optimizer, and what trials of one shape share or vary
        which = f" ({' '.join([kind, *(part for part in parts if '=' in part)])})" if len(made) > 1 else ""
        how = f"{choice.num_trials} at a time as one model" if choice.num_trials > 1 else "one by one"
        why = "" if choice.reason.startswith("--fuse") else f": {choice.reason}"
        yield f"trials were trained {how}{which}{why}"
