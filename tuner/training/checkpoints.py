"""Checkpoint files: written so that a kill leaves the old or the new one, and read only when they are intact.

Order of a commit (R18, R22): the file, or the object, is there whole and durably (`stores.writing`), and only then the
pointer in the Ledger; older files are deleted after that. A file is read only when its sha256 is the recorded one, and
with `weights_only=True`: no code ever comes out of a checkpoint.
"""

import hashlib
import io
import json
import logging
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from tuner.errors import CorruptCheckpoint, StorageError
from tuner.failpoints import failpoint
from tuner.records import BaseFile, Checkpoint, CheckpointKind, PrefixKey, shard_kind
from tuner.security import make_private_folder
from tuner.stores import tidying
from tuner.stores.digesting import Write
from tuner.stores.places import StoredPath, files_in, lies_below
from tuner.stores.writing import sync_folder, write_durably
from tuner.training.extra_state import is_bytes, value_of
from tuner.training.left_out import PartedWeights, base_named_by, frozen_in, header_of, left_out_of, whole_state
from tuner.training.stacked_states import state_of_member

logger = logging.getLogger(__name__)

SUFFIX = {"latest": "pt", "best": "safetensors", "trunk": "pt"}
_NAME = r"\.?(?:latest|best|trunk|shard)-\d{9}-(\d+)(?:-\d+of\d+)?\.(?:pt|safetensors)(?:\.\d+\.tmp)?"
SHARDS = "shards"  # of a state: the rank whose part it is, how many there are, and the files of the other ranks


@dataclass(frozen=True, slots=True)
class CheckpointFolder:
    """The checkpoints of one trial: `root` / `place`; names in the Ledger are relative to `root`.

    The claim's `fence` is part of every name: an owner that lost the trial, and does not know yet, can neither
    overwrite a file of its successor nor sweep it.
    """

    root: StoredPath
    place: str
    fence: int = 0

    def write_state(
        self,
        kind: CheckpointKind,
        step: int,
        state: Mapping[str, Any],
        value: float | None,
        prefix: PrefixKey | None = None,
    ) -> Checkpoint:
        """Save a whole training state with torch's own format. With a `prefix` other trials may start from it."""
        written = self._write(kind, step, lambda file: write_state_to(file, state), value)
        return replace(written, prefix=prefix, base=base_named_by(state))

    def write_shard(self, rank: int, world: int, step: int, state: Mapping[str, Any]) -> Checkpoint:
        """Save the part of a state that a rank other than 0 has; the part of rank 0 names it (`with_shards`)."""
        name = f"{self.place}/shard-{step:09d}-{self.fence}-{rank}of{world}.pt"
        path = self._inside(name)
        written = write_durably(path, lambda file: write_state_to(file, state))
        sync_folder(path.parent)
        return Checkpoint(shard_kind(rank), step, name, written.digest, written.num_bytes)

    def write_weights(
        self,
        step: int,
        weights: Mapping[str, torch.Tensor] | PartedWeights,
        value: float | None,
        followed: bool = False,
    ) -> Checkpoint:
        """Save weights alone as safetensors: the best checkpoint, loadable by any tool where nothing is left out.

        `followed`: a state is written right after it, whose fsync of the folder makes both names durable.
        """
        parted = weights if isinstance(weights, PartedWeights) else PartedWeights(weights)
        content = weights_as_file(parted.tensors, parted.left_out, parted.frozen)
        written = self._write("best", step, lambda file: file.write(content), value, followed=followed)
        return replace(written, base=parted.base)

    def write_base(self, name: str, content: bytes, number: int) -> BaseFile:
        """Save frozen parameters, durably: from now on checkpoints may be written that leave them out.

        `number`: of the trial that we own; others may write the same file at the same time.
        """
        path = self._inside(f"{self.place}/{name}")
        writer = f"{number:05d}{self.fence:05d}"
        written = write_durably(path, lambda file: file.write(content), writer, replace=True)
        sync_folder(path.parent)
        return BaseFile(f"{self.place}/{name}", written.digest, written.num_bytes)

    def sync(self) -> None:
        """Make the names of the files in the folder durable."""
        sync_folder(self.root / self.place)

    def _write(
        self,
        kind: CheckpointKind,
        step: int,
        write: Write,
        value: float | None,
        *,
        followed: bool = False,
    ) -> Checkpoint:
        name = f"{self.place}/{kind}-{step:09d}-{self.fence}.{SUFFIX[kind]}"
        path = self._inside(name)
        written = write_durably(path, write)
        if not followed:
            sync_folder(path.parent)
        return Checkpoint(kind, step, name, written.digest, written.num_bytes, value)

    def _inside(self, name: str) -> StoredPath:
        path = self.root / name
        if not is_inside(path.parent, self.root):
            raise StorageError(f"{self.root / self.place} leads out of the checkpoint folder; remove the link there")
        return path

    def remove(self, written: Collection[Checkpoint], *, but: Collection[Checkpoint]) -> None:
        """Delete our own files of a commit that was refused."""
        tidying.remove(self.root, {one.file for one in written} - {one.file for one in but})

    def forget(self, named: Collection[Checkpoint], keep: Collection[str]) -> None:
        """Delete what a commit has made superfluous: of `named`, which it knew before, and in a folder all of ours.

        Objects are deleted while training goes on, and by name: a list of them costs as much as their deletion.
        """
        if isinstance(self.root, Path):
            self.sweep(keep)
            return
        ours = {one.file for one in named if one.file.rpartition("/")[0] == self.place}
        tidying.remove(self.root, ours - set(keep))

    def sweep(self, keep: Collection[str]) -> None:
        """Delete what we and killed predecessors left behind; `keep` are the names the Ledger knows.

        What cannot be deleted is left for the next time: it costs room, and no trial.
        """
        folder = self.root / self.place
        if not is_inside(folder, self.root):
            return
        try:
            files = list(files_in(folder))
        except OSError as error:
            logger.warning("cannot list %s: %s", folder, error)
            return
        for path in files:
            fence = _fence_of(path.name)
            if fence is not None and fence <= self.fence and f"{self.place}/{path.name}" not in keep:
                failpoint("sweep")
                try:
                    path.unlink(missing_ok=True)
                except OSError as error:
                    logger.warning("cannot delete %s, which nothing needs any more: %s", path, error)
                failpoint("swept")


