"""Kill, resume, compare: lives of a worker that end at a failpoint, at random, or too late.

    python loop.py MODE FOLDER [FIRST STRIDE]      MODE: systematic, random, zombie, poison, lost

A script and not a test, because a life is a fork (0.1 s instead of 2 s for importing torch), and a process that
trained itself should not be forked. Prints one JSON object. TUNER_SABOTAGE breaks the program on purpose.
"""

import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import time
from functools import partialmethod
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
import torch._dynamo  # which every optimizer imports, in 1.5 s
from crash.sabotage import sabotage
from support.tiny import Tiny, tiny_study

from tuner import failpoints
from tuner.execution.backend import Silent
from tuner.execution.in_process import InProcess, checkpoint_place
from tuner.rounds.plan import planned_trials
from tuner.storage.store import Ledger, open_ledger
from tuner.storage.verify import study_problems
from tuner.training.checkpoints import canonical_digest, read_state, read_weights

STUDY = tiny_study(num_trials=2)
CAMPAIGN = "tiny"
PLACE = checkpoint_place(CAMPAIGN, STUDY.name)


class Exact(Tiny):
    """A tiny workload; `poison` kills its worker, `slow` takes its time."""

    poison = False
    slow = 0.0

    def loss(self, model, batch, point):
        if self.poison:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.slow)
        return super().loss(model, batch, point)


def planned(folder, study=STUDY):
    """A folder with a planned study, copied from a template that is made once."""
    folder.mkdir(parents=True)
    template = folder.parent / "template"
    if not template.exists():
        template.mkdir()
        with open_ledger(str(template / "tuner.sqlite")) as ledger:
            row = ledger.start_study(CAMPAIGN, study, "code and data")
            ledger.plan_trials(row.study_id, planned_trials(study))
    shutil.copy(template / "tuner.sqlite", folder / "tuner.sqlite")
    return folder


def train(folder, workload, armed=None):
    """One life: train what is left, as `tuner launch` does. Returns the names of the failpoints it passed."""
    trace = failpoints.arm(armed or "")
    with open_ledger(str(folder / "tuner.sqlite"), create=False) as ledger:
        row = ledger.study(CAMPAIGN, STUDY.name)
        backend = InProcess(workload, folder / "checkpoints", commit_seconds=0.0)
        backend.run(ledger, row, Silent(), lambda: False)
    return trace.trace


def life(folder, workload=None, armed=None):
    """Train in a child of its own; the caller waits for it."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        train(folder, workload or Exact(), armed)
        code = 0
    except BaseException as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
    finally:
        sys.stderr.flush()
        os._exit(code)


def ended(child):
    """The exit code of a life; minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def meaning(folder):
    """What an uninterrupted run and one of many lives must agree about: rows, curves and states, bit for bit."""
    root = folder / "checkpoints"
    with open_ledger(str(folder / "tuner.sqlite"), create=False) as ledger:
        row = ledger.study(CAMPAIGN, STUDY.name)
        records = ledger.trials(row.study_id)
        curves = ledger.measurements(row.study_id)
    columns = zip(curves.trial_numbers, curves.metrics, curves.steps, curves.values, strict=True)
    return {
        "trials": [(r.number, r.state, r.reason, r.step, r.seed, r.numerics, str(r.point)) for r in records],
        "curves": [(number, metric, step, value.hex()) for number, metric, step, value in columns],
        "digests": [
            (r.number, c.kind, c.step, canonical_digest((read_state if c.kind == "latest" else read_weights)(root, c)))
            for r in records
            for c in r.checkpoints
        ],
    }


def broken_promises(folder, *, at_rest):
    """What must hold after every kill; with `at_rest`, that nothing is left over either."""
    with sqlite3.connect(folder / "tuner.sqlite") as connection:
        (integrity,) = connection.execute("PRAGMA integrity_check").fetchone()
    connection.close()
    with open_ledger(str(folder / "tuner.sqlite"), create=False) as ledger:
        row = ledger.study(CAMPAIGN, STUDY.name)
        problems = study_problems(ledger, row, folder / "checkpoints", PLACE)
    found = [problem.text for problem in problems if at_rest or problem.kind != "stray"]
    return found + ([integrity] if integrity != "ok" else [])


def oracle(folder):
    """The uninterrupted run."""
    whole = planned(folder / "whole")
    assert ended(life(whole)) == 0
    return meaning(whole)


def judged(folder, expected):
    """What is wrong with a study that claims to be finished."""
    wrong = broken_promises(folder, at_rest=True)
    try:
        found = meaning(folder)
    except Exception as error:
        return [*wrong, f"unreadable: {error}"]
    return wrong + [f"other {part} than the uninterrupted run" for part in expected if found[part] != expected[part]]


