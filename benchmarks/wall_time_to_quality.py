"""Wall time to quality: the playbook's rounds, fused, against Optuna's Hyperband and TPE in two processes.

    python benchmarks/wall_time_to_quality.py RESULTS.jsonl [--seeds 10] [--first 0]     # appends
    python benchmarks/wall_time_to_quality.py RESULTS.jsonl --show

The digits study (MLP 64-128-128-10), and as many training steps as 16 runs of 500 for each side. Optuna: two processes
of one thread on its fastest storage that processes can share (a journal file), multivariate TPE with Hyperband, a
bare loop with fused AdamW, validation loss reported each 25 steps. Playbook: two worker processes of one thread, as of
`--workers 2 --fuse 33`; round 1 of 65 trials of 100 steps, round 2 of the best three at 500, with the Ledger, curves
and checkpoints on, and 50 evaluations of both splits a trial, which is what the product does unless told otherwise
(`--evaluations 5` would be about as many as Optuna's). Both have the same model, data, search space and schedule.
Clocks start when the processes are there, torch is imported and the data is loaded.

The quality to reach is the median, over the seeds, of the validation loss that Optuna has at its end. A run that does
not reach it counts with its full time.
"""

import argparse
import json
import logging
import math
import multiprocessing
import select
import statistics
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import optuna
import torch

from tuner.budget.schedules import learning_rates
from tuner.design.points import Point
from tuner.design.round import Round
from tuner.design.study_file import load_campaign
from tuner.execution.backend import Silent
from tuner.execution.in_process import InProcess
from tuner.execution.loaded_workload import LoadedWorkload
from tuner.execution.machine import Machine
from tuner.execution.workers import Workers
from tuner.records import State
from tuner.rounds.launch import Session, launch_study
from tuner.rounds.plan import schedule_of, study_of_round
from tuner.rounds.prepared_round import prepared_round
from tuner.storage.store import open_ledger
from tuner.training.batches import TrainingBatches
from tuner.training.evaluation import evaluate
from tuner.training.setup import Data

LENGTH, RUNS, EVERY = 500, 16, 25
SHORT, PROMOTED, FUSE, EVALUATIONS, WORKERS = 100, 3, 33, 50, 2
STUDY = Path(__file__).parents[1] / "tests" / "reference_studies" / "digits.py"


def campaign_of(seed, evaluations=EVALUATIONS):
    _, campaign = load_campaign(STUDY)
    trials = (RUNS * LENGTH - PROMOTED * LENGTH) // SHORT
    space = campaign.rounds[0].space
    rounds = [
        Round("Which point?", trials=trials, space=space, max_train_steps=SHORT),
        Round("The best, longer", promote=PROMOTED, max_train_steps=LENGTH, transfer="rescale", fresh=0),
    ]
    return replace(campaign, rounds=rounds, sweep=None, seed=seed, evaluations=evaluations)


class Watch(Silent):
    """Notes when each trial ends and the best validation loss it had."""

    def __init__(self):
        self.began, self.trace, self.steps = time.perf_counter(), [], 0

    def trial_ended(self, claim, update):
        values = [c.value for c in update.checkpoints or () if c.kind == "best" and c.value is not None]
        self.steps += update.step
        if update.state is State.COMPLETE and values:
            self.trace.append((time.perf_counter() - self.began, min(values)))


class Watched:
    """A context that hands out one listener."""

    def __init__(self, watch):
        self.watch = watch

    def __call__(self, study, finished):
        return self

    def __enter__(self):
        return self.watch

    def __exit__(self, *error):
        return None


def playbook(seed, evaluations, workers):
    campaign = campaign_of(seed, evaluations)
    with tempfile.TemporaryDirectory() as folder, open_ledger(f"{folder}/tuner.sqlite") as ledger:
        machine = Machine(Path(folder) / "checkpoints", "cpu", fuse=FUSE, worker_count=workers)
        loaded = LoadedWorkload(campaign.workload, machine, STUDY)
        loaded.fingerprint()  # the data is loaded
        with closing(Workers(f"{folder}/tuner.sqlite")) as pool:
            if workers > 1:
                pool.workers = ready(pool.started(loaded, workers))
            watch = Watch()
            session = Session(
                "digits", campaign, ledger, loaded, pool if workers > 1 else InProcess(), watch=Watched(watch)
            )
            for number in (1, 2):
                prepared = prepared_round(session, number)
                launch_study(
                    session, prepared.study, prepared.trials, budget_origin=prepared.budget.origin,
                    budget_source=prepared.budget.source,
                )  # fmt: skip
            return {"seconds": time.perf_counter() - watch.began, "trace": watch.trace, "steps": watch.steps}


def ready(workers):
    """Worker processes, once they have reported that they are ready."""
    for worker in workers:
        while not worker.ready:
            select.select([worker.descriptor], [], [])
            worker.ready = any(message["is"] == "ready" for message in worker.messages())
    return workers


def searched(journal):
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(journal))
    return storage


