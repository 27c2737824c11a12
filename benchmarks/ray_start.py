"""CPU seconds until each of four workers has claimed a trial: on a running Ray cluster, and as plain processes.

    python benchmarks/ray_start.py [WORKERS [PAIRS]]

A cluster of one node starts first and is left alone until it idles. CPU seconds are those of all processes that belong
to it or to the command, read from /proc, so a busy machine changes little. The trials are long, and the command is
killed when all workers have claimed.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.ray_cluster import RayCluster  # noqa: E402
from support.records import rows  # noqa: E402
from support.study_files import write_study  # noqa: E402

CLAIMED = "select count(distinct worker) from trial where state = 'running'"
SETTLED_SECONDS = 8.0


def cpu_seconds(processes):
    """Of processes themselves: their children are counted as processes of their own."""
    total = 0.0
    for one in processes:
        try:
            total += sum(one.cpu_times()[:2])
        except psutil.NoSuchProcess:
            continue
    return total


def family(mark, command):
    """The command's processes, and all that mention the cluster's folder, or the study's, or are forked by them."""
    found = {
        one.pid: one for one in (psutil.Process(command.pid), *psutil.Process(command.pid).children(recursive=True))
    }
    for one in psutil.process_iter(["cmdline"]):
        line = " ".join(one.info["cmdline"] or ())
        if mark in line or f"/ray-{command.pid}-" in line:
            found[one.pid] = one
            found |= {child.pid: child for child in one.children(recursive=True)}
    return list(found.values())


def spent(folder, workers, cluster, *, on_ray):
    """CPU seconds from the start of the command until each worker has claimed."""
    write_study(folder, trials=workers * 2, steps=10**7)
    environment = dict(cluster.environment, TUNER_STORAGE=f"sqlite:///{folder}/runs/tuner.sqlite")
    options = ["--workers", str(workers), "--fuse", "off"]
    mark = str(cluster.folder)
    before = {one.pid: cpu_seconds([one]) for one in cluster.processes()}
    if on_ray:
        options += ["--engine", f"ray://{cluster.address}", "--cpus", "0.5"]
    command = subprocess.Popen(
        [sys.executable, "-m", "tuner", "launch", "tiny.py", *options], cwd=folder, env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    seen: dict[int, float] = {}
    try:
        while True:
            for one in family(mark if on_ray else "no such mark", command):
                seen[one.pid] = max(seen.get(one.pid, 0.0), cpu_seconds([one]) - before.get(one.pid, 0.0))
            if (folder / "runs/tuner.sqlite").exists() and claimed(folder) >= workers:
                return sum(seen.values())
            if command.poll() is not None:
                raise SystemExit("the command ended before each worker had claimed")
            time.sleep(0.05)
    finally:
        command.kill()
        command.wait()


def claimed(folder):
    try:
        return rows(folder, CLAIMED)[0][0]
    except Exception:  # the tables are not there yet
        return 0


def main():
    workers, pairs = (*map(int, sys.argv[1:3]), *(4, 3)[len(sys.argv) - 1 :])
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as place:
        cluster = RayCluster(Path(place) / "cluster")
        try:
            found = {}
            for kind in ("plain", "ray") * pairs:
                time.sleep(SETTLED_SECONDS)
                folder = Path(place) / f"{kind}-{len(found.get(kind, ()))}"
                folder.mkdir()
                found.setdefault(kind, []).append(round(spent(folder, workers, cluster, on_ray=kind == "ray"), 2))
            best = {kind: min(seconds) for kind, seconds in found.items()}
            print(
                json.dumps({"workers": workers, "cpu_seconds": found, "ratio": round(best["ray"] / best["plain"], 2)})
            )
        finally:
            cluster.close()


if __name__ == "__main__":
    main()
