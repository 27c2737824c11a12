"""Launching with progress, and the price of a launch before it."""

import sys
from collections.abc import Sequence
from dataclasses import replace

from rich.table import Table

from tuner.cli.output import console, next_step, readable_bytes, readable_seconds, say
from tuner.cli.watching import stop_on_signal, watched
from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.records import State
from tuner.rounds.launch import Desk, Plan, launch_study


def print_plan(*plans: Plan) -> None:
    """Trials, steps, time and disk of studies that were not started."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("study", "trials", "steps each", "steps", "ms/step", "ms/evaluation", "time", "disk"):
        table.add_column(name, justify="left" if name == "study" else "right")
    for plan in plans:
        budget = plan.study.budget
        table.add_row(
            plan.study.name, str(len(plan.trials)), f"{budget.max_train_steps:,}", f"{plan.steps:,}",
            f"{plan.price.step_ms:.3g}", f"{plan.price.evaluation_ms:.3g}",
            readable_seconds(plan.seconds), readable_bytes(plan.checkpoint_bytes),
        )  # fmt: skip
    console().print(table)
    say("a dry run: nothing was trained or written; times are for this machine as busy as it is now")


def run_launch(desk: Desk, study: Study, trials: Sequence[Trial], *, retry_failed: bool, quiet: bool) -> None:
    """Train what is left of a study while somebody watches, and say where it stands."""
    finished = _finished(desk, study)
    with stop_on_signal() as asked, watched(study, finished, quiet) as listener:
        working = replace(desk, stop=asked.is_set, listener=listener)
        row = launch_study(working, study, trials, retry_failed=retry_failed)
    counts = desk.ledger.state_counts(row.study_id)
    states = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    say(f"{desk.name} {study.name}: {states}; records in {desk.ledger.safe_url}")
    if counts.get(State.FAILED):
        say("some trials FAILED, not because of their point: `tuner trials` gives the reasons, --retry-failed repeats")
    next_step(
        f"tuner best-steps {desk.name} --round {study.round}", f"tuner boundaries {desk.name} --round {study.round}"
    )
    sys.stderr.flush()


def _finished(desk: Desk, study: Study) -> int:
    if desk.name not in desk.ledger.campaigns():
        return 0
    for row in desk.ledger.studies(desk.name):
        if row.study.name == study.name:
            return sum(count for state, count in desk.ledger.state_counts(row.study_id).items() if state.finished)
    return 0
