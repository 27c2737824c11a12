"""A stream of tokens: examples that are numbered and never end, read from any number on. Does a short decay pay?

The source code of Python's standard library, in windows that begin anywhere. A stream has no epochs and no length; it
can be resumed because `at(start)` gives the examples from number `start` on.
"""

import hashlib
import platform
import sysconfig
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from tuner import Campaign, Round, SearchSpace, Splits, Stream, Workload, log_uniform, minimize, pieces

TRAINING = "argparse ast calendar configparser csv datetime difflib doctest enum inspect optparse pickle ssl tarfile"
HELD_OUT = "platform pydoc shlex tokenize typing"
CONTEXT, WINDOW = 12, 32  # bytes the model looks back, bytes it predicts in one example


@cache
def tokens(modules):
    """The bytes of some modules, one after the other; a memmap of a token file would do as well."""
    folder = Path(sysconfig.get_path("stdlib"))
    return np.frombuffer(b"\n".join((folder / f"{name}.py").read_bytes() for name in modules.split()), dtype=np.uint8)


def examples(start):
    """The windows from example number `start` on, for ever; where example i begins is a function of i alone."""
    data = tokens(TRAINING)
    while True:
        begin = int(np.random.default_rng(start).integers(len(data) - CONTEXT - WINDOW))
        yield (torch.from_numpy(data[begin : begin + CONTEXT + WINDOW].astype(np.int64)),)
        start += 1


class ByteModel(nn.Module):
    """Each byte from the CONTEXT bytes before it."""

    def __init__(self, width=24, hidden=128):
        super().__init__()
        self.embedding = nn.Embedding(256, width)
        self.body = nn.Sequential(nn.Linear(CONTEXT * width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, text):
        """Logits [n, WINDOW, 256] for the last WINDOW bytes of `text` [n, CONTEXT + WINDOW]."""
        embedded = self.embedding(text[:, :-1]).unfold(1, CONTEXT, 1).flatten(2)
        return F.linear(self.body(embedded), self.embedding.weight)


class SourceCode(Workload):
    """Nats per byte on modules that were not trained on."""

    batch_size = 32
    evaluation_batch_size = 128
    training_evaluation_examples = 512
    select_by = minimize("validation/loss", worth=0.01)

    def data(self):
        held_out = torch.from_numpy(tokens(HELD_OUT).astype(np.int64)).unfold(0, CONTEXT + WINDOW, 10 * WINDOW)
        return Splits(training=Stream(at=examples), validation=(held_out.contiguous(),))

    def provenance(self):
        text = tokens(TRAINING).tobytes() + tokens(HELD_OUT).tobytes()
        return {"python": platform.python_version(), "sha256": hashlib.sha256(text).hexdigest()}

    def model(self, point):
        return ByteModel()

    def nats(self, model, batch):
        (text,) = batch
        return F.cross_entropy(model(text).transpose(1, 2), text[:, CONTEXT:], reduction="none")

    def loss(self, model, batch, point):
        return self.nats(model, batch).mean()

    def metrics(self, model, batch):
        return {"loss": self.nats(model, batch).mean(1)}


campaign = Campaign(
    SourceCode(),
    optimizer="adamw",
    schedule=pieces(("constant", 0.7), ("linear", 0.3, 0.05)),
    evaluations=20,
    production_steps=3000,
    rounds=[
        Round("Which rate and weight decay?", trials=10, max_train_steps=600, space=SearchSpace(
            learning_rate=log_uniform(3e-4, 3e-2),
            weight_decay=log_uniform(1e-3, 1.0),
        )),
        Round("The final model", promote=2, fresh=2),
    ],
)  # fmt: skip
