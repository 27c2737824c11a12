"""Workloads and studies that combine features: where the data are, how they are loaded, what trains and what measures.

`Combination(...)` is one value of each feature, and its repr is the code that makes it again. `workload_of` and
`study_of` build it; `all_pairs` chooses few combinations in which every two values of two features meet.
"""

import itertools
import random
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from support.drawing import Drawing, of_all
from support.tiny import tiny_study
from tuner import (
    SearchSpace,
    Splits,
    Stream,
    Workload,
    at_most,
    by_depth,
    by_share,
    constant,
    constant_then_decay,
    cosine,
    exponential,
    inverse_sqrt,
    linear,
    log_uniform,
    matching,
    maximize,
    minimize,
    padded,
    pieces,
    polynomial,
    step_drops,
    uniform,
    vectors,
)
from tuner.budget.step_budget import StepBudget
from tuner.design.optimizers import OPTIMIZERS, optimizer_named

STEPS, EVERY, TRIALS = 14, 4, 3  # two epochs of 50 examples in batches of 8, and a bit; the last one is no fourth
WIDTHS = (4, 6, 9, 12)


@dataclass(frozen=True)
class Combination:
    """One value of each feature."""

    source: str = "tensors"
    data_workers: int = 0
    augment: bool = False
    dropout: bool = False
    optimizer: str = "adamw"
    groups: str = "none"
    clip: bool = False
    schedule: str = "constant"
    warmup: int = 3
    metrics: str = "means"
    norm: str = "layer"
    frozen: bool = False
    keep_best: int = 1


@dataclass(frozen=True)
class Record:
    """A batch that the program finds the tensors of."""

    x: torch.Tensor
    y: torch.Tensor


class Closed:
    """A batch that keeps its tensors to itself."""

    def __init__(self, x, y):
        self._held = {"x": x, "y": y}

    @property
    def x(self):
        return self._held["x"]

    @property
    def y(self):
        return self._held["y"]

    def to(self, device):
        return Closed(self.x.to(device), self.y.to(device))


class Net(nn.Module):
    """Vectors [n, 6], or sequences of them [n, width, 6], into two classes."""

    def __init__(self, norm, dropout, frozen):
        super().__init__()
        self.embed = nn.Linear(6, 12)
        self.norm = nn.BatchNorm1d(12) if norm == "batch" else nn.LayerNorm(12)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList([nn.Linear(12, 12), nn.Linear(12, 12)])
        self.head = nn.Linear(12, 2)
        self.embed.weight.requires_grad_(not frozen)

    def forward(self, x):
        x = self.dropout(F.relu(self.norm(self.embed(x.mean(1) if x.dim() == 3 else x))))
        for block in self.blocks:
            x = x + torch.tanh(block(x))
        return self.head(x)


def clouds():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(80, 6, generator=generator)
    y = (x[:, 0] + 0.5 * x[:, 1] > 0).long()
    return Splits(training=(x[:50], y[:50]), validation=(x[50:], y[50:]))


def stacked(examples):
    return torch.stack([x for x, _ in examples]), torch.stack([y for _, y in examples])


class Combined(Workload):
    """What all combinations share; batches are tuples."""

    batch_size = 8
    select_by = minimize("validation/loss")
    evaluation_batch_size = 16
    training_evaluation_examples = 35

    def __init__(self, combination):
        self.norm, self.frozen = combination.norm, combination.frozen
        self.data_workers = combination.data_workers

    def data(self):
        return clouds()

    def model(self, point):
        return Net(self.norm, point.get("dropout", 0.0), self.frozen)

    def parts(self, batch):
        return batch

    def loss(self, model, batch, point):
        x, y = self.parts(batch)
        return F.cross_entropy(model(x), y)

    def metrics(self, model, batch):
        x, y = self.parts(batch)
        logits = model(x)
        wrong = logits.argmax(-1) != y
        return {"loss": F.cross_entropy(logits, y, reduction="none"), "error_rate": wrong, **self.more(x, y, logits)}

    def more(self, x, y, logits):
        return {}


class OfDataset(Combined):
    """Examples that draw from the generators of torch, NumPy and Python."""

    def data(self):
        splits = clouds()
        return Splits(training=Drawing(splits.training, of_all), validation=Drawing(splits.validation, of_all))


class Collating(OfDataset):
    """Mixes the examples of a batch, with what collate itself draws; `made`: the type of the batch."""

    def collate(self, examples):
        x, y = stacked(examples)
        share = 0.2 * float(torch.rand(())) + 0.1 * random.random() + 0.1 * float(np.random.rand())
        return self.made(x + share * x.roll(1, 0), y)

    def made(self, x, y):
        return x, y