def write_state_to(file: Any, state: Mapping[str, Any]) -> None:
    """Write a training state into an open file."""
    torch.save(_on_their_own(dict(state)), file)


def state_in(content: bytes) -> dict[str, Any]:
    """The training state in the bytes of a file. Raises what torch raises for anything that is none."""
    state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return state


def weights_as_file(
    weights: Mapping[str, torch.Tensor],
    left_out: Collection[str] = (),
    frozen: Collection[str] = (),
    about: Mapping[str, str] | None = None,
) -> bytes:
    """Weights in the format of safetensors, with the names of what was left out, and of what is frozen, in its header.

    `about`: what else the header says.

    Raises what safetensors raises for a tensor that it cannot hold, RuntimeError where memory ends.
    """
    tensors = {name: tensor.contiguous().cpu() for name, tensor in weights.items()}
    _check_room(sum(one.nbytes for one in tensors.values()))
    header = {**(header_of(left_out, frozen) or {}), **(about or {})}
    return safetensors.torch.save(tensors, metadata=header or None)


def _check_room(size: int) -> None:
    """Raise RuntimeError where safetensors could not make a file of so many bytes: its own allocator ends the process.

    It makes the file once for itself and once for Python. Memory that nothing is written to costs nothing.
    """
    if size >= LARGE_FILE:
        torch.empty(2 * size, dtype=torch.uint8)


def weights_in(content: bytes) -> dict[str, torch.Tensor]:
    """The weights in the bytes of a file. Raises what safetensors raises for anything that is none."""
    return safetensors.torch.load(content)


LARGE_FILE = 2**24  # bytes of a file of weights for which memory may be missing
KEPT_FILE = "file:"  # of a tensor's name that holds the bytes of a file, which a training wrote itself


