"""A tiny study, the lives of workers that train it, and what must be true of it between them and in the end.

A life is a fork (0.1 s instead of the 2 s of importing torch), so nothing here may train in the parent: a process
that trained should not be forked. What a process makes once, and each life would make anew, is made here.
"""

import json
import os
import shutil
import signal
import sqlite3
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.utils.serialization  # which the first checkpoint imports
from sqlalchemy import create_engine, text
from storage.postgres import Server
from support.patience import MOVED
from support.tiny import Tiny, tiny_study

from tuner import failpoints
from tuner.budget.step_budget import StepBudget
from tuner.execution.backend import Job, Silent
from tuner.execution.in_process import InProcess
from tuner.execution.loaded_workload import LoadedWorkload
from tuner.execution.machine import Lease, Machine
from tuner.rounds.plan import planned_trials
from tuner.storage import codec
from tuner.storage.engine import parsed_url
from tuner.storage.identity import checkpoint_place
from tuner.storage.store import open_ledger
from tuner.storage.verify import study_problems
from tuner.training import frozen
from tuner.training.checkpoints import canonical_digest, read_state, read_weights

torch.set_num_threads(1)
STUDY = tiny_study(num_trials=2, budget=StepBudget(24, 4))
CAMPAIGN = "tiny"
PLACE = checkpoint_place(CAMPAIGN, STUDY.name)


class Exact(Tiny):
    """A tiny workload; `poison` kills its worker, which else dies after `steps`; `slow`: seconds a step takes."""

    def __init__(self, *, poison=False, slow=0.0, steps=1_000_000):
        # How fast a trial goes and whether it kills make no other workload, as what it is made with does.
        WAYS[id(self)] = (poison, slow, iter(range(steps + 1)))  # a life looks at the first loss, before its steps

    def model(self, point):
        model = super().model(point)
        model[0].requires_grad_(False)  # what is frozen is in a file that both trials need
        return model

    def loss(self, model, batch, point):
        poisoned, slow, left = WAYS[id(self)]
        if poisoned or next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        if slow:
            time.sleep(slow)
        return super().loss(model, batch, point)


WAYS = {}
frozen.LEAST_BYTES = 0
LoadedWorkload(Exact(), Machine(Path("unused"), "cpu")).fingerprint()
codec.study_from(codec.study_text(STUDY))
for _trial in planned_trials(STUDY):
    codec.point_from(codec.point_text(_trial.point))
    codec.schedule_from(codec.schedule_text(_trial.schedule))
    codec.steps_from(codec.steps_text(_trial.pins))


@dataclass(frozen=True)
class Place:
    """Where one study lies: a folder and a database."""

    folder: Path
    url: str

    @property
    def checkpoints(self):
        return self.folder / "checkpoints"

    def door(self, process):
        """The file that says that a process has opened the Ledger."""
        return self.folder / f"open-{process}"

    def query(self, statement):
        """Rows, or nothing for what changes something, past the Ledger."""
        engine = create_engine(parsed_url(self.url))
        with engine.begin() as connection:
            result = connection.execute(text(statement))
            rows = [tuple(row) for row in result] if result.returns_rows else []
        engine.dispose()
        return rows


class Sqlite:
    """Studies in SQLite files: copies of one that is planned once."""

    def __init__(self, folder):
        self.folder = folder
        self.template = self.empty("template")
        assert ended(child(lambda: plan(self.template))) == 0

    def empty(self, name):
        (self.folder / name).mkdir(parents=True)
        return self.there(name)

    def there(self, name):
        """The study of that name, which was made before."""
        return Place(self.folder / name, f"sqlite:///{self.folder / name}/tuner.sqlite")

    def planned(self, name):
        place = self.empty(name)
        shutil.copy(self.template.folder / "tuner.sqlite", place.folder / "tuner.sqlite")
        return place

    def forget(self, place):
        shutil.rmtree(place.folder)

    def close(self):
        pass