class OfDicts(Collating):
    def made(self, x, y):
        return {"x": x, "y": y}

    def parts(self, batch):
        return batch["x"], batch["y"]


class OfRecords(Collating):
    def made(self, x, y):
        return Record(x, y)

    def parts(self, batch):
        return batch.x, batch.y


class OfObjects(OfRecords):
    def made(self, x, y):
        return Closed(x, y)


class ByLength(Combined):
    """Sequences of 3 to 12 vectors, padded to one of four widths."""

    def data(self):
        generator = torch.Generator().manual_seed(0)
        lengths = torch.randint(3, 13, (80,), generator=generator).tolist()
        examples = [torch.randn(length, 6, generator=generator) for length in lengths]
        pairs = [(one, (one[:, 0].mean() > 0).long()) for one in examples]
        return Splits(training=pairs[:50], validation=pairs[50:])

    def lengths(self):
        return [len(one) for one, _ in self.data().training]

    def collate(self, examples):
        return padded([x for x, _ in examples], WIDTHS), torch.stack([y for _, y in examples])


class Streaming(Combined):
    """A stream that never ends; its examples draw."""

    def data(self):
        splits = clouds()
        return Splits(
            Stream(lambda start: self.read(splits.training, itertools.count(start))),
            Stream(lambda start: self.read(splits.validation, range(start, 30)), 30),
        )

    def read(self, tensors, numbers):
        for number in numbers:
            x, y = (tensor[number % len(tensor)] for tensor in tensors)
            yield x + of_all(), y


class StreamOfDicts(Streaming):
    collate, made, parts = Collating.collate, OfDicts.made, OfDicts.parts


SOURCES: dict[str, type[Combined]] = {
    "tensors": Combined, "dataset": OfDataset, "tuple": Collating, "dict": OfDicts, "dataclass": OfRecords,
    "object": OfObjects, "lengths": ByLength, "stream": Streaming, "stream of dicts": StreamOfDicts,
}  # fmt: skip


class Augmented:
    """Noise on the inputs, whatever a batch is."""

    def augment(self, batch, point, generator):
        x, y = self.parts(batch)  # type: ignore[attr-defined]
        x = x + 0.1 * torch.randn(x.shape, generator=generator)
        if isinstance(batch, dict):
            return {"x": x, "y": y}
        return (x, y) if isinstance(batch, tuple) else type(batch)(x, y)


class WithoutDecay:
    no_decay = "vectors"


class HeadAtItsOwnRate:
    """`matching`, at a rate of the point; two groups of one trial may be one of another."""

    def parameter_groups(self, model, point):
        return [matching("head.*", rate=point["head_rate"], decay=2.0), vectors(decay=0.0)]


class OfDepth:
    def parameter_groups(self, model, point):
        return [by_depth("blocks.{}", point["depth_factor"], before="norm.*"), matching("head.*", rate=3.0)]


class Listed:
    """Groups as dicts, the last layer first."""

    def parameter_groups(self, model, point):
        return [
            {"params": model.head.parameters(), "rate": point["head_rate"]},
            {"params": [model.norm.weight, model.embed.bias], "decay": 0.0, "rate": 0.5},
        ]


GROUPS: dict[str, tuple[type, ...]] = {
    "none": (), "no_decay": (WithoutDecay,), "matching": (HeadAtItsOwnRate,), "by_depth": (OfDepth,), "dicts": (Listed,)
}  # fmt: skip


class OfTheSplit:
    """Selected by the AUC of the split."""

    select_by = maximize("validation/auc")
    not_averaged = ("score", "positive")

    def more(self, x, y, logits):
        return {"score": logits[:, 1] - logits[:, 0], "positive": y == 1}

    def split_metrics(self, each):
        positive = each["positive"]
        above = each["score"][positive][:, None] - each["score"][~positive][None, :]
        return {"auc": float(((above > 0).double() + 0.5 * (above == 0)).mean()) if above.numel() else None}


class Ragged:
    """Lists of as many values for each example as that says."""

    not_averaged = ("wide", "words")

    def more(self, x, y, logits):
        words = [logits[place, 0] + torch.arange(int(y[place]) + 1) for place in range(len(y))]
        return {"words": words, "wide": torch.stack([logits, -logits], 1)}

    def split_metrics(self, each):
        words = torch.cat(each["words"])
        return {"per_word": float(words.mean()), "widest": float(each["wide"].amax()), "count": len(words)}


METRICS: dict[str, tuple[type, ...]] = {"means": (), "split": (OfTheSplit,), "ragged": (Ragged,)}


