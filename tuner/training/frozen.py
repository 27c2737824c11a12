"""Frozen parameters: written once, into a base file, and left out of every checkpoint of every trial that has them.

A base file is named after the values in it, so all trials of a study that start from one pretrained model share one.
It is durable before a checkpoint that needs it is written. Only what is at the moment of saving what the trial began
with is left out; a frozen parameter that something has changed since is in each checkpoint itself.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Any

import torch

from tuner.records import FROZEN_FOLDER, BaseFile, Checkpoint
from tuner.stores.places import StoredPath
from tuner.training.checkpoints import CheckpointFolder, weights_as_file, weights_in
from tuner.training.copy_on_write import address, pieces, same_bits, shown_elsewhere, shown_whole
from tuner.training.extra_state import is_plain
from tuner.training.left_out import PartedWeights, base_named_by, with_base, with_marks

logger = logging.getLogger(__name__)

LEAST_BYTES = 64 * 2**10  # [P] fewer frozen bytes stay in the checkpoints: a file more is not worth them
Tensors = Mapping[str, torch.Tensor]
Known = dict[tuple[object, ...], str]  # digests by the memory of a tensor


@dataclass(frozen=True, slots=True)
class _Written:
    """A base file with the names in it, and what its path showed when it was looked at."""

    file: BaseFile
    names: frozenset[str]
    path: StoredPath
    seen: tuple[int, ...]

    def is_there(self) -> bool:
        """Whether the file is the one that was looked at."""
        return bool(self.seen) and _seen(self.path) == self.seen


class FrozenParts:
    """What of a trial is frozen, as digests of what it began with, and the base file that has it.

    `begun`: the frozen parameters by name before the first step. Nothing is left out where they are few bytes.
    Checkpoints may be written by a thread while the trial trains.
    """

    def __init__(self, folder: CheckpointFolder, number: int, begun: Tensors) -> None:
        self.folder = folder
        self.number = number
        self._written: _Written | None = None
        self._lock = Lock()
        self.digests: dict[str, str] = {}
        self._begun: dict[str, torch.Tensor] = {}
        self.names: tuple[str, ...] = ()
        self.begin(begun)

    def begin(self, begun: Tensors) -> None:
        """Note what the trial begins with; again where a loop makes its model later than its trial."""
        self.names = tuple(begun)
        if left_out_bytes(begun):
            fitting = {name: tensor for name, tensor in begun.items() if _fits(tensor)}
            self.digests = {name: digest_of(tensor) for name, tensor in fitting.items()}
            apart = shown_elsewhere(begun.values())
            shown = {name: shown_whole(tensor) for name, tensor in fitting.items() if id(tensor) not in apart}
            self._begun = {name: one for name, one in shown.items() if one is not None}

    def left_out(self, state: dict[str, Any], live: Tensors, known: Known | None = None) -> dict[str, Any]:
        """The state with a mark for each unchanged frozen parameter; it names the base file, which is durable now.

        `live`: the frozen parameters as they are. What of the state shares their memory is left out. `known`: digests
        of tensors that several trials share, while nothing is trained; added to.
        """
        # Of what was changed, or was put elsewhere, the memory is not held for a comparison.
        held = {name: one for name, one in self._begun.items() if name in live}
        self._begun = {name: one for name, one in held.items() if address(one) == address(live[name])}
        unchanged = self._unchanged(live, known)
        base = self._base(unchanged)
        if base is None:
            return state
        places = {_place(unchanged[name]): name for name in sorted(unchanged.keys() & base.names, reverse=True)}
        marked: dict[str, Any] = with_marks(state, lambda tensor: places.get(_place(tensor)))
        return marked if marked is state else with_base(marked, base.file)

    def parted(self, weights: Tensors) -> PartedWeights:
        """Weights without what is frozen in them and unchanged; the base file is durable now."""
        unchanged = self._unchanged(weights)
        base = self._base(unchanged)
        names = unchanged.keys() & base.names if base is not None else set()
        if base is None or not names:
            return PartedWeights(weights, frozen=self.names)
        kept = {name: tensor for name, tensor in weights.items() if name not in names}
        return PartedWeights(kept, names, base.file, self.names)

    def marked(self, weights: Tensors, state: Mapping[str, Any]) -> dict[str, Any]:
        """Weights that are to be saved within a state, with marks, where that state names the base file."""
        base = self._written
        if base is None or base_named_by(state) != base.file:
            return dict(weights)
        names = {id(tensor): name for name, tensor in self._unchanged(weights).items() if name in base.names}
        marked: dict[str, Any] = with_marks(dict(weights), lambda tensor: names.get(id(tensor)))
        return marked

    def mend(self, recorded: Checkpoint, live: Tensors) -> None:
        """Write a base file again that is missing or damaged, where it had just what this trial begins with."""
        if recorded.base is None or not self.digests:
            return
        unchanged = self._unchanged(live)
        if recorded.base.file == f"{self.folder.place}/{self._name(unchanged)}":
            self._base(unchanged)

    def _unchanged(self, tensors: Tensors, known: Known | None = None) -> dict[str, torch.Tensor]:
        shared = {name: tensors[name] for name in self.digests if name in tensors and _fits(tensors[name])}
        known = {} if known is None else known
        return {name: tensor for name, tensor in shared.items() if self._is_as_begun(name, tensor, known)}

    def _is_as_begun(self, name: str, tensor: torch.Tensor, known: Known) -> bool:
        """Whether a tensor has the values that it began with. It has, where it still shows the same memory."""
        begun = self._begun.get(name)
        if begun is not None and same_bits(begun, tensor):
            return True
        place = _place(tensor)
        if place not in known:
            known[place] = digest_of(tensor)
        return known[place] == self.digests[name]

    def _of(self, tensors: Tensors) -> dict[str, str]:
        return {name: self.digests[name] for name in tensors}

    def _name(self, tensors: Tensors) -> str:
        """The name of the base file of these values."""
        content = json.dumps(self._of(tensors), sort_keys=True).encode()
        return f"base-{hashlib.sha256(content).hexdigest()[:32]}.safetensors"

    def _base(self, unchanged: Tensors) -> _Written | None:
        """The base file of this trial, written where it is not there whole; None where nothing is unchanged."""
        if not unchanged:
            return None
        with self._lock:
            if self._written is None or not self._written.is_there():
                self._written = self._found_or_made(unchanged)
            return self._written

    def _found_or_made(self, tensors: Tensors) -> _Written:
        """The file that any trial of the study with these values has written, or we write now."""
        place = f"{self.folder.place}/{self._name(tensors)}"
        path = self.folder.root / place
        seen = _seen(path)
        known = _read(path, seen) if seen else None
        if known is not None and known[1] == self._of(tensors):
            self.folder.sync()  # who wrote it may not have come to that
            file = BaseFile(place, *known[0])
        else:
            if seen:
                logger.warning("%s is damaged, and is written again", path)
            file = self.folder.write_base(path.name, weights_as_file(_copies(tensors)), self.number)
        return _Written(file, frozenset(tensors), path, _seen(path))


def left_out_bytes(live: Tensors) -> int:
    """The bytes that each checkpoint will leave out, where nothing changes what is frozen."""
    num_bytes = sum(tensor.nbytes for tensor in live.values() if _fits(tensor))
    return num_bytes if num_bytes >= LEAST_BYTES else 0


def _copies(tensors: Tensors) -> dict[str, torch.Tensor]:
    """Copies for a writer that asks for addresses: tied tensors share memory, and so do those of a group."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def digest_of(tensor: torch.Tensor) -> str:
    """The sha256 of a tensor's type, shape and values, all of them."""
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    for piece in pieces(tensor):
        digest.update(piece)
    return digest.hexdigest()


