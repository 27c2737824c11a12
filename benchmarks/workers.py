"""Throughput of 1, 2 and 4 worker processes on a short byte-LM study, trial steps per second while all train.

    python benchmarks/workers.py [TRIALS [STEPS [COUNT ...]]]

The start of the processes is measured apart: it is paid once, and a study of minutes does not feel it.
"""

import sys
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from tuner.budget.step_budget import StepBudget
from tuner.design.study_file import load_campaign
from tuner.execution.backend import Job, Silent
from tuner.execution.loaded_workload import LoadedWorkload
from tuner.execution.machine import Machine
from tuner.execution.workers import Workers
from tuner.rounds.plan import planned_trials, study_of_round
from tuner.storage.store import open_ledger

STUDY = Path(__file__).parents[1] / "tests" / "reference_studies" / "stdlib_lm.py"


class Clock(Silent):
    """Counts steps from the moment at which all workers train to the moment at which the first has nothing to do."""

    def __init__(self, count, trials):
        self.count = count
        self.left = trials - count + 1  # trials to end until a worker is idle
        self.steps = {}
        self.begun = self.over = None  # (time, steps)

    def trial_stepped(self, claim, step):
        self.steps[claim.trial.number] = step
        if self.begun is None and len(self.steps) == self.count:
            self.begun = self._now()

    def trial_ended(self, claim, update):
        self.left -= 1
        if self.left == 0:
            self.over = self._now()

    def _now(self):
        return time.monotonic(), sum(self.steps.values())

    @property
    def rate(self):
        return (self.over[1] - self.begun[1]) / (self.over[0] - self.begun[0])


def measured(count, trials, steps):
    name, campaign = load_campaign(STUDY)
    study = replace(study_of_round(campaign, 1, steps), num_trials=trials, budget=StepBudget(steps, steps // 5))
    with tempfile.TemporaryDirectory() as folder:
        url, root = f"sqlite:///{folder}/tuner.sqlite", f"{folder}/checkpoints"
        with open_ledger(url) as ledger:
            loaded = LoadedWorkload(campaign.workload, Machine(Path(root), "cpu", worker_count=count), STUDY)
            row = ledger.start_study(name, study, loaded.fingerprint())
            ledger.plan_trials(row.study_id, planned_trials(study))
            clock = Clock(count, trials)
            began = time.monotonic()
            with closing(Workers(url)) as workers:
                workers.run(Job(ledger, row, loaded), clock, lambda: False)
            return clock.rate, time.monotonic() - began


def main():
    numbers = [int(text) for text in sys.argv[1:]] or [8, 400, 1, 2, 4]
    trials, steps, *counts = numbers
    alone = None
    for count in counts or [1, 2, 4]:
        rate, seconds = measured(count, trials, steps)
        alone = alone or rate
        sys.stdout.write(
            f"{count} workers: {rate:7.0f} steps/s, {rate / alone:.2f} times one; {seconds:.1f} s with the start\n"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    main()
