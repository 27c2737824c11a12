"""What the trials of a stage start from: found at its first launch, copied, and the same for all its studies (C7)."""

import difflib
import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tuner.analysis.questions.adoption import last_adopted
from tuner.analysis.round_frames import main_rounds, recorded_study_file
from tuner.analysis.stage_chain import recorded_start, start_of_trial
from tuner.analysis.stage_selection import SelectedRun, selected_runs
from tuner.design.stages import Stage, StartFrom, named_in
from tuner.errors import CorruptCheckpoint, DeclarationError, StorageError, TunerError
from tuner.records import COMMAND_MARK, Checkpoint
from tuner.records.conclusions import Selected, StageStart
from tuner.shown import quoted, word
from tuner.storage.ownership import folder_to_read
from tuner.storage.store import Ledger, open_ledger
from tuner.stores.places import StoredPath
from tuner.training.checkpoints import KEPT_FILE, read_weights, weights_as_file
from tuner.training.inherited import StartWeights, file_of_weights

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AskedStart:
    """Whose start is looked for: a stage whose records are in a storage, and the folder of its checkpoints.

    checkpoints: the folder that was given for them, None for that of the storage.
    """

    ledger: Ledger
    stage: Stage
    root: StoredPath
    checkpoints: StoredPath | None = None

    @property
    def name(self) -> str:
        return self.stage.name

    @property
    def start(self) -> StartFrom | None:
        """What the stage declares."""
        found: StartFrom | None = self.stage.campaign.start_from
        return found


def start_of(asked: AskedStart) -> StartWeights | None:
    """What the trials of a campaign start from: as its first study recorded it, or as it is selected today.

    The records fix which weights, and the declaration what is carried of them: where it says something else than
    before, that is another start, and a study that has begun is refused with it. None where the campaign starts from
    nothing. Raises StorageError for an earlier stage that is not recorded or not finished, with the command that trains
    it; DeclarationError for a file that is not there.
    """
    start = asked.start
    if start is None:
        return None
    recorded = recorded_start(asked.ledger, asked.name)
    carried = (start.parameters, start.fresh, dict(start.renamed))
    if recorded is not None and _is_of(recorded, start):
        _compare_file(asked, recorded.candidates[0], start)
        return _of_records(asked, StageStart(recorded.candidates, *carried))
    found, contents = (_of_file if start.file is not None else _of_stage)(asked, start)
    return StartWeights(StageStart(tuple(found), *carried), contents=tuple(contents))


def _is_of(recorded: StageStart, start: StartFrom) -> bool:
    """Whether the recorded weights are of the source that is declared, and as many."""
    first = recorded.candidates[0]
    source = (first.campaign, first.path) == (start.campaign, str(start.file) if start.file is not None else "")
    return source and len(recorded.candidates) == start.candidates


def _of_records(asked: AskedStart, recorded: StageStart) -> StartWeights:
    """What the first study recorded: from our copies, or, where one was lost, from what they were copied from."""
    kept = StartWeights(recorded, tuple(asked.root / one.file for one in recorded.candidates))
    try:
        return kept.checked()
    except CorruptCheckpoint as lost:
        try:
            contents = tuple(_content_again(asked, one) for one in recorded.candidates)
        except TunerError:
            raise lost from None
        if any(
            hashlib.sha256(one).hexdigest() != chosen.digest
            for one, chosen in zip(contents, recorded.candidates, strict=True)
        ):
            raise
        _log.warning("%s; what it was copied from is still there, and is copied again", lost)
        return StartWeights(recorded, contents=contents)


def _content_again(asked: AskedStart, chosen: Selected) -> bytes:
    """The weights that were copied, from where they were. Raises what reading them raises."""
    if chosen.path:
        path = path_of(asked.stage, Path(chosen.path))
        return file_of_weights(path, _bytes_of(path))
    with _source_ledger(asked, chosen.storage or None) as ledger:
        record = ledger.trial(ledger.study(chosen.campaign, chosen.study).study_id, chosen.trial)
        kept = next((one for one in record.checkpoints if one.kind == "best" and one.step == chosen.step), None)
        if kept is None:
            raise StorageError(f"{chosen.words} is not kept any more")
        return weights_as_file(read_weights(_folder_with(asked, ledger, kept), kept))


