"""A long, rough day: four workers, thousands of tiny trials, a kill every five seconds. Is anything lost, or growing?

    python tests/crash/soak.py [--minutes 30] [--trials 20000] [--postgresql]

On PostgreSQL every kill also cuts all connections, and the server is killed twice. The first worker is never killed:
its memory, its open files and the time of its claims are what must not grow. (At the end of a study all of its trials
are read once: with 20,000 of them that is a step of 30 MB, and not a leak.) Prints a line of JSON; exit code 1 when
something is wrong.
"""

import argparse
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import psutil
from crash.lives import CAMPAIGN, Exact, Postgres, Sqlite, child, ended
from support.tiny import tiny_study

from tuner.budget.step_budget import StepBudget
from tuner.errors import Interrupted
from tuner.execution.backend import Job, Silent
from tuner.execution.in_process import InProcess
from tuner.execution.loaded_workload import LoadedWorkload
from tuner.execution.machine import Machine
from tuner.execution.replay import replayed
from tuner.records import State
from tuner.rounds.plan import planned_trials
from tuner.storage.identity import checkpoint_place
from tuner.storage.liveness import worker_id
from tuner.storage.store import Ledger, open_ledger
from tuner.storage.verify import study_problems

STUDY = tiny_study(budget=StepBudget(4, 2), keep_best=1)
WORKERS = 4
KILL_SECONDS = 5.0
REPLAYED = 60  # finished trials that are trained again, uninterrupted, and compared bit for bit
ALWAYS = 1_000_000  # attempts: one trial may be hit any number of times
SETTLED = 0.2  # of the time, after which nothing may grow


def plan(place, number, trials):
    with open_ledger(place.url) as ledger:
        study = replace(STUDY, name=f"soak-{number}", seed=STUDY.seed + number, num_trials=trials)
        row = ledger.start_study(CAMPAIGN, study, "code and data")
        ledger.plan_trials(row.study_id, planned_trials(row.study))


def work(place, times=None):
    """Train study after study until there is a file that says stop; write down how long claims take."""
    claim = Ledger.claim

    def timed(self, *arguments, **options):
        began = time.perf_counter()
        try:
            return claim(self, *arguments, **{**options, "max_attempts": ALWAYS})
        finally:
            if times is not None:
                times.write(f"{1e3 * (time.perf_counter() - began)}\n")

    Ledger.claim = timed
    stop = (place.folder / "stop").exists
    workload = Exact()
    with open_ledger(place.url, create=False) as ledger:
        loaded = LoadedWorkload(workload, Machine(place.checkpoints, commit_seconds=0.0))
        while not stop():
            for row in ledger.studies(CAMPAIGN):
                if ledger.state_counts(row.study_id)[State.WAITING]:
                    try:
                        InProcess().run(Job(ledger, row, loaded), Silent(), stop)
                    except Interrupted:
                        return
            time.sleep(0.5)


