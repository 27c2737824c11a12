"""The weights of an earlier stage, which the models of a later one start from (C1, C3, C7).

Nothing is loaded that is not named, and nothing that is named is left out: every entry of the state dict is carried or
fresh, and each that is carried is there with its shape, or it is an error.
"""

import difflib
import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from tuner.adapters.low_rank import adapter_tensors
from tuner.design.stages import START_FROM
from tuner.errors import CorruptCheckpoint, WorkloadError
from tuner.records.conclusions import Selected, StageStart
from tuner.training.checkpoints import DigestingFile, sync_folder, weights_as_file, weights_in, write_durably
from tuner.training.randomness import callers_generators_restored

FOLDER = "starts"  # of the copies of weights, below the checkpoint folder
MAPPED = "start.safetensors"  # a file of the carried weights, in the folder of a trial
_NESTED = ("state_dict", "model_state_dict", "model")  # where downloaded checkpoints have their weights
_PARAMETRIZED = (".parametrizations.", ".original")  # what torch's parametrizations put into a name
_NEAREST = 3  # names that an error proposes
_MOST_NAMES = 4  # that are listed
_MOST_SHAPES = 8  # of an untrained stage's models that are built

Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class HandOver:
    """What became of the names of a model and of an earlier stage: carried, fresh, and left behind.

    fresh: None where the model is not known, because a loop takes the weights by their names.
    """

    carried: tuple[str, ...]
    fresh: tuple[str, ...] | None
    left: tuple[str, ...]


