"""Re-checking every promise on a study as it lies there: files, digests, curves, states.

Nothing here loads a checkpoint; files are read as bytes and compared with what the Ledger says about them.
"""

import logging
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import PurePosixPath

from tuner.design.hyperparameters import Choice, Domain, Range, Value
from tuner.design.identity import was_told
from tuner.design.objective import CLIPPED_SHARE, LARGEST_GRADIENT_NORM, STEP_LOSS, STEP_NORM
from tuner.design.patience import stopping_step
from tuner.design.study import Study
from tuner.errors import StorageError
from tuner.records import GROUP_FOLDER, LOOP_FOLDER, BaseFile, Checkpoint, State, TrialRecord
from tuner.records.conclusions import Retention
from tuner.shown import quoted
from tuner.storage.curves import Measurements
from tuner.storage.folder_files import difference, is_base, move_to_trash, new_trash, was_written_here
from tuner.storage.store import Ledger
from tuner.storage.studies import StudyRow
from tuner.stores.places import StoredPath, files_below, lies_below, name_below, sha256_of

_log = logging.getLogger(__name__)
Points = list[tuple[int, float]]  # (step, value)
Curve = dict[str, Points]  # by metric
Digests = dict[StoredPath, str]
_HAS_A_REASON = (State.INFEASIBLE, State.FAILED)


@dataclass(frozen=True, slots=True)
class Problem:
    """A promise that is not kept. `stray`: the file that may be deleted to repair it."""

    trial: int | None
    kind: str
    text: str
    stray: StoredPath | None = None


def study_problems(ledger: Ledger, row: StudyRow, root: StoredPath, place: str) -> list[Problem]:
    """Everything that is not as promised; `place` is the study's folder below the checkpoint folder `root`."""
    records = ledger.trials(row.study_id)
    told = was_told(row.identity)  # by a script: no files are kept, and other metrics may have fewer values
    thinned = told or _is_thinned(ledger, row)
    digests: Digests = {}  # each file is read once, however many trials share it
    curves = _curves(ledger.measurements(row.study_id))
    found = [Problem(None, "database", text) for text in (*ledger.damage(), *ledger.unreadable_rows(row))]
    if len(records) < row.study.num_trials:
        found.append(
            Problem(None, "missing", f"{row.study.num_trials} trials were planned and {len(records)} are there")
        )
    for number, metric, step in ledger.unreadable_values(row.study_id):
        found.append(
            Problem(number, "curve", f"{metric} at step {step} is no value that was ever written; read as NaN")
        )
    for record in records:
        curve = curves[record.number]
        if told:
            curve = {name: points for name, points in curve.items() if name == row.study.objective.metric}
        found += _state_problems(row.study, record, thinned)
        found += [Problem(record.number, "declaration", text) for text in declaration_problems(row.study, record)]
        found += _curve_problems(row.study, record, curve)
        selecting = curve.get(row.study.objective.metric, [])
        found += _stopping_problems(row.study, record, selecting)
        if not thinned:
            found += _best_problems(row.study, record, selecting)
        for kept in record.checkpoints:
            whose = f"{kept.kind} checkpoint"
            found += [Problem(record.number, "file", text) for text in _file_problems(root, kept, whose, digests)]
    found += _base_problems(records, root, digests)
    found += _start_problems(ledger, row, root)
    strays = stray_files(ledger, row.study_id, root, place)
    return found + [Problem(None, "stray", f"{path} belongs to no trial", path) for path in strays]


def _start_problems(ledger: Ledger, row: StudyRow, root: StoredPath) -> Iterator[Problem]:
    """The weights of an earlier stage are there as they were copied."""
    for file in ledger.start_files(row.study_id):
        wrong = difference(root, file)
        if wrong:
            yield Problem(None, "start", f"{root / file.path}, which its trials start from, {wrong}")


def _is_thinned(ledger: Ledger, row: StudyRow) -> bool:
    """Whether checkpoints of a study were deleted to save room; a damaged record of that is listed with the others."""
    try:
        return ledger.conclusion(row.campaign, Retention, row.study_id) is not None
    except StorageError:
        return True


