"""What the trials of a stage start from: found at its first launch, copied, and the same for all its studies (C7)."""

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from tuner.analysis.frames import study_frames
from tuner.analysis.headline import headline, relatives
from tuner.analysis.questions.adoption import last_adopted
from tuner.analysis.round_frames import round_frames, rounds_started, row_of_trial
from tuner.analysis.study_frames import ranked_trials
from tuner.design.campaign import Campaign
from tuner.design.stages import StartFrom
from tuner.errors import CorruptCheckpoint, DeclarationError, StorageError
from tuner.records import Checkpoint, State, TrialRecord
from tuner.records.conclusions import Selected, StageStart
from tuner.shown import quoted, word
from tuner.storage.ownership import folder_to_read
from tuner.storage.store import Ledger, open_ledger
from tuner.storage.studies import StudyRow
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
        return Inherited(recorded, tuple(asked.root / one.file for one in recorded.candidates))
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


def selected_today(asked: Asked) -> list[Selected]:
    """The checkpoints of the earlier stage that a new campaign would start from; what is there already counts."""
    start = asked.campaign.start_from
    if start is None or start.file is not None:
        return []
    return _of_stage(asked, start)[0]


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
        for row, record, adopted in _chosen(ledger, source, start.candidates, again):
            kept = best_checkpoint(row, record)
            content = weights_as_file(read_weights(root, kept))
            digest = hashlib.sha256(content).hexdigest()
            found.append(
                Selected(
                    digest, "", source, row.study.name, record.number, kept.step,
                    kept.step + (before.inherited_steps if before and not row.study.start else 0), kept.value, adopted,
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


def _chosen(ledger: Ledger, source: str, count: int, again: str) -> list[tuple[StudyRow, TrialRecord, bool]]:
    """The configurations that a stage selected: what was adopted first, then the best of its last round.

    Raises StorageError for a stage that is not finished.
    """
    found: list[tuple[StudyRow, TrialRecord, bool]] = []
    adopted = last_adopted(ledger, source)
    if adopted is not None:
        row = ledger.study(source, adopted[0])
        found.append((row, ledger.trial(row.study_id, adopted[1]), True))
    rounds = [one for one in rounds_started(ledger, source) if not round_frames(ledger, source, one).study.start]
    left = sum(
        count
        for row in ledger.studies(source)
        for state, count in ledger.state_counts(row.study_id).items()
        if not state.finished
    )
    if not found and (not rounds or left):
        raise StorageError(
            f"the stage {quoted(source)} is not finished ({left} trials are left, {len(rounds)} rounds were launched), "
            f"and the next one starts from what it selects; train it first: {again}"
        )
    last = rounds[-1] if rounds else None
    frames = round_frames(ledger, source, last) if last else study_frames(ledger, source, found[0][0].study.name)
    first = headline(frames, relatives(ledger, source, frames.study))
    ranked = [int(number) for number in ranked_trials(frames)["trial"]]
    for number in dict.fromkeys(([first.trial] if first else []) + ranked):
        row, record = row_of_trial(ledger, source, rounds[-1], number) if rounds else (found[0][0], found[0][1])
        if (row.study_id, number) not in {(one.study_id, other.number) for one, other, _ in found}:
            found.append((row, record, False))
    if len(found) < count:
        raise StorageError(
            f"{quoted(source)} has {len(found)} complete trials to start from, and candidates={count} asks for more; "
            f"give a smaller number, or train it: {again}"
        )
    return found[:count]


def best_checkpoint(row: StudyRow, record: TrialRecord) -> Checkpoint:
    """The best checkpoint that a trial keeps. Raises StorageError where it keeps none."""
    kept = [one for one in record.checkpoints if one.kind == "best" and one.value is not None]
    if record.state is not State.COMPLETE or not kept:
        raise StorageError(
            f"trial {record.number} of {row.campaign} {row.study.name} keeps no weights to start from: it is "
            f"{record.state.value}{f', and was trained elsewhere ({row.elsewhere})' if row.elsewhere else ''}; a file "
            'of weights can be named by weights_from("file.safetensors")'
        )
    return min(kept, key=lambda one: (row.study.objective.sign * (one.value or 0.0), one.step))


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
    return [Selected(digest, steps=start.steps, path=str(named))], [content]


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
