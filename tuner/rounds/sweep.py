"""The constant-learning-rate sweep: how many steps does the fastest trial need to fit the training set (A18-A26)?

1. `probe`: a few rates of the grid at N steps; N doubles until one fits (A20), or the cap is reached.
2. `grid`: every rate of the grid, N steps each, at a constant rate, no early stopping but divergence (A21).
3. `refined`: the fastest rates again, evaluated more often, where the interval is wider than 10 % (D5).
4. `seeds`: the fastest rate with fresh seeds, for the spread (A26).

Each stage is a study in the Ledger, so an interrupted sweep goes on where it was.
"""

import pandas as pd

from tuner.analysis.fit_steps import fit_steps_frame
from tuner.analysis.frames import study_frames
from tuner.analysis.sweep_outcome import (
    LEAST_WIDTH,
    Fitted,
    Invalid,
    NotFitted,
    Outcome,
    sweep_outcome,
    with_seeds,
)
from tuner.analysis.sweep_records import conclude_sweep, sweep_records
from tuner.budget.step_budget import StepBudget
from tuner.design.campaign import Sweep
from tuner.rounds.launch import Desk, launch_study
from tuner.rounds.sweep_plan import SweepPlan, sweep_plan

PROBE_EVERY = 3  # every third rate of the grid is probed: about one a decade
NEIGHBOURS = 2  # grid rates on each side of the best probe that are tried before giving up at the cap
REFINED_WIDTH = 0.05  # [P] an evaluation interval of the refinement, as a share of the steps to fit
SEED_ROOM = 2  # fresh seeds get so many times N steps, since steps to fit vary by up to 2x between seeds


def run_sweep(desk: Desk, sweep: Sweep) -> Outcome:
    """Run a sweep, or go on with it, and store its outcome. Training nothing that is in the Ledger already."""
    plan = sweep_plan(desk.campaign, sweep)
    name = _sweep_name(desk, plan)
    concluded = sweep_records(desk.ledger, desk.name)
    if concluded is not None and concluded.name == name:
        return concluded.outcome
    _check_switched_off(desk, plan)
    outcome = _outcome(desk, plan, name)
    conclude_sweep(desk.ledger, desk.name, name, outcome, sweep.margin)
    return outcome


def _outcome(desk: Desk, plan: SweepPlan, name: str) -> Outcome:
    enough = _enough_steps(desk, plan, name)
    if isinstance(enough, NotFitted):
        return enough
    fits = _fits(desk, plan, f"{name}-grid", plan.rates, StepBudget.with_evaluations(enough, plan.evaluations))
    outcome = sweep_outcome(fits, enough)
    if isinstance(outcome, Fitted | Invalid):
        outcome = _refined(desk, plan, name, fits, outcome)
    if isinstance(outcome, Fitted) and plan.sweep.seeds:
        return _with_seeds(desk, plan, name, outcome)
    return outcome