@dataclass(frozen=True, slots=True)
class ExportedWeights:
    """What was written. path: a safetensors file, or a folder of `files`, which a training had kept as such.

    weights: the tensors of the file. beside: the file of what no safetensors file can hold, None where all went in.
    """

    path: Path
    weights: Mapping[str, torch.Tensor]
    beside: Path | None = None
    files: tuple[str, ...] = ()


def export_weights(root: StoredPath, checkpoint: Checkpoint, target: Path) -> ExportedWeights:
    """Write the weights of a best checkpoint to `target`, for any tool to load.

    What a safetensors file cannot hold (extra state of a module, sparse tensors) is written next to it with torch's own
    format. Where the training kept files in place of weights, they are written into a new folder: `target` without
    ".safetensors". Raises CorruptCheckpoint, StorageError where something is there already.
    """
    weights = read_weights(root, checkpoint)
    files = {name.removeprefix(KEPT_FILE): one for name, one in weights.items() if name.startswith(KEPT_FILE)}
    if files:
        return _export_files(files, target.with_suffix("") if target.suffix == ".safetensors" else target)
    if checkpoint.base is None and not any(map(is_bytes, weights.values())):
        make_private_folder(target.parent)
        target.write_bytes((root / checkpoint.file).read_bytes())
        return ExportedWeights(target, weights)
    return write_weights_to(weights, target)


def write_weights_to(
    weights: Mapping[str, torch.Tensor], target: Path, about: Mapping[str, str] | None = None
) -> ExportedWeights:
    """Write weights to a safetensors file, and what such a file cannot hold next to it. `about`: for its header."""
    make_private_folder(target.parent)
    others = {name: value_of(one, torch.device("cpu")) for name, one in weights.items() if is_bytes(one)}
    weights = {name: one for name, one in weights.items() if name not in others}
    target.write_bytes(weights_as_file(weights, about=about))
    if not others:
        return ExportedWeights(target, weights)
    beside = target.with_name(f"{target.stem}.extra_state.pt")
    torch.save(others, beside)
    return ExportedWeights(target, weights, beside)


def note_in_header(exported: Path, notes: Mapping[str, str]) -> None:
    """Add to the metadata of an exported safetensors file, or of those in an exported folder; tensors stay as they are.

    notes: what to know of these weights that they do not show, like {"stopped_early": "at step 300 ..."}.
    """
    files = sorted(exported.glob("*.safetensors")) if exported.is_dir() else [exported]
    for file in files if notes else ():
        content = file.read_bytes()
        end = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:end])
        header["__metadata__"] = {**header.get("__metadata__", {}), **notes}
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)  # the format wants the tensors to begin at a multiple of 8 bytes
        file.write_bytes(len(text).to_bytes(8, "little") + text + content[end:])


def _export_files(files: Mapping[str, torch.Tensor], folder: Path) -> ExportedWeights:
    """Write kept files into a folder that is not there yet, or holds nothing."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StorageError(
            f"the training kept {len(files)} files ({', '.join(sorted(files)[:3])}), which are exported as a folder, "
            f"and {folder} is there already; name a folder that is not: --export {folder}-2"
        )
    write_kept_files(files, folder)
    return ExportedWeights(folder, {}, files=tuple(sorted(files)))


def write_kept_files(files: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Write files, by relative path, into a folder. Raises CorruptCheckpoint where one would lie outside of it."""
    outside = [name for name in files if not is_inside(folder / name, folder)]
    if outside:
        raise CorruptCheckpoint(f"a kept file is named {outside[0]!r}, which leads out of its folder")
    for name, content in files.items():
        make_private_folder((folder / name).parent)
        (folder / name).write_bytes(content.numpy().tobytes())


def with_shards(state: Mapping[str, Any], shards: Collection[Checkpoint]) -> dict[str, Any]:
    """The state of rank 0 of a model in shards, with the files of all other ranks."""
    files = [[one.kind, one.file, one.digest, one.num_bytes] for one in shards]
    return {**state, SHARDS: {**state[SHARDS], "files": files}}


def shards_of(state: Mapping[str, Any] | None) -> tuple[Checkpoint, ...]:
    """The files of other ranks that a state names; none of a state that is whole."""
    if state is None or SHARDS not in state:
        return ()
    return tuple(Checkpoint(kind, state["step"], *named) for kind, *named in state[SHARDS]["files"])