class StartWeights:
    """The candidates of a start with their weights: in files, or, before they are copied, as the bytes of such files.

    Its methods raise CorruptCheckpoint for a file that is missing, or is not the one that was chosen.
    """

    def __init__(self, start: StageStart, files: tuple[Path, ...] = (), contents: tuple[bytes, ...] = ()) -> None:
        self.start = start
        self.files = files
        self._contents = contents
        self.handed: HandOver | None = None  # at the last model
        self._read: dict[int, Weights] = {}

    @property
    def identity(self) -> str:
        """All that decides the bits of a trial, as text."""
        return self.start.identity

    @property
    def words(self) -> str:
        """What models start from, and what of it is carried, for a person."""
        told = "starts from " + " or ".join(one.words for one in self.start.candidates)
        if self.handed is None:
            return told
        parts = (("carried", self.handed.carried), ("fresh", self.handed.fresh), ("left behind", self.handed.left))
        return f"{told}; " + "; ".join(f"{what}: {_listed(names)}" for what, names in parts if names is not None)

    def weights(self, candidate: int = 1) -> Weights:
        """The weights of a candidate, counted from 1, on the CPU; of one that is no candidate, of the best."""
        place = candidate - 1 if 1 <= candidate <= len(self.start.candidates) else 0
        if place not in self._read:
            self._read[place] = weights_in(self._content(place))
        return self._read[place]

    def checked(self) -> "StartWeights":
        """The same, once each file was read and found to be the one that was chosen."""
        for candidate in range(1, len(self.start.candidates) + 1):
            self.weights(candidate)
        return self

    def _content(self, place: int) -> bytes:
        if self._contents:
            return self._contents[place]
        return _content(self.files[place], self.start.candidates[place].digest)

    def mapped(self, point: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """The carried weights under the names that they have here, for a training that has no model of torch's.

        Without a model to compare with, nothing tells which of its parameters are fresh. Raises WorkloadError where
        the patterns leave nothing.
        """
        weights = self.weights(int(point.get(START_FROM, 1)))
        named = {self._name_here(plain_name(name)): tensor for name, tensor in weights.items()}
        found = {name: tensor for name, tensor in named.items() if self._is_carried(name)}
        if not found:
            raise _no_match(self.start.parameters, sorted(named), "no tensor of the weights")
        left = tuple(name for name in named if name not in found)
        self.handed = HandOver(tuple(found), None, left)
        return found

    def file_in(self, folder: Path, point: Mapping[str, Any]) -> Path:
        """A file of `mapped`, in the format of safetensors, which is written into a folder."""
        path = (folder / MAPPED).resolve()
        path.write_bytes(weights_as_file(self.mapped(point)))
        return path

    def into(self, model: torch.nn.Module, point: Mapping[str, Any]) -> None:
        """Carry the weights into a fresh model. Raises WorkloadError where one of them does not fit."""
        chosen = int(point.get(START_FROM, 1))
        weights, words = self.weights(chosen), self.start.candidates[max(0, chosen - 1)].words
        state = model.state_dict()
        adapters, scales = adapter_tensors(model)
        names = {name: plain_name(name) for name in state if isinstance(state[name], torch.Tensor)}
        carried = {name: self._name_there(plain) for name, plain in names.items() if self._is_carried(plain)}
        for name in [*carried]:  # an adapter is carried where there was one; its scale is that of the point here
            if name in scales or (name in adapters and carried[name] not in weights):
                del carried[name]
        if not carried:
            raise _no_match(self.start.parameters, sorted(set(names.values())))
        there = {plain_name(name): tensor for name, tensor in weights.items()}
        for name, source in carried.items():
            _check(name, state[name], source, there, words)
        with torch.no_grad():
            for name, source in carried.items():
                state[name].copy_(there[source])
        fresh = tuple(name for name in names if name not in carried)
        left = tuple(name for name in there if name not in set(carried.values()))
        self.handed = HandOver(tuple(carried), fresh, left)

    def _is_carried(self, name: str) -> bool:
        return matches(self.start.parameters, name) and not (self.start.fresh and matches(self.start.fresh, name))

    def _name_there(self, name: str) -> str:
        return _renamed(name, self.start.renamed.items())

    def _name_here(self, name: str) -> str:
        return _renamed(name, ((there, here) for here, there in self.start.renamed.items()))

    def to_data(self) -> dict[str, Any]:
        """Plain data for another process; `inherited_from` makes it the same again. Only of files."""
        return {"start": self.start.as_json(), "files": [str(file.resolve()) for file in self.files]}

    def kept_in(self, root: Path) -> "StartWeights":
        """The same, of copies in a checkpoint folder, which are made where they are not there yet."""
        found, files = [], []
        for place, one in enumerate(self.start.candidates):
            name = f"{FOLDER}/{one.digest[:32]}.safetensors"
            if not (root / name).exists():
                write_durably(root / name, _writing(self._content(place)))
                sync_folder((root / name).parent)
            found.append(replace(one, file=name))
            files.append(root / name)
        return StartWeights(replace(self.start, candidates=tuple(found)), tuple(files))


@dataclass(frozen=True, slots=True)
class Built:
    """A model as a point makes it."""

    model: torch.nn.Module
    point: Mapping[str, Any]


def check_foreseen(start: StageStart, earlier: Iterator[Built], later: Iterator[Built]) -> None:
    """Compare the model of a later stage with those of the earlier one, which are untrained as they are.

    One that fits is enough, and nothing is known where either has none, or the earlier one has very many. Raises
    WorkloadError where none has what is to be carried.
    """
    wrong: list[WorkloadError] = []
    with callers_generators_restored(torch.device("cpu")):
        here = next(later, None)
        if here is None:
            return
        for source in islice(earlier, _MOST_SHAPES + 1):
            foreseen = StartWeights(start)
            foreseen._read[0] = source.model.state_dict()  # as if a file of them was read
            try:
                foreseen.into(here.model, here.point)
            except WorkloadError as error:
                wrong.append(error)
            else:
                return
    if 1 <= len(wrong) <= _MOST_SHAPES:
        raise wrong[0]


def _listed(names: tuple[str, ...]) -> str:
    more = len(names) - _MOST_NAMES
    return f"{len(names)} ({', '.join(names[:_MOST_NAMES])}{', ...' if more > 0 else ''})" if names else "none"


def file_of_weights(path: Path, content: bytes) -> bytes:
    """The content of a file of weights as safetensors. Raises CorruptCheckpoint for a file that holds none."""
    try:
        if path.suffix == ".safetensors":
            weights_in(content)
            return content
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        return weights_as_file(_tensors_in(state))
    except Exception as error:  # classes of safetensors, of torch, and of what is no state dict
        raise CorruptCheckpoint(
            f"{path} holds no weights to start from ({type(error).__name__}: {error}): it has to be safetensors, "
            f"or a state dict that torch.save wrote, by itself or under {' or '.join(map(repr, _NESTED))}, without "
            "code. What holds more is read once by its own program, and model.state_dict() is saved"
        ) from error


def _tensors_in(state: Any) -> dict[str, torch.Tensor]:
    """The tensors of a state dict, which may lie within the dict of a checkpoint. Raises ValueError where it has none.

    A checkpoint of Lightning's, for one, has the weights under "state_dict", and optimizer states beside them.
    """
    if not isinstance(state, Mapping):
        raise ValueError(f"it is a {type(state).__name__}, and no dict")
    inner = next((state[name] for name in _NESTED if isinstance(state.get(name), Mapping)), state)
    found = {name: one for name, one in inner.items() if isinstance(name, str) and isinstance(one, torch.Tensor)}
    if not found:
        raise ValueError(f"it has no tensors; its keys are {', '.join(map(str, [*state][:_MOST_NAMES])) or 'none'}")
    return found


def inherited_from(data: Mapping[str, Any]) -> StartWeights:
    """The value that `StartWeights.to_data` wrote."""
    start = dict(data["start"])
    candidates = tuple(Selected(**one) for one in start.pop("candidates"))
    return StartWeights(StageStart(candidates, **start), tuple(Path(file) for file in data["files"]))


def matches(pattern: str, name: str) -> bool:
    """Whether a name of a state dict is one of a pattern's, which may be several with | between."""
    return any(fnmatchcase(name, part.strip()) for part in pattern.split("|"))


def plain_name(name: str) -> str:
    """The name of a tensor without what a parametrization puts into it: that of the tensor it stands for."""
    inside, ending = _PARAMETRIZED
    if inside.strip(".") in name.split(".") and name.endswith(ending):
        return f".{name}".replace(inside, ".", 1).removesuffix(ending).removeprefix(".")
    return name


def _content(path: Path, digest: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        why = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error}"
        raise CorruptCheckpoint(
            f"the weights that a stage starts from, {path}, {why}; put the file back, from a copy of the checkpoint "
            "folder say, or give the campaign another name to start from what the earlier stage selects today"
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        raise CorruptCheckpoint(
            f"the weights that a stage starts from, {path}, are not those that were chosen: sha256 {found[:12]}, "
            f"recorded {digest[:12]}; put the file back, or give the campaign another name to start from these"
        )
    return content


def _check(name: str, here: torch.Tensor, source: str, there: Weights, words: str) -> None:
    """Raise WorkloadError where a carried tensor is missing there, or has another shape."""
    called = name if source == plain_name(name) else f"{name} (there {source})"
    if source not in there:
        near = difflib.get_close_matches(source, list(there), n=_NEAREST, cutoff=0.5)
        has = f"; the nearest there: {', '.join(near)}" if near else ""
        raise WorkloadError(
            f"{called} is to be carried from {words}, which has no such tensor{has}. Name what is carried by "
            'parameters="encoder.*", what is not by fresh="head.*", and what has another name there by '
            'renamed={"here": "there"}'
        )
    if there[source].shape != here.shape:
        raise WorkloadError(
            f"{called} is to be carried from {words} and has the shape {tuple(here.shape)} here, "
            f"{tuple(there[source].shape)} there: build the same module, or leave it out by fresh={name!r}"
        )


def _renamed(name: str, beginnings: Iterable[tuple[str, str]]) -> str:
    """A name whose beginning is another one; "" is the beginning of every name."""
    for was, becomes in beginnings:
        if not was:
            return f"{becomes}.{name}".removeprefix(".")
        if name == was or name.startswith(f"{was}."):
            return f"{becomes}{name[len(was) :]}".removeprefix(".")
    return name


def _no_match(pattern: str, names: list[str], what: str = "no tensor of the model") -> WorkloadError:
    near = difflib.get_close_matches(pattern, names, n=_NEAREST, cutoff=0.3) or names[:_NEAREST]
    return WorkloadError(
        f"start_from carries {pattern!r}, and {what} has such a name; the nearest are {', '.join(near)}"
    )


def _writing(content: bytes) -> Callable[[DigestingFile], object]:
    return lambda file: file.write(content)
