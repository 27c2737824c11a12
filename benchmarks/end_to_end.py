"""Wall time of sweep and round 1, from the shell to the last record: one by one, fused, in processes, by other tools.

    PYTHONPATH=tests python benchmarks/end_to_end.py [--studies digits,stdlib_lm] [--runners NAME,...] [--to FILE]

Each runner trains the same trials (points, seeds, schedules, evaluations); start of processes, checks, checkpoints and
records are part of the time. Rows may be measured piece by piece into one FILE, the table is always of all of it. The
digits study is swept first; stdlib_lm has no sweep, and its round 1 is trained for a quarter of its 800 steps, so that
no row takes minutes. Beside the wall time stands the CPU time of all processes of a runner, which a busy machine
hardly changes. A runner is a function (Job, folder) in RUNNERS.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tuner.design.study import Study
from tuner.design.study_file import load_campaign
from tuner.design.trial import Trial
from tuner.storage.store import open_ledger

ROOT = Path(__file__).parents[1]
PROCESSES = len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Job:
    """What is trained: a study file, and (once `tuner` has planned it) the studies with their trials."""

    name: str
    swept: bool
    steps: int | None = None  # of round 1; None: as the study file says

    @property
    def file(self) -> Path:
        return ROOT / "tests" / "reference_studies" / f"{self.name}.py"

    @property
    def campaign(self):
        return load_campaign(self.file)[1]

    def plan(self) -> list[tuple[Study, list[Trial]]]:
        """The trials of a run of `tuner`, in the order of its studies, for those that train the same."""
        with tempfile.TemporaryDirectory() as folder:
            tuner_command("--fuse", "auto")(self, Path(folder))
            with open_ledger(f"{folder}/tuner.sqlite", create=False) as ledger:
                (name,) = ledger.campaigns()
                return [
                    (row.study, [
                        Trial(one.number, one.point, one.seed, one.data_seed, one.schedule, one.origin)
                        for one in ledger.trials(row.study_id)
                    ])
                    for row in ledger.studies(name)
                ]  # fmt: skip


JOBS = {"digits": Job("digits", swept=True), "stdlib_lm": Job("stdlib_lm", swept=False, steps=200)}
Runner = Callable[[Job, Path], None]


def tuner_command(*options: str) -> Runner:
    """`tuner sweep` and `tuner launch`, each as from the shell."""

    def run(job: Job, folder: Path) -> None:
        length = ["--max-train-steps", str(job.steps)] if job.steps else []
        verbs = [["sweep"]] * job.swept + [["launch", "--round", "1", *length]]
        for verb, *rest in verbs:
            command = [sys.executable, "-m", "tuner", verb, str(job.file), *rest, *options, "--quiet"]
            command += ["--storage", str(folder / "tuner.sqlite"), "--device", "cpu"]
            environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
            subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    return run


RUNNERS: dict[str, Runner] = {
    "tuner, one by one": tuner_command("--fuse", "off"),
    "tuner, fused": tuner_command("--fuse", "auto"),
    f"tuner, {PROCESSES} processes": tuner_command("--fuse", "off", "--workers", str(PROCESSES)),
    f"tuner, fused, {PROCESSES} processes": tuner_command("--fuse", "auto", "--workers", str(PROCESSES)),
}


def measured(work: Callable[[Path], None]) -> dict[str, float]:
    """Seconds that some work takes in a folder of its own: by the clock, and of all processors together."""
    with tempfile.TemporaryDirectory() as folder:
        began, before = time.perf_counter(), cpu_seconds()
        work(Path(folder))
        return {"seconds": time.perf_counter() - began, "cpu": cpu_seconds() - before}


def cpu_seconds() -> float:
    """Of this process and of all its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def table(rows: list[dict]) -> str:
    """Runner, and for each job its fastest time, how many times as fast as one by one that is, and the CPU time."""
    jobs = list(dict.fromkeys(row["job"] for row in rows))
    best = {(row["runner"], row["job"]): row for row in sorted(rows, key=lambda row: -row["seconds"])}
    base = "tuner, one by one"
    lines = [f"{'sweep + round 1':34}" + "".join(f"{job:>32}" for job in jobs)]
    for runner in dict.fromkeys(row["runner"] for row in rows):
        cells = []
        for job in jobs:
            took, alone = best.get((runner, job)), best.get((base, job))
            ratio = f" {alone['seconds'] / took['seconds']:5.2f}x" if took and alone else ""
            used = f" (CPU {took['cpu']:.1f} s)" if took and "cpu" in took else ""
            cells.append(f"{took['seconds']:.1f} s{ratio}{used}" if took else "-")
        lines.append(f"{runner:34}" + "".join(f"{cell:>32}" for cell in cells))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", default=",".join(JOBS))
    parser.add_argument("--runners", default=";".join(RUNNERS), help="separated by ;")
    parser.add_argument("--to", type=Path, default=None)
    chosen = parser.parse_args()
    rows = [json.loads(line) for line in chosen.to.read_text().splitlines()] if chosen.to and chosen.to.exists() else []
    for job in chosen.studies.split(","):
        for runner in chosen.runners.split(";"):
            took = measured(partial(RUNNERS[runner], JOBS[job]))
            rows.append({"runner": runner, "job": job, **took})
            if chosen.to:
                with chosen.to.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
