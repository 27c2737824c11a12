"""Workloads whose models are partly frozen: a base that is the same in all trials, and what is trained beside it."""

from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from support.fusible import Encoder, Images, Lm, Recurrent, ResNet, Sdpa, TiedLm
from tuner import SearchSpace, log_uniform, uniform, with_lora

SPACE = SearchSpace(
    learning_rate=log_uniform(1e-4, 1e-2),
    weight_decay=log_uniform(1e-4, 1.0),
    dropout=uniform(0.05, 0.5),
    label_smoothing=uniform(0.0, 0.2),
    alpha=log_uniform(1.0, 32.0),
)


def pretrained(make, seed=123):
    """A module whose values are those of no trial's seed, frozen."""
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    module = make()
    torch.random.set_rng_state(state)
    return module.requires_grad_(False)


def layers(*widths):
    parts = [[nn.Linear(i, o), nn.ReLU()] for i, o in pairwise(widths)]
    return nn.Sequential(*[one for part in parts for one in part][:-1])


class HeadOnly(Images):
    def model(self, point):
        return nn.Sequential(pretrained(partial(layers, 64, 64, 32)), nn.ReLU(), nn.Linear(32, 10))


class HeadOnConvolutions(Images):
    """Batch norm in train mode, as a frozen module is unless somebody calls `eval`: running means are written."""

    def model(self, point):
        model = pretrained(ResNet)
        model.head = nn.Linear(24, 10)
        return model


class InEvalMode(nn.Module):
    def __init__(self, base, head):
        super().__init__()
        self.base, self.head = base, head

    def train(self, mode=True):
        super().train(mode)
        self.base.eval()
        return self

    def forward(self, x):
        return self.head(self.base(x))


class HeadOnConvolutionsInEvalMode(Images):
    def model(self, point):
        base = pretrained(ResNet)
        base.head = nn.Identity()
        return InEvalMode(base, nn.Linear(24, 10))


class HeadOnGru(Images):
    def model(self, point):
        model = pretrained(partial(Recurrent, nn.GRU))
        model.head = nn.Linear(16, 10)
        return model


class LoraMlp(Images):
    widths = (64, 64, 64, 10)

    def model(self, point):
        model = pretrained(partial(layers, *self.widths))
        with_lora(model, "*", rank=4, alpha=point["alpha"], dropout=point["dropout"])
        return model


class LoraConvolutions(Images):
    def model(self, point):
        model = pretrained(ResNet)
        with_lora(model, "*", rank=2, alpha=point["alpha"])
        return model


class LoraEncoder(Images):
    def model(self, point):
        model = pretrained(Encoder)
        with_lora(model, "encoder.*|head", rank=2, alpha=point["alpha"])
        return model


class LoraSdpa(Images):
    def model(self, point):
        model = pretrained(Sdpa)
        with_lora(model, "blocks.*|head", rank=2, alpha=point["alpha"], trained="norm.*")
        return model


class LoraLm(TiedLm):
    def model(self, point):
        model = pretrained(Lm)
        with_lora(model, "block.*", rank=2, alpha=point["alpha"])
        return model


class FrozenEmbedding(TiedLm):
    def model(self, point):
        model = Lm()
        model.emb.weight.requires_grad_(False)
        with torch.no_grad():
            model.emb.weight.copy_(pretrained(lambda: nn.Embedding(64, 32)).weight)
        return model


class OnlyBiases(Images):
    def model(self, point):
        model = pretrained(partial(layers, 64, 32, 32, 10))
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("bias" in name)
        return model


SHARED = [
    HeadOnly, HeadOnConvolutions, HeadOnConvolutionsInEvalMode, HeadOnGru, LoraMlp, LoraConvolutions, LoraEncoder,
    LoraSdpa, LoraLm, FrozenEmbedding, OnlyBiases,
]  # fmt: skip


class FreshBase(Images):
    """Frozen, and another in each trial."""

    def model(self, point):
        model = layers(64, 64, 10)
        model[0].requires_grad_(False)
        return model


class Student(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = pretrained(lambda: nn.Linear(64, 64))
        self.student, self.teacher = nn.Linear(64, 10), pretrained(lambda: nn.Linear(64, 10))

    def forward(self, x):
        return self.student(self.encoder(x))


def in_place(teacher, student):
    teacher.mul_(0.9).add_(student, alpha=0.1)


def by_data(teacher, student):
    teacher.data = teacher.data * 0.9 + student.data * 0.1


def in_place_of_data(teacher, student):
    teacher.data.mul_(0.9).add_(student.data * 0.1)


def by_copy(teacher, student):
    teacher.copy_(teacher * 0.9 + student * 0.1)


WRITTEN = [in_place, by_data, in_place_of_data, by_copy]


class Averaged(Images):
    """A frozen teacher that the loss makes a running mean of the student."""

    written = staticmethod(in_place)

    def model(self, point):
        return Student()

    def loss(self, model, batch, point):
        with torch.no_grad():
            for one, other in zip(model.teacher.parameters(), model.student.parameters(), strict=True):
                self.written(one, other)
        logits = model(batch[0])
        return F.cross_entropy(logits, batch[1]) + F.mse_loss(logits, model.teacher(model.encoder(batch[0])))
