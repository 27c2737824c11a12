"""A stage whose truth is known: a line that is learned from few points, from weights of a file or from scratch.

`good` weights are nearly the truth, so starting from them helps; `bad` ones are far from it, so it costs.
"""

from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from tuner import (
    Campaign,
    Round,
    SearchSpace,
    Splits,
    Workload,
    constant_then_decay,
    log_uniform,
    minimize,
    weights_from,
)
from tuner.design.study_file import declared_stage
from tuner.rounds.opening import SessionOptions, opened_session

TRUTH = torch.tensor([[1.0, -2.0, 3.0, 0.5]])
INHERITED = 30  # steps behind the weights of the file
SPACE = SearchSpace(learning_rate=log_uniform(1e-3, 1e-2))
SEARCH = Round("Which rate?", trials=6, space=SPACE, max_train_steps=12)
EQUAL_TOTAL = Round("From scratch, equal in all", trials=6, space=SPACE, start="scratch", total="equal")
EQUAL_OWN = Round("From scratch, equal steps", trials=6, space=SPACE, start="scratch")


class Line(Workload):
    batch_size = 8
    select_by = minimize("validation/loss")

    def data(self):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(80, 4, generator=generator)
        y = x @ TRUTH.T + 0.1 * torch.randn(80, 1, generator=generator)
        return Splits(training=(x[:16], y[:16]), validation=(x[16:], y[16:]))

    def model(self, point):
        return nn.Linear(4, 1, bias=False)

    def loss(self, model, batch, point):
        return ((model(batch[0]) - batch[1]) ** 2).mean()

    def metrics(self, model, batch):
        return {"loss": ((model(batch[0]) - batch[1]) ** 2).mean(1)}


def planted(folder, *rounds, kind="good", name="line", **more):
    """The campaign of such a stage, with its file of weights in a folder."""
    file = folder / f"{kind}.safetensors"
    save_file({"weight": TRUTH + 0.2 if kind == "good" else -5.0 * TRUTH}, file)
    return Campaign(
        Line(), name=name, start_from=weights_from(file, steps=INHERITED), rounds=list(rounds or (SEARCH, EQUAL_TOTAL)),
        schedule=constant_then_decay(0.25), evaluations=6, **more,
    )  # fmt: skip


def options_in(folder: Path):
    return SessionOptions(storage=str(folder / "runs.sqlite"), checkpoints=folder / "checkpoints")


@contextmanager
def stage_session(campaign, folder):
    """A session of a campaign, with what its trials start from."""
    with opened_session(declared_stage(campaign), options_in(folder)) as session:
        yield session
