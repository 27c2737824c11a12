"""What the trials of a stage start from: found at its first launch, copied, and the same for all its studies (C7)."""

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from tuner.analysis.stage_selection import SelectedRun, selected_runs
from tuner.design.campaign import Campaign
from tuner.design.stages import StartFrom
from tuner.errors import CorruptCheckpoint, DeclarationError, StorageError
from tuner.records.conclusions import Selected, StageStart
from tuner.shown import quoted, word
from tuner.storage.ownership import folder_to_read
from tuner.storage.store import Ledger, open_ledger
from tuner.training.checkpoints import read_weights, weights_as_file, weights_in
from tuner.training.inherited import Inherited

_log = logging.getLogger(__name__)
SAFETENSORS = ".safetensors"


@dataclass(frozen=True, slots=True)
class Asked:
    """Whose start is looked for: a campaign of a storage, its study file, and the folder of its checkpoints.

    checkpoints: the folder that was given for them, None for that of the storage.
    """

    ledger: Ledger
    name: str
    campaign: Campaign
    study_file: Path | None
    root: Path
    checkpoints: Path | None = None


def start_of(asked: Asked) -> Inherited | None:
    """What the trials of a campaign start from: as its first study recorded it, or as it is selected today.

    None where the campaign starts from nothing. Raises StorageError for an earlier stage that is not recorded or not
    finished, with the command that trains it; DeclarationError for a file that is not there.
    """
    start = asked.campaign.start_from
    if start is None:
        return None
    recorded = recorded_start(asked.ledger, asked.name)
    if recorded is not None:
        return Inherited(recorded, tuple(asked.root / one.file for one in recorded.candidates)).checked()
    found, contents = (_of_file if start.file is not None else _of_stage)(asked, start)
    return Inherited(
        StageStart(tuple(found), start.parameters, start.fresh, dict(start.renamed)), contents=tuple(contents)
    )


def recorded_start(ledger: Ledger, campaign: str) -> StageStart | None:
    """What the studies of a campaign start from, as the first of them recorded it; None before."""
    if campaign not in ledger.campaigns():
        return None
    found = (ledger.conclusion(campaign, StageStart, row.study_id) for row in ledger.studies(campaign))
    return next((one for one in found if one is not None), None)


def _of_stage(asked: Asked, start: StartFrom) -> tuple[list[Selected], list[bytes]]:
    """The best checkpoints of an earlier stage, and their weights as files."""
    source, found, contents = start.campaign, [], []
    with _source_ledger(asked, start) as ledger:
        again = f"tuner run {word(f'{asked.study_file}:{source}' if asked.study_file else source)}"
        if source not in ledger.campaigns():
            known = ", ".join(ledger.campaigns()) or "none"
            raise StorageError(
                f"{asked.name} starts from {quoted(source)}, and there is no such campaign in {ledger.safe_url}; there "
                f"are: {known}. Train it first: {again}"
            )
        before = recorded_start(ledger, source)
        own = ledger is asked.ledger
        root = folder_to_read(ledger, asked.checkpoints if own else None)
        for run in _runs(ledger, start, again):
            kept, study = run.checkpoint, run.row.study
            content = weights_as_file(read_weights(root, kept))
            earlier = before.inherited_steps if before and not study.start else 0
            found.append(
                Selected(
                    hashlib.sha256(content).hexdigest(), len(content), campaign=source, study=study.name,
                    trial=run.record.number, step=kept.step, steps=kept.step + earlier, value=kept.value,
                    adopted=run.adopted, storage="" if own else ledger.safe_url,
                )
            )  # fmt: skip
            contents.append(content)
    return found, contents


@contextmanager
def _source_ledger(asked: Asked, start: StartFrom) -> Iterator[Ledger]:
    if start.storage is None:
        yield asked.ledger
        return
    with open_ledger(start.storage, create=False) as ledger:
        yield ledger


def _runs(ledger: Ledger, start: StartFrom, again: str) -> list[SelectedRun]:
    """The trials to start from. Raises StorageError, with the command that trains them."""
    try:
        found = selected_runs(ledger, start.campaign, start.candidates)
    except StorageError as error:
        raise StorageError(
            f"{error}, and the next stage starts from what it selects; train it first: {again}"
        ) from None
    if len(found) < start.candidates:
        raise StorageError(
            f"{quoted(start.campaign)} has {len(found)} complete trials to start from, and candidates="
            f"{start.candidates} asks for more; give a smaller number, or train more: {again}"
        )
    return found


def _of_file(asked: Asked, start: StartFrom) -> tuple[list[Selected], list[bytes]]:
    """A file of weights, which a user has downloaded or made."""
    named = start.file or Path()
    beside = asked.study_file.resolve().parent if asked.study_file else Path.cwd()
    path = named if named.is_absolute() else beside / named
    if not path.is_file():
        raise DeclarationError(f"{asked.name} starts from {path}, and there is no such file")
    content = path.read_bytes()
    read = hashlib.sha256(content).hexdigest()
    if start.sha256 and read != start.sha256:
        raise DeclarationError(
            f"{asked.name} starts from {path}, whose sha256 is {read}, and the study file says {start.sha256}: get "
            "the right file, or write its digest"
        )
    content = _as_safetensors(path, content)
    digest = hashlib.sha256(content).hexdigest()
    return [Selected(digest, len(content), steps=start.steps, path=str(named))], [content]


def _as_safetensors(path: Path, content: bytes) -> bytes:
    """The weights of a file as safetensors. Raises CorruptCheckpoint for a file that holds none."""
    try:
        if path.suffix == SAFETENSORS:
            weights_in(content)
            return content
        state = torch.load(path, map_location="cpu", weights_only=True)
        return weights_as_file({name: one for name, one in state.items() if isinstance(one, torch.Tensor)})
    except Exception as error:  # classes of safetensors, of torch, and of what is no state dict
        raise CorruptCheckpoint(
            f"{path} holds no weights to start from ({type(error).__name__}: {error}): it has to be safetensors, "
            "or a state dict that torch.save wrote, without anything but tensors"
        ) from error
