"""What goes into a trial of Lightning's and what comes out of it: batches of loaders, and what is logged.

In the middle of a pass Lightning itself goes on with the first batches of a new one. Here the generators are put back
to where the pass began, the batches that were taken are fetched again and left out, and the generators are put to where
they were.
"""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from tuner.delegated.kept import global_generators, set_global_generators
from tuner.errors import WorkloadError
from tuner.training.randomness import callers_generators_restored

DATA = {  # what the functions of a study file return
    "datamodule": "a LightningDataModule",
    "train_dataloaders": "a DataLoader, or several",
    "val_dataloaders": "a DataLoader, or several",
}
_LOOKED_AT = 4  # examples of a dataset that are fetched twice
_OF_A_LOADER = "/dataloader_idx_"  # Lightning's suffix where there are several
_PREFIX = re.compile(r"(?P<split>val(?:id(?:ation)?)?|dev|train(?:ing)?)[/_.\- ]+(?P<rest>.+)", re.IGNORECASE)


class Feed:
    """Stands for `loader`, with its attributes and its length.

    taken: batches of the pass at hand. sized: whether the number of batches is known; else Lightning fetches one batch
    ahead of the one that is trained with.
    """

    def __init__(self, loader: Any, device: torch.device, sized: bool) -> None:
        self.loader, self.device, self.sized = loader, device, sized
        self.taken = 0
        self._begun: dict[str, Any] | None = None  # generators where the pass began
        self._before: dict[str, Any] | None = None  # those before the newest batch
        self._going_on: Iterator[Any] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["loader"], name)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        """A pass; it begins with its first batch, not before."""
        going_on, self._going_on = self._going_on, None
        if going_on is None:
            self.taken, self._begun = 0, self._generators()
            going_on = iter(self.loader)
        while True:
            if not self.sized:
                self._before = self._generators()
            try:
                batch = next(going_on)
            except StopIteration:
                return
            self.taken += 1
            yield batch

    def state(self) -> dict[str, Any]:
        """Where the pass is, in plain values."""
        return {
            "taken": self.taken if self.sized else max(self.taken - 1, 0),
            "begun": self._begun,
            "before": self._before,
            "now": self._generators(),
        }

    def go_on(self, state: Mapping[str, Any], epoch: int) -> None:
        """Go on in the middle of a pass: the batches that were taken are fetched again, and left out."""
        if state["begun"] is None or not state["taken"]:
            return
        for sampler in self._samplers():
            if callable(set_epoch := getattr(sampler, "set_epoch", None)):
                set_epoch(epoch)
        self._set_generators(state["begun"])
        going_on = iter(self.loader)
        for number in range(state["taken"]):
            if next(going_on, self) is self:
                raise WorkloadError(
                    f"the train dataloader ends after {number} batches, and {state['taken']} of them were trained with "
                    "before the trial was stopped: it must give the same batches again"
                )
        if not self.sized:
            self._set_generators(state["before"])
        self.taken, self._begun, self._going_on = state["taken"], state["begun"], going_on

    def settle(self, state: Mapping[str, Any]) -> None:
        """Put the loader's own generators to where they were."""
        self._set_generators({"own": state["now"]["own"]})

    def _samplers(self) -> list[Any]:
        batch_sampler = getattr(self.loader, "batch_sampler", None)
        found = [getattr(self.loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None)]
        return [one for number, one in enumerate(found) if one is not None and one not in found[:number]]

    def _own(self) -> list[torch.Generator]:
        """The generators that the loader was given."""
        found = [getattr(one, "generator", None) for one in (self.loader, *self._samplers())]
        own = {id(one): one for one in found if isinstance(one, torch.Generator)}
        return list(own.values())

    def _generators(self) -> dict[str, Any]:
        return {"global": global_generators(self.device), "own": [one.get_state() for one in self._own()]}

    def _set_generators(self, state: Mapping[str, Any]) -> None:
        if "global" in state:
            set_global_generators(state["global"], self.device)
        for generator, held in zip(self._own(), state["own"], strict=True):
            generator.set_state(held)


def is_a(value: Any, kind: str) -> bool:
    """Whether its class, or a base of it, has this name: Lightning's classes are in two packages."""
    return any(one.__name__ == kind for one in type(value).__mro__)


def check_data(name: str, made: Mapping[str, Any]) -> None:
    """Raise WorkloadError for what is none of `DATA`, by the names of the functions that returned it."""
    for one, value in made.items():
        if not (is_a(value, "LightningDataModule") if one == "datamodule" else hasattr(value, "__iter__")):
            told = "None" if value is None else type(value).__name__
            raise WorkloadError(f"{name}: the function {one} must return {DATA[one]}, got {told}")


def draws_random_numbers(loader: Any, device: torch.device) -> int | None:
    """The index of an example that is another one when it is fetched again; None where none of a few is."""
    dataset: Any = getattr(loader, "dataset", None)
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        return None
    with callers_generators_restored(device):
        differ = (one for one in range(min(_LOOKED_AT, len(dataset))) if not _same(dataset[one], dataset[one]))
        return next(differ, None)


def _same(one: Any, other: Any) -> bool:
    """Whether two examples hold the same values; what cannot be compared is taken to be the same."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, Mapping):
        return all(_same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return not isinstance(one, int | float | str) or one == other


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


def noting_trainer(base: Any, read: set[str]) -> Any:
    """Lightning's Trainer; where the user's code asks it for its length, "max_steps" is put into `read`."""
    package = base.__module__.partition(".")[0]

    def noted(name: str) -> property:
        def value(trainer: Any) -> Any:
            caller = sys._getframe(1).f_globals.get("__name__", "")
            if not caller.startswith(f"{package}."):
                read.add("max_steps")
            return getattr(super(kind, trainer), name)

        return property(value)

    kind: Any = type(
        base.__name__, (base,), {name: noted(name) for name in ("max_steps", "estimated_stepping_batches")}
    )
    return kind
