"""The same trials by Optuna and by Ray Tune, two processes each: rows of the table of `end_to_end.py`.

    python benchmarks/end_to_end_peers.py FILE [--studies digits,stdlib_lm] [--runners optuna,ray]

Sweep and round 1 are first planned by a run of `tuner` that is not timed; the peers then train the same points with
the same seeds, schedules, batches and evaluations, in a bare loop with fused AdamW. Optuna: the points are enqueued,
two processes share its fastest storage for several processes (a journal file) and report each evaluation. Ray Tune:
two trials at a time, each evaluation reported. Neither saves checkpoints. What is not installed is skipped, and said.
"""

import argparse
import json
import logging
import math
import multiprocessing
import os
import pickle
import sys
from functools import cache, partial
from pathlib import Path

import optuna
import torch
from optuna.storages.journal import JournalFileBackend

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.end_to_end import JOBS, measured, table
from tuner.budget.schedules import learning_rates
from tuner.training.batches import TrainingBatches
from tuner.training.evaluation import evaluate
from tuner.training.setup import Data

try:
    import ray
    from ray import tune
except ImportError:
    ray = None

PROCESSES = 2


@cache
def data_of(job):
    torch.set_num_threads(1)
    workload = JOBS[job].campaign.workload
    return workload, Data.of(workload, torch.device("cpu"))


def train(job, study, trial, report):
    """One trial as a user writes it: to its end, or to the first loss that is not finite."""
    workload, data = data_of(job)
    point = dict(trial.point)
    rates = learning_rates(trial.schedule, point["learning_rate"])
    torch.manual_seed(trial.seed % 2**32)
    model = workload.model(point)
    betas = (1 - point.get("one_minus_beta1", 0.1), 0.999)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=rates[0], betas=betas, weight_decay=point.get("weight_decay", 0.0), fused=True
    )
    batches = TrainingBatches(data.training, study.batch_size, trial.data_seed)
    size = max(workload.evaluation_batch_size, study.batch_size)
    stops = set(study.budget.evaluation_steps)
    for step, rate in enumerate(rates):
        model.train()
        optimizer.zero_grad()
        workload.loss(model, batches.at(step), point).backward()
        if "clip_norm" in point:
            torch.nn.utils.clip_grad_norm_(model.parameters(), point["clip_norm"])
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        if step + 1 in stops:
            measured = evaluate(workload, model, data.training_sample, batch_size=size)
            measured |= evaluate(workload, model, data.validation, batch_size=size)
            report(step + 1, measured[study.objective.metric])
            if not math.isfinite(measured[study.objective.metric]):
                return


def journal_of(folder):
    return optuna.storages.JournalStorage(JournalFileBackend(f"{folder}/journal"))


def optuna_worker(job, folder):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for name, study, trials in pickle.loads(Path(folder, "plan").read_bytes()):
        searched = optuna.load_study(study_name=name, storage=journal_of(folder))
        while True:
            asked = searched.ask()
            if "number" not in asked.user_attrs:  # nothing is enqueued any more
                searched.tell(asked, state=optuna.trial.TrialState.FAIL)
                break
            trial = trials[asked.user_attrs["number"]]
            values = []

            def report(step, value, asked=asked, values=values):
                asked.report(value, step)
                values.append(value)

            train(job, study, trial, report)
            finite = [value for value in values if math.isfinite(value)]
            searched.tell(asked, min(finite)) if finite else searched.tell(asked, state=optuna.trial.TrialState.FAIL)


def by_optuna(job, plan, folder):
    Path(folder, "plan").write_bytes(pickle.dumps(plan))
    for name, _, trials in plan:
        searched = optuna.create_study(study_name=name, storage=journal_of(folder))
        for place, trial in enumerate(trials):
            searched.enqueue_trial(dict(trial.point), user_attrs={"number": place})
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=optuna_worker, args=(job, str(folder))) for _ in range(PROCESSES)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        if worker.exitcode:
            raise RuntimeError(f"a worker of Optuna ended with {worker.exitcode}")


def by_ray(job, plan, folder):
    os.environ |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}  # its workers inherit
    ray.init(num_cpus=PROCESSES, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        for name, study, trials in plan:

            def trainable(config, study=study, trials=trials):
                train(job, study, trials[config["number"]], lambda step, value: tune.report({"value": value}))

            result = tune.Tuner(
                trainable,
                param_space={"number": tune.grid_search(list(range(len(trials))))},
                tune_config=tune.TuneConfig(max_concurrent_trials=PROCESSES, metric="value", mode="min"),
                run_config=tune.RunConfig(name=name, storage_path=str(folder), verbose=0),
            ).fit()
            if result.errors:
                raise result.errors[0]
    finally:
        ray.shutdown()


RUNNERS = {"optuna": (f"Optuna, {PROCESSES} processes", by_optuna), "ray": (f"Ray Tune, {PROCESSES} processes", by_ray)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--studies", default=",".join(JOBS))
    parser.add_argument("--runners", default=",".join(RUNNERS))
    chosen = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for job in chosen.studies.split(","):
        plan = [(study.name, study, trials) for study, trials in JOBS[job].plan()]
        print(f"{job}: {', '.join(f'{len(t)} x {s.budget.max_train_steps} steps' for _, s, t in plan)}", flush=True)
        for key in chosen.runners.split(","):
            runner, work = RUNNERS[key]
            if key == "ray" and ray is None:
                print("Ray is not installed, skipped")
                continue
            row = {"runner": runner, "job": job, **measured(partial(work, job, plan))}
            if key == "ray":
                del row["cpu"]  # its processes are not our children
            with chosen.file.open("a") as file:
                file.write(json.dumps(row) + "\n")
    print(table([json.loads(line) for line in chosen.file.read_text().splitlines()]))


if __name__ == "__main__":
    from benchmarks import end_to_end_peers  # by its name, by which Ray's workers find it too

    end_to_end_peers.main()