def systematic(folder, first, stride):
    """One kill -9 at each pass of each failpoint, every `stride`-th of them."""
    expected = oracle(folder)
    kills, wrong, k = 0, [], first
    while True:
        place = planned(folder / f"kill-{k}")
        code = ended(life(place, armed=f"*@{k}=kill9"))
        if code == 0:
            break
        kills += 1
        wrong += [f"kill {k}: {one}" for one in broken_promises(place, at_rest=False)]
        code = ended(life(place))
        wrong += [f"kill {k}: the next life ended with {code}"] if code else []
        wrong += [f"kill {k}: {one}" for one in judged(place, expected)]
        shutil.rmtree(place)
        k += stride
        if wrong and os.environ.get("TUNER_SABOTAGE"):
            break
    return {"kills": kills, "wrong": wrong}


def at_random(folder, kills, seed):
    """`kills` SIGKILLs at random moments, two workers on each study, study after study."""
    expected = oracle(folder)
    # A slow machine starts workers more slowly than we kill them, and one trial may be hit any number of times.
    Ledger.claim = partialmethod(Ledger.claim, max_attempts=1_000_000)
    generator = random.Random(seed)
    done, studies, wrong, slow = 0, 0, [], Exact()
    slow.slow = 0.001
    while done < kills:
        place, studies = planned(folder / f"random-{studies}"), studies + 1
        workers: list[int] = []
        for _ in range(400):
            workers += [life(place, slow) for _ in range(2 - len(workers))]
            time.sleep(generator.uniform(0.05, 0.35))
            if done < kills:
                victim = generator.choice(workers)
                os.kill(victim, signal.SIGKILL)
                code = ended(victim)
                workers.remove(victim)
                done += code == -signal.SIGKILL
                assert _query(place, "PRAGMA integrity_check") == [("ok",)]
            over = [worker for worker in workers if os.waitpid(worker, os.WNOHANG)[0]]
            if over or done >= kills:
                wrong += [
                    f"study {studies}: a worker ended with {code}"
                    for w in workers
                    if w not in over
                    if (code := ended(w))
                ]
                break
        if ended(life(place)):
            wrong.append(f"study {studies}: the last life failed")
        wrong += [f"study {studies}: {one}" for one in judged(place, expected)]
        shutil.rmtree(place)
    return {"kills": done, "studies": studies, "wrong": wrong}


def zombie(folder):
    """A worker stopped in the middle of a commit, for longer than its lease, wakes up when its successor is through."""
    expected = oracle(folder)
    wrong = []
    for name in ("ck-written@4", "ck-dirsynced@4", "sweep@4", "tx-committed@5"):
        place = planned(folder / f"zombie-{name}")
        sleeper = life(place, armed=f"{name}=sigstop")
        os.waitpid(sleeper, os.WUNTRACED)
        with sqlite3.connect(place / "tuner.sqlite", timeout=10) as connection:
            connection.execute("update trial set lease_until = 0 where state = 'running'")
        connection.close()
        assert ended(life(place)) == 0
        rows = _rows(place)
        os.kill(sleeper, signal.SIGCONT)
        code = ended(sleeper)
        wrong += [f"{name}: the woken worker ended with {code}"] if code else []
        wrong += [f"{name}: the woken worker wrote"] if _rows(place) != rows else []
        wrong += [f"{name}: {one}" for one in judged(place, expected)]
    return {"wrong": wrong}


def _rows(folder):
    with sqlite3.connect(folder / "tuner.sqlite") as connection:
        rows = [connection.execute(f"select * from {table}").fetchall() for table in ("trial", "checkpoint_file")]
    connection.close()
    return rows


def poison(folder):
    """A trial that takes down every worker is given up after five attempts."""
    place, deadly = planned(folder / "poison"), Exact()
    deadly.poison = True
    codes = []
    for _ in range(12):
        codes.append(ended(life(place, deadly)))
        if codes[-1] == 0:
            break
    states = {(row[0], row[1]) for row in _query(place, "select state, reason from trial")}
    wrong = [] if states == {("failed", "quarantined after 5 attempts")} else [f"states {sorted(states)}"]
    return {"lives": len(codes), "wrong": wrong + ([] if len(codes) == 11 else [f"{len(codes)} lives"])}


def _query(folder, text):
    with sqlite3.connect(folder / "tuner.sqlite") as connection:
        found = connection.execute(text).fetchall()
    connection.close()
    return found


def lost(folder):
    """The answer of the k-th commit gets lost, for each k: nothing is doubled, nobody has to be called."""
    expected = oracle(folder)
    wrong, k = [], 1
    while True:
        place = planned(folder / f"lost-{k}")
        trace = train(place, Exact(), f"tx-committed@{k}=operational")
        wrong += [f"commit {k}: {one}" for one in judged(place, expected)]
        attempts = _query(place, "select max(attempt) from trial")
        wrong += [f"commit {k}: {attempts} attempts"] if attempts != [(1,)] else []
        if trace.count("tx-committed") < k:
            return {"commits": k - 1, "names": sorted(set(trace)), "wrong": wrong}
        k += 1


def main():
    mode, folder, *numbers = sys.argv[1:]
    torch.set_num_threads(1)
    sabotage(os.environ.get("TUNER_SABOTAGE", ""))
    modes = {"systematic": systematic, "random": at_random, "zombie": zombie, "poison": poison, "lost": lost}
    result = modes[mode](Path(folder), *map(int, numbers))
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
