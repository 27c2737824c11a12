"""Where are the discs? A U-Net trained with RMSprop, judged by the Dice coefficient of the whole set.

Images hold discs, bars and noise; only the discs count. Some hold no disc: the Dice of such an image is 0/0, that of
the whole set is well defined, and it is not a mean of anything. Does a loss with a Dice part beat cross-entropy alone?
"""

import torch
import torch.nn.functional as F
from torch import nn

from tuner import (
    Campaign,
    Round,
    SearchSpace,
    Splits,
    Sweep,
    Workload,
    at_least,
    choice,
    log_uniform,
    maximize,
    polynomial,
)

SIZE = 24  # pixels


def shapes(count, seed):
    """Images [count, 1, SIZE, SIZE] and masks of their discs [count, SIZE, SIZE], in 0 and 1."""
    draw = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    centres, sizes = torch.rand(count, 4, 2, generator=draw) * SIZE, torch.rand(count, 4, generator=draw) * 3 + 2
    down, right = (place - centres[..., axis, None, None] for axis, place in enumerate((rows, columns)))
    far = sizes[..., None, None]
    discs = (down**2 + right**2 <= far**2) & (torch.rand(count, 4, 1, 1, generator=draw) < 0.6)
    bars = (down.abs() <= far) & (right.abs() <= 1.2)
    masks = discs[:, :2].any(1)
    images = (masks | bars[:, 2:].any(1)).float() + 0.4 * torch.randn(count, SIZE, SIZE, generator=draw)
    return images.unsqueeze(1), masks.float()


def twice(inputs, outputs):
    """Two convolutions with norms, the size kept."""
    parts = [(nn.Conv2d(n, outputs, 3, padding=1), nn.GroupNorm(4, outputs), nn.ReLU()) for n in (inputs, outputs)]
    return nn.Sequential(*(layer for part in parts for layer in part))


class UNet(nn.Module):
    """Two levels down, two up; each level up also sees what came down."""

    def __init__(self, width=8):
        super().__init__()
        self.down, self.below = twice(1, width), twice(width, 2 * width)
        self.bottom = twice(2 * width, 4 * width)
        self.up, self.above = twice(6 * width, 2 * width), twice(3 * width, width)
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, images):
        """Logits [n, SIZE, SIZE]."""
        first = self.down(images)
        second = self.below(F.max_pool2d(first, 2))
        x = F.interpolate(self.bottom(F.max_pool2d(second, 2)), scale_factor=2.0)
        x = F.interpolate(self.up(torch.cat([x, second], 1)), scale_factor=2.0)
        return self.head(self.above(torch.cat([x, first], 1))).squeeze(1)


class Discs(Workload):
    """400 images to train on, 150 each for validation and test."""

    batch_size = 8
    evaluation_batch_size = 50
    training_evaluation_examples = 150
    select_by = maximize("validation/dice", worth=0.005)
    fitted_when = at_least("training/dice", 0.88)
    not_averaged = ("common", "both")

    def data(self):
        return Splits(training=shapes(400, seed=0), validation=shapes(150, seed=1), test=shapes(150, seed=2))

    def model(self, point):
        return UNet()

    def loss(self, model, batch, point):
        images, masks = batch
        logits = model(images)
        loss = F.binary_cross_entropy_with_logits(logits, masks)
        if point["criterion"] == "with dice":
            likely = logits.sigmoid()
            loss = loss + 1 - 2 * (likely * masks).sum() / (likely.sum() + masks.sum() + 1)
        return loss

    def metrics(self, model, batch):
        images, masks = batch
        logits = model(images)
        found = (logits > 0).float()
        losses = F.binary_cross_entropy_with_logits(logits, masks, reduction="none").mean((1, 2))
        return {"loss": losses, "common": (found * masks).sum((1, 2)), "both": (found + masks).sum((1, 2))}

    def split_metrics(self, each):
        both = each["both"].sum()
        return {"dice": float(2 * each["common"].sum() / both) if both else None}


campaign = Campaign(
    Discs(),
    optimizer="rmsprop",
    schedule=polynomial(power=0.9),
    evaluations=20,
    sweep=Sweep(learning_rate=(1e-3, 3e-3, 1e-2, 3e-2), start_steps=100, max_steps=800, seeds=2),
    rounds=[
        Round("Does a loss with a Dice part pay?", trials=10, scientific=("criterion",), space=SearchSpace(
            criterion=choice("cross-entropy", "with dice"),
            learning_rate=log_uniform(3e-4, 1e-2),
        )),
        Round("The final model", promote=2, fresh=2),
    ],
)  # fmt: skip