def held_in_a_box(optimizer, limit):
    """The optimizer, with a hook that keeps the weights within +-limit after each step."""

    def clamp(optimizer, *_):
        with torch.no_grad():
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.clamp_(-limit, limit)

    optimizer.register_step_post_hook(clamp)
    return optimizer


def sgd_of_the_point(groups, point):
    """A function of a study: hyperparameters of its own name, and a hook that keeps weights in a box."""
    return held_in_a_box(torch.optim.SGD(groups, momentum=point["own_momentum"]), 2.0)


class Alternating(torch.optim.Optimizer):
    """A class of a study, with state that is no tensor: every other step is made with the sign."""

    def __init__(self, params, lr=0.1, momentum=0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in (one for one in group["params"] if one.grad is not None):
                state = self.state[parameter]
                state["count"] = state.get("count", 0) + 1
                state["mean"] = group["momentum"] * state.get("mean", 0.0) + parameter.grad
                parameter.sub_(state["mean"].sign() if state["count"] % 2 else state["mean"], alpha=group["lr"])


GIVEN: dict[str, Any] = {
    "RMSprop": torch.optim.RMSprop, "ASGD": torch.optim.ASGD, "Adamax": torch.optim.Adamax, "Alternating": Alternating,
    "function": sgd_of_the_point,
}  # fmt: skip
SCHEDULES = {
    "constant": constant(), "linear": linear(0.1), "cosine": cosine(), "constant_then_decay": constant_then_decay(0.3),
    "inverse_sqrt": inverse_sqrt(4), "polynomial": polynomial(1.5, 0.1), "exponential": exponential(0.05),
    "step_drops": step_drops((0.4, 0.8)),
    "pieces": pieces(("constant", 0.5), ("linear", 0.3, 0.1), ("polynomial", 0.2, 0.0, 2.0)),
    "function": by_share(lambda share: 1.0 - share**2 if share < 0.5 else 0.3),
}  # fmt: skip

# For the test of pairs, kinds of optimizers and schedules meet all other values, and take turns within their kind.
TURNS: dict[str, dict[str, tuple[str, ...]]] = {
    "source": {"stream": ("stream", "stream of dicts")},
    "groups": {"matching": ("matching", "dicts")},
    "optimizer": {
        "kernel": ("adamw", "sgd", "adam", "adagrad"),
        "record": ("rmsprop", "adafactor", "nadam", "radam", "lion", "muon"),
        "class": ("RMSprop", "ASGD", "Adamax", "Alternating"), "function": ("function",),
    },
    "schedule": {
        "held": ("constant", "constant_then_decay", "step_drops", "pieces"),
        "falling": ("linear", "cosine", "inverse_sqrt", "polynomial", "exponential"), "function": ("function",),
    },
}  # fmt: skip
# Not among them: what has to be installed, and what goes with one schedule and without batch norm.
OPTIMIZERS_BY_NAME = tuple(
    spec.name for spec in OPTIMIZERS.own if spec.name not in ("adamw_8bit", "schedule_free_adamw")
)
FEATURES: dict[str, tuple[Any, ...]] = {
    "source": tuple(SOURCES), "data_workers": (0, 1, 3), "augment": (False, True), "dropout": (False, True),
    "optimizer": (*OPTIMIZERS_BY_NAME, *GIVEN), "groups": tuple(GROUPS), "clip": (False, True),
    "schedule": tuple(SCHEDULES), "warmup": (0, 3), "metrics": tuple(METRICS), "norm": ("batch", "layer"),
    "frozen": (False, True), "keep_best": (1, 2),
}  # fmt: skip


def workload_of(combination, data_workers=None):
    """A workload of a class made for the combination, with another number of loading processes where one is given."""
    chosen = (*GROUPS[combination.groups], *METRICS[combination.metrics], *(Augmented,) * combination.augment)
    made = type("Made", (*chosen, SOURCES[combination.source]), {"__module__": __name__})
    workload = made(combination)
    if data_workers is not None and combination.source != "tensors":
        workload.data_workers = data_workers
    return workload


def space_of(combination):
    """A range for every number that the combination reads."""
    name, space = combination.optimizer, {"learning_rate": log_uniform(1e-3, 3e-2)}
    if name == "function":
        space |= {"own_momentum": uniform(0.0, 0.9)}
    elif name in GIVEN:
        space |= {} if name == "Alternating" else {"weight_decay": log_uniform(1e-3, 0.1)}
        space |= {"momentum": uniform(0.0, 0.9)} if name in ("RMSprop", "Alternating") else {}
    else:
        space |= {key: one for key, one in OPTIMIZERS.get(name).ranges.items() if key != "learning_rate"}
    space |= {"clip_norm": log_uniform(0.05, 1.0)} if combination.clip else {}
    space |= {"dropout": uniform(0.1, 0.5)} if combination.dropout else {}
    space |= {"head_rate": log_uniform(0.1, 10.0)} if combination.groups in ("matching", "dicts") else {}
    space |= {"depth_factor": uniform(0.3, 0.9)} if combination.groups == "by_depth" else {}
    return SearchSpace(**space)


def study_of(combination, **changes):
    """Three trials, which differ in every number that the combination searches."""
    study = tiny_study(
        space=space_of(combination), budget=StepBudget(STEPS, EVERY), num_trials=TRIALS, augment=combination.augment,
        objective=workload_of(combination).select_by, fitted_when=at_most("training/error_rate", 0.0),
        optimizer=optimizer_named(optimizer_of(combination)), schedule=SCHEDULES[combination.schedule],
        warmup_steps=combination.warmup, keep_best=combination.keep_best,
    )  # fmt: skip
    return replace(study, **changes)


def optimizer_of(combination):
    """As a study file gives it."""
    return GIVEN.get(combination.optimizer, combination.optimizer)


def write_study(folder, combination):
    """A study file of the combination; its trials are those that a round plans."""
    path = folder / "combined.py"
    path.write_text(f"""from support.combinations import *
from tuner import Campaign, Round

COMBINATION = {combination!r}
campaign = Campaign(
    workload_of(COMBINATION),
    rounds=[Round("a test", trials=TRIALS, max_train_steps=STEPS, space=space_of(COMBINATION))],
    optimizer=optimizer_of(COMBINATION), schedule=SCHEDULES[COMBINATION.schedule], warmup_steps=COMBINATION.warmup,
    keep_best=COMBINATION.keep_best, evaluations=4, regime="not_compute_bound",
)
""")
    return path


def is_possible(values):
    """Whether these values of some features go together: tensors in memory are not loaded."""
    return values.get("source") != "tensors" or not values.get("data_workers")


def drawn(seed):
    """A random combination."""
    rng = random.Random(seed)
    while True:
        values = {name: rng.choice(known) for name, known in FEATURES.items()}
        if is_possible(values):
            return Combination(**values)


def all_pairs(seed=0, tries=20):
    """Combinations in which every two values of two features meet; those of TURNS as kinds, which take turns.

    Greedy: each combination starts from a pair that has not met, and is filled, feature by feature, with the value
    that meets most others for the first time; the best of some tries.
    """
    rng, values = random.Random(seed), {name: tuple(TURNS.get(name, ())) for name in FEATURES}
    for name, known in FEATURES.items():
        taken = set(itertools.chain(*TURNS.get(name, {}).values()))
        values[name] = (*values[name], *(one for one in known if one not in taken))
    missing = {
        frozenset(pair)
        for one, other in itertools.combinations(values, 2)
        for pair in itertools.product(((one, each) for each in values[one]), ((other, each) for each in values[other]))
        if is_possible(dict(pair))
    }
    rows = []
    while missing:
        found = [
            _filled(dict(rng.choice(sorted(map(sorted, missing), key=str))), values, missing, rng) for _ in range(tries)
        ]
        rows.append(max(found, key=lambda row: len(missing & _met(row))))
        missing -= _met(rows[-1])
    return _in_turn(rows)


def _met(row):
    return {frozenset(pair) for pair in itertools.combinations(row.items(), 2)}


def _filled(row, values, missing, rng):
    """The row with a value for every feature."""
    for name in rng.sample(sorted(values.keys() - row.keys()), len(values) - len(row)):
        fitting = [value for value in values[name] if is_possible({**row, name: value})]
        rng.shuffle(fitting)
        new = {
            (name, value): sum(frozenset(((name, value), item)) in missing for item in row.items()) for value in fitting
        }
        row[name] = max(new, key=new.__getitem__)[1]
    return row


def _in_turn(rows):
    turns = {(name, kind): itertools.cycle(members) for name, kinds in TURNS.items() for kind, members in kinds.items()}
    return [
        Combination(
            **{name: next(turns[name, value]) if (name, value) in turns else value for name, value in row.items()}
        )
        for row in rows
    ]


def difference(combination):
    """What of a combination is not the default, for the name of a test."""
    plain = asdict(Combination())
    chosen = {one.name: getattr(combination, one.name) for one in fields(combination)}
    return " ".join(f"{name}={value}" for name, value in chosen.items() if value != plain[name])
