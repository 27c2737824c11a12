"""CPU seconds until each of four workers has claimed a trial: on a running Ray cluster, and as plain processes.

    python benchmarks/ray_start.py [WORKERS [PAIRS]]

A cluster of one node starts first and is left alone until it idles; what it uses while it idles is measured, and taken
off for as long as a command runs. CPU seconds are those of all processes that belong to it or to the command, read from
/proc, so a busy machine changes little. The trials are long, and the command is killed when all workers have claimed.
Each run is shown by kind of process, and the last line is the summary as JSON.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.ray_cluster import RayCluster  # noqa: E402
from support.records import rows  # noqa: E402
from support.study_files import write_study  # noqa: E402

CLAIMED = "select count(distinct worker) from trial where state = 'running'"
SETTLED_SECONDS, IDLE_SECONDS = 8.0, 6.0
# What a process is, by words of its command line; the first that fits.
KINDS = (
    ("the driver of Ray", "tuner.execution.ray_driver"),
    ("fork servers, and what they fork", "tuner.execution.fork_server_process"),
    ("the command", "tuner launch"),
    ("Ray: processes of actors and tasks", "default_worker"),
    ("Ray: processes of actors and tasks", "setup_worker"),
    ("Ray: agents", "Agent"),
    ("Ray: processes of actors and tasks", "ray::"),
)
OTHERS = "Ray: raylet, gcs, agents and monitors"


def cpu_seconds(one):
    """Of a process itself: its children are counted as processes of their own."""
    try:
        return sum(one.cpu_times()[:2])
    except psutil.NoSuchProcess:
        return 0.0


def kind_of(one):
    try:
        line = " ".join(one.cmdline())
    except psutil.Error:
        return ""
    return next((kind for kind, words in KINDS if words in line), OTHERS) if line else ""


def family(cluster, command):
    """The command's processes, and where a cluster is given its own, and what was started by all of these."""
    of_command = f"/ray-{command.pid}-"
    found = {command.pid: command} | {one.pid: one for one in command.children(recursive=True)}
    for one in psutil.process_iter(["cmdline"]):
        line = " ".join(one.info["cmdline"] or ())
        if cluster is not None and (str(cluster.folder) in line or of_command in line):
            found[one.pid] = one
            found |= {child.pid: child for child in one.children(recursive=True)}
    return list(found.values())


def idle_use(cluster):
    """CPU seconds a second that a cluster uses by itself, and what each of its processes has used up to now."""
    nobody = psutil.Process()
    begun, before = time.monotonic(), sum(cpu_seconds(one) for one in family(cluster, nobody) if one != nobody)
    time.sleep(IDLE_SECONDS)
    used = {one.pid: cpu_seconds(one) for one in family(cluster, nobody)}
    own = used.pop(nobody.pid)
    del own
    return (sum(used.values()) - before) / (time.monotonic() - begun), used


def spent(folder, workers, cluster, *, on_ray):
    """CPU seconds by kind of process, from the start of the command until each worker has claimed."""
    write_study(folder, trials=workers * 2, steps=10**7)
    environment = dict(cluster.environment, TUNER_STORAGE=f"sqlite:///{folder}/runs/tuner.sqlite")
    options = ["--workers", str(workers), "--fuse", "off"]
    idle, before = idle_use(cluster) if on_ray else (0.0, {})
    if on_ray:
        options += ["--engine", f"ray://{cluster.address}", "--cpus", "0.5"]
    begun = time.monotonic()
    with (folder / "said.txt").open("wb") as said:
        command = psutil.Popen(
            [sys.executable, "-m", "tuner", "launch", "tiny.py", *options], cwd=folder, env=environment,
            stdout=subprocess.DEVNULL, stderr=said,
        )  # fmt: skip
    seen: dict[int, float] = {}
    kinds: dict[int, str] = {}
    try:
        while True:
            for one in family(cluster if on_ray else None, command):
                seen[one.pid] = max(seen.get(one.pid, 0.0), cpu_seconds(one) - before.get(one.pid, 0.0))
                kinds[one.pid] = kinds.get(one.pid) or kind_of(one)
            if (folder / "runs/tuner.sqlite").exists() and claimed(folder) >= workers:
                replaced = [line for line in (folder / "said.txt").read_text().splitlines() if "is replaced" in line]
                print(*replaced, sep="\n", end="\n" * bool(replaced))  # these have cost more
                return by_kind(seen, kinds, idle * (time.monotonic() - begun))
            if command.poll() is not None:
                raise SystemExit("the command ended early: " + (folder / "said.txt").read_text())
            time.sleep(0.05)
    finally:
        command.kill()
        command.wait()


def by_kind(seen, kinds, idle):
    found = defaultdict(list)
    for pid, seconds in seen.items():
        found[kinds[pid] or "ended at once"].append(seconds)
    table = {kind: round(sum(seconds), 2) for kind, seconds in found.items()}
    each = {kind: sorted((round(one, 2) for one in seconds), reverse=True) for kind, seconds in found.items()}
    for kind, seconds in table.items():
        print(f"  {seconds:6.2f}  {kind}: {each[kind]}")
    print(f"  {-idle:6.2f}  what the idle cluster would have used")
    return {**table, "idle": -round(idle, 2)}


def claimed(folder):
    try:
        return rows(folder, CLAIMED)[0][0]
    except Exception:  # the tables are not there yet
        return 0


def main():
    workers, pairs = (*map(int, sys.argv[1:3]), *(4, 3)[len(sys.argv) - 1 :])
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory(prefix="start-") as place:
        cluster = RayCluster(Path(place) / "cluster")
        try:
            found = defaultdict(list)
            for number, kind in enumerate(("plain", "ray") * pairs):
                time.sleep(SETTLED_SECONDS)
                folder = Path(place) / f"{kind}-{number}"
                folder.mkdir()
                print(kind, flush=True)
                found[kind].append(round(sum(spent(folder, workers, cluster, on_ray=kind == "ray").values()), 2))
            best = {kind: min(seconds) for kind, seconds in found.items()}
            ratio = round(best["ray"] / best["plain"], 2)
            print(json.dumps({"workers": workers, "cpu_seconds": found, "ratio": ratio}))
        finally:
            cluster.close()


if __name__ == "__main__":
    main()
