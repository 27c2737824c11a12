"""What a LightningModule logs, as metrics: "val_loss" of a validation is "validation/loss".

Of training it is the mean over the batches since the last evaluation; of validation what Lightning makes of it, over
the whole of each dataloader.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from tuner.errors import WorkloadError

_OF_A_LOADER = "/dataloader_idx_"  # Lightning's suffix where there are several
_PREFIX = re.compile(r"(?P<split>val(?:id(?:ation)?)?|dev|train(?:ing)?)[/_.\- ]+(?P<rest>.+)", re.IGNORECASE)


def _parted(name: str) -> tuple[str, str]:
    """The split that a name begins with, or "", and what follows."""
    found = _PREFIX.fullmatch(name)
    if found is None:
        return "", name
    return "training" if found["split"].lower().startswith("train") else "validation", found["rest"]


def trained_name(name: str) -> str:
    """The metric of what was logged in a training step: "train_loss" and "loss" are "training/loss"."""
    split, rest = _parted(name)
    return f"training/{rest if split == 'training' else name}"


def validated_name(name: str, evaluated: Sequence[str]) -> str:
    """The metric of what was logged in a validation. `evaluated`: the split of each dataloader, of several.

    A value of one dataloader is of its split; else the name says it, and a name that does not is of validation.
    """
    logged, _, number = name.partition(_OF_A_LOADER)
    split, rest = _parted(logged)
    if number and evaluated:
        split = evaluated[int(number)]
    return f"{split or 'validation'}/{rest}"


class Logged:
    """What was logged since the last evaluation.

    sums: total and number of values by metric, of training batches. names: what was logged in the validation at hand.
    """

    def __init__(self, module: str, evaluated: Sequence[str]) -> None:
        self.module, self.evaluated = module, evaluated
        self.sums: dict[str, list[Any]] = {}
        self.names: set[str] = set()
        self.validated: dict[str, Any] = {}

    def trained(self, name: str, value: Any) -> None:
        """Count a value of a training batch; what is no single number, as an object of torchmetrics, is left out."""
        if isinstance(value, torch.Tensor):
            if value.numel() != 1:
                return
            value = value.detach()
            number: Any = value.item() if value.device.type == "cpu" else value.float().reshape(())
        elif isinstance(value, int | float):
            number = float(value)
        else:
            return
        held = self.sums.setdefault(name, [0.0, 0])
        held[0], held[1] = held[0] + number, held[1] + 1

    def take(self, values: Mapping[str, Any]) -> None:
        """Note the metrics of the validation that has just ended. Raises WorkloadError where two are called alike."""
        known: dict[str, str] = {}
        self.validated = {}
        for name, value in values.items():
            if name.partition(_OF_A_LOADER)[0] not in self.names:
                continue
            metric = validated_name(name, self.evaluated)
            if metric in known:
                raise WorkloadError(
                    f"{self.module} logs {known[metric]!r} and {name!r}, which are both {metric}: log one of them, or "
                    "name them apart"
                )
            known[metric], self.validated[metric] = name, value
        self.names = set()

    def metrics(self) -> dict[str, Any]:
        """All metrics of this evaluation; then counting begins from nothing."""
        trained = {trained_name(name): total / count for name, (total, count) in self.sums.items()}
        found, self.sums, self.validated = {**trained, **self.validated}, {}, {}
        return found
