"""Kill a command at each of its commits, give the same command again, and compare with what nobody disturbed.

    echo '{"folder": "FOLDER", "mode": "killed", "numbers": ["launch", 1, 1], "postgresql": false}' | python commands.py

A script of the same kind as `loop.py`: a life is a fork of a process that has imported all that a command needs, and
runs it from `sys.argv` in a folder of its own. What must be equal is the meaning of the rows: studies, trials, points,
seeds, states, curves bit for bit, conclusions; not the times, attempts, fences and launches.
"""

import os
import random
import shutil
import signal
import sqlite3
import sys
import threading
import time
from functools import partialmethod
from itertools import count
from pathlib import Path
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[1]))

import importlib
import math
import pkgutil
from dataclasses import fields

import optuna
import pandas as pd
from crash.lives import child, ended, serve
from support.study_files import write_study

import tuner.cli
from tuner import failpoints
from tuner.cli import run as playbook
from tuner.cli.app import run
from tuner.design.study_file import load_campaign
from tuner.execution.machine import Machine
from tuner.records import FinishedTrial, Measurement, State
from tuner.rounds.plan import planned_trials, study_of_round
from tuner.storage.identity import checkpoint_place
from tuner.storage.store import Ledger, open_ledger
from tuner.storage.verify import study_problems

for _module in pkgutil.iter_modules(tuner.cli.__path__, "tuner.cli."):
    importlib.import_module(_module.name)  # what a command imports when it is called

ENOUGH = 3
EXPLORED = 24  # trials of round 1, most of them with values known in closed form
QUIET = ("-q", "--fuse", "off")
NO_SWEEP = ("sweep=Sweep(learning_rate=log_grid(1e-3, 1.0), start_steps=100, max_steps=800, seeds=2),", "")
CUT_SWEEP = (
    "sweep=Sweep(learning_rate=log_grid(1e-3, 1.0), start_steps=100, max_steps=800, seeds=2),",
    "sweep=Sweep(learning_rate=(3e-3, 1e-2, 3e-2), start_steps=160, max_steps=320, seeds=2),",
)
SMALL_SWEEP = (
    "sweep=Sweep(learning_rate=log_grid(1e-3, 1.0), start_steps=100, max_steps=800, seeds=2),",
    "sweep=Sweep(learning_rate=(1e-2, 3e-2, 1e-1, 3e-1, 1.0), start_steps=160, max_steps=320, seeds=2),",
)
TESTED = ("validation=(x[50:], y[50:]))", "validation=(x[50:], y[50:]), test=(x[40:], y[40:]))")


# What was there before the command


def nothing(folder):
    write_study(folder, trials=2, steps=24, replace=[NO_SWEEP])


def explored(folder, optimum=1e-2):
    """Round 1 as if it had been trained, with values known in closed form; one trial is, so that the study is real."""
    ranges = {"steps": 20, "low": 1e-4, "high": 1.0, "replace": [NO_SWEEP]}
    write_study(folder, trials=1, **ranges)
    assert command(folder, ("launch", "tiny.py", *QUIET)) == 0
    campaign = load_campaign(write_study(folder, trials=EXPLORED, **ranges))[1]
    study = study_of_round(campaign, 1, 20)
    first, *rest = planned_trials(study)
    with open_ledger(str(folder / "runs" / "tuner.sqlite")) as ledger:
        row = ledger.start_study("tiny", study, ledger.study("tiny", "round-1").fingerprint)
        ledger.record_finished(row.study_id, [
            FinishedTrial(trial, State.COMPLETE, "", 20, [Measurement(20, "validation/loss", _value(trial, optimum))])
            for trial in rest
        ])  # fmt: skip
    _execute(folder, f"update measurement set value = {10 + _value(first, optimum)} where trial_id = 1")


def _value(trial, optimum):
    rate, dropout = float(trial.point["learning_rate"]), float(trial.point["dropout"])
    return 0.1 + math.log10(rate / optimum) ** 2 + 0.1 * (dropout - 0.25) ** 2


