"""A study file with four campaigns: a pretraining, what starts from it, and what starts from that."""

STAGES = """
import os
import signal
import torch
import torch.nn.functional as F
from pathlib import Path
from torch import nn
from tuner import *


def examples():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(90, 6, generator=generator)
    return x, (x[:, 0] + 0.5 * x[:, 1] > 0).long()


CALLS = []


def noisy(x):
    return x + 0.0


class Auto(Workload):
    batch_size = 8
    select_by = minimize("validation/loss")
    fitted_when = at_most("training/loss", 0.9)

    def data(self):
        x, _ = examples()
        return Splits(training=(x[:40],), validation=(x[40:60],), test=(x[60:],))

    def model(self, point):
        return nn.ModuleDict({"encoder": nn.Linear(6, 4), "decoder": nn.Linear(4, 6)})

    def loss(self, model, batch, point):
        CALLS.append(point["learning_rate"])
        if Path("broken").exists() and CALLS[-1] > 0.02 and CALLS.count(CALLS[-1]) > 14:
            raise RuntimeError("the cable is loose")
        return self.errors(model, noisy(batch[0])).mean()

    def metrics(self, model, batch):
        return {"loss": self.errors(model, batch[0])}

    def errors(self, model, x):
        return ((model["decoder"](torch.tanh(model["encoder"](x))) - x) ** 2).mean(1)


class Few(Workload):
    batch_size = 8
    select_by = minimize("validation/loss")

    def data(self):
        x, y = examples()
        return Splits(training=(x[:30], y[:30]), validation=(x[40:60], y[40:60]), test=(x[60:], y[60:]))

    def model(self, point):
        return nn.ModuleDict({"encoder": nn.Linear(6, 4), "head": nn.Linear(4, 2)})

    def loss(self, model, batch, point):
        if Path("interrupt").exists():
            Path("interrupt").unlink()
            os.kill(os.getpid(), signal.SIGINT)
        return self.errors(model, batch).mean()

    def metrics(self, model, batch):
        return {"loss": self.errors(model, batch)}

    def errors(self, model, batch):
        logits = model["head"](torch.tanh(model["encoder"](batch[0])))
        return F.cross_entropy(logits, batch[1], reduction="none")


SPACE = SearchSpace(learning_rate=log_uniform(1e-3, 1e-1))


def search(steps):
    return [Round("Which rate?", trials=2, space=SPACE, max_train_steps=steps)]


pretraining = Campaign(Auto(), name="pre", rounds=search(20))
head = Campaign(Few(), name="head:1", start_from=best_of(pretraining, "encoder.*"), rounds=search(16))
branch = Campaign(Few(), start_from=best_of(pretraining, "encoder.*"), rounds=search(8))
campaign = Campaign(Few(), start_from=best_of(head), rounds=search(12))
"""
NAMES = ["pre", "head:1", "staged-branch", "staged"]  # in the order of training
STEPS = {"pre": 20, "head:1": 16, "staged-branch": 8, "staged": 12}  # of each of two trials


def write_stages(folder, *replaced, name="staged.py"):
    """Write the study file and return its path; `replaced`: pairs of text to change in it."""
    text = STAGES
    for old, new in replaced:
        assert old in text, old
        text = text.replace(old, new)
    path = folder / name
    path.write_text(text)
    return path
