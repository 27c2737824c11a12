"""A byte-level language model of Python's standard library: compute-bound, longer is always better.

The data is the source code of this Python's own standard library: a fixed list of modules, the same on every
machine with the same Python version (its sha256 and the version are recorded; compare scores within one only).
"""

import hashlib
import platform
import sysconfig
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from tuner import Campaign, Round, SearchSpace, Splits, Workload, constant_then_decay, log_uniform, minimize, uniform

TRAINING = (
    "argparse ast base64 bdb calendar cmd codecs configparser contextlib copy csv dataclasses datetime difflib dis "
    "doctest enum fileinput fractions ftplib functools gettext glob gzip heapq imaplib inspect ipaddress linecache "
    "locale mailbox mimetypes optparse pickle pickletools plistlib poplib pprint profile pyclbr random reprlib "
    "selectors shelve shutil smtplib socket socketserver ssl statistics string subprocess tarfile tempfile textwrap "
    "threading timeit trace traceback turtle typing uuid warnings weakref zipapp"
).split()
VALIDATION = "platform pydoc queue sched shlex stat tokenize types wave webbrowser".split()
TEST = "pstats netrc numbers operator runpy symtable zipfile/__init__ zipimport xmlrpc/client".split()
CONTEXT, WINDOW = 16, 64  # bytes the model looks back, bytes it predicts in one example


def source_of(modules):
    """The bytes of those modules that this Python has, in the given order."""
    folder = Path(sysconfig.get_path("stdlib"))
    paths = [folder / f"{module}.py" for module in modules]
    return b"\n".join(path.read_bytes() for path in paths if path.is_file())


def windows(text, at_most=None):
    """Examples [n, CONTEXT + WINDOW] of bytes that share only the context; `at_most` so many, evenly spaced."""
    data = torch.frombuffer(bytearray(text), dtype=torch.uint8).unfold(0, CONTEXT + WINDOW, WINDOW)
    step = 1 if at_most is None else -(-len(data) // at_most)
    return data[::step].contiguous()


class ByteModel(nn.Module):
    """Each byte from the CONTEXT bytes before it; the embedding is also the output layer."""

    def __init__(self, width, hidden):
        super().__init__()
        self.embedding = nn.Embedding(256, width)
        nn.init.normal_(self.embedding.weight, std=0.5)
        self.body = nn.Sequential(nn.Linear(CONTEXT * width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.bias = nn.Parameter(torch.zeros(256))

    def forward(self, text):
        """Logits [n, WINDOW, 256] for the last WINDOW bytes of `text` [n, CONTEXT + WINDOW]."""
        embedded = self.embedding(text[:, :-1]).unfold(1, CONTEXT, 1).flatten(2)
        return F.linear(self.body(embedded), self.embedding.weight, self.bias)


class StandardLibrary(Workload):
    """Nats per byte on modules that were not trained on."""

    batch_size = 8
    select_by = minimize("validation/loss")
    evaluation_batch_size = 128
    training_evaluation_examples = 128
    no_decay = "vectors"  # weight decay leaves out the biases
    width, hidden = 24, 192

    def data(self):
        held_out = (windows(source_of(modules), at_most=256) for modules in (VALIDATION, TEST))
        return Splits(windows(source_of(TRAINING)), *held_out)

    def provenance(self):
        text = b"".join(source_of(modules) for modules in (TRAINING, VALIDATION, TEST))
        return {"python": platform.python_version(), "bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()}

    def model(self, point):
        return ByteModel(self.width, self.hidden)

    def loss(self, model, batch, point):
        return self.nats(model, batch).mean()

    def metrics(self, model, batch):
        return {"loss": self.nats(model, batch).mean(1)}

    def nats(self, model, batch):
        (text,) = batch
        text = text.long()
        return F.cross_entropy(model(text).transpose(1, 2), text[:, CONTEXT:], reduction="none")


SPACE = SearchSpace(
    learning_rate=log_uniform(3e-4, 3e-2),
    weight_decay=log_uniform(1e-4, 1.0),
    one_minus_beta1=log_uniform(0.02, 0.5),
    clip_norm=uniform(0.3, 3.0),
)

campaign = Campaign(
    StandardLibrary(),
    optimizer="adamw",
    schedule=constant_then_decay(0.2),
    warmup_steps=50,
    production_steps=8000,
    evaluations=30,
    rounds=[
        Round("Which learning rate, weight decay, momentum and clipping suit short runs?", trials=24, space=SPACE),
        # A decay as long as that of the short runs would be 2 % of the long one; benchmarks/equal_steps.py.
        Round("The final model: the winner and a rival at production length", promote=2, transfer="rescale"),
    ],
)