def stray_files(ledger: Ledger, study_id: int, root: StoredPath, place: str) -> list[StoredPath]:
    """Files that no checkpoint names and none ever will: a worker was killed between its commit and its clean-up.

    The files are listed before the Ledger is read: what is there already, and is not of a running trial, can
    only become anybody's under the fence of a later claim, and then its name would be another.
    """
    folder = root / place
    files = files_below(folder) if lies_below(folder, root) else []
    files = [path for path in files if not _is_of_a_loop(PurePosixPath(name_below(path, folder)))]
    if not _unknown(files, ledger, root):
        return []  # as nearly always, and found without reading every trial
    running = {f"trial-{record.number:05d}" for record in ledger.trials(study_id) if record.state is State.RUNNING}
    return [path for path in _unknown(files, ledger, root) if not _is_in_use(path, running)]


def _is_of_a_loop(path: PurePosixPath) -> bool:
    """Whether a loop wrote this file, relative to the study's folder, into the folder that its trial gave it."""
    return len(path.parts) > 2 and path.parts[0].startswith("trial-") and path.parts[1] == LOOP_FOLDER


def _unknown(files: Sequence[StoredPath], ledger: Ledger, root: StoredPath) -> list[StoredPath]:
    known = {file.path for file in ledger.checkpoint_files()}
    return [path for path in files if name_below(path, root) not in known]


def _is_in_use(path: StoredPath, running: Collection[str]) -> bool:
    """Whether a trial that runs may be about to name this file: its own, or one that several share."""
    shared = is_base(path) or path.parent.name.startswith(GROUP_FOLDER)
    return path.parent.name in running or (bool(running) and shared)


@contextmanager
def strays_held(ledger: Ledger, root: StoredPath, places: Mapping[int, str]) -> Iterator[list[StoredPath]]:
    """The stray files of studies, by id with their places, to be deleted or moved within.

    A trial that is claimed in this moment might begin to need a file of frozen parameters that lies there already: no
    trial can be claimed meanwhile, where there is such a file.
    """
    strays = _strays_of(ledger, root, places)
    if not any(map(is_base, strays)):
        yield strays
        return
    with ledger.claims_held_off():
        yield _strays_of(ledger, root, places)


def _strays_of(ledger: Ledger, root: StoredPath, places: Mapping[int, str]) -> list[StoredPath]:
    return [path for study_id, place in places.items() for path in stray_files(ledger, study_id, root, place)]


def clear_strays(ledger: Ledger, study_id: int, root: StoredPath, place: str) -> int:
    """Delete what workers of this storage left behind, and move all else to the trash; returns how many files."""
    with strays_held(ledger, root, {study_id: place}) as strays:
        fences = ledger.fences_by_folder() if strays else {}
        left = [path for path in strays if was_written_here(name_below(path, root), fences)]
        for path in left:
            with suppress(OSError):  # it costs room, and no trial
                path.unlink()
        others = sorted(set(strays) - set(left))
        if others:
            trash = new_trash(root)
            moved = move_to_trash(root, others, trash)
            _log.warning("%d files that no worker of this storage wrote were moved to %s", len(moved), trash)
        return len(strays)


def _state_problems(study: Study, record: TrialRecord, thinned: bool) -> Iterator[Problem]:
    if record.schedule is None:
        yield Problem(record.number, "unreadable", record.reason)
    if record.state in _HAS_A_REASON and not record.reason:
        yield Problem(record.number, "state", f"is {record.state.value} and does not say why")
    if record.state is not State.COMPLETE or study.source:
        return
    if record.step != study.budget.max_train_steps and not record.stopped_early:
        yield Problem(
            record.number, "state", f"complete at step {record.step}, and the budget is {study.budget.max_train_steps}"
        )
    if not thinned and not any(kept.kind == "latest" and kept.step == record.step for kept in record.checkpoints):
        yield Problem(record.number, "state", "complete without its last checkpoint")


