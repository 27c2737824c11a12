"""An endless iterator over a loader that goes on exactly where it was: in the middle of a pass, with the same order.

A loader with a state of its own gives and takes that. Of any other it is remembered where the generators of random
numbers stood at the beginning of the pass: a resumed trial puts them back, begins the pass again, discards the batches
that were used, and puts the generators to where they were when it was saved.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from tuner.delegated.kept import global_generators, set_global_generators
from tuner.errors import WorkloadError

_STATE = ("state_dict", "load_state_dict")


class Batches:
    """The batches of `loader`, pass after pass. `passes`: those that are over; `taken`: batches of the one at work.

    alive: called for every batch that is discarded. Raises WorkloadError for what cannot be iterated again.
    """

    def __init__(self, loader: Any, name: str, device: torch.device, alive: Callable[[], None]) -> None:
        self.loader, self.name, self.device, self.alive = loader, name, device, alive
        self.passes = self.taken = 0
        self._from = 0, 0  # passes and batches, where the trial was begun or resumed
        self._iterator: Iterator[Any] | None = None
        self._begin: dict[str, Any] = {}  # the generators at the beginning of the pass
        self._has_state = has_state(loader)
        self._generators = _generators_of(loader)
        if not hasattr(loader, "__iter__") and not hasattr(loader, "__getitem__"):
            raise WorkloadError(
                f"trial.batches takes a DataLoader or anything else to iterate over, not {type(loader).__name__}"
            )
        if getattr(loader, "persistent_workers", False) and not self._has_state:
            raise WorkloadError(
                "trial.batches: this DataLoader has persistent_workers=True, and the random numbers of a process that "
                "lives through several passes cannot be put back when a trial is resumed; leave it out"
            )

    @property
    def drawn(self) -> bool:
        """Whether any batch was taken since the trial was begun or resumed."""
        return self._from != (self.passes, self.taken)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        """The next batch; at the end of a pass the first one of the next."""
        if self._iterator is None:
            self._iterator = self._started()
        try:
            batch = next(self._iterator)
        except StopIteration:
            self._end_pass()
            return next(self)
        self.taken += 1
        return batch

    def _end_pass(self) -> None:
        if not self.taken:
            raise WorkloadError(
                f"trial.batches({self.name}): a pass over {type(self.loader).__name__} gives no batch"
                + " (an iterator is used up after one; give the loader itself)" * hasattr(self.loader, "__next__")
            )
        self.passes, self.taken, self._iterator = self.passes + 1, 0, None

    def _started(self) -> Iterator[Any]:
        """Begin a pass."""
        self._set_epoch()
        if not self._has_state:
            self._begin = self._states()
        return iter(self.loader)

    def _set_epoch(self) -> None:
        """Tell samplers and datasets that shuffle by the number of the pass which one it is."""
        for part in _parts_of(self.loader):
            if callable(told := getattr(part, "set_epoch", None)):
                told(self.passes)

    def _states(self) -> dict[str, Any]:
        return {"own": [one.get_state() for one in self._generators], "global": global_generators(self.device)}

    def _set(self, states: dict[str, Any]) -> None:
        for generator, state in zip(self._generators, states["own"], strict=True):
            generator.set_state(state)
        set_global_generators(states["global"], self.device)

    def state_dict(self) -> dict[str, Any]:
        """Where it is, as plain containers."""
        place = {"passes": self.passes, "taken": self.taken}
        if self._has_state:
            return {**place, "loader": self.loader.state_dict()}
        return {**place, "begin": self._begin, "own": [one.get_state() for one in self._generators]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where it was. The global generators are left as they are. Raises WorkloadError where that is too far.

        Raises LookupError or ValueError where the state is that of another kind of loader.
        """
        self.passes, self.taken = self._from = state["passes"], state["taken"]
        now = global_generators(self.device)
        try:
            if self._has_state:
                self._set_epoch()
                self.loader.load_state_dict(state["loader"])
                self._iterator = iter(self.loader) if self.taken else None
            else:
                self._forward(state)
        finally:
            set_global_generators(now, self.device)

    def _forward(self, state: dict[str, Any]) -> None:
        if self.taken:
            self._begin = state["begin"]
            self._set_epoch()
            self._set(self._begin)
            self._iterator = iter(self.loader)
            for number in range(self.taken):
                self.alive()
                if next(self._iterator, self) is self:
                    raise WorkloadError(
                        f"trial.batches({self.name}): the trial goes on after {self.taken} batches of a pass, and the "
                        f"loader gives {number} now: other data, or another batch size, than when it was saved"
                    )
        for generator, one in zip(self._generators, state["own"], strict=True):
            generator.set_state(one)


def has_state(loader: Any) -> bool:
    """Whether a loader gives and takes its own state; one of Accelerate's has the methods, and may refuse them."""
    able = getattr(loader, "use_stateful_dataloader", True)
    return bool(able) and all(callable(getattr(loader, one, None)) for one in _STATE)


def _parts_of(loader: Any) -> list[Any]:
    """The loader, its samplers and its dataset, each once."""
    parts = [loader]
    for name in ("batch_sampler", "sampler", "dataset"):
        parts += [held for part in list(parts) if (held := getattr(part, name, None)) is not None]
    return list({id(part): part for part in parts}.values())


def _generators_of(loader: Any) -> list[torch.Generator]:
    """The generators of torch that a loader and its samplers hold, each once."""
    held = [getattr(part, "generator", None) for part in _parts_of(loader)]
    return list({id(one): one for one in held if isinstance(one, torch.Generator)}.values())