class Postgres:
    """Studies in databases of a server of our own: copies of one that is planned once."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.server = Server()
        self.template = self.empty("template")
        assert ended(child(lambda: plan(self.template))) == 0

    def empty(self, name, template="template1"):
        (self.folder / name).mkdir()
        database = name.replace("-", "_")
        self._execute(f'create database "{database}" template {template}')
        return Place(self.folder / name, f"{self.server.url.rpartition('/')[0]}/{database}")

    def planned(self, name):
        return self.empty(name, "template")

    def forget(self, place):
        shutil.rmtree(place.folder)
        self._execute(f'drop database "{place.url.rpartition("/")[2]}" with (force)')

    def cut_connections(self):
        self._execute("select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()")

    def _execute(self, statement):
        engine = create_engine(parsed_url(self.server.url), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(statement))
        engine.dispose()

    def close(self):
        self.server.close()


def plan(place):
    """What every launcher does before it trains: open or create the Ledger, start the study, plan its trials."""
    with open_ledger(place.url) as ledger:
        row = ledger.start_study(CAMPAIGN, STUDY, "code and data")
        ledger.plan_trials(row.study_id, planned_trials(STUDY))


def train(place, workload=None, *, armed="", **options):
    """Train what is left, as `tuner launch` does. Returns the names of the failpoints that were passed."""
    passed = failpoints.arm(armed)
    with open_ledger(place.url, create=False) as ledger:
        place.door(os.getpid()).touch()
        machine = Machine(place.checkpoints, commit_seconds=0.0, **options)
        job = Job(ledger, ledger.study(CAMPAIGN, STUDY.name), LoadedWorkload(workload or Exact(), machine))
        InProcess().run(job, Silent(), lambda: False)
    return passed.trace


def life(place, workload=None, **options):
    """Start to train in a child of its own; returns its process id."""
    return child(lambda: train(place, workload, **options))


def ended(number):
    """The exit code of a child, once it is over; minus the signal that killed it. Who waits for a mode is told."""
    code = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
    tell()
    return code


def tell():
    """A line for who waits: something was done."""
    if _heard:
        os.write(1, MOVED)


_heard = []  # whether the modes are asked for by somebody who reads lines


def serve(carry_out):
    """Carry out what each line of the input asks for, in a process group of its own; its folder's `result` holds what
    was found, and what was printed there is in `errors`. Said are its group, a point for each life, and its end.
    """
    _heard.append(True)
    for line in sys.stdin:
        group = child(lambda: _alone(carry_out, json.loads(line)))  # noqa: B023
        with suppress(PermissionError, ProcessLookupError):  # it did so itself
            os.setpgid(group, group)
        sys.stdout.write(f"{group}\n")
        sys.stdout.flush()
        sys.stdout.write(f"ended {ended(group)}\n")
        sys.stdout.flush()


def _alone(carry_out, asked):
    os.setpgid(0, 0)
    folder = Path(asked["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    os.dup2(os.open(folder / "errors", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600), 2)
    (folder / "result").write_text(json.dumps(carry_out(asked)))


def child(work):
    """Start to do something in a child of its own; returns its process id."""
    number = os.fork()
    if number:
        return number
    code = 1
    try:
        work()
        code = 0
    except BaseException as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
    finally:
        sys.stderr.flush()
        os._exit(code)


QUICK_BEATS = Lease(seconds=0.6)  # twenty beats a second


def meaning(place):
    """What an uninterrupted run and one of many lives must agree about: rows, curves and states, bit for bit."""
    with open_ledger(place.url, create=False) as ledger:
        row = ledger.study(CAMPAIGN, STUDY.name)
        records = ledger.trials(row.study_id)
        curves = ledger.measurements(row.study_id)
    columns = zip(curves.trial_numbers, curves.metrics, curves.steps, curves.values, strict=True)
    return {
        "trials": [
            (r.number, r.state, r.reason, r.step, r.seed, r.numerics and r.numerics.text, str(r.point)) for r in records
        ],
        "curves": sorted((number, metric, step, value.hex()) for number, metric, step, value in columns),
        "digests": [(r.number, kept.kind, kept.step, _digest(place, kept)) for r in records for kept in r.checkpoints],
    }


def _digest(place, kept):
    """What a checkpoint means; the same bytes under the same record are read once for all studies."""
    base = kept.base and (place.checkpoints / kept.base.file).read_bytes()
    key = (kept.kind == "best", kept.digest, (place.checkpoints / kept.file).read_bytes(), base)
    if key not in _read:
        read = read_weights if kept.kind == "best" else read_state
        _read[key] = canonical_digest(read(place.checkpoints, kept))
    return _read[key]


_read = {}


def broken_promises(place, *, at_rest):
    """What must hold after every kill; with `at_rest`, that nothing is left over either."""
    with open_ledger(place.url, create=False) as ledger:
        problems = study_problems(ledger, ledger.study(CAMPAIGN, STUDY.name), place.checkpoints, PLACE)
    found = [problem.text for problem in problems if at_rest or problem.kind != "stray"]
    return found + _damage(place)


def _damage(place):
    """What SQLite finds wrong with its own file."""
    file = place.folder / "tuner.sqlite"
    if not file.exists():
        return []
    connection = sqlite3.connect(file, timeout=60)
    (integrity,) = connection.execute("PRAGMA integrity_check").fetchone()
    connection.close()
    return [] if integrity == "ok" else [integrity]


class Judge:
    """Knows the uninterrupted run, and says what is wrong with a study that claims to be finished."""

    def __init__(self, databases, **options):
        place = databases.planned("whole")
        assert ended(life(place, **options)) == 0
        self.expected = meaning(place)

    def wrong(self, place):
        wrong = broken_promises(place, at_rest=True)
        try:
            found = meaning(place)
        except Exception as error:
            return [*wrong, f"unreadable: {error}"]
        others = [
            f"other {part} than the uninterrupted run" for part in self.expected if found[part] != self.expected[part]
        ]
        return wrong + others

    def last_life(self, place, **options):
        """Let somebody finish the study, and judge it."""
        code = ended(life(place, **options))
        return ([f"the last life ended with {code}"] if code else []) + self.wrong(place)
