"""Own loops of a few milliseconds, and what trains one trial of them without a Ledger."""

import torch
import torch.nn.functional as F
from torch import nn

from support.tiny import CPU, tiny_study
from tuner import OwnLoop, at_most, minimize
from tuner.delegated.engine import Delegated
from tuner.delegated.setup import LoopSetup
from tuner.records import MeasuredPromises, Promises
from tuner.training.checkpoints import canonical_digest, read_state, read_weights

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(80, 6, generator=GENERATOR)
Y = (X[:, 0] + 0.5 * X[:, 1] > 0).long()


class Plain(OwnLoop):
    """A loop with everything that could break exact resume; subclasses change a part of it."""

    select_by = minimize("validation/loss")
    fitted_when = at_most("training/error_rate", 0.0)

    def model(self, trial):
        rate = 0.0 if trial.regularization_off else 0.3
        return nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(rate), nn.Linear(12, 2))

    def keep(self, trial, model, optimizer):
        trial.keep(model=model, optimizer=optimizer)

    def batches(self, trial):
        while True:
            yield X[rows := torch.randint(50, (8,))], Y[rows]

    def metrics(self, model):
        logits, known = model.eval()(X[50:]), model(X[:50]).argmax(-1)
        wrong = (known != Y[:50]).double().mean()
        return {"validation/loss": F.cross_entropy(logits, Y[50:]), "training/error_rate": wrong}

    def train(self, trial):
        model = self.model(trial)
        optimizer = torch.optim.AdamW(model.parameters(), lr=trial.point["learning_rate"])
        self.keep(trial, model, optimizer)
        batches = self.batches(trial)
        for step in trial.steps():
            self.step(trial, step, model, optimizer, next(batches))

    def step(self, trial, step, model, optimizer, batch):
        for group in optimizer.param_groups:
            group["lr"] = trial.rate(step)
        optimizer.zero_grad()
        F.cross_entropy(model.train()(batch[0]), batch[1]).backward()
        optimizer.step()
        if trial.evaluates(step):
            with torch.no_grad():
                trial.report(self.metrics(model))


def setup_for(workload, folder, study=None, **changes):
    """The setup of a loop, of which a first look has found that it resumes exactly."""
    setup = LoopSetup(
        study=study or tiny_study(batch_size=0, optimizer=None), workload=workload, device=CPU, checkpoint_root=folder,
        checkpoint_place="tiny/round-1", **{"commit_seconds": 1e9} | changes,
    )  # fmt: skip
    setup.looks.measured = dict.fromkeys((True, False), MeasuredPromises(Promises(exact_resume=True)))
    return setup


def train_loop(setup, recorder, trial, on_step=lambda claim, step: None):
    """Train one trial for itself, from where the recorder has it; its last update."""
    (update,) = Delegated(setup).trainer(recorder, on_step).train([recorder.claim(trial)])
    return update


def kept_at_the_end(folder, recorder):
    """The content of each checkpoint, by kind and step."""
    found = {}
    for one in recorder.updates[-1].checkpoints:
        read = read_weights if one.kind == "best" else read_state
        found[one.kind, one.step] = canonical_digest(read(folder, one))
    return found