def _fence_of(name: str) -> int | None:
    """The fence of the claim under which a file was written; None for what is no checkpoint of ours."""
    found = re.fullmatch(_NAME, name)
    return int(found[1]) if found else None


def _on_their_own(value: Any) -> Any:
    """The same state, but no tensor is a view into a larger memory, which would be saved whole."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone() if value.untyped_storage().nbytes() > value.nbytes else value
    if isinstance(value, dict):
        return {key: _on_their_own(item) for key, item in value.items()}
    return [_on_their_own(item) for item in value] if isinstance(value, list) else value


def read_state(root: StoredPath, checkpoint: Checkpoint) -> dict[str, Any]:
    """Load a training state. Raises CorruptCheckpoint when the file is missing, damaged or not what was recorded."""
    content, base = _verified(root, checkpoint.file, checkpoint.digest), _base_of(root, checkpoint)
    try:
        state = state_in(content)
        state = state_of_member(state, checkpoint.member) if checkpoint.member else state
        return whole_state(state, base)
    except Exception as error:  # a pickle that wants to run code, or no checkpoint at all
        raise CorruptCheckpoint(f"checkpoint {root / checkpoint.file} is no training state: {error}") from error


def read_weights(root: StoredPath, checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """Load the weights of a best checkpoint. Raises CorruptCheckpoint."""
    content, base = _verified(root, checkpoint.file, checkpoint.digest), _base_of(root, checkpoint)
    try:
        return weights_in(content) | {name: base[name].clone() for name in left_out_of(content)}
    except Exception as error:  # safetensors raises classes of its own
        raise CorruptCheckpoint(f"checkpoint {root / checkpoint.file} holds no weights: {error}") from error


def frozen_names(root: StoredPath, checkpoint: Checkpoint) -> list[str]:
    """The names of the parameters of a best checkpoint that were not trained. Raises CorruptCheckpoint."""
    return frozen_in(_verified(root, checkpoint.file, checkpoint.digest))


def is_inside(path: StoredPath, root: StoredPath) -> bool:
    """Whether a path stays below a folder, links followed."""
    return lies_below(path, root)


def _base_of(root: StoredPath, checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """The frozen parameters that a checkpoint leaves out. Raises CorruptCheckpoint."""
    if checkpoint.base is None:
        return {}
    content = _verified(root, checkpoint.base.file, checkpoint.base.digest)
    try:
        return weights_in(content)
    except Exception as error:  # safetensors raises classes of its own
        raise CorruptCheckpoint(f"{root / checkpoint.base.file} holds no frozen parameters: {error}") from error


def _verified(root: StoredPath, file: str, digest: str) -> bytes:
    path = root / file
    if not is_inside(path, root):
        raise CorruptCheckpoint(f"checkpoint {file!r} lies outside the checkpoint folder {root}")
    try:
        content = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise CorruptCheckpoint(f"checkpoint {path} is recorded but missing") from None
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        raise CorruptCheckpoint(f"checkpoint {path} is damaged: sha256 {found[:12]}, recorded {digest[:12]}")
    return content


def canonical_digest(state: Any) -> str:
    """A digest of the content of a state: names, types, shapes and bytes, independent of the bytes of its file.

    Two equal training states may be saved as different bytes (R29); this compares them bit for bit.
    """
    digest = hashlib.sha256()
    _feed(digest, state)
    return digest.hexdigest()


def _feed(digest: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        flat = value.detach().cpu().contiguous()
        digest.update(f"tensor {flat.dtype} {tuple(flat.shape)}".encode())
        digest.update(flat.reshape(-1).view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
    elif isinstance(value, Mapping):
        for key in sorted(value, key=repr):
            digest.update(f"key {key!r}".encode())
            _feed(digest, value[key])
    elif isinstance(value, list | tuple):
        digest.update(f"sequence {len(value)}".encode())
        for item in value:
            _feed(digest, item)
    else:
        digest.update((value.hex() if isinstance(value, float) else repr(value)).encode())
