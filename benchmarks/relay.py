"""What a claim and a commit take through the relay of a launcher, against a connection of each worker's own.

    python benchmarks/relay.py [--workers 8] [--seconds 10] [--pause 0.0]

Starts a PostgreSQL of its own. Both ways take turns within one run, twice. pause: seconds of training between commits.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import psycopg

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from storage.postgres import Server

from tuner.budget.families import constant_then_decay
from tuner.budget.schedules import Schedule
from tuner.budget.step_budget import StepBudget
from tuner.design.hyperparameters import log_uniform
from tuner.design.objective import at_most, minimize
from tuner.design.points import Point
from tuner.design.space import SearchSpace
from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.records import Measurement, State, TrialUpdate
from tuner.storage.store import open_ledger

COMMITS = 5  # of a trial
WORKER = """
import json, sys, time
sys.path.insert(0, {root!r})
from benchmarks.relay import work
print(json.dumps(work(*json.loads(sys.stdin.readline()))))
"""


def work(url: str, relay: str, study: int, number: int, seconds: float, pause: float) -> dict[str, list[float]]:
    """Claim and commit for so many seconds; returns how long each took, in milliseconds."""
    took: dict[str, list[float]] = {"claim": [], "commit": []}

    def timed(kind, call):
        began = time.perf_counter()
        result = call()
        took[kind].append((time.perf_counter() - began) * 1e3)
        return result

    with open_ledger(url, create=False, relay=relay) as ledger:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            worker = f"host:{number}:a"
            (claim,) = timed("claim", lambda worker=worker: ledger.claim(study, worker=worker, lease_seconds=600.0))
            for step in range(1, COMMITS + 1):
                losses = [Measurement(step, name, step / 7) for name in ("validation/loss", "training/loss", "x/y")]
                state = State.COMPLETE if step == COMMITS else State.RUNNING
                update = TrialUpdate(claim.trial_id, claim.fence, step, losses, state=state)
                timed("commit", lambda update=update: ledger.record([update]))
                time.sleep(pause)
    return took


def planned(ledger, trials):
    """A study of so many waiting trials."""
    space = SearchSpace(learning_rate=log_uniform(1e-4, 1e-1))
    study = Study(
        name="round-1", kind="round", goal="", hyperparameters=space.hyperparameters, fixed=space.fixed,
        budget=StepBudget(100, 10), num_trials=trials, objective=minimize("validation/loss"),
        fitted_when=at_most("training/error_rate", 0.0), optimizer="sgd", schedule=constant_then_decay(),
        warmup_steps=0, batch_size=64, seed=1, round=1, lineage=(),
    )  # fmt: skip
    row = ledger.start_study("relay", study, "f")
    schedule: Schedule = study.schedule.schedule(100, 0)
    points = [Point.of({"learning_rate": 0.1}) for _ in range(trials)]
    ledger.plan_trials(row.study_id, [Trial(n, points[n], n, n, schedule, "", "") for n in range(trials)])
    return row.study_id


def once(server, ledger, study, relayed, options):
    """One run: the times of all workers, CPU seconds of this process, and the most connections there were."""
    relay = ledger.relay() if relayed else None
    command = [sys.executable, "-c", WORKER.format(root=str(Path(__file__).parents[1]))]
    began = time.process_time()
    workers = []
    for number in range(options.workers):
        one = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        asked = [ledger.url, str(relay.folder) if relay else "", study, number, options.seconds, options.pause]
        one.stdin.write(json.dumps(asked) + "\n")
        one.stdin.flush()
        workers.append(one)
    most = 0
    with psycopg.connect(server.url, autocommit=True) as watching:
        others = "backend_type = 'client backend' AND pid <> pg_backend_pid()"
        count = f"SELECT count(*) FROM pg_stat_activity WHERE {others}"
        while any(one.poll() is None for one in workers):
            most = max(most, watching.execute(count).fetchone()[0])
            time.sleep(0.25)
    found = [json.loads(one.communicate()[0]) for one in workers]
    cpu = time.process_time() - began
    if relay:
        relay.close()
    return {kind: sorted(x for one in found for x in one[kind]) for kind in ("claim", "commit")}, cpu, most


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--pause", type=float, default=0.0)
    options = parser.parse_args()
    server = Server()
    try:
        with open_ledger(server.url) as ledger:
            study = planned(ledger, 20_000)
            for relayed in (False, True, False, True):
                times, cpu, most = once(server, ledger, study, relayed, options)
                told = [
                    f"{kind} p50 {took[len(took) // 2]:.1f} p99 {took[int(len(took) * 0.99)]:.1f} ms ({len(took)})"
                    for kind, took in times.items()
                ]
                done = sum(map(len, times.values()))
                print("relayed" if relayed else "direct ", *told, f"this process {cpu:.2f} s of CPU,",
                      f"{cpu / done * 1e3:.2f} ms a transaction; at most {most} connections")  # fmt: skip
    finally:
        server.close()


if __name__ == "__main__":
    main()
