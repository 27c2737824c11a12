"""Checkpoint files: written so that a kill leaves the old or the new one, and read only when they are intact.

Order of a commit (RELIABILITY A2): temporary file, fsync, rename, fsync of the folder, and only then the pointer
in the Ledger; older files are deleted after that. A file is read only when its sha256 is the recorded one, and
with `weights_only=True`: no code ever comes out of a checkpoint.
"""

import hashlib
import io
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from tuner.errors import CorruptCheckpoint
from tuner.records import Checkpoint, CheckpointKind

SUFFIX = {"latest": "pt", "best": "safetensors", "trunk": "pt"}


@dataclass(frozen=True, slots=True)
class CheckpointFolder:
    """The checkpoints of one trial: `root` / `place`; names in the Ledger are relative to `root`."""

    root: Path
    place: str

    def write_state(self, kind: CheckpointKind, step: int, state: Mapping[str, Any], value: float | None) -> Checkpoint:
        """Save a whole training state with torch's own format."""
        buffer = io.BytesIO()
        torch.save(_on_their_own(dict(state)), buffer)
        return self._write(kind, step, buffer.getvalue(), value)

    def write_weights(self, step: int, weights: Mapping[str, torch.Tensor], value: float | None) -> Checkpoint:
        """Save weights alone as safetensors: the best checkpoint, loadable by any tool."""
        content = safetensors.torch.save({name: tensor.contiguous().cpu() for name, tensor in weights.items()})
        return self._write("best", step, content, value)

    def _write(self, kind: CheckpointKind, step: int, content: bytes, value: float | None) -> Checkpoint:
        name = f"{self.place}/{kind}-{step:09d}.{SUFFIX[kind]}"
        write_durably(self.root / name, content)
        return Checkpoint(kind, step, name, hashlib.sha256(content).hexdigest(), len(content), value)

    def sweep(self, keep: Collection[str]) -> None:
        """Delete what a killed predecessor left behind; `keep` are the names the Ledger knows."""
        folder = self.root / self.place
        if folder.is_dir():
            for path in folder.iterdir():
                if f"{self.place}/{path.name}" not in keep:
                    path.unlink(missing_ok=True)


def _on_their_own(value: Any) -> Any:
    """The same state, but no tensor is a view into a larger memory, which would be saved whole."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone() if value.untyped_storage().nbytes() > value.nbytes else value
    if isinstance(value, dict):
        return {key: _on_their_own(item) for key, item in value.items()}
    return [_on_their_own(item) for item in value] if isinstance(value, list) else value


def read_state(root: Path, checkpoint: Checkpoint) -> dict[str, Any]:
    """Load a training state. Raises CorruptCheckpoint when the file is missing, damaged or not what was recorded."""
    content = _verified(root, checkpoint)
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)  # type: ignore[no-any-return]


def read_weights(root: Path, checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """Load the weights of a best checkpoint. Raises CorruptCheckpoint."""
    return safetensors.torch.load(_verified(root, checkpoint))


def _verified(root: Path, checkpoint: Checkpoint) -> bytes:
    path = root / checkpoint.file
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise CorruptCheckpoint(f"checkpoint {path} is recorded but missing") from None
    found = hashlib.sha256(content).hexdigest()
    if found != checkpoint.digest:
        raise CorruptCheckpoint(f"checkpoint {path} is damaged: sha256 {found[:12]}, recorded {checkpoint.digest[:12]}")
    return content


def write_durably(path: Path, content: bytes) -> None:
    """Write a file so that after any crash there is the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def canonical_digest(state: Any) -> str:
    """A digest of what a state means: names, types, shapes and bytes, whatever the file's own bytes are.

    Two equal training states may be saved as different bytes (RELIABILITY 29); this compares them bit for bit.
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
