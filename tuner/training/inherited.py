"""The weights of an earlier stage, which the models of a later one start from (C1, C3, C7).

Nothing is loaded that is not named, and nothing that is named is left out: every entry of the state dict is carried or
fresh, and each that is carried is there with its shape, or it is an error.
"""

import hashlib
import io
import secrets
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from tuner.adapters.low_rank import SCALE, adapter_tensors
from tuner.design.adapters import RANKS
from tuner.design.names import Name
from tuner.design.stages import START_FROM
from tuner.errors import CorruptCheckpoint, Paused, StorageError, WorkloadError
from tuner.records.conclusions import Selected, StageStart
from tuner.stores.digesting import DigestingFile
from tuner.stores.places import StoredPath, parsed_root
from tuner.stores.writing import sync_folder, write_durably
from tuner.training.carrying import Weights, carry, missing, no_match, parts_of, renamed, tied_names
from tuner.training.checkpoints import is_inside, weights_as_file, weights_in
from tuner.training.compiled import without_compiler
from tuner.training.extra_state import SUFFIX, as_bytes, dense, is_plain, state_dict_of
from tuner.training.randomness import callers_generators_restored

FOLDER = "starts"  # of the copies of weights, below the checkpoint folder
MAPPED = "start.safetensors"  # a file of the carried weights, in the folder of a trial
_NESTED = ("state_dict", "model_state_dict", "model")  # where downloaded checkpoints have their weights
_PARAMETRIZED = (".parametrizations.", ".original")  # what torch's parametrizations put into a name
_ADAPTER = "lora_"  # in the names of what an adapter trains
_MOST_NAMES = 4  # that are listed
_MOST_SHAPES = 8  # of an untrained stage's models that are built


@dataclass(frozen=True, slots=True)
class HandOver:
    """What became of the names of a model and of an earlier stage: carried, fresh, and left behind.

    fresh: None where the model is not known, because a loop takes the weights by their names. converted: those of the
    carried whose numbers have another precision here.
    """

    carried: tuple[str, ...]
    fresh: tuple[str, ...] | None
    left: tuple[str, ...]
    converted: tuple[str, ...] = ()


