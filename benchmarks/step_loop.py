"""The trainer's step loop against a bare hand-written torch loop with the same optimizer kernel, in one run.

    python benchmarks/step_loop.py

Thread CPU time of blocks of steps, the two loops in turn, medians; evaluation and checkpoints are not in the loop
and are timed beside it.
"""

import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from tuner.design.optimizers import one_group
from tuner.design.points import Point
from tuner.design.study_file import load_campaign
from tuner.records import Claim, State
from tuner.rounds.plan import study_of_round, trial_at
from tuner.storage.store import open_ledger
from tuner.training.alone import Alone
from tuner.training.batches import TrainingBatches
from tuner.training.logbook import Logbook
from tuner.training.models import build_model
from tuner.training.optimizers import make_optimizer
from tuner.training.setup import Data, TrainingSetup
from tuner.training.trial_run import TrialRun

BLOCK, BLOCKS, WARMUP, GOAL = 400, 25, 3, 1.02
POINT = Point.of({"learning_rate": 1e-3, "weight_decay": 0.01, "dropout": 0.0, "label_smoothing": 0.0})


def bare_loop(setting, trial):
    """What a user would write: batches by indexing a shuffled epoch, AdamW with the fused kernel, a constant rate."""
    model, workload = build_model(setting, trial), setting.workload
    point = dict(trial.point)
    optimizer = make_optimizer("adamw", one_group(model.parameters()), point, point["learning_rate"])
    batches = TrainingBatches(setting.data.training, setting.study.batch_size, trial.data_seed)
    model.train()
    step = 0

    def block():
        nonlocal step
        for current in range(step, step + BLOCK):
            optimizer.zero_grad()
            loss = workload.loss(model, batches.at(current), point)
            loss.backward()
            optimizer.step()
        step += BLOCK

    return block


def trainers_loop(setting, trial):
    run = TrialRun(setting, trial)

    def block():
        for _ in range(BLOCK // 50):
            run.advance(run.step + 50)
            torch.stack(run.losses).tolist()
            run.read_gradient_norm()
            run.losses = []

    return block


def timed(work):
    before = time.thread_time()
    work()
    return 1e6 * (time.thread_time() - before) / BLOCK


def main() -> int:
    torch.set_num_threads(1)
    name, campaign = load_campaign(Path(__file__).parents[1] / "tests" / "reference_studies" / "digits.py")
    steps = BLOCK * (BLOCKS + WARMUP + 1)
    study = replace(study_of_round(campaign, 1, steps), warmup_steps=0)
    device = torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder, open_ledger(str(Path(folder) / "l.sqlite")) as ledger:
        setting = TrainingSetup(
            study, campaign.workload, Data.of(campaign.workload, device), device, Path(folder), "bench"
        )
        trial = trial_at(study, 0, POINT, "by hand")
        loops = {"bare": bare_loop(setting, trial), "tuner": trainers_loop(setting, trial)}
        taken = {kind: [] for kind in loops}
        for block in range(BLOCKS + WARMUP):
            for kind, loop in loops.items():
                microseconds = timed(loop)
                if block >= WARMUP:
                    taken[kind].append(microseconds)
        for kind, values in taken.items():
            print(f"{kind:6} {statistics.median(values):7.1f} us/step (min {min(values):.1f}, max {max(values):.1f})")
        pairs = [t / b for b, t in zip(taken["bare"], taken["tuner"], strict=True)]
        ratio = statistics.median(pairs)
        print(f"tuner / bare, median of pairs: {ratio:.3f} (goal: at most {GOAL})")
        evaluation_and_commit(setting, trial, ledger, name)
    return 0 if ratio <= GOAL else 1


def evaluation_and_commit(setting, trial, ledger, name):
    """One evaluation of both splits, and one durable commit: files, fsync, sha256, transaction."""
    row = ledger.start_study(name, setting.study, "bench")
    ledger.plan_trials(row.study_id, [trial])
    claim: Claim = ledger.claim(row.study_id, worker="bench:0:0", lease_seconds=600)[0]
    run, evaluations, commits = Alone(setting).trainee(trial), [], []
    book = Logbook(setting, claim, run)
    for _ in range(20):
        run.advance(run.step + 20)
        run.divergence()
        started = time.perf_counter()
        book.evaluated(run.measure(), reuse=True)
        evaluations.append(1e3 * (time.perf_counter() - started))
        started = time.perf_counter()
        update = book.update(State.RUNNING)
        ledger.record([update])
        book.committed(update)
        commits.append(1e3 * (time.perf_counter() - started))
    print(
        f"one evaluation: {statistics.median(evaluations):.2f} ms; "
        f"one durable commit: {statistics.median(commits):.2f} ms"
    )


if __name__ == "__main__":
    sys.exit(main())
