"""Thirty labels and a thousand images without: does an encoder that has learnt to remove noise help?

Three stages: an autoencoder cleans noisy digits, without labels; a head is trained on its frozen encoder with 30
labels; then everything is trained. The controls train the same network from scratch.
"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from tuner import Campaign, Round, SearchSpace, Splits, Workload, best_of, log_uniform, minimize

NOISE = 0.5  # standard deviation; a pixel lies in 0 to 1
CODE = 256


def digits():
    """Images [1797, 64] in 0 to 1 and their digits [1797], in a fixed random order."""
    x, y = load_digits(return_X_y=True)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return torch.tensor(x / 16, dtype=torch.float32)[order], torch.tensor(y)[order]


def splits(*tensors, chosen=slice(0, 1000)):
    """The `chosen` of the first 1,000 images to train on, 397 to select by, 400 to test on."""
    parts = (chosen, slice(1000, 1397), slice(1397, None))
    return Splits(*(tuple(tensor[part] for tensor in tensors) for part in parts))


class Network(nn.Module):
    """An encoder of 64 pixels, and what is read from its code."""

    def __init__(self, **heads):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, CODE), nn.ReLU())
        for name, head in heads.items():
            self.add_module(name, head)


class Denoising(Workload):
    """A noisy digit, cleaned: the mean squared error of a pixel. Needs no labels."""

    batch_size = 64
    select_by = minimize("validation/error")

    def data(self):
        clean, _ = digits()
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
        return splits(clean + NOISE * noise, clean)

    def augment(self, batch, point, generator):  # new noise at each step; what is evaluated keeps its noise
        clean = batch[1]
        return clean + NOISE * torch.randn(clean.shape, generator=generator, device=generator.device), clean

    def model(self, point):
        return Network(decoder=nn.Sequential(nn.Linear(CODE, 256), nn.ReLU(), nn.Linear(256, 64)))

    def loss(self, model, batch, point):
        return self.errors(model, batch).mean()

    def metrics(self, model, batch):
        return {"error": self.errors(model, batch)}

    def errors(self, model, batch):
        noisy, clean = batch
        return (model.decoder(model.encoder(noisy)) - clean).square().mean(1)


class FewLabels(Workload):
    """Which digit? As many labels of each as of the others, in all `labels` of the images that were trained on."""

    select_by = minimize("validation/loss", worth=0.02)  # nats

    def __init__(self, labels=30, batch_size=10):
        self.labels, self.batch_size = labels, batch_size

    def data(self):
        x, y = digits()
        each = [(y[:1000] == digit).nonzero().flatten()[: self.labels // 10] for digit in range(10)]
        return splits(x, y, chosen=torch.cat(each))

    def model(self, point):
        return Network(head=nn.Linear(CODE, 10))

    def loss(self, model, batch, point):
        return F.cross_entropy(self.logits(model, batch), batch[1])

    def metrics(self, model, batch):
        logits, labels = self.logits(model, batch), batch[1]
        return {"loss": F.cross_entropy(logits, labels, reduction="none"), "error_rate": logits.argmax(-1) != labels}

    def logits(self, model, batch):
        return model.head(model.encoder(batch[0]))


class HeadOnly(FewLabels):
    """The same with the encoder as it was handed over."""

    def model(self, point):
        model = super().model(point)
        model.encoder.requires_grad_(False)
        return model


DECAY = log_uniform(1e-3, 10.0)
HEAD_SPACE = SearchSpace(learning_rate=log_uniform(3e-3, 3e-1), weight_decay=DECAY)
HEAD_ROUNDS = [
    Round("Which rate for the head?", trials=16, max_train_steps=200, space=HEAD_SPACE),
    Round("The head", promote=2),
    Round("The same on an encoder that learnt nothing", trials=16, space=HEAD_SPACE, start="scratch"),
]
ALL_SPACE = SearchSpace(learning_rate=log_uniform(1e-5, 1e-2), weight_decay=DECAY)
SCRATCH_SPACE = SearchSpace(learning_rate=log_uniform(3e-5, 3e-2), weight_decay=DECAY)
ROUNDS = [
    Round("Which rate for all, and how much weight decay?", trials=16, max_train_steps=200, space=ALL_SPACE),
    Round("The final model", promote=2),
    Round("From scratch, equal total steps", trials=16, space=SCRATCH_SPACE, start="scratch", total="equal"),
]

pretraining = Campaign(
    Denoising(),
    name="digits-denoised",
    warmup_steps=20,
    production_steps=3000,
    rounds=[
        Round("Which rate for the autoencoder?", trials=10, space=SearchSpace(learning_rate=log_uniform(1e-3, 3e-2))),
        Round("The pretrained encoder", promote=2, transfer="rescale"),
    ],
)
head = Campaign(
    HeadOnly(), name="digits-head", start_from=best_of(pretraining, parameters="encoder.*"), rounds=HEAD_ROUNDS
)
campaign = Campaign(FewLabels(), name="digits-few-labels", start_from=best_of(head), rounds=ROUNDS)