def _enough_steps(desk: Desk, plan: SweepPlan, name: str) -> int | NotFitted:
    """The first N, doubled from the start, at which some rate fits; or that none does up to the cap (A20)."""
    sweep = plan.sweep
    probes = plan.rates[PROBE_EVERY // 2 :: PROBE_EVERY]
    steps = sweep.start_steps
    while True:
        budget = StepBudget.with_evaluations(steps, plan.evaluations)
        fits = _fits(desk, plan, f"{name}-probe-{steps}", probes, budget)
        if fits["first_fit"].notna().any():
            return steps
        if (fits["state"] != "complete").all() and len(fits):
            return _last_try(desk, plan, name, fits, budget)
        if steps >= sweep.max_steps:
            return _last_try(desk, plan, name, fits, budget)
        steps = min(2 * steps, sweep.max_steps)


def _last_try(desk: Desk, plan: SweepPlan, name: str, fits: pd.DataFrame, budget: StepBudget) -> int | NotFitted:
    """Before giving up: the rates of the grid around the best probe, or the lowest ones where all diverged."""
    outcome = sweep_outcome(fits, budget.max_train_steps)
    best = outcome.best_learning_rate if isinstance(outcome, NotFitted) else None
    place = plan.rates.index(best) if best is not None else 0
    near = plan.rates[max(0, place - NEIGHBOURS) : place + NEIGHBOURS + 1]
    more = _fits(desk, plan, f"{name}-last-{budget.max_train_steps}", near, budget)
    if more["first_fit"].notna().any():
        return budget.max_train_steps
    every = pd.concat([fits, more]).drop_duplicates("learning_rate").sort_values("learning_rate")
    return NotFitted.of(every.reset_index(drop=True), budget.max_train_steps)


def _refined(desk: Desk, plan: SweepPlan, name: str, fits: pd.DataFrame, coarse: Fitted | Invalid) -> Fitted | Invalid:
    """Evaluate the fastest rates (all that tie) more finely, where that can change the answer (D5)."""
    if isinstance(coarse, Invalid) and not coarse.ambiguous:
        return coarse
    fastest = fits.sort_values("first_fit").iloc[0]
    low, high = int(fastest["last_unfit"]), int(fastest["first_fit"])
    if isinstance(coarse, Fitted) and coarse.width <= LEAST_WIDTH:
        return coarse
    tied = tuple(float(rate) for rate in fits.loc[fits["last_unfit"] < high, "learning_rate"])
    every = max(1, int(REFINED_WIDTH * max(low, high // 2)))
    steps = min(int(fits["first_fit"].max()), 2 * high)
    fine = _fits(desk, plan, f"{name}-refined", tied, StepBudget(max(steps, every), every))
    finer = fits.set_index("learning_rate")
    for row in fine[fine["first_fit"].notna()].to_dict("records"):
        finer.loc[row["learning_rate"], ["last_unfit", "first_fit"]] = [row["last_unfit"], row["first_fit"]]
    judged = sweep_outcome(finer.reset_index(), coarse.max_steps if isinstance(coarse, Fitted) else steps)
    return coarse if isinstance(judged, NotFitted) else judged


def _with_seeds(desk: Desk, plan: SweepPlan, name: str, outcome: Fitted) -> Fitted:
    """The fastest rate with fresh seeds: the trial that won is left out, it was selected for being fast (B32)."""
    steps = SEED_ROOM * outcome.max_steps
    every = max(1, int(REFINED_WIDTH * outcome.high))
    study = plan.study(f"{name}-seeds", StepBudget(steps, every), plan.sweep.seeds)
    launch_study(desk, study, plan.seed_trials(study, outcome.learning_rate))
    return with_seeds(outcome, fit_steps_frame(study_frames(desk.ledger, desk.name, study.name)))


def _fits(desk: Desk, plan: SweepPlan, name: str, rates: tuple[float, ...], budget: StepBudget) -> pd.DataFrame:
    study = plan.study(name, budget, len(rates))
    launch_study(desk, study, plan.trials(study, rates))
    return fit_steps_frame(study_frames(desk.ledger, desk.name, name))


def _sweep_name(desk: Desk, plan: SweepPlan) -> str:
    """The name of this sweep: the same again for the same declaration, the next number for another grid."""
    known = desk.ledger.studies(desk.name) if desk.name in desk.ledger.campaigns() else []
    sweeps = {"-".join(row.study.name.split("-")[:2]): row.study for row in known if row.study.kind == "sweep"}
    for name, study in sweeps.items():
        if dict(study.lineage)["sweep"] == plan.digest:
            return name
    return f"sweep-{len(sweeps) + 1}"


def _check_switched_off(desk: Desk, plan: SweepPlan) -> None:
    """Raise when the workload still regularizes or augments at its off values (A22, A23, D2)."""
    study = plan.study("sweep", StepBudget.with_evaluations(plan.sweep.start_steps, plan.evaluations), 1)
    trial = plan.trials(study, plan.rates[:1])[0]
    desk.backend.check(study, trial)
    desk.backend.check_switched_off(study, trial)
