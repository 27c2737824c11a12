"""Which photograph is a tile from, the temple or the flower? Random crops of JPEGs, fetched by loading processes.

How much weight decay does a small convolutional net need beside random crops and flips? The dataset draws a new crop
in each epoch, so the training set is never fitted, and the length is declared in epochs.
"""

import io
import random

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import nn

from tuner import Campaign, Round, SearchSpace, Splits, Workload, cosine, epochs, log_uniform, minimize

TILE, CROP, STRIDE = 40, 32, 16  # pixels


class Tiles(torch.utils.data.Dataset):
    """Tiles as JPEG files in memory. In training each is cropped and mirrored at random, else cropped in the middle."""

    def __init__(self, columns, *, training):
        self.training = training
        self.examples = [
            (as_jpeg(photograph[top : top + TILE, left : left + TILE]), label)
            for label, name in enumerate(("china.jpg", "flower.jpg"))
            for photograph in [load_sample_image(name)]
            for left in range(columns.start, columns.stop - TILE + 1, STRIDE)
            for top in range(0, len(photograph) - TILE + 1, STRIDE)
        ]

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        file, label = self.examples[index]
        image, margin = Image.open(io.BytesIO(file)), TILE - CROP
        left, top = (random.randint(0, margin), random.randint(0, margin)) if self.training else (margin // 2,) * 2
        image = image.crop((left, top, left + CROP, top + CROP))
        if self.training and random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return torch.from_numpy(np.asarray(image).transpose(2, 0, 1) / np.float32(255)), label


def as_jpeg(pixels):
    """Pixels [height, width, 3] as the bytes of a file."""
    file = io.BytesIO()
    Image.fromarray(pixels).convert("L").convert("RGB").save(file, "JPEG", quality=60)  # grey: colour gives it away
    return file.getvalue()


def block(inputs, outputs):
    """Convolution, norm and pooling: half the size."""
    return (nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2))


class Photographs(Workload):
    """About 1,000 tiles to train on; validation and test have columns of their own, which no training tile touches."""

    batch_size = 32
    training_evaluation_examples = 256
    data_workers = 2  # decode, crop and collate ahead; the bits are those of 0
    select_by = minimize("validation/loss", worth=0.01)

    def data(self):
        return Splits(
            training=Tiles(range(384), training=True),
            validation=Tiles(range(384, 512), training=False),
            test=Tiles(range(512, 640), training=False),
        )

    def model(self, point):
        body = nn.Sequential(*block(3, 12), *block(12, 24), *block(24, 48))
        return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 2))

    def loss(self, model, batch, point):
        images, labels = batch
        return F.cross_entropy(model(images), labels)

    def metrics(self, model, batch):
        images, labels = batch
        logits = model(images)
        return {"loss": F.cross_entropy(logits, labels, reduction="none"), "error_rate": logits.argmax(-1) != labels}


campaign = Campaign(
    Photographs(),
    optimizer="sgd",
    schedule=cosine(),
    evaluations=20,
    production_steps=epochs(10),
    rounds=[
        Round("How much weight decay beside random crops?", trials=10, max_train_steps=epochs(5), space=SearchSpace(
            learning_rate=log_uniform(3e-3, 0.3),
            weight_decay=log_uniform(1e-5, 1e-2),
            momentum=0.9,
        )),
        Round("The final model", promote=2, fresh=2),
    ],
)  # fmt: skip
