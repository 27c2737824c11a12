"""What safety costs: the share of wall time in fsync, sha256, writing checkpoints and Ledger, at the defaults.

python tests/benchmarks/safety.py [SECONDS]        on digits and stdlib_lm; also the price of a claim
"""

import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from tuner.budget.step_budget import StepBudget
from tuner.design.study_file import load_campaign
from tuner.execution.backend import Silent
from tuner.execution.in_process import InProcess
from tuner.rounds.plan import planned_trials, study_of_round
from tuner.storage.store import Ledger, open_ledger
from tuner.training import trainer
from tuner.training.checkpoints import CheckpointFolder

STUDIES = Path(__file__).parents[2] / "studies"


class Meter:
    """The time spent inside some methods, the innermost not counted twice."""

    def __init__(self):
        self.seconds, self.depth = 0.0, 0

    def around(self, owner, name):
        method = getattr(owner, name)

        def timed(*arguments, **options):
            self.depth += 1
            began = time.perf_counter()
            try:
                return method(*arguments, **options)
            finally:
                self.depth -= 1
                if not self.depth:
                    self.seconds += time.perf_counter() - began

        setattr(owner, name, timed)


def share(file, trials, steps, meter):
    """Seconds in the machinery, and of the whole study."""
    name, campaign = load_campaign(STUDIES / file)
    study = replace(study_of_round(campaign, 1, steps), num_trials=trials, budget=StepBudget(steps, steps // 50))
    with tempfile.TemporaryDirectory(dir=".") as folder, open_ledger(f"{folder}/tuner.sqlite") as ledger:
        local = InProcess(campaign.workload, Path(folder) / "checkpoints", device="cpu")
        row = ledger.start_study(name, study, local.fingerprint())
        ledger.plan_trials(row.study_id, planned_trials(study))
        meter.seconds = 0.0
        began = time.perf_counter()
        local.run(ledger, row, Silent(), lambda: False)
        return meter.seconds, time.perf_counter() - began


def claim_times(url, count=500):
    """Milliseconds of each of `count` claims."""
    _, campaign = load_campaign(STUDIES / "digits.py")
    study = replace(study_of_round(campaign, 1, 100), num_trials=count)
    with open_ledger(url) as ledger:
        row = ledger.start_study("claims", study, "fingerprint")
        ledger.plan_trials(row.study_id, planned_trials(study))
        times = []
        for _ in range(count):
            began = time.perf_counter()
            ledger.claim(row.study_id, worker="host:1:a", lease_seconds=60.0)
            times.append(1e3 * (time.perf_counter() - began))
    return times


def main():
    meter = Meter()
    for owner, names in (
        (Ledger, ("record", "claim", "renew", "release", "forget_dead_workers")),
        (CheckpointFolder, ("write_state", "write_weights", "sweep")),
        (trainer.TrialInTraining, ("update", "_keep_up")),
    ):
        for name in names:
            meter.around(owner, name)
    for file, trials, steps in (("digits.py", 4, 5000), ("stdlib_lm.py", 2, 2000)):
        spent, whole = share(file, trials, steps, meter)
        sys.stdout.write(f"{file}: {spent:.2f} s of {whole:.1f} s, {spent / whole:.1%}\n")
        sys.stdout.flush()
    with tempfile.TemporaryDirectory(dir=".") as folder:
        for url in [f"{folder}/claims.sqlite", *sys.argv[1:]]:
            times = claim_times(url)
            cuts = statistics.quantiles(times, n=100)
            kind = url.partition(":")[0] if "://" in url else "sqlite"
            sys.stdout.write(f"claim on {kind}: p50 {cuts[49]:.2f} ms, p99 {cuts[98]:.2f} ms\n")


if __name__ == "__main__":
    main()