def pressed(folder):
    """The best points press against the upper end of the range."""
    explored(folder, optimum=10.0)


def expanded(folder):
    """A widened study without its trials, as a version that wrote them one after the other left it when killed."""
    pressed(folder)
    assert command(folder, COMMANDS["boundaries"][1]) == 0
    _execute(folder, "delete from trial where number >= 1000")


def _execute(folder, statement):
    connection = sqlite3.connect(folder / "runs" / "tuner.sqlite")
    connection.execute(statement)
    connection.commit()
    connection.close()


def swept(folder):
    """A sweep whose grid ends too early."""
    write_study(folder, trials=2, steps=24, replace=[CUT_SWEEP])
    assert command(folder, ("sweep", "tiny.py", *QUIET)) == 3


def launched(folder):
    write_study(folder, trials=2, steps=24, replace=[NO_SWEEP, TESTED])
    assert command(folder, ("launch", "tiny.py", *QUIET)) == 0


def tables(folder):
    steps = range(10, 101, 10)
    rows = [(trial, step, "val_loss", 1.0 / step + trial) for trial in range(12) for step in steps]
    pd.DataFrame(rows, columns=["trial", "step", "metric", "value"]).to_csv(folder / "curves.csv", index=False)
    rates = [10 ** (-4 + trial / 3) for trial in range(12)]
    pd.DataFrame({"trial": range(12), "lr": rates}).to_csv(folder / "points.csv", index=False)
    (folder / "space.json").write_text('{"lr": {"kind": "float", "low": 1e-4, "high": 1.0, "log": true}}')


def optuna_study(folder):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.RandomSampler(seed=1)
    study = optuna.create_study(storage=f"sqlite:///{folder}/optuna.db", study_name="mine", sampler=sampler)
    study.optimize(_objective, n_trials=6)


def _objective(trial):
    rate = trial.suggest_float("lr", 1e-4, 1.0, log=True)
    for step in range(1, 6):
        trial.report(rate / step, step)
    return rate / 5


def whole(folder):
    write_study(folder, trials=12, steps=40, low=1e-4, high=3e-3, replace=[SMALL_SWEEP])


IMPORT = ("import", "table", "curves.csv", "--points", "points.csv", "--space", "space.json", "--objective", "val_loss",
          "--direction", "minimize", "--max-train-steps", "100", "--study", "mine")  # fmt: skip
COMMANDS = {  # what was there before, and the command
    "launch": (nothing, ("launch", "tiny.py", *QUIET)),
    "launch-fused": (nothing, ("launch", "tiny.py", "-q", "--fuse", "2", "--keep-checkpoints", "4kB")),
    "run": (whole, ("run", "tiny.py", "--yes", "--expand", "1", *QUIET)),
    "sweep": (swept, ("sweep", "tiny.py", "--extend", *QUIET)),
    "boundaries": (pressed, ("boundaries", "tiny.py", "--round", "1", "--expand")),
    "launch-expanded": (expanded, ("launch", "tiny.py", "--round", "1", "--expanded", *QUIET)),
    "run-expanded": (expanded, ("run", "tiny.py", "--yes", "--expand", "1", *QUIET)),
    "adopt": (explored, ("adopt", "tiny.py", "--candidate", "1/0", "--baseline", "1/1", "--replicates", "2", *QUIET)),
    "exploit": (explored, ("exploit", "tiny.py", "--trials", "4", "--batch", "2", *QUIET)),
    "budget-curve": (explored, ("budget-curve", "tiny.py", "--lengths", "10,15,20", *QUIET)),
    "stability": (
        explored,
        ("stability", "tiny.py", "--above", "4", "--seeds", "2", "--warmups", "2,4", "--yes", *QUIET),
    ),
    "score-test": (launched, ("score-test", "tiny.py")),
    "import-table": (tables, IMPORT),
    "import-optuna": (optuna_study, ("import", "optuna", "sqlite:///optuna.db", "--study-name", "mine")),
}


