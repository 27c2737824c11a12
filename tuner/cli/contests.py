"""Candidate and baseline: which two are meant, what their contest costs, and holding it while somebody watches."""

from dataclasses import replace

from tuner.analysis.finding import Finding
from tuner.cli.launching import print_plan
from tuner.cli.output import say
from tuner.cli.watching import stop_on_signal, watch
from tuner.reading import load
from tuner.rounds.adoption import Contest, Side, baseline_place, run_contest, trial_at_place
from tuner.rounds.launch import Desk, plan_study


def sides_of(desk: Desk, candidate: str | None, baseline: str | None) -> tuple[Side, Side]:
    """The two trials as named; by default the best of the last round, and what was adopted last."""
    if candidate is None:
        winner = load(desk.name, desk.ledger.url).best()
        candidate = f"{winner.row.study.name}/{winner.record.number}"
    side = trial_at_place(desk.ledger, desk.name, candidate)
    baseline = baseline or baseline_place(desk.ledger, desk.name, side.place)
    return side, trial_at_place(desk.ledger, desk.name, baseline)


def price_contest(desk: Desk, made: Contest) -> None:
    """What the contest costs."""
    print_plan(plan_study(desk, made.study, made.trials))


def hold_contest(
    desk: Desk, made: Contest, *, level: float, minimum_gain: float, retry_failed: bool, quiet: bool
) -> Finding:
    """Train what is left while somebody watches."""
    say(f"{desk.name} {made.study.name}: {made.study.goal}")
    say(f"{len(made.trials)} trials of {made.study.budget.max_train_steps:,} steps, with fresh seeds")
    with stop_on_signal() as asked:
        working = replace(desk, stop=asked.is_set, watch=watch(quiet))
        return run_contest(working, made, level=level, minimum_gain=minimum_gain, retry_failed=retry_failed)