def _fits(tensor: torch.Tensor) -> bool:
    """Whether a base file can hold it as it is."""
    return is_plain(tensor) and bool(tensor.numel())


def _place(tensor: torch.Tensor) -> tuple[object, ...]:
    """The memory of a tensor: two that share it have the same values."""
    if tensor.layout is not torch.strided or not tensor.numel():
        return (id(tensor),)
    return tensor.device, address(tensor), tensor.dtype, tensor.shape, tensor.stride()


def _seen(path: StoredPath) -> tuple[int, ...]:
    """What changes when a file is written again; nothing for one that is not there."""
    with suppress(OSError):
        status = path.stat()
        return status.st_ino, status.st_size, status.st_mtime_ns
    return ()


@lru_cache(maxsize=64)
def _read(path: StoredPath, seen: tuple[int, ...]) -> tuple[tuple[str, int], dict[str, str]] | None:
    """Digest and size of a base file, and the digests of its tensors; None for what cannot be read as one.

    Once for each state of a file (`seen`): all trials that a process trains share it.
    """
    try:
        content = path.read_bytes()
        tensors = weights_in(content)
    except Exception:  # whatever it is, it is written again
        return None
    found = hashlib.sha256(content).hexdigest(), len(content)
    return found, {name: digest_of(tensor) for name, tensor in tensors.items()}


def base_folder(root: StoredPath, place: str, fence: int) -> CheckpointFolder:
    """The folder of a study's base files; `place` is the study's."""
    return CheckpointFolder(root, f"{place}/{FROZEN_FOLDER}", fence)