# A life, and what must be true after it


def started(folder, arguments, armed):
    """Start a command in a folder, in a process of its own; its id. `armed`: what counts passes of failpoints."""

    def live():
        os.chdir(folder)
        os.environ.pop("TUNER_STORAGE", None)
        failpoints._armed = armed
        # A page is no record, and its pictures take longer than all else.
        patch.object(playbook, "write_report", lambda *given: None).start()
        sys.argv = ["tuner", *arguments]
        sys.stdout = sys.stderr
        code = run()
        (folder / "passed").write_text(" ".join(armed.trace))
        sys.stderr.flush()
        os._exit(code)

    return child(live)


def command(folder, arguments, armed=""):
    """The exit code of a command, minus the signal that killed it."""
    return ended(started(folder, arguments, failpoints.arm(armed) if isinstance(armed, str) else armed))


MEANING = {
    "studies": "select name, kind, round, declaration, fingerprint from study order by name",
    "trials": "select study.name, number, state, reason, point, trial.seed, data_seed, schedule, origin, shape_group, "
    "step, pins, inherited_steps, numerics from trial join study on study.id = study_id order by 1, 2",
    "curves": "select study.name, number, metric.name, measurement.step, value_kind, value from measurement "
    "join trial on trial.id = trial_id join study on study.id = study_id join metric on metric.id = metric_id "
    "order by 1, 2, 3, 4",
    "checkpoints": "select study.name, number, checkpoint.kind, checkpoint.step, value from checkpoint "
    "join trial on trial.id = trial_id join study on study.id = study_id order by 1, 2, 3, 4",
    "conclusions": "select study.name, conclusion.kind, data from conclusion left join study on study.id = study_id "
    "where conclusion.kind not in ('fusion', 'launcher') "
    "and conclusion.id in (select max(id) from conclusion group by study_id, kind) "
    "order by 1, 2",
}


def meaning(folder):
    connection = sqlite3.connect(folder / "runs" / "tuner.sqlite", timeout=60)
    found = {name: connection.execute(query).fetchall() for name, query in MEANING.items()}
    found["integrity"] = connection.execute("pragma integrity_check").fetchall()
    connection.close()
    with open_ledger(str(folder / "runs" / "tuner.sqlite"), create=False) as ledger:
        for campaign in ledger.campaigns():
            for row in ledger.studies(campaign):
                if row.study.source or row.study.num_trials == EXPLORED:
                    continue  # not trained here
                place = checkpoint_place(row.campaign, row.study.name)
                problems = study_problems(ledger, row, folder / "runs" / "checkpoints", place)
                found[f"problems of {row.study.name}"] = [one.text for one in problems]
    return found


class Undisturbed:
    """A command that nobody kills: what it is given, and what comes of it."""

    def __init__(self, folder, name):
        prepare, self.arguments = COMMANDS[name]
        self.folder = folder
        self.before = folder / "before"
        self.before.mkdir(parents=True)
        prepared = child(lambda: prepare(self.before))
        assert ended(prepared) == 0, "what has to be there before the command could not be made"
        whole = self.copy("whole")
        self.code = command(whole, self.arguments)
        self.passed = (whole / "passed").read_text().split()
        self.meaning = meaning(whole)

    def copy(self, name):
        return Path(shutil.copytree(self.before, self.folder / name))

    def wrong(self, folder):
        """Give the command for the last time, and compare."""
        code = command(folder, self.arguments)
        found = meaning(folder)
        wrong = [] if code == self.code else [f"ended with {code} and not {self.code}"]
        names = [name for name in {**self.meaning, **found} if found.get(name) != self.meaning.get(name)]
        return wrong + [f"other {name}: {_first_difference(self.meaning.get(name), found.get(name))}" for name in names]