# Older versions did not count clipped updates: a trial that went on since then has these from some evaluation on.
_COUNTED_LATER = {str(LARGEST_GRADIENT_NORM), str(CLIPPED_SHARE)}


_OF_SINGLE_UPDATES = {str(STEP_LOSS), str(STEP_NORM)}  # measured between evaluations


def _curve_problems(study: Study, record: TrialRecord, curve: Curve) -> Iterator[Problem]:
    """Every metric once at every evaluation up to the last committed step, and nothing beyond it.

    A trial whose last update made it infeasible may have ended before the evaluation that was due at that step, and one
    that is not finished may have been stopped within it.
    """
    if study.source or record.schedule is None:  # measured elsewhere, when others thought it right; or unreadable
        return
    due = [step for step in study.budget.evaluation_steps if step <= record.step]
    unsure = {record.step} if record.state is State.INFEASIBLE or not record.state.finished else set()
    if due and not curve and record.state is State.COMPLETE:
        yield Problem(record.number, "curve", "has no measurements")
    for metric, points in curve.items():
        if metric in _OF_SINGLE_UPDATES and study.traced_every:
            continue
        steps = {step for step, _ in points}
        missing, beyond = sorted(set(due) - unsure - steps), sorted(steps - set(due))
        if metric in _COUNTED_LATER:
            missing = [step for step in missing if step > min(steps)]
        if missing:
            yield Problem(record.number, "curve", f"{metric} is missing at step {_listed(missing)}")
        if beyond:
            yield Problem(record.number, "curve", f"{metric} was measured at step {_listed(beyond)}, where none is due")


def _best_problems(study: Study, record: TrialRecord, measured: Points) -> Iterator[Problem]:
    """The best checkpoint of a finished training is that of the best step of its curve (I5, I8)."""
    best = study.objective.best(measured)
    if best is None or record.state is not State.COMPLETE or study.source:
        return
    kept = [(one.step, one.value) for one in record.checkpoints if one.kind == "best"]
    if best not in kept:
        told = ", ".join(f"{value} at step {step}" for step, value in kept) or "none"
        text = f"the curve is best at step {best[0]} with {best[1]}, and the best checkpoints are {told}"
        yield Problem(record.number, "best", text)


def _stopping_problems(study: Study, record: TrialRecord, measured: Points) -> Iterator[Problem]:
    """A trial of a study with early stopping ended where its curve says, and no other trial ended before its budget."""
    if record.state is not State.COMPLETE or study.source or not (study.patience_steps or record.stopped_early):
        return
    due = stopping_step(measured, study.objective, study.patience_steps) or study.budget.max_train_steps
    if min(due, study.budget.max_train_steps) != record.step:
        words = f"patience_steps={study.patience_steps} ends its curve at step {due}"
        yield Problem(record.number, "state", f"complete at step {record.step}, and {words}")


def _base_problems(records: Sequence[TrialRecord], root: StoredPath, digests: Digests) -> Iterator[Problem]:
    """What is wrong with the files that checkpoints need besides their own, each with how many trials need it."""
    bases = {(kept.base, record.number) for record in records for kept in record.checkpoints if kept.base is not None}
    users = Counter(base for base, _ in bases)
    for base in sorted(users, key=lambda one: one.file):
        for text in _file_problems(root, base, "file of frozen parameters", digests):
            needed = f"the checkpoints of {users[base]} trial{'s' * (users[base] > 1)} need it"
            again = "a trial with the same frozen parameters that is trained from now on writes it again"
            yield Problem(None, "file", f"{text}; {needed}, and {again}")


def _file_problems(root: StoredPath, kept: Checkpoint | BaseFile, whose: str, digests: Digests) -> Iterator[str]:
    path = root / kept.file
    try:
        path.resolve().is_file()
    except (OSError, ValueError) as error:  # a name that no file can have
        yield f"{whose} {quoted(kept.file)} cannot be looked at: {error!s:.80}"
        return
    if not lies_below(path, root):
        yield f"{kept.file} lies outside the checkpoint folder {root}"
    elif not path.is_file():
        yield f"{whose} {path} is missing"
    elif path.stat().st_size != kept.num_bytes:
        yield f"{path} has {path.stat().st_size} bytes, and {kept.num_bytes} were recorded"
    elif _sha256(path, digests) != kept.digest:
        yield f"{path} is damaged: its sha256 is not the recorded one"


