"""A variational autoencoder of digits: how large should the code be?

The model draws its own noise from torch's global generator, which the trainer seeds for each step: a trial that is
resumed has the same bits. A sweep would refuse such a loss, because the noise cannot be switched off, so the length is
declared; and such trials are trained one by one. `DrawnBefore` is the way that suits both.
"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from tuner import Campaign, Round, SearchSpace, Splits, Workload, choice, cosine, log_uniform, minimize

PIXELS, HIDDEN = 64, 128


class Autoencoder(nn.Module):
    """Image to the mean and log-variance of a code; a code, drawn or the mean, back to logits of the pixels."""

    def __init__(self, code):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(PIXELS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2 * code))
        self.decoder = nn.Sequential(nn.Linear(code, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, PIXELS))

    def forward(self, images, noise=None):
        mean, log_variance = self.encoder(images).chunk(2, -1)
        code = mean if noise is None else mean + noise * (0.5 * log_variance).exp()
        return self.decoder(code), mean, log_variance


class Digits(Workload):
    """1,797 images of 8 x 8 pixels, without their labels."""

    batch_size = 64
    select_by = minimize("validation/bound", worth=0.1)

    def data(self):
        images, _ = load_digits(return_X_y=True)
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        images = torch.tensor(images / 16, dtype=torch.float32)[order]
        return Splits(training=(images[:1000],), validation=(images[1000:1400],), test=(images[1400:],))

    def model(self, point):
        return Autoencoder(point["code"])

    def loss(self, model, batch, point):
        (images,) = batch
        noise = torch.randn(len(images), point["code"], device=images.device)
        reconstruction, divergence = self.parts(model, images, noise)
        return (reconstruction + divergence).mean()

    def metrics(self, model, batch):  # an evaluation takes the mean of the code
        reconstruction, divergence = self.parts(model, batch[0])
        return {"bound": reconstruction + divergence, "reconstruction": reconstruction, "divergence": divergence}

    def parts(self, model, images, noise=None):
        """Nats of each image [n]: for its pixels, and for its code."""
        logits, mean, log_variance = model(images, noise)
        pixels = F.binary_cross_entropy_with_logits(logits, images, reduction="none").sum(1)
        return pixels, 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)


class DrawnBefore(Digits):
    """The same, with noise that belongs to the batch: trials go in groups, and a sweep leaves the noise out."""

    def augment(self, batch, point, generator):
        (images,) = batch
        return images, torch.randn(len(images), point["code"], generator=generator, device=images.device)

    def loss(self, model, batch, point):
        reconstruction, divergence = self.parts(model, *batch)
        return (reconstruction + divergence).mean()


campaign = Campaign(
    Digits(),
    optimizer="adam",
    schedule=cosine(),
    evaluations=25,
    production_steps=3000,
    rounds=[
        Round("How large should the code be?", trials=12, max_train_steps=800, scientific=("code",), space=SearchSpace(
            code=choice(2, 8),
            learning_rate=log_uniform(3e-4, 3e-2),
        )),
        Round("The final model", promote=2, fresh=2),
    ],
)  # fmt: skip