def _first_difference(expected, found):
    pairs = zip(expected or [], found or [], strict=False)
    first = next(((one, other) for one, other in pairs if one != other), None)
    return f"{len(expected or [])} and {len(found or [])} rows; {first!s:.600}"


# Modes


def killed(folder, name, first, stride):
    """One kill -9 after each commit of a command, every `stride`-th of them."""
    undisturbed = Undisturbed(folder, name)
    wrong = []
    for kills, k in enumerate(count(first, stride)):
        place = undisturbed.copy(f"kill-{k}")
        if command(place, undisturbed.arguments, f"tx-committed@{k}=kill9") != -signal.SIGKILL or len(wrong) >= ENOUGH:
            commits = undisturbed.passed.count("tx-committed")
            return {"code": undisturbed.code, "commits": commits, "kills": kills, "wrong": wrong}
        wrong += [f"commit {k}: {one}" for one in undisturbed.wrong(place)]
        shutil.rmtree(place)
    raise AssertionError("counting does not end")


def commit_often():
    """Every evaluation is a commit, as in a training of hours: a life that gets to one has made progress."""
    names = [field.name for field in fields(Machine)]
    defaults = dict(zip(reversed(names), reversed(Machine.__init__.__defaults__)))  # noqa: B905 - the last ones
    Machine.__init__.__defaults__ = tuple((defaults | {"commit_seconds": 0.0}).get(name) for name in names[1:])


class AfterTheClaim:
    """Kills a life some passes of failpoints, or some seconds, after its first claim: by then it trains."""

    def __init__(self, passes=0, seconds=0.0):
        self.passes = passes
        self.seconds = seconds
        self.trace = []  # from the first claim on
        self.began = 0.0

    def passed(self, name):
        if name == "claimed" and not self.trace:
            self.began = time.monotonic()
            if self.seconds:
                threading.Timer(self.seconds, _die).start()
        elif not self.trace:
            return
        self.trace.append(name)
        if len(self.trace) == self.passes:
            _die()


def _die():
    os.kill(os.getpid(), signal.SIGKILL)


LEAST = 80  # passes after a claim: at least one commit of a checkpoint is among them


def hunted(folder, kills, seed, by):
    """`kills` kills within `tuner run --yes --expand 1`, which must end as if nobody had disturbed it.

    by "count": after a random number of passes, enough to have committed something: whatever the machine does, each
    life makes progress. by "moment": after a random time, in which a slow machine may do nothing, so that nothing is
    given up; a run that was quicker is followed by another one.
    """
    commit_often()
    undisturbed = Undisturbed(folder, "run")
    if by == "moment":
        Ledger.claim = partialmethod(Ledger.claim, max_attempts=1_000_000)
    calm, began = AfterTheClaim(), time.monotonic()
    assert command(undisturbed.copy("calm"), undisturbed.arguments, calm) == undisturbed.code
    seconds = (time.monotonic() - began) / kills
    passes = len((folder / "calm" / "passed").read_text().split()) // kills
    generator, done, wrong = random.Random(seed), 0, []

    def killer():  # three quarters of the way from kill to kill on average, so that there is work for all
        if by == "count":
            return AfterTheClaim(passes=generator.randint(LEAST, 3 * passes // 2))
        return AfterTheClaim(seconds=generator.uniform(0.01, 1.5 * seconds))

    for number in count():
        place, before = undisturbed.copy(f"hunted-{number}"), done
        while done < kills and command(place, undisturbed.arguments, killer()) == -signal.SIGKILL:
            done += 1
        wrong += undisturbed.wrong(place)
        if done >= kills or done == before or wrong:
            return {"kills": done, "passes": passes * kills, "wrong": wrong}
    raise AssertionError("counting does not end")


MODES = {function.__name__: function for function in (killed, hunted)}

if __name__ == "__main__":
    serve(lambda asked: MODES[asked["mode"]](Path(asked["folder"]) / asked["mode"], *asked["numbers"]))