class StartWeights:
    """The candidates of a start with their weights: in files, or, before they are copied, as the bytes of such files.

    Its methods raise CorruptCheckpoint for a file that is missing, or is not the one that was chosen.
    """

    def __init__(self, start: StageStart, files: tuple[StoredPath, ...] = (), contents: tuple[bytes, ...] = ()) -> None:
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
        told += "; " + "; ".join(f"{what}: {_listed(names)}" for what, names in parts if names is not None)
        return told + (f"; in another precision: {_listed(self.handed.converted)}" if self.handed.converted else "")

    def weights(self, candidate: int = 1) -> Weights:
        """The weights of a candidate, counted from 1, on the CPU; of one that is no candidate, of the best."""
        place = candidate - 1 if 1 <= candidate <= len(self.start.candidates) else 0
        if place not in self._read:
            self._read[place] = dict(sorted(weights_in(self._content(place)).items()))  # files have no order
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
        chosen = self._chosen(named, "no tensor of the weights")
        found = {name: tensor for name, tensor in named.items() if name in chosen}
        if not found:
            raise no_match(self.start.parameters, named, "no tensor of the weights")
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
        names = {name: plain_name(name) for name in state}
        there = {plain_name(name): name for name in weights}
        carried = self._carried(names)
        adapters, scales = adapter_tensors(model)
        for name in [*carried]:  # an adapter is carried where there was one; its scale is that of the point here
            if name in scales or (name in adapters and carried[name] not in there):
                del carried[name]
        if not carried:
            raise no_match(self.start.parameters, set(names.values()))
        ties = tied_names(state)
        by_tie = _by_tie(carried, ties, there)
        for name, source in carried.items():
            if source not in there and name not in by_tie:
                raise missing(name if source == names[name] else f"{name} (there {source})", source, there, words)
            if source in there:
                _refuse_parametrized(name, there[source], names[name], words)
        taken = {name: there[source] for name, source in carried.items() if source in there}
        _refuse_lost_adapters(taken, self._left_but_named(taken, there), words)
        other = carry(model, state, weights, taken, words)
        held = {ties[name] for name in carried}
        whole = tuple(name for name in names if ties[name] in held)
        fresh = tuple(name for name in names if ties[name] not in held)
        left = tuple(name for name, source in there.items() if source not in set(taken.values()))
        self.handed = HandOver(whole, fresh, left, tuple(other))

    def _carried(self, names: Mapping[str, str]) -> dict[str, str]:
        """By the names of a state those that are carried, each with what it is called there."""
        plain = self._chosen(set(names.values()))
        return {name: self._name_there(one) for name, one in names.items() if one in plain}

    def _chosen(self, names: Collection[str], what: str = "no tensor of the model") -> set[str]:
        """The names that are carried. Raises WorkloadError for a part of the pattern that means none of them."""
        parts = parts_of(self.start.parameters, names)
        for part, found in parts.items():
            if not found:
                raise no_match(part, names, what)
        fresh = parts_of(self.start.fresh, names)
        return set().union(*parts.values()) - set().union(*fresh.values())

    def _left_but_named(self, taken: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
        """What is left behind although the patterns name it."""
        left = {self._name_here(name): source for name, source in there.items() if source not in set(taken.values())}
        meant = [set().union(*parts_of(one, left).values()) for one in (self.start.parameters, self.start.fresh)]
        return [left[name] for name in sorted(meant[0] - meant[1])]

    def _name_there(self, name: str) -> str:
        return renamed(name, self.start.renamed)

    def _name_here(self, name: str) -> str:
        return renamed(name, {there: here for here, there in self.start.renamed.items()})

    def to_data(self) -> dict[str, Any]:
        """Plain data for another process; `inherited_from` makes it the same again. Only of files."""
        return {"start": self.start.as_json(), "files": [str(file.resolve()) for file in self.files]}

    def kept_in(self, root: StoredPath) -> "StartWeights":
        """The same, of copies in a checkpoint folder, which are made where they are not there yet."""
        found: list[Selected] = []
        files: list[StoredPath] = []
        for place, one in enumerate(self.start.candidates):
            name = f"{FOLDER}/{one.digest[:32]}.safetensors"
            if not _is_there(root / name, one.digest):
                self._copy_to(root / name, place)
            if isinstance(root, Path):
                _clear_copies(root / name)
            found.append(replace(one, file=name))
            files.append(root / name)
        return StartWeights(replace(self.start, candidates=tuple(found)), tuple(files))

    def _copy_to(self, path: StoredPath, place: int) -> None:
        if not is_inside(path.parent, path.parent.parent):
            raise StorageError(f"{path.parent} leads out of the checkpoint folder; remove the link there")
        try:
            write_durably(path, _writing(self._content(place)), secrets.token_hex(4), replace=True)
        except FileNotFoundError:  # who copied the same at the same time was done first, and took ours for a leftover
            if not _is_there(path, self.start.candidates[place].digest):
                raise
        sync_folder(path.parent)


def _is_there(path: StoredPath, digest: str) -> bool:
    """Whether a copy was made before, and is whole."""
    try:
        return not path.is_symlink() and hashlib.sha256(path.read_bytes()).hexdigest() == digest
    except Paused:
        raise
    except OSError:
        return False


def _clear_copies(path: Path) -> None:
    """Delete what was left by who was killed while copying."""
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        with suppress(OSError):  # it costs room, and no trial
            left.unlink()


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
        point = {name: value for name, value in here.point.items() if name != START_FROM}  # all candidates are alike
        for source in islice(earlier, _MOST_SHAPES + 1):
            foreseen = StartWeights(start)
            foreseen._read[0] = state_dict_of(source.model)  # as if a file of them was read
            try:
                foreseen.into(here.model, point)
            except WorkloadError as error:
                wrong.append(error)
            else:
                wrong.clear()
                break
        if any(Name.of(name).short in RANKS for name in point):
            deque(later, maxlen=0)  # a rank may be too large for a layer, which with_lora says
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


def _tensors_in(state: Any) -> Weights:
    """The tensors of a state dict, which may lie within the dict of a checkpoint. Raises ValueError where it has none.

    A checkpoint of Lightning's, for one, has the weights under "state_dict", and optimizer states beside them.
    """
    if not isinstance(state, Mapping):
        raise ValueError(f"it is a {type(state).__name__}, and no dict")
    inner = next((state[name] for name in _NESTED if isinstance(state.get(name), Mapping)), state)
    found = {name: _as_plain(one) for name, one in inner.items() if _is_weight(name, one)}
    if not found:
        raise ValueError(f"it has no tensors; its keys are {', '.join(map(str, [*state][:_MOST_NAMES])) or 'none'}")
    return _apart(found)


def _is_weight(name: object, value: object) -> bool:
    return isinstance(name, str) and (isinstance(value, torch.Tensor) or name.endswith(SUFFIX))


def _as_plain(value: object) -> torch.Tensor:
    """A value of a state dict as checkpoints hold it."""
    if not isinstance(value, torch.Tensor):
        return as_bytes(value)
    return dense(value) if is_plain(value) else as_bytes(value.detach())


def _apart(weights: Weights) -> Weights:
    """The same, where those that are tied, or lie in one memory, have a memory each."""
    seen: set[int] = set()
    found = {}
    for name, tensor in weights.items():
        place = tensor.untyped_storage().data_ptr()
        found[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return found


def inherited_from(data: Mapping[str, Any]) -> StartWeights:
    """The value that `StartWeights.to_data` wrote."""
    start = dict(data["start"])
    candidates = tuple(Selected(**one) for one in start.pop("candidates"))
    return StartWeights(StageStart(candidates, **start), tuple(parsed_root(file) for file in data["files"]))


def plain_name(name: str) -> str:
    """The name of a tensor without what a parametrization or compiling puts into it: that of what it stands for."""
    name = without_compiler(name)
    inside, ending = _PARAMETRIZED
    if inside.strip(".") in name.split(".") and name.endswith(ending):
        return f".{name}".replace(inside, ".", 1).removesuffix(ending).removeprefix(".")
    return name


def _content(path: StoredPath, digest: str) -> bytes:
    try:
        content = path.read_bytes()
    except Paused:  # a store that does not answer says nothing of the file
        raise
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


def _by_tie(carried: Mapping[str, str], ties: Mapping[str, str], there: Collection[str]) -> set[str]:
    """Names that are missing there, and are one tensor with another that is not."""
    found = {ties[name] for name, source in carried.items() if source in there}
    return {name for name, source in carried.items() if source not in there and ties[name] in found}


def _refuse_parametrized(name: str, source: str, plain: str, words: str) -> None:
    """Raise WorkloadError where a weight would become what a parametrization there only computes it from."""
    if without_compiler(source) != plain_name(source) and without_compiler(name) == plain:
        raise WorkloadError(
            f"{name} is to be carried from {words}, where a parametrization computes it from {source}: register the "
            "same one in model(point), or end that stage without it (torch.nn.utils.parametrize."
            f"remove_parametrizations), or leave it out by fresh={name!r}"
        )


def _refuse_lost_adapters(taken: Mapping[str, str], left: Sequence[str], words: str) -> None:
    """Raise WorkloadError where a weight is carried without the adapters that were trained for it."""
    owners = {source.rpartition(".")[0] for source in taken.values()}
    lost = [
        name
        for name in left
        if name.rpartition(".")[0] in owners and _ADAPTER in name.rpartition(".")[2] and not name.endswith(SCALE)
    ]
    if lost:
        raise WorkloadError(
            f"{words} was trained with adapters, and {lost[0]} has no place in the model: its weight alone is that of "
            "before. Add with_lora(...) of the same rank in model(point); or start from merged weights, which tuner "
            "best NAME --export FILE --as merged writes, by weights_from(FILE); or leave the adapters behind by "
            'fresh="*lora_*"'
        )


def _writing(content: bytes) -> Callable[[DigestingFile], object]:
    return lambda file: file.write(content)