def _compare_file(asked: AskedStart, chosen: Selected, start: StartFrom) -> None:
    """Say where a file of weights is not what the campaign began with. Raises DeclarationError for another sha256."""
    if start.file is None or not chosen.read:
        return
    if start.sha256 and start.sha256 != chosen.read:
        raise DeclarationError(
            f"{asked.name} began with {start.file} of sha256 {chosen.read}, and the study file says {start.sha256}: "
            "all of its trials start from the same weights. Give the campaign another name to start from these"
        )
    path = path_of(asked.stage, start.file)
    if path.is_file() and hashlib.sha256(_bytes_of(path)).hexdigest() != chosen.read:
        _log.warning(
            "%s has changed since %s began, which goes on from our own copy of what it was (sha256 %s); give the "
            "campaign another name to start from what it is now", path, asked.name, chosen.read[:12],
        )  # fmt: skip


def _of_stage(asked: AskedStart, start: StartFrom) -> tuple[list[Selected], list[bytes]]:
    """The best checkpoints of an earlier stage, and their weights as files."""
    source, found, contents = start.campaign, [], []
    with _source_ledger(asked, start.storage) as ledger:
        again = _command_for(asked, ledger, source)
        if source not in ledger.campaigns():
            raise StorageError(unknown_source(asked.stage, ledger.campaigns(), ledger.safe_url, again))
        own = ledger is asked.ledger
        for run in _runs(ledger, start, again, asked.stage.rounds_before):
            kept, study = run.checkpoint, run.row.study
            weights = read_weights(_folder_with(asked, ledger, kept), kept)
            _refuse_files(source, run, weights)
            content = weights_as_file(weights)
            before = start_of_trial(ledger, run.row, run.record)
            earlier = before.steps if before else 0
            found.append(
                Selected(
                    hashlib.sha256(content).hexdigest(), len(content), campaign=source, study=study.name,
                    trial=run.record.number, step=kept.step, steps=kept.step + earlier, value=kept.value,
                    adopted=run.adopted, storage="" if own else ledger.safe_url, read=kept.digest,
                )
            )  # fmt: skip
            contents.append(content)
    return found, contents


def unknown_source(stage: Stage, known: Sequence[str], where: str, again: str = "") -> str:
    """That what a stage starts from is not recorded, with what is, and how to go on: `again` is what trains it."""
    start: StartFrom = stage.campaign.start_from
    told = (
        f"{stage.name} starts from {quoted(start.campaign)}, and there is no such campaign in {where}; there are: "
        f"{', '.join(known) or 'none'}"
    )
    if start.campaign in stage.of_file:
        return f"{told}. Train it first: {again}"
    others = [name for name in (*stage.of_file, *known) if name != stage.name]
    near = difflib.get_close_matches(start.campaign, others, n=1)
    if near:
        return f'{told}. Did you mean best_of("{near[0]}")?'
    return f"{told}. Train the study file that declares it first, in the same storage: tuner run FILE"


def _refuse_files(source: str, run: SelectedRun, weights: Mapping[str, object]) -> None:
    """Raise StorageError for a checkpoint of files that a loop or a program wrote, whose formats are its own."""
    files = [name.removeprefix(KEPT_FILE) for name in weights if name.startswith(KEPT_FILE)]
    if not files:
        return
    told = f"the checkpoint that {quoted(source)} selects (trial {run.record.number})"
    written = [name for name in files if Path(name).name != COMMAND_MARK]
    if not written:
        raise StorageError(
            f"{told} holds no weights: its program announced no checkpoint, so its weights are known to nobody but "
            'itself; start from a file that it wrote by weights_from("FILE")'
        )
    raise StorageError(
        f"{told} holds files that its training wrote itself ({', '.join(written[:3])}), and no weights by name. "
        f"tuner best {word(source)} --export FOLDER writes them; start from the one that holds the weights by "
        'weights_from("FOLDER/FILE")'
    )


