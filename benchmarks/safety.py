"""What safety costs: the share of wall time in fsync, sha256, checkpoint files and Ledger, at the default settings.

python benchmarks/safety.py        round 1 of digits and of stdlib_lm as they are launched; the price of a claim
"""

import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(1, str(Path(__file__).parents[1] / "tests"))

from storage.postgres import Server, programs

from tuner.design.study_file import load_campaign
from tuner.execution.backend import Job, Silent
from tuner.execution.in_process import InProcess
from tuner.execution.loaded_workload import LoadedWorkload
from tuner.execution.machine import Machine
from tuner.rounds.plan import planned_trials, study_of_round
from tuner.storage.store import Ledger, open_ledger
from tuner.training.logbook import Logbook
from tuner.training.supervisor import Supervisor

STUDIES = Path(__file__).parents[1] / "tests" / "reference_studies"
ROUNDS = (("digits.py", 16, 540), ("stdlib_lm.py", 4, 800))  # trials of the round that are trained, and their steps
MACHINERY = (
    (Ledger, ("record", "claim", "renew", "release", "forget_dead_workers", "state_counts", "prefixes")),
    (Logbook, ("update", "committed", "resume", "pin")),
    (Supervisor, ("_due",)),
    (Job, ("delete_strays",)),
)


class Meter:
    """Seconds spent in some methods, by name; what they call is counted under their own name."""

    def __init__(self):
        self.seconds, self.depth = Counter(), 0

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
                    self.seconds[name] += time.perf_counter() - began

        setattr(owner, name, timed)


def share(file, trials, steps, meter):
    """Seconds in the machinery by method, and of the whole study."""
    name, campaign = load_campaign(STUDIES / file)
    study = replace(study_of_round(campaign, 1, steps), num_trials=trials)
    with tempfile.TemporaryDirectory(dir=".") as folder, open_ledger(f"{folder}/tuner.sqlite") as ledger:
        loaded = LoadedWorkload(campaign.workload, Machine(Path(folder) / "checkpoints", "cpu"))
        row = ledger.start_study(name, study, loaded.fingerprint())
        ledger.plan_trials(row.study_id, planned_trials(study))
        meter.seconds.clear()
        began = time.perf_counter()
        InProcess().run(Job(ledger, row, loaded), Silent(), lambda: False)
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


def print_claims(url):
    times = claim_times(url)
    cuts = statistics.quantiles(times, n=100)
    kind = url.partition(":")[0] if "://" in url else "sqlite"
    print(f"claim on {kind}: p50 {cuts[49]:.2f} ms, p99 {cuts[98]:.2f} ms of {len(times)}", flush=True)


def main():
    meter = Meter()
    for owner, names in MACHINERY:
        for name in names:
            meter.around(owner, name)
    for file, trials, steps in ROUNDS:
        spent, whole = share(file, trials, steps, meter)
        total = sum(spent.values())
        parts = ", ".join(f"{name} {1e3 * seconds / trials:.1f}" for name, seconds in spent.most_common())
        print(f"{file}: {total:.2f} s of {whole:.1f} s, {total / whole:.1%}; ms a trial: {parts}", flush=True)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        print_claims(f"{folder}/claims.sqlite")
    if programs() is not None:
        server = Server()
        print_claims(server.url)
        server.close()


if __name__ == "__main__":
    main()
