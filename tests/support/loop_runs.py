"""A study file of an own loop with a DataLoader, run by the command line, and what it has left when it is over."""

import sqlite3

from support.processes import started
from tuner.records import Checkpoint
from tuner.training.checkpoints import canonical_digest, read_state, read_weights

STUDY = """
import os
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from tuner import *

PROGRESS = os.open(Path(__file__).parent / "steps", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
generator = torch.Generator().manual_seed(0)
X = torch.randn(80, 6, generator=generator)
Y = (X[:, 0] + 0.5 * X[:, 1] > 0).long()


class Mine(OwnLoop):
    select_by = minimize("validation/loss")
    fitted_when = at_most("training/error_rate", 0.0)

    def train(self, trial):
        rate = 0.0 if trial.regularization_off else trial.point["dropout"]
        model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(rate), nn.Linear(16, 2))
        optimizer = torch.optim.AdamW(model.parameters(), lr=trial.point["learning_rate"])
        trial.keep(model=model, optimizer=optimizer)
        batches = trial.batches(DataLoader(TensorDataset(X[:50], Y[:50]), 8, shuffle=True))
        for step in trial.steps():
            os.write(PROGRESS, b".")
            {within}
            for group in optimizer.param_groups:
                group["lr"] = trial.rate(step)
            x, y = next(batches)
            optimizer.zero_grad()
            F.cross_entropy(model.train()(x), y).backward()
            optimizer.step()
            if trial.evaluates(step):
                with torch.no_grad():
                    model.eval()
                    loss = F.cross_entropy(model(X[50:]), Y[50:])
                    wrong = (model(X[:50]).argmax(-1) != Y[:50]).double().mean()
                trial.report({{"validation/loss": loss, "training/error_rate": wrong}})


campaign = Campaign(
    Mine(),
    rounds=[
        Round("a test", trials=4, {length}space=SearchSpace(
            learning_rate=log_uniform(1e-3, 1e-1), dropout=uniform(0.0, 0.5, family="regularization", off=0.0))),
        Round("the best", promote=2),
    ],
    {sweep}
    evaluations=10,
)
"""
SWEEP = "sweep=Sweep(learning_rate=log_grid(1e-2, 1.0, 3), start_steps=100, max_steps=400, seeds=2),"
# The command as it is, but that it commits ten times a second.
OFTEN = """
import inspect
from tuner.execution.machine import Machine
seen = inspect.signature(Machine).parameters.values()
given = {one.name: one.default for one in seen if one.default is not one.empty}
Machine.__init__.__defaults__ = tuple((given | {"commit_seconds": 0.1}).values())
from tuner.cli import main
main()
"""
MEASURED = (
    "select study.name, number, trial.state, trial.step, metric.name, measurement.step, value_kind, hex(value) "
    "from measurement join trial on trial.id = trial_id join study on study.id = study_id "
    "join metric on metric.id = metric_id order by 1, 2, 5, 6"
)
KEPT = (
    "select study.name, number, checkpoint.kind, checkpoint.step, path, digest, num_bytes, checkpoint.value "
    "from checkpoint join checkpoint_file on checkpoint_file.id = file_id join trial on trial.id = trial_id "
    "join study on study.id = study_id where checkpoint.kind in ('best', 'latest') order by 1, 2, 3, 4"
)


def write_loop_study(folder, *, sweep=SWEEP, within="pass", length=""):
    """Write the study file into a new folder, which is returned. length: of round 1, as an argument of it."""
    folder.mkdir(parents=True)
    (folder / "mine.py").write_text(STUDY.format(sweep=sweep, within=within, length=length))
    return folder


def running(folder, *options):
    """`tuner run` in a process of its own, which commits often."""
    return started(folder, "run", "mine.py", "--yes", *options, program=("-c", OFTEN), OMP_NUM_THREADS="1")


def steps_made(folder):
    """Steps that all processes of a study have begun, first looks included."""
    file = folder / "steps"
    return file.stat().st_size if file.exists() else 0


def left(folder):
    """All measurements, with the state of each trial; and the content of each newest state and of the best weights."""
    connection = sqlite3.connect(folder / "runs" / "tuner.sqlite")
    measured, kept = connection.execute(MEASURED).fetchall(), connection.execute(KEPT).fetchall()
    connection.close()
    contents = {}
    for name, number, kind, step, file, digest, num_bytes, value in kept:
        checkpoint = Checkpoint(kind, step, file, digest, num_bytes, value)
        root = folder / "runs" / "checkpoints"
        read = read_weights(root, checkpoint) if kind == "best" else read_state(root, checkpoint)
        contents[name, number, kind, step] = canonical_digest(read), value
    return measured, contents
