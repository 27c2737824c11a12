"""Workloads of many kinds of models, each small, and groups of their trials."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from support.tiny import CPU, Tiny, setting_for, tiny_study
from tuner import SearchSpace, Splits, Workload, log_uniform, minimize, uniform
from tuner.rounds.plan import planned_trials
from tuner.training.trial_run import TrialRun


class Images(Tiny):
    """Random 8 x 8 images of ten classes, labelled by a linear rule."""

    batch_size = 32
    select_by = minimize("validation/loss")

    def data(self):
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(160, 64, generator=generator)
        y = (x @ torch.randn(64, 10, generator=generator)).argmax(1)
        return Splits(training=(x[:128], y[:128]), validation=(x[128:], y[128:]))

    def loss(self, model, batch, point):
        return F.cross_entropy(model(batch[0]), batch[1], label_smoothing=point["label_smoothing"])

    augment = Workload.augment


class Mlp(Images):
    def model(self, point):
        return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10))


class Regression(Images):
    """One number for each example: torch multiplies by a matrix of one column as by a vector."""

    def model(self, point):
        return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1))

    def loss(self, model, batch, point):
        return F.mse_loss(model(batch[0]).squeeze(1), batch[1].float())

    def metrics(self, model, batch):
        return {"loss": (model(batch[0]).squeeze(1) - batch[1].float()).square()}


class MlpWithDropout(Images):
    def model(self, point):
        p = point["dropout"]
        return nn.Sequential(nn.Dropout(p / 2), nn.Linear(64, 32), nn.ReLU(), nn.Dropout(p), nn.Linear(32, 10))


class OddMlp(Images):
    """Sizes that fill no vector register."""

    batch_size = 13

    def model(self, point):
        return nn.Sequential(nn.Linear(64, 21), nn.GELU(), nn.Linear(21, 7), nn.Tanh(), nn.Linear(7, 10))


class Block(nn.Module):
    def __init__(self, i, o, stride=1):
        super().__init__()
        self.c1, self.b1 = nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o)
        self.c2, self.b2 = nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)
        self.act = nn.ReLU(inplace=True)
        self.short = (
            nn.Identity() if stride == 1 else nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))
        )

    def forward(self, x):
        y = self.b2(self.c2(self.act(self.b1(self.c1(x)))))
        y += self.short(x)
        return self.act(y)


class ResNet(nn.Module):
    def __init__(self, c=12):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, c, 3, 1, 1), nn.BatchNorm2d(c), nn.ReLU())
        self.blocks = nn.Sequential(Block(c, c), Block(c, 2 * c, 2))
        self.head = nn.Linear(2 * c, 10)

    def forward(self, x):
        x = self.blocks(self.stem(x.view(x.size(0), 1, 8, 8)))
        return self.head(F.adaptive_avg_pool2d(F.max_pool2d(x, 2), 1).view(x.shape[0], -1))


class Residual(Images):
    def model(self, point):
        return ResNet()


class Encoder(nn.Module):
    def __init__(self, d=32, dropout=0.0):
        super().__init__()
        self.patch = nn.Linear(4, d)
        self.cls = nn.Parameter(torch.randn(1, 1, d) * 0.02)
        self.pos = nn.Parameter(torch.randn(1, 17, d) * 0.02)
        layer = nn.TransformerEncoderLayer(d, 4, 2 * d, dropout, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(d, 10)

    def forward(self, x):
        b = x.shape[0]
        x = self.patch(x.view(b, 4, 2, 4, 2).permute(0, 1, 3, 2, 4).reshape(b, 16, 4))
        x = torch.cat([self.cls.expand(b, -1, -1), x], dim=1) + self.pos
        return self.head(self.encoder(x)[:, 0])


class TransformerEncoder(Images):
    def model(self, point):
        return Encoder()


class TransformerEncoderWithDropout(Images):
    def model(self, point):
        return Encoder(dropout=0.1)


class Attention(nn.Module):
    def __init__(self, d, heads, causal):
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norm, self.qkv, self.out = nn.LayerNorm(d), nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.mlp = nn.Sequential(nn.LayerNorm(d), nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = self.qkv(self.norm(x)).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.out(mixed.transpose(1, 2).reshape(b, t, d))
        return x + self.mlp(x)


class Sdpa(nn.Module):
    def __init__(self, d=32):
        super().__init__()
        self.patch, self.pos = nn.Linear(4, d), nn.Parameter(torch.randn(16, d) * 0.02)
        self.blocks = nn.Sequential(Attention(d, 4, False), Attention(d, 4, False))
        self.norm, self.head = nn.LayerNorm(d), nn.Linear(d, 10)

    def forward(self, x):
        b = x.size(0)
        x = self.patch(x.view(b, 4, 2, 4, 2).permute(0, 1, 3, 2, 4).reshape(b, 16, 4)) + self.pos
        return self.head(self.norm(self.blocks(x)).mean(dim=1))


class SdpaTransformer(Images):
    def model(self, point):
        return Sdpa()


class Lm(nn.Module):
    def __init__(self, d=32, vocabulary=64):
        super().__init__()
        self.emb, self.pos = nn.Embedding(vocabulary, d), nn.Embedding(32, d)
        self.block, self.norm = Attention(d, 2, True), nn.LayerNorm(d)
        self.head = nn.Linear(d, vocabulary, bias=False)
        self.head.weight = self.emb.weight

    def forward(self, text):
        x = self.emb(text) + self.pos(torch.arange(text.shape[1]))
        return self.head(self.norm(self.block(x)))


class TiedLm(Images):
    batch_size = 8

    def data(self):
        generator = torch.Generator().manual_seed(1)
        text = torch.randint(0, 64, (72, 33), generator=generator)
        return Splits(training=(text[:64],), validation=(text[64:],))

    def model(self, point):
        return Lm()

    def loss(self, model, batch, point):
        logits = model(batch[0][:, :-1])
        return F.cross_entropy(
            logits.view(-1, logits.size(-1)), batch[0][:, 1:].reshape(-1), label_smoothing=point["label_smoothing"]
        )

    def metrics(self, model, batch):
        logits = model(batch[0][:, :-1]).transpose(1, 2)
        return {"loss": F.cross_entropy(logits, batch[0][:, 1:], reduction="none").mean(1)}


class Branchy(nn.Module):
    """Branches and loops on shapes; one parameter is never used."""

    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(64, 64), nn.GroupNorm(4, 64), nn.Linear(64, 10)
        self.scale, self.unused = nn.Parameter(torch.ones(1)), nn.Linear(3, 3)

    def forward(self, x):
        x = F.silu(self.norm(self.a(x))) if x.shape[0] % 2 == 0 else torch.tanh(self.a(x))
        for i in range(x.shape[-1] // 32):
            x = x * self.scale + i
        return self.b(x)


class Branching(Images):
    def model(self, point):
        return Branchy()


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.rnn, self.head = kind(8, 16, batch_first=True), nn.Linear(16, 10)

    def forward(self, x):
        return self.head(self.rnn(x.view(x.shape[0], 8, 8))[0][:, -1])


class Gru(Images):
    def model(self, point):
        return Recurrent(nn.GRU)


class Lstm(Images):
    def model(self, point):
        return Recurrent(nn.LSTM)


class Temperature(Mlp):
    """Hyperparameters in a formula of the user's, and a penalty over all parameters."""

    def loss(self, model, batch, point):
        logits = model(batch[0]) / (1.0 + point["dropout"]) * (1.0 - point["label_smoothing"])
        penalty = sum(parameter.abs().sum() for parameter in model.parameters())
        return F.cross_entropy(logits, batch[1]) + 1e-4 * point["label_smoothing"] * penalty


MUST_FUSE = [
    Mlp, MlpWithDropout, OddMlp, Residual, TransformerEncoder, SdpaTransformer, TiedLm, Branching, Gru, Lstm,
    Temperature, TransformerEncoderWithDropout, Regression,
]  # fmt: skip

SPACE = SearchSpace(
    learning_rate=log_uniform(1e-4, 1e-2),
    weight_decay=log_uniform(1e-4, 1.0),
    one_minus_beta1=log_uniform(0.05, 0.5),
    dropout=uniform(0.0, 0.5),
    label_smoothing=uniform(0.0, 0.2),
)


def runs_of(workload, num_trials, space=SPACE, device=CPU, **changes):
    study = tiny_study(space=space, num_trials=num_trials, batch_size=workload.batch_size, **changes)
    setting = setting_for(study, Path("nowhere"), workload, device)
    return [TrialRun(setting, trial) for trial in planned_trials(study)]