def optuna_worker(journal, seed, number, spent, ready, results):
    """Trains trials until the steps are spent: the loop a user would write, with the fused kernel."""
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    campaign = campaign_of(seed)
    data = Data.of(campaign.workload, torch.device("cpu"))
    study = optuna.load_study(
        study_name="digits",
        storage=searched(journal),
        sampler=optuna.samplers.TPESampler(seed=2 * seed + number, multivariate=True),
        pruner=optuna.pruners.HyperbandPruner(min_resource=1, max_resource=LENGTH // EVERY, reduction_factor=3),
    )
    torch.optim.AdamW([torch.zeros(1)])  # torch imports its compiler with the first optimizer
    ready.wait()
    began, trace = time.perf_counter(), []
    while spent.value < RUNS * LENGTH:
        trial = study.ask()
        for one in campaign.rounds[0].space:
            trial.suggest_float(one.name, one.domain.low, one.domain.high, log=one.domain.log)
        state, best = train(trial, campaign, data, spent)
        trace.append((time.perf_counter() - began, best))
        study.tell(trial, best if state is optuna.trial.TrialState.COMPLETE else None, state=state)
    results.put({"seconds": time.perf_counter() - began, "trace": trace})


def train(trial, campaign, data, spent):
    torch.manual_seed(trial.number)
    point = trial.params
    study = study_of_round(campaign, 1, LENGTH)
    rates = learning_rates(schedule_of(study, Point.of(point)), point["learning_rate"])
    workload = campaign.workload
    model = workload.model(point)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rates[0], weight_decay=point["weight_decay"], fused=True)
    batches = TrainingBatches(data.training, workload.batch_size, trial.number)
    best = math.inf
    for step in range(LENGTH):
        model.train()
        optimizer.zero_grad()
        workload.loss(model, batches.at(step), point).backward()
        optimizer.param_groups[0]["lr"] = rates[step]
        optimizer.step()
        if (step + 1) % EVERY == 0:
            value = evaluate(workload, model, data.validation, batch_size=1024)["validation/loss"]
            with spent.get_lock():
                spent.value += EVERY
            if not math.isfinite(value):
                return optuna.trial.TrialState.FAIL, best
            best = min(best, value)
            trial.report(value, (step + 1) // EVERY)
            if trial.should_prune():
                return optuna.trial.TrialState.PRUNED, best
            if spent.value >= RUNS * LENGTH:
                return optuna.trial.TrialState.PRUNED, best
    return optuna.trial.TrialState.COMPLETE, best


def hyperband(seed, *_):
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        journal = f"{folder}/journal"
        optuna.create_study(study_name="digits", storage=searched(journal), direction="minimize")
        spent, ready, results = spawn.Value("i", 0), spawn.Barrier(2), spawn.Queue()
        workers = [
            spawn.Process(target=optuna_worker, args=(journal, seed, number, spent, ready, results))
            for number in range(2)
        ]
        for worker in workers:
            worker.start()
        told = [results.get(timeout=600) for _ in workers]
        for worker in workers:
            worker.join()
    trace = sorted(tuple(pair) for one in told for pair in one["trace"])
    return {"seconds": max(one["seconds"] for one in told), "trace": trace, "steps": spent.value}


def reached(row, quality):
    """Seconds to a validation loss of `quality`; the full time where it is not reached."""
    return next((seconds for seconds, value in row["trace"] if value <= quality), row["seconds"])


def show(path):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    by = {method: [row for row in rows if row["method"] == method] for method in ("playbook", "hyperband")}
    finals = {method: [min(value for _, value in row["trace"]) for row in mine] for method, mine in by.items()}
    quality = statistics.median(finals["hyperband"])
    print(f"quality: validation loss {quality:.4f}, the median of Optuna's {len(by['hyperband'])} ends")
    for method, mine in by.items():
        times = sorted(reached(row, quality) for row in mine)
        missed = sum(final > quality for final in finals[method])
        print(
            f"{method:10} {len(mine)} seeds: median final loss {statistics.median(finals[method]):.4f}; "
            f"time to quality median {statistics.median(times):.2f} s ({times[0]:.2f} to {times[-1]:.2f}), "
            f"{missed} did not reach it; "
            f"full time {statistics.median(row['seconds'] for row in mine):.2f} s, "
            f"{statistics.median(row['steps'] for row in mine):,.0f} steps"
        )
    ours = statistics.median(reached(row, quality) for row in by["playbook"])
    theirs = statistics.median(row["seconds"] for row in by["hyperband"])
    print(f"playbook's time to quality / Optuna's time for the same steps: {ours / theirs:.2f} (aim 0.33)")
    theirs = statistics.median(reached(row, quality) for row in by["hyperband"])
    print(f"playbook's time to quality / Optuna's time to quality: {ours / theirs:.2f}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("results", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--evaluations", type=int, default=EVALUATIONS, help="of a playbook trial; the product's: 50")
    parser.add_argument("--workers", type=int, default=WORKERS, help="processes of the playbook")
    parser.add_argument("--only", choices=("playbook", "hyperband"))
    parser.add_argument("--show", action="store_true")
    given = parser.parse_args()
    if not given.show:
        logging.disable(logging.WARNING)
        torch.set_num_threads(1)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        for seed in range(given.first, given.first + given.seeds):
            for method in (hyperband, playbook):
                if given.only not in (None, method.__name__):
                    continue
                row = {"method": method.__name__, "seed": seed, **method(seed, given.evaluations, given.workers)}
                with given.results.open("a") as file:
                    file.write(json.dumps(row) + "\n")
    show(given.results)


if __name__ == "__main__":
    sys.exit(main())
