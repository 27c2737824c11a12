"""Problems with a planted answer: 64 numbers that are 4 hidden ones, mixed, and noise; labels know the hidden ones.

Unlabelled examples tell which 4 of 64 dimensions matter, so a linear autoencoder of width 4 is worth a lot where labels
are few. Several problems are trained at once, as one model whose parts do not meet: the loss is the sum of theirs, and
Adam treats each number for itself.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import nn

from tuner import Splits, Workload, minimize

DIMENSIONS, HIDDEN, UNLABELLED, EXAMPLES, NOISE = 64, 4, 2000, 3000, 2.0


@cache
def planted(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Examples [EXAMPLES, DIMENSIONS] and labels [EXAMPLES] of 0 and 1 of the problem with this seed, in float32."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(EXAMPLES, HIDDEN, generator=generator)
    mixing = torch.randn(HIDDEN, DIMENSIONS, generator=generator)
    seen = hidden @ mixing + NOISE * torch.randn(EXAMPLES, DIMENSIONS, generator=generator)
    return seen, (hidden @ torch.randn(HIDDEN, generator=generator) > 0).float()


class Linears(nn.Module):
    """A linear map without offset for each problem: [n, problems, width] to [n, problems, outputs]."""

    def __init__(self, problems: int, width: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(problems, outputs, width) / width**0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("npi,poi->npo", x, self.weight)


class Planted(Workload):
    """What both stages share: the problems with these seeds."""

    def __init__(self, seeds=(0,)):
        self.seeds = seeds

    def examples(self):
        """Examples [n, problems, DIMENSIONS] and labels [n, problems] of all problems."""
        seen, labels = zip(*(planted(seed) for seed in self.seeds), strict=True)
        return torch.stack(seen, 1), torch.stack(labels, 1)


class Compressing(Planted):
    """Stage one: through 4 numbers and back, without labels."""

    batch_size = 100
    select_by = minimize("validation/error")
    training_evaluation_examples = 200

    def data(self):
        seen, _ = self.examples()
        return Splits(training=(seen[:UNLABELLED],), validation=(seen[UNLABELLED:],))

    def model(self, point):
        parts = len(self.seeds)
        return nn.ModuleDict({
            "encoder": Linears(parts, DIMENSIONS, HIDDEN), "decoder": Linears(parts, HIDDEN, DIMENSIONS)
        })  # fmt: skip

    def loss(self, model, batch, point):
        return self.errors(model, batch).sum(1).mean()

    def metrics(self, model, batch):
        return {"error": self.errors(model, batch).mean(1)}

    def errors(self, model, batch):
        return (model["decoder"](model["encoder"](batch[0])) - batch[0]).square().mean(2)


class Labelled(Planted):
    """Stage two: `labels` examples with their labels; point["encoder"] is "frozen" or "trained"."""

    select_by = minimize("validation/loss")

    def __init__(self, seeds=(0,), labels=30):
        super().__init__(seeds)
        self.labels = self.batch_size = labels

    def data(self):
        seen, labels = self.examples()
        few, held_out = slice(0, self.labels), slice(UNLABELLED, None)
        return Splits(training=(seen[few], labels[few]), validation=(seen[held_out], labels[held_out]))

    def model(self, point):
        parts = len(self.seeds)
        model = nn.ModuleDict({"encoder": Linears(parts, DIMENSIONS, HIDDEN), "head": Linears(parts, HIDDEN, 1)})
        model["encoder"].requires_grad_(point["encoder"] == "trained")
        return model

    def loss(self, model, batch, point):
        return self.losses(model, batch)[0].sum(1).mean()

    def metrics(self, model, batch):
        losses, wrong = self.losses(model, batch)
        each = {f"wrong_{seed}": wrong[:, part] for part, seed in enumerate(self.seeds)}
        return {"loss": losses.mean(1), **each}

    def losses(self, model, batch):
        """Cross-entropy [n, problems], and whether the answer is wrong."""
        seen, labels = batch
        logits = model["head"](model["encoder"](seen)).squeeze(2)
        return F.binary_cross_entropy_with_logits(logits, labels, reduction="none"), (logits > 0) != (labels > 0)
