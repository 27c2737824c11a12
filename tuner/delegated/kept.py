"""What a loop keeps: objects with a state, and generators of random numbers; as plain containers and tensors.

A checkpoint is read with `weights_only=True`, so that no code ever comes out of one. So a state may hold tensors,
numbers, texts and containers of these; NumPy's arrays and counters are written as such.
"""

import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch

from tuner.errors import WorkloadError
from tuner.training.best import snapshot
from tuner.training.endings import is_out_of_memory
from tuner.training.engine import Weights
from tuner.training.extra_state import frozen_parameters

_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_AS = "__as__"  # the key under which a plain dict says what it stands for
_GENERATORS = "random generators"


class Stateful(Protocol):
    """Anything that gives its state and takes it back, as modules, optimizers, schedulers and loaders do."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state: Any) -> Any: ...


def plain(value: Any, place: str) -> Any:
    """A value as plain containers, tensors, numbers and texts. Raises WorkloadError naming the place of what is not."""
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, np.generic | np.ndarray):
        return _plain_array(value, place)
    if isinstance(value, Mapping):
        return _plain_mapping(value, place)
    if isinstance(value, list | tuple):
        kept = [plain(held, f"{place}[{number}]") for number, held in enumerate(value)]
        return kept if isinstance(value, list) else tuple(kept)
    if isinstance(value, set | frozenset):
        return {_AS: "set", "values": sorted((plain(held, place) for held in value), key=repr)}
    if isinstance(value, torch.dtype):
        return {_AS: "dtype", "values": str(value).removeprefix("torch.")}
    if type(value) in _PLAIN:
        return value
    raise _no_checkpoint_holds(value, place)


def _plain_mapping(value: Mapping[Any, Any], place: str) -> dict[Any, Any]:
    if isinstance(value, Counter):
        return {_AS: "counter", "values": [(plain(key, place), count) for key, count in value.items()]}
    return {plain(key, place): plain(held, f"{place}[{key!r}]") for key, held in value.items()}


def _plain_array(value: Any, place: str) -> Any:
    if isinstance(value, np.generic):
        if type(number := value.item()) not in _PLAIN:  # a date, say, or of more digits than Python has
            raise _no_checkpoint_holds(value, place)
        return number
    try:
        tensor = torch.from_numpy(np.ascontiguousarray(value))
    except (TypeError, ValueError):  # texts, dates, objects, numbers of another byte order
        raise _no_checkpoint_holds(value, place) from None
    return {_AS: "array", "values": tensor, "shape": list(value.shape)}


def _no_checkpoint_holds(value: Any, place: str) -> WorkloadError:
    return WorkloadError(
        f"{place} is a {type(value).__name__}, which no checkpoint can hold: a kept state is made of tensors, arrays, "
        "numbers, texts and containers of these; leave it out of state_dict(), or write it to a file yourself "
        "(trial.keep_files)"
    )


def as_it_was(value: Any) -> Any:
    """The inverse of `plain`."""
    if isinstance(value, dict):
        kind = value.get(_AS)
        if kind == "array":
            return value["values"].numpy().reshape(value["shape"])
        if kind == "counter":
            return Counter(dict(value["values"]))
        if kind == "set":
            return set(as_it_was(value["values"]))
        if kind == "dtype":
            return getattr(torch, value["values"])
        return {key: as_it_was(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(as_it_was(held) for held in value)
    return value


class Weighted(ABC):
    """A kept object that gives the weights of the best steps itself, where they are not those of a kept module."""

    @abstractmethod
    def weights(self, into: Weights | None) -> Weights:
        """A copy of the weights, in the memory of an older copy where one is given that fits."""

    def frozen(self) -> Weights:
        """Those of the weights that are parameters and not trained, as they are."""
        return {}


class KeptObjects:
    """The objects that a loop keeps, by name; `restored` is what a checkpoint held of them.

    `replays`: names of what uses the other objects while it goes on where it was, as a loader uses generators.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.objects: dict[str, Any] = {}
        self.restored: dict[str, Any] | None = None
        self.generators: Any = None
        self.replays: set[str] = set()

    def add(self, name: str, value: Any) -> None:
        """Keep an object under a name, and give it the state that a checkpoint holds of it.

        Raises WorkloadError for what has no state, and where a state does not fit.
        """
        if not _is_generator(value) and not all(callable(getattr(value, one, None)) for one in _METHODS):
            raise WorkloadError(
                f"trial.keep({name}=...) takes objects with state_dict() and load_state_dict(), and generators of "
                f"torch, NumPy and Python, got {type(value).__name__}"
            )
        self.objects[name] = value
        if self.restored is not None and name in self.restored:
            self._load(name)

    def _load(self, name: str) -> None:
        value = self.objects[name]
        try:
            _load(value, as_it_was((self.restored or {})[name]), self.device)
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            raise WorkloadError(
                f"the checkpoint of this trial does not fit {name} ({type(value).__name__}): {error}; the code, or a "
                "library, has changed since it was written: undo that, or train under another --storage"
            ) from error

    def state(self) -> dict[str, Any]:
        """The state of all objects, and of the global generators."""
        held = {name: plain(_state_of(value), name) for name, value in self.objects.items()}
        return {**held, _GENERATORS: plain(global_generators(self.device), _GENERATORS)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Remember what a checkpoint holds, for the objects that will be kept."""
        self.restored = {name: held for name, held in state.items() if name != _GENERATORS}
        self.generators = state.get(_GENERATORS)

    def begin(self, *, generators: bool) -> None:
        """The first step begins: all is kept. Puts the generators where they were when the checkpoint was written.

        Raises WorkloadError where the checkpoint holds other objects than those that are kept now.
        """
        if self.restored is None:
            return
        missing, new = self.restored.keys() - self.objects.keys(), self.objects.keys() - self.restored.keys()
        if missing or new:
            said = [f"{', '.join(sorted(missing))}: in the checkpoint, and not kept"] * bool(missing)
            said += [f"{', '.join(sorted(new))}: kept, and not in the checkpoint"] * bool(new)
            raise WorkloadError(
                f"this trial cannot go on, because the loop keeps other objects than when it was saved "
                f"({'; '.join(said)}); keep the same ones, before the first step, or train under another --storage"
            )
        if generators:
            self._restore_generators()
        self.restored = None

    def _restore_generators(self) -> None:
        for name, value in self.objects.items():
            if self.replays and _is_generator(value):  # batches that were discarded may have drawn from it
                self._load(name)
        if self.generators is not None:
            set_global_generators(as_it_was(self.generators), self.device)

    def weights(self, into: Weights | None = None) -> Weights:
        """A copy of the weights of all modules; of several with the name of each in front."""
        for value in self.objects.values():
            if isinstance(value, Weighted):
                return value.weights(into)
        modules = self._modules()
        if len(modules) == 1:
            return snapshot(next(iter(modules.values())), into)
        return {f"{name}.{key}": held for name, one in modules.items() for key, held in snapshot(one).items()}

    def frozen(self) -> Weights:
        """Those of the weights that are parameters and not trained, as they are: no copies."""
        for value in self.objects.values():
            if isinstance(value, Weighted):
                return value.frozen()
        modules = self._modules()
        if len(modules) == 1:
            return frozen_parameters(next(iter(modules.values())))
        return {f"{name}.{key}": held for name, one in modules.items() for key, held in frozen_parameters(one).items()}

    def _modules(self) -> dict[str, torch.nn.Module]:
        return {name: value for name, value in self.objects.items() if isinstance(value, torch.nn.Module)}


_METHODS = ("state_dict", "load_state_dict")


def _is_generator(value: Any) -> bool:
    return isinstance(value, torch.Generator | np.random.Generator | np.random.RandomState | random.Random)


def _state_of(value: Any) -> Any:
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, np.random.Generator):
        return value.bit_generator.state
    if isinstance(value, np.random.RandomState):
        return value.get_state(legacy=False)
    if isinstance(value, random.Random):
        return value.getstate()
    return value.state_dict()


def _load(value: Any, state: Any, device: torch.device) -> None:
    if isinstance(value, torch.Generator):
        value.set_state(state)
    elif isinstance(value, np.random.Generator):
        value.bit_generator.state = state
    elif isinstance(value, np.random.RandomState):
        value.set_state(state)
    elif isinstance(value, random.Random):
        value.setstate(state)
    else:
        value.load_state_dict(state)


def global_generators(device: torch.device) -> dict[str, Any]:
    """The states of the global generators of torch, NumPy and Python, and of the device; as `as_it_was` has them."""
    return {
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state(legacy=False),
        "python": random.getstate(),
        **({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}),
    }


def set_global_generators(state: Mapping[str, Any], device: torch.device) -> None:
    """Put the global generators to where they were."""
    torch.set_rng_state(state["torch"])
    np.random.set_state(state["numpy"])
    random.setstate(state["python"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
