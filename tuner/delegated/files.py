"""Files that a loop writes itself, as a checkpoint of Lightning's or a folder of Accelerate's, kept as one state."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tuner.errors import WorkloadError
from tuner.training.checkpoints import KEPT_FILE, write_kept_files
from tuner.training.engine import Weights

Save = Callable[[Path], object]
Load = Callable[[Path], object]


@contextmanager
def own_folder() -> Iterator[Path]:
    """A folder for the time of the block. Those above it are its own, too: a loop may clear what is around."""
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top, "trial", "state")
        folder.mkdir(parents=True)
        yield folder


class KeptFiles:
    """How a loop writes its state into a folder and reads it back; the files as tensors of bytes, by relative path."""

    def __init__(self) -> None:
        self.save: Save | None = None
        self.load_from: Load | None = None
        self.restored: dict[str, torch.Tensor] = {}
        self._at: tuple[int, dict[str, torch.Tensor]] | None = None

    def keep(self, save: Save, load: Load) -> None:
        """Use these functions from now on, and read what a checkpoint holds."""
        self.save, self.load_from = save, load
        if self.restored:
            with own_folder() as folder:
                write_kept_files(self.restored, folder)
                load(folder)

    def begin(self, *, resumed: bool) -> None:
        """The first step begins. Raises WorkloadError where only one of checkpoint and loop holds files."""
        if resumed and bool(self.restored) is (self.save is None):
            where = "its checkpoint holds files and the loop keeps none" if self.restored else "its checkpoint has none"
            raise WorkloadError(
                f"this trial cannot go on with the files of trial.keep_files: {where}; keep what was kept when it was "
                "saved, before the first step, or train under another --storage"
            )
        self.restored = {}

    def state(self, step: int) -> dict[str, torch.Tensor]:
        """The files as they are after `step` updates; written once a step."""
        if self.save is None:
            return {}
        if self._at is None or self._at[0] != step:
            with own_folder() as folder:
                self.save(folder)
                self._at = step, files_in(folder)
            if not self._at[1]:
                raise WorkloadError("trial.keep_files: save(folder) has written no file into the folder it was given")
        return self._at[1]

    def weights(self, step: int) -> Weights:
        """The files with names that say what they are."""
        return {f"{KEPT_FILE}{name}": content for name, content in self.state(step).items()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Remember the files of a checkpoint, for when the loop says how they are read."""
        self.restored = dict(state)


def files_in(folder: Path) -> dict[str, torch.Tensor]:
    """The files below a folder as uint8 [bytes] on the CPU, by path relative to it. Links are not followed."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(folder)): _content(path) for path in found}


def _content(path: Path) -> torch.Tensor:
    content = path.read_bytes()
    return torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8)
