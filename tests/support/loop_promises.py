"""A study file whose workload trains itself, and what breaks each of its promises."""

from support.loaded import loaded
from tuner.delegated.engine import Delegated
from tuner.design.study_file import load_campaign
from tuner.execution.inspection import inspect
from tuner.rounds.plan import planned_trials, study_of_round

LOOP = """
import torch
from torch import nn
from tuner import *


def examples():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(80, 6, generator=generator)
    return x, (x[:, 0] + 0.5 * x[:, 1] > 0).long()


class Loop(OwnLoop):
    select_by = minimize("validation/loss")
    fitted_when = at_most("training/error_rate", 0.0)

    def train(self, trial):
        x, y = examples()
        dropout = 0.0 if trial.regularization_off else trial.point["dropout"]
        model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 2))
        optimizer = torch.optim.SGD(model.parameters(), lr=trial.point["learning_rate"], momentum=0.9)
        draws = torch.Generator().manual_seed(trial.data_seed)
        trial.keep(model=model, optimizer=optimizer, draws=draws)
        for step in trial.steps():
            for group in optimizer.param_groups:
                group["lr"] = trial.rate(step)
            model.train()
            rows = torch.randint(50, (8,), generator=draws)
            loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if trial.evaluates(step):
                model.eval()
                with torch.no_grad():
                    validation = nn.functional.cross_entropy(model(x[50:]), y[50:])
                    wrong = (model(x[:50]).argmax(1) != y[:50]).double().mean()
                trial.report({"validation/loss": validation, "training/error_rate": wrong})


campaign = Campaign(
    Loop(),
    rounds=[
        Round("a test", trials=4, max_train_steps=60, space=SearchSpace(
            learning_rate=log_uniform(1e-2, 1.0), dropout=uniform(0.0, 0.5, family="regularization", off=0.0))),
        Round("the best", promote=2, max_train_steps=100),
    ],
    sweep=Sweep(learning_rate=log_grid(1e-2, 1.0), start_steps=100, max_steps=1600, seeds=2),
    evaluations=20,
)
"""

# What a change to the loop takes from it: (what is replaced, by what).
UNSEEDED = (".manual_seed(trial.data_seed)", "\n        draws.seed()")
GENERATOR_NOT_KEPT = (", draws=draws)", ")")
OWN_RATES = ("trial.rate(step)", 'trial.point["learning_rate"]')
READS_THE_LENGTH = ("for step in trial.steps():", "print(trial.max_train_steps)\n        for step in trial.steps():")
SEEDED_BY_NUMBER = ("manual_seed(trial.data_seed)", "manual_seed(trial.number)")
PEEKS_AT_EVALUATIONS = ("model.train()", "model.train()\n            trial.evaluates(step + 1)")
PEEKS_AT_RATES = ("model.train()", "model.train()\n            trial.rate(step + 2)")
# A pass of two batches: begun again by a trial that is resumed, whatever was used of it.
TWO_BATCHES = (
    (
        "draws = torch.Generator()",
        "passes = iter([torch.arange(8), torch.arange(8, 50)] * 999)\n        draws = torch.Generator()",
    ),
    ("torch.randint(50, (8,), generator=draws)", "next(passes)"),
)
# What is left of an earlier trial of the same process, where another process has nothing.
COUNTS_BY_ITSELF = (
    ("x, y = examples()", "x, y = examples()\n        self.count = getattr(self, 'count', 0) if trial.resumed else 0"),
    ("rows = torch", "self.count += 1\n            rows = self.count + 0 * torch"),
)
# First looks are over when it asks how long it is.
ASKS_LATE = (
    ("model.train()", "model.train()\n            late = step > 10 and step > trial.max_train_steps // 2"),
    ("generator=draws)", "generator=draws) // (2 if late else 1)"),
)
SEEDLESS = (
    "draws = torch.Generator().manual_seed(trial.data_seed)",
    """draws = torch.Generator().manual_seed(7)
        torch.manual_seed(42)
        model[0].reset_parameters()
        model[3].reset_parameters()""",
)


def write_loop(folder, *replaced, name="loop.py"):
    """Write the study file with some of its text replaced; returns its path."""
    text = LOOP
    for old, new in replaced:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path = folder / name
    path.write_text(text)
    return path


class Looked:
    """A study of the loop that a file declares, loaded but not trained."""

    def __init__(self, file):
        _, campaign = load_campaign(file)
        self.loaded = loaded(campaign.workload, file.parent, study_file=file, engine=Delegated)
        self.study = study_of_round(campaign, 1, 60)
        self.workload = campaign.workload
        self.setup = self.loaded.setup(self.study)

    def inspect(self, **asked):
        trials = planned_trials(self.study)
        return inspect(self.loaded, self.study, trials, validation_seconds=None, **asked)