def _curves(measured: Measurements) -> defaultdict[int, Curve]:
    """Steps and values by trial and metric."""
    curves: defaultdict[int, Curve] = defaultdict(dict)
    columns = (measured.trial_numbers, measured.steps, measured.metrics, measured.values)
    for number, step, metric, value in zip(*columns, strict=True):
        curves[number].setdefault(metric, []).append((step, value))
    return curves


def _sha256(path: StoredPath, known: Digests) -> str:
    if path not in known:
        known[path] = sha256_of(path)
    return known[path]


def _listed(steps: list[int]) -> str:
    return ", ".join(map(str, steps[:5])) + (", ..." if len(steps) > 5 else "")


_ROOM = 1e-9  # relative: a bound that went through a text or a logarithm
_SEARCHED = "quasi-random"  # the origin of a point from the study's own space begins so


def declaration_problems(study: Study, record: TrialRecord) -> Iterator[str]:
    """What of a readable trial is not as its study declares, in words.

    A promoted point was searched in the space of another round, perhaps in another branch, and an arm has another rate
    than was searched: of those only the types of values are looked at. What is not known elsewhere is no problem.
    """
    if record.schedule is None:
        return
    steps = len(record.schedule)
    if steps != study.budget.max_train_steps:
        yield f"its schedule has {steps:,} steps, and the budget of the study is {study.budget.max_train_steps:,}"
    yield from _point_problems(study, dict(record.point.values_by_name), _is_searched(study, record))


def _is_searched(study: Study, record: TrialRecord) -> bool:
    """Whether the point came from this study's own space, so that its values lie in the ranges declared here."""
    if study.source or study.sampler:
        return True
    return study.kind == "round" and record.origin.startswith(_SEARCHED)


def _point_problems(study: Study, point: Mapping[str, Value], searched: bool) -> Iterator[str]:
    if study.hyperparameters and not point:
        yield f"its point has no {quoted(study.hyperparameters[0].name)}, and nothing else"
        return
    if searched and not study.source:
        yield from _name_problems(study, point)
    for hyperparameter in study.hyperparameters:
        name = hyperparameter.name
        told = _value_problem(hyperparameter.domain, point[name], searched) if name in point else ""
        if told:
            yield f"{quoted(name)} is {quoted(point[name])}, {told}"


def _name_problems(study: Study, point: Mapping[str, Value]) -> Iterator[str]:
    """A point has what exists at its place in the space, and nothing else."""
    known = {name: constant.value for name, constant in study.fixed} | dict(point)
    for hyperparameter in study.hyperparameters:
        name, condition = hyperparameter.name, hyperparameter.condition
        exists = condition is None or known.get(condition[0]) == condition[1]
        if exists and name not in point:
            yield f"its point has no {quoted(name)}"
        if condition is not None and not exists and name in point:
            yield f"its point has {quoted(name)}, which exists only where {condition[0]} is {quoted(condition[1])}"
    declared = {one.name for one in study.hyperparameters} | {name for name, _ in study.fixed}
    for name in point.keys() - declared:
        yield f"its point has {quoted(name)}, which the study does not declare"


def _value_problem(domain: Domain, value: Value, searched: bool) -> str:
    if isinstance(domain, Choice):
        among = any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in domain.choices)
        return "" if among or not searched else f"none of the choices {quoted(list(domain.choices))}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "no number"
    if domain.integer and searched and value != math.floor(value):
        return "no whole number"
    return "" if not searched or _lies_within(domain, value) else f"outside {domain.low:g} to {domain.high:g}"


def _lies_within(domain: Range, value: float) -> bool:
    room = _ROOM * max(abs(domain.low), abs(domain.high), domain.high - domain.low)
    low_room = _ROOM * abs(domain.low) if domain.log else room
    return domain.low - low_room <= value <= domain.high + room
