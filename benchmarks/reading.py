"""How long it takes to read: check, report and frames of large studies, and Optuna studies imported and beside ours.

    python benchmarks/reading.py [check] [import] [frames] [writes]

Every study is made here, through the Ledger and through Optuna itself. Commands are timed as whole processes.
"""

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

import numpy as np
import optuna
import pandas as pd

from tuner import SearchSpace, choice, constant, log_uniform, minimize, uniform
from tuner.analysis.frames import study_frames
from tuner.budget.step_budget import StepBudget
from tuner.design.quasi_random import quasi_random_points
from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.records import Checkpoint, Claim, FinishedTrial, Measurement, State, TrialUpdate
from tuner.storage.store import Ledger, open_ledger

METRICS = ("training/loss", "validation/loss")
REPORTS = 200  # to Optuna, one transaction each, are enough to time one
ROUNDS = 7  # in each of them Optuna and we take turns
TRIALS_AT_ONCE = 16  # values a transaction: an evaluation of so many trials that train together


def large_study(trials: int, evaluations: int) -> Study:
    """A round over three hyperparameters, one of which does not matter."""
    space = SearchSpace(
        learning_rate=log_uniform(1e-4, 1e-1), dropout=uniform(0.0, 0.5), activation=choice("relu", "tanh")
    )
    return Study(
        "round-1", "round", "How long does reading take?", space.hyperparameters, space.fixed,
        StepBudget.with_evaluations(10 * evaluations, evaluations), trials, minimize(METRICS[1]), None,
        "adamw", constant(), 0, 64, 0, round=1,
    )  # fmt: skip


def planned(study: Study) -> list[Trial]:
    points = quasi_random_points(study.space, seed=0, start=0, count=study.num_trials)
    schedule = study.schedule.schedule(study.budget.max_train_steps)
    return [Trial(i, point, i, i, schedule, "quasi-random") for i, point in enumerate(points)]


def curve(rng: np.random.Generator, trial: Trial, steps: np.ndarray) -> np.ndarray:
    """Training and validation loss [2, steps] that fall towards what the learning rate allows."""
    level = 0.3 + 0.1 * (np.log10(float(dict(trial.point)["learning_rate"])) + 2.2) ** 2
    falling = np.exp(-steps / (0.2 * steps[-1]))
    noise = 0.01 * rng.standard_normal((2, len(steps)))
    return np.vstack([level + falling, 1.05 * level + falling]) + noise


def finished(trial: Trial, steps: np.ndarray, num_metrics: int) -> FinishedTrial:
    curves = curve(np.random.default_rng(trial.number), trial, steps)[-num_metrics:].tolist()
    measured = [
        Measurement(step, metric, value)
        for metric, values in zip(METRICS[-num_metrics:], curves, strict=True)
        for step, value in zip(steps.tolist(), values, strict=True)
    ]
    return FinishedTrial(trial, State.COMPLETE, "", int(steps[-1]), measured)


def recorded(storage: Path, trials: int, evaluations: int, num_metrics: int) -> Study:
    """A study of completed trials in a new Ledger, a thousand trials a transaction."""
    study = large_study(trials, evaluations)
    steps = np.asarray(study.budget.evaluation_steps)
    with open_ledger(str(storage)) as ledger:
        row = ledger.start_study("large", study, "benchmark")
        for start in range(0, trials, 1000):
            part = planned(study)[start : start + 1000]
            ledger.record_finished(row.study_id, [finished(trial, steps, num_metrics) for trial in part])
    return study


def optuna_study(url: str, trials: int, evaluations: int) -> optuna.Study:
    """A study as Optuna writes it, whole trials at a time; its values are in the order of the steps."""
    study = optuna.create_study(study_name="mine", storage=url, direction="minimize")
    rate = optuna.distributions.FloatDistribution(1e-4, 1e-1, log=True)
    declared = large_study(trials, evaluations)
    steps = np.asarray(declared.budget.evaluation_steps)
    frozen = []
    for trial in planned(declared):
        values = curve(np.random.default_rng(trial.number), trial, steps)[1].tolist()
        frozen.append(
            optuna.create_trial(
                params={"learning_rate": dict(trial.point)["learning_rate"]},
                distributions={"learning_rate": rate},
                intermediate_values=dict(zip(steps.tolist(), values, strict=True)),
                value=min(values),
            )
        )
    study.add_trials(frozen)
    return study


