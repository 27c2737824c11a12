"""Does the sweep's interval over seeds hold a seed it has not seen?

    python benchmarks/sweep_spread.py

The sweep on digits with 5 campaign seeds and 2 optimizers; for each, one more training at the winning rate with a
fresh seed, evaluated as finely as the sweep's own seeds. The interval claims 90 %.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from tuner import log_grid
from tuner.analysis.fit_steps import fit_steps_frame
from tuner.analysis.frames import study_frames
from tuner.budget.step_budget import StepBudget
from tuner.design.seeds import derived_seed
from tuner.design.study_file import load_campaign
from tuner.execution.loaded_workload import LoadedWorkload
from tuner.execution.machine import Machine
from tuner.records.sweep_outcomes import Fitted
from tuner.rounds.launch import Session, launch_study
from tuner.rounds.sweep import REFINED_WIDTH, SEED_ROOM, run_sweep, sweep_plan
from tuner.storage.store import open_ledger

GRIDS = {"adamw": log_grid(1e-4, 1.0), "sgd": log_grid(1e-2, 30.0)}


def sixth_seed(session, sweep, outcome):
    """Steps to fit of a seed that neither the grid nor the spread has used."""
    plan = sweep_plan(session.campaign, sweep)
    every = max(1, int(REFINED_WIDTH * outcome.high))
    study = plan.study("sixth", StepBudget(SEED_ROOM * outcome.max_steps, every), 1)
    trial = plan.seed_trials(study, outcome.learning_rate)[0]
    fresh = replace(trial, seed=derived_seed("sixth", trial.seed), data_seed=derived_seed("sixth data", trial.seed))
    launch_study(session, study, [fresh])
    return fit_steps_frame(study_frames(session.ledger, session.name, "sixth"))["first_fit"].iloc[0]


def main() -> int:
    _, campaign = load_campaign(Path(__file__).parents[1] / "tests" / "reference_studies" / "digits.py")
    inside = total = 0
    print("optimizer seed  rate      fastest        seeds                      interval     sixth  inside")
    for optimizer, grid in GRIDS.items():
        for seed in range(5):
            sweep = replace(campaign.sweep, optimizer=optimizer, learning_rate=grid)
            one = replace(campaign, seed=seed, sweep=sweep)
            with tempfile.TemporaryDirectory() as folder, open_ledger(f"{folder}/l.sqlite") as ledger:
                loaded = LoadedWorkload(one.workload, Machine(Path(folder) / "checkpoints"))
                session = Session("digits", one, ledger, loaded)
                outcome = run_sweep(session, sweep)
                total += 1
                if not isinstance(outcome, Fitted):
                    print(f"{optimizer:9} {seed:4}  {outcome}")
                    continue
                sixth = sixth_seed(session, sweep, outcome)
            holds = outcome.seed_low <= sixth <= outcome.seed_high
            inside += holds
            fastest, seeds = f"({outcome.low}, {outcome.high}]", " ".join(map(str, outcome.seed_steps))
            interval = f"{outcome.seed_low}..{outcome.seed_high}"
            print(
                f"{optimizer:9} {seed:4}  {outcome.learning_rate:<8.3g}  {fastest:13}  {seeds:25}  {interval:11}  "
                f"{sixth:5}  {holds}",
                flush=True,
            )
    print(f"{inside} of {total} sixth seeds inside (goal: at least 4 of 5)")
    return 0 if inside >= 0.8 * total else 1


if __name__ == "__main__":
    sys.exit(main())