class Soak:
    """Workers, what happens to them, and what is measured meanwhile."""

    def __init__(self, databases, minutes, trials):
        self.databases = databases
        self.trials = trials
        self.place = databases.empty("soak")
        self.end = time.monotonic() + 60 * minutes
        self.began = time.monotonic()
        self.seconds = 60 * minutes
        self.generator = random.Random(0)
        self.studies = 0
        self.kills = self.stops = 0
        self.samples = []
        self.wrong = Counter()

    def run(self):
        self._plan()
        with (self.place.folder / "claims").open("w", buffering=1) as times:
            steady = child(lambda: work(self.place, times))
        workers = [child(lambda: work(self.place)) for _ in range(WORKERS - 1)]
        while time.monotonic() < self.end:
            time.sleep(KILL_SECONDS)
            victim = workers.pop(self.generator.randrange(len(workers)))
            os.kill(victim, signal.SIGKILL)
            self._note(ended(victim), killed=True)
            self._trouble()
            workers.append(child(lambda: work(self.place)))
            self._sample(steady)
        (self.place.folder / "stop").touch()
        for worker in [steady, *workers]:
            self._note(ended(worker))
        return self._result()

    def _plan(self):
        number, self.studies = self.studies, self.studies + 1
        assert ended(child(lambda: plan(self.place, number, self.trials))) == 0

    def _note(self, code, *, killed=False):
        self.kills += code == -signal.SIGKILL
        if code and not (killed and code == -signal.SIGKILL):
            self.wrong[f"a worker ended with {code}"] += 1

    def _trouble(self):
        if not isinstance(self.databases, Postgres):
            return
        self.databases.cut_connections()
        if time.monotonic() - self.began > (self.stops + 1) * self.seconds / 3:
            self.stops += 1
            self.databases.server.stop("immediate")
            time.sleep(2.0)
            self.databases.server.start()

    def _sample(self, steady):
        rows = self.place.query("select state, count(*) from trial group by state")
        states = dict(rows)
        log = self.place.folder / "tuner.sqlite-wal"
        process = psutil.Process(steady)
        self.samples.append({
            "seconds": time.monotonic() - self.began,
            "done": states.get("complete", 0),
            "worker_mb": process.memory_info().rss / 2**20,
            "files": process.num_fds(),
            "own_mb": psutil.Process().memory_info().rss / 2**20,
            "wal_mb": log.stat().st_size / 2**20 if log.exists() else 0.0,
        })  # fmt: skip
        if states.get("waiting", 0) < min(2000, self.trials):
            self._plan()

    def _result(self):
        with open_ledger(self.place.url, create=False) as ledger:
            for row in ledger.studies(CAMPAIGN):
                self._judge(ledger, row)
        settled = [one for one in self.samples if one["seconds"] > SETTLED * self.seconds] or self.samples
        claims = [float(line) for line in (self.place.folder / "claims").read_text().split()]
        half = len(settled) // 2
        return {
            "minutes": round((time.monotonic() - self.began) / 60, 1),
            "trials": self.samples[-1]["done"],
            "kills": self.kills,
            "stops": self.stops,
            "claim_p50_ms": round(statistics.median(claims), 2),
            "claim_p99_ms": round(statistics.quantiles(claims, n=100)[98], 2),
            "worker_mb_per_hour": round(_slope(settled, "worker_mb"), 2),
            "own_mb_per_hour": round(_slope(settled, "own_mb"), 2),
            "open_files": [min(one["files"] for one in settled), max(one["files"] for one in settled)],
            "wal_mb": round(max(one["wal_mb"] for one in self.samples), 1),
            "late_over_early_throughput": round(_rate(settled[half:]) / _rate(settled[: half + 1]), 2),
            "wrong": dict(self.wrong),
        }

    def _judge(self, ledger, row):
        """Promises kept, nothing failed, and a sample of the finished trials has the bits of an uninterrupted run."""
        place = checkpoint_place(CAMPAIGN, row.study.name)
        strays = 0
        for problem in study_problems(ledger, row, self.place.checkpoints, place):
            strays += problem.kind == "stray"
            self.wrong[problem.kind] += problem.kind != "stray"  # the next launch sweeps what killed workers left
        self.wrong["stray"] += max(0, strays - 4 * self.kills)
        counts = ledger.state_counts(row.study_id)
        self.wrong["failed"] += counts[State.FAILED] + counts[State.INFEASIBLE] + counts[State.CANCELLED]
        records = ledger.trials(row.study_id)
        self.wrong["running"] += not _whoever_comes_takes_over(ledger, row.study_id, records)
        done = [one.number for one in records if one.state is State.COMPLETE]
        for number in self.generator.sample(done, min(len(done), REPLAYED)):
            self.wrong["other bits"] += replayed(ledger, row, number, Exact()).different > 0
        self.wrong += Counter()  # forgets zeros


def _whoever_comes_takes_over(ledger, study_id, records):
    """Whether trials of workers that were killed near the end are, all of them, the first that anybody gets."""
    running = [one.number for one in records if one.state is State.RUNNING]
    ledger.forget_dead_workers(study_id)
    terms = {"worker": worker_id(), "lease_seconds": 60.0, "max_trials": max(1, len(running)), "max_attempts": ALWAYS}
    claims = ledger.claim(study_id, **terms)
    ledger.release(claims)
    return sorted(claim.trial.number for claim in claims)[: len(running)] == sorted(running)


def _slope(samples, name):
    """Growth per hour, by the median of the last quarter against that of the first."""
    quarter = max(1, len(samples) // 4)
    early, late = samples[:quarter], samples[-quarter:]
    middle = [statistics.median(one["seconds"] for one in part) for part in (early, late)]
    values = [statistics.median(one[name] for one in part) for part in (early, late)]
    return 3600 * (values[1] - values[0]) / max(1.0, middle[1] - middle[0])


def _rate(samples):
    return (samples[-1]["done"] - samples[0]["done"]) / max(1.0, samples[-1]["seconds"] - samples[0]["seconds"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--trials", type=int, default=20_000, help="of each study")
    parser.add_argument("--postgresql", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tuner-soak-") as folder:
        databases = (Postgres if asked.postgresql else Sqlite)(Path(folder) / "studies")
        try:
            result = Soak(databases, asked.minutes, asked.trials).run()
        finally:
            databases.close()
    sys.stdout.write(json.dumps(result) + "\n")
    sys.exit(bool(result["wrong"]))


if __name__ == "__main__":
    main()
