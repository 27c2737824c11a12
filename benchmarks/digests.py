"""Digests of the bits of two reference studies, trained alone, fused, by two workers, and stopped and resumed.

python benchmarks/digests.py                      prints one line a study and way, with one digest of all trials
python benchmarks/digests.py --write a.json       also every trial's digests, to compare two versions of the code
python benchmarks/digests.py --compare a.json     says which trials differ from that file; exit code 1 where any does

The ways of one study must agree with each other, too. The bits depend on the processor and on torch, so the file is of
one machine. `--tuner PROGRAM` is the program of another checkout; this script reads what it wrote.
"""

import argparse
import hashlib
import json
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

STUDIES = Path(__file__).parents[1] / "tests" / "reference_studies"
READER = """
import json, sys
from pathlib import Path
from tuner.storage.store import open_ledger
from tuner.training.checkpoints import canonical_digest, read_state, read_weights
found = {}
with open_ledger(sys.argv[1]) as ledger:
    for campaign in ledger.campaigns():
        for row in ledger.studies(campaign):
            for record in ledger.trials(row.study_id):
                kept = {}
                for one in record.checkpoints:
                    read = read_state if one.kind == "latest" else read_weights
                    if one.kind != "trunk":
                        kept[f"{one.kind} {one.step}"] = canonical_digest(read(Path(sys.argv[2]), one))
                found[str(record.trial_id)] = kept
print(json.dumps(found))
"""
WAYS: dict[str, tuple[str, ...]] = {
    "alone": ("--fuse", "off"),
    "fused": ("--fuse", "4"),
    "workers": ("--fuse", "off", "--workers", "2"),
    "resumed": ("--fuse", "off"),
}
STEPS = {"digits": "300", "stdlib_lm": "80"}
TRIALS = {"digits": "16", "stdlib_lm": "4"}
STOPS_AFTER = 1.5  # seconds a part of the resumed way trains, counted from its first claim
MOST_STOPS = 3
STOPPED = 130  # the exit code of a launch that saved and ended


def trained(program: Sequence[str], name: str, way: str, folder: Path) -> None:
    storage = folder / "t.sqlite"
    command = [
        *program, "launch", str(STUDIES / f"{name}.py"), "--round", "1", "--max-train-steps", STEPS[name], "--trials",
        TRIALS[name], "--storage", str(storage), *WAYS[way],
    ]  # fmt: skip
    stops = 0
    for _ in range(MOST_STOPS if way == "resumed" else 0):
        running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stops += stopped_midway(running, storage)
    if way == "resumed" and not stops:
        raise SystemExit(f"{name} was trained before it could be stopped: lower STOPS_AFTER")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        raise SystemExit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stderr}")


def stopped_midway(running: "subprocess.Popen[bytes]", storage: Path) -> bool:
    """Interrupt a launch some seconds after its first trial was claimed; False where it ended before."""
    while running.poll() is None and not begun(storage):
        time.sleep(0.1)
    try:
        running.wait(STOPS_AFTER)
        return False
    except subprocess.TimeoutExpired:
        running.send_signal(signal.SIGTERM)
        return running.wait() == STOPPED


def begun(storage: Path) -> bool:
    if not storage.exists():
        return False
    try:
        with sqlite3.connect(f"file:{storage}?mode=ro", uri=True) as there:
            return bool(there.execute("select count(*) from trial where state = 'running'").fetchone()[0])
    except sqlite3.Error:
        return False


def digests(python: str, folder: Path) -> dict[str, dict[str, str]]:
    """By study and trial number: what was declared, the curves, and each kept checkpoint."""
    storage = folder / "t.sqlite"
    read = subprocess.run(
        [python, "-c", READER, str(storage), str(checkpoints_of(storage))], capture_output=True, text=True, check=False
    )
    if read.returncode:
        raise SystemExit(read.stderr)
    kept = json.loads(read.stdout)
    found = {}
    with sqlite3.connect(storage) as there:
        trials = there.execute(
            "select t.id, s.name, t.number, t.state, t.step, t.point, t.seed, t.data_seed, t.schedule, t.numerics "
            "from trial t join study s on s.id = t.study_id order by t.id"
        ).fetchall()
        for key, study, number, *declared in trials:
            curve = there.execute(
                "select m.name, x.step, x.value_kind, x.value from measurement x join metric m on m.id = x.metric_id "
                "where x.trial_id = ? order by m.name, x.step", (key,)
            ).fetchall()  # fmt: skip
            exact = [(name, step, kind, None if value is None else value.hex()) for name, step, kind, value in curve]
            found[f"{study} {number:03d}"] = {
                "declared": hashed(declared), "curves": hashed(exact), **kept[str(key)]
            }  # fmt: skip
    return found


def checkpoints_of(storage: Path) -> Path:
    with sqlite3.connect(storage) as there:
        (named,) = there.execute("select checkpoints from storage").fetchone()
    return storage.parent / (named or "checkpoints")


def hashed(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", nargs="*", default=list(STEPS))
    parser.add_argument("--ways", nargs="*", default=list(WAYS))
    parser.add_argument("--write", type=Path)
    parser.add_argument("--compare", type=Path)
    parser.add_argument("--python", default=sys.executable, help="the interpreter that imports the other checkout")
    given = parser.parse_args()
    program = (given.python, "-c", "import sys; from tuner.cli import main; sys.exit(main())")
    all_found = {}
    for name in given.studies:
        for way in given.ways:
            with tempfile.TemporaryDirectory() as folder:
                trained(program, name, way, Path(folder))
                all_found[f"{name} {way}"] = found = digests(given.python, Path(folder))
            print(f"{name:10} {way:8} {len(found):3} trials  {hashed(found)}", flush=True)
    if given.write:
        given.write.write_text(json.dumps(all_found, indent=1))
    wrong = unlike_each_other(all_found)
    if given.compare:
        wrong += differences(json.loads(given.compare.read_text()), all_found)
    print("\n".join(wrong) or "no digest differs")
    return bool(wrong)


def unlike_each_other(found: dict[str, dict[str, dict[str, str]]]) -> list[str]:
    """Where two ways of training one study differ."""
    wrong = []
    for key, trials in found.items():
        first = next(one for one in found if one.split()[0] == key.split()[0])
        wrong += [
            f"{key} and {first} differ in trial {name}" for name in trials if trials[name] != found[first].get(name)
        ]
    return wrong


def differences(before: dict[str, dict[str, dict[str, str]]], now: dict[str, dict[str, dict[str, str]]]) -> list[str]:
    wrong = []
    for key in now:
        for trial in sorted({*before.get(key, {}), *now[key]}):
            old, new = before.get(key, {}).get(trial, {}), now[key].get(trial, {})
            parts = [part for part in sorted({*old, *new}) if old.get(part) != new.get(part)]
            wrong += [f"{key}, trial {trial}: {', '.join(parts)} differ"] if parts else []
    return wrong


if __name__ == "__main__":
    sys.exit(main())