def _command_for(asked: AskedStart, ledger: Ledger, source: str) -> str:
    """The command, or the call, that trains an earlier stage."""
    stage = asked.stage
    if source in stage.of_file:
        return (
            f"tuner run {word(named_in(stage.file, source, stage.of_file))}" if stage.file else "tuner.run(...) of it"
        )
    recorded = recorded_study_file(ledger, source) if source in ledger.campaigns() else None
    return f"tuner run {word(recorded or 'STUDY_FILE')}"


@contextmanager
def _source_ledger(asked: AskedStart, storage: str | None) -> Iterator[Ledger]:
    """The records of the earlier stage; our own, where the same storage is named."""
    if storage is None:
        yield asked.ledger
        return
    with open_ledger(_storage_of(asked.stage, storage), create=False) as ledger:
        here, there = asked.ledger.identity(), ledger.identity()
        same = here is not None and there is not None and here.identity == there.identity
        yield asked.ledger if same and asked.ledger.safe_url == ledger.safe_url else ledger


def _storage_of(stage: Stage, storage: str) -> str:
    """A storage as it is opened: a relative path is looked for beside the study file before it is looked for here."""
    beside = stage.file.resolve().parent / storage if stage.file and "://" not in storage else None
    return str(beside) if beside is not None and beside.is_file() else storage


def _folder_with(asked: AskedStart, ledger: Ledger, kept: Checkpoint) -> StoredPath:
    """The checkpoint folder that has a file of the earlier stage: ours, or that of its storage."""
    given = [asked.checkpoints] if asked.checkpoints is not None else []
    if ledger is not asked.ledger:
        given.append(asked.root)
    fits = next((root for root in given if (root / kept.file).is_file()), None)
    return fits if fits is not None else folder_to_read(ledger, None)


def _runs(ledger: Ledger, start: StartFrom, again: str, rounds: int) -> list[SelectedRun]:
    """The trials to start from; `rounds`: that their stage declares. Raises StorageError, with the command."""
    launched = len(main_rounds(ledger, start.campaign))
    try:
        if launched < rounds and last_adopted(ledger, start.campaign) is None:
            raise StorageError(
                f"the stage {quoted(start.campaign)} is not finished: {launched} of {rounds} rounds were launched"
            )
        found = selected_runs(ledger, start.campaign, start.candidates)
    except StorageError as error:
        told = f"{error}, and the next stage starts from what it selects"
        raise StorageError(f"{told}; train it first: {again}") from None
    if len(found) < start.candidates:
        raise StorageError(
            f"{quoted(start.campaign)} has {len(found)} complete trials to start from, and candidates="
            f"{start.candidates} asks for more; give a smaller number, or train more: {again}"
        )
    return found


def _of_file(asked: AskedStart, start: StartFrom) -> tuple[list[Selected], list[bytes]]:
    """A file of weights, which a user has downloaded or made."""
    named, path = start.file or Path(), weights_path(asked.stage)
    content = _bytes_of(path)
    read = hashlib.sha256(content).hexdigest()
    if start.sha256 and read != start.sha256:
        raise DeclarationError(
            f"{asked.name} starts from {path}, whose sha256 is {read}, and the study file says {start.sha256}: get "
            "the right file, or write its digest"
        )
    content = file_of_weights(path, content)
    digest = hashlib.sha256(content).hexdigest()
    return [Selected(digest, len(content), steps=start.steps, path=str(named), read=read)], [content]


def weights_path(stage: Stage) -> Path:
    """Where the file of weights of a stage lies: beside the study file, unless its path is absolute, or begins with ~.

    Raises DeclarationError where it is not there.
    """
    path = path_of(stage, stage.campaign.start_from.file)
    if not path.is_file():
        folder = " a folder: name the file in it" if path.is_dir() else " no such file"
        raise DeclarationError(f"{stage.name} starts from {path}, and there is{folder}")
    return path


def path_of(stage: Stage, named: Path) -> Path:
    """Where a file that a stage names should lie."""
    beside = stage.file.resolve().parent if stage.file else Path.cwd()
    return beside / named.expanduser()


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DeclarationError(f"the file of weights {path} cannot be read: {error.strerror or error}") from error