def command(*arguments: str) -> str:
    """`tuner ARGUMENTS` as a process: wall time, CPU time, peak memory of this and all before it."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "tuner", *arguments], capture_output=True, text=True, check=False)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 3):
        raise RuntimeError(done.stderr[-2000:])
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return f"{wall:.1f} s wall, {cpu:.1f} s CPU, at most {after.ru_maxrss / 1024:.0f} MB"


def check(folder: Path) -> None:
    for num_metrics in (1, 2):
        storage = folder / f"large-{num_metrics}.sqlite"
        if not storage.exists():
            recorded(storage, 10_000, 200, num_metrics)
        of = f"of 10,000 trials x 200 evaluations of {num_metrics} metrics"
        print(f"check {of}: {command('check', 'large', '--storage', str(storage))}")
        page = str(folder / "page.html")
        print(f"report {of}: {command('report', 'large', '--storage', str(storage), '-o', page)}")


def importing(folder: Path) -> None:
    url, storage = f"sqlite:///{folder}/optuna.db", str(folder / "imported.sqlite")
    optuna_study(url, 1_000, 100)
    taken = command("import", "optuna", url, "--study-name", "mine", "--storage", storage)
    print(f"import of an Optuna study of 1,000 trials x 100 intermediate values: {taken}")


def frames(folder: Path) -> None:
    """A DataFrame of all curves, from Optuna's database and from ours: the best of three."""
    url, storage = f"sqlite:///{folder}/frames.db", folder / "frames.sqlite"
    optuna_study(url, 1_000, 200)
    recorded(storage, 1_000, 200, 1)

    def theirs() -> int:
        fresh = optuna.load_study(study_name="mine", storage=url)
        rows = [
            (trial.number, step, value)
            for trial in fresh.get_trials(deepcopy=False)
            for step, value in trial.intermediate_values.items()
        ]
        return len(pd.DataFrame(rows, columns=["trial", "step", "value"]))

    def ours() -> int:
        with open_ledger(str(storage)) as ledger:
            return len(study_frames(ledger, "large", "round-1").curves)

    assert theirs() == ours() == 200_000
    slow, fast = best_time(theirs), best_time(ours)
    print(f"1,000 trials x 200 points to a frame: Optuna {slow:.2f} s, ours {fast:.3f} s, {slow / fast:.1f}x")


def writes(folder: Path) -> None:
    """A value of a curve on its way to the disk, by durable commits: Optuna's report one by one, ours 16 at a time.

    And as training does it: everything since the last commit, with the pointers to new checkpoints.
    """
    theirs = reporter(optuna.create_study(storage=f"sqlite:///{folder}/reports.db").ask())
    with open_ledger(str(folder / "reports.sqlite")) as ledger:
        claims = claimed(ledger)
        clock = count(1)

        def ours() -> None:
            for _ in range(REPORTS):
                ledger.record(told(claims, [next(clock)]))

        def by_the_clock() -> None:
            ledger.record(told(claims, [next(clock) for _ in range(REPORTS)], pointing=True))

        best_time(ours)  # SQLite's log has its length then, and is written over
        works = {theirs: 1, ours: TRIALS_AT_ONCE, by_the_clock: TRIALS_AT_ONCE}
        taken = [[best_time(work, 1) / (REPORTS * values) for work, values in works.items()] for _ in range(ROUNDS)]
    slow, fast, whole = np.median(taken, axis=0)
    print(
        f"a value written: Optuna {1e6 * slow:.0f} us, ours {1e6 * fast:.1f} us at {TRIALS_AT_ONCE} values a "
        f"transaction, {slow / fast:.0f}x; {1e6 * whole:.1f} us at {REPORTS} values of each of {TRIALS_AT_ONCE} trials "
        f"and their pointers, {slow / whole:.0f}x"
    )


def reporter(trial: optuna.Trial) -> Callable[[], None]:
    """A function that reports REPORTS values."""
    clock = count()

    def reports() -> None:
        for _ in range(REPORTS):
            trial.report(0.5, next(clock))

    return reports


def claimed(ledger: Ledger) -> list[Claim]:
    """Trials that train together."""
    row = ledger.start_study("writes", large_study(TRIALS_AT_ONCE, 200), "benchmark")
    ledger.plan_trials(row.study_id, planned(row.study))
    claims = ledger.claim(row.study_id, worker="one", lease_seconds=600, max_trials=TRIALS_AT_ONCE)
    assert len(claims) == TRIALS_AT_ONCE
    return claims


def told(claims: Sequence[Claim], steps: Sequence[int], *, pointing: bool = False) -> list[TrialUpdate]:
    """A value of each trial at each step, and where it is saved."""
    measured = [Measurement(step, METRICS[1], 0.5) for step in steps]
    file = f"group/latest-{steps[-1]:09d}-1.pt"
    kept = [Checkpoint("latest", steps[-1], file, "0" * 64, 1)] if pointing else None
    return [TrialUpdate(claim.trial_id, claim.fence, steps[-1], measured, kept) for claim in claims]


def best_time(work: Callable[[], object], times: int = 3) -> float:
    """The shortest wall time of some calls, in seconds."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)


def main() -> None:
    parts = {"check": check, "import": importing, "frames": frames, "writes": writes}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        for name in sys.argv[1:] or parts:
            parts[name](Path(folder))


if __name__ == "__main__":
    main()
