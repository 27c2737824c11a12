"""Training a recorded trial again, from its first step, to see whether the same bits come out (B45)."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tuner.design.own_loop import OwnLoop
from tuner.design.workload import Trainable
from tuner.execution.identifying import changed_since
from tuner.execution.loaded_workload import LoadedWorkload
from tuner.execution.machine import Machine
from tuner.records import Claim, Measurement, Promises, TrialRecord, TrialUpdate
from tuner.records.promises import common_promises
from tuner.storage.ownership import folder_to_read
from tuner.storage.store import Ledger
from tuner.storage.studies import StudyRow
from tuner.training.engine import EngineMaker
from tuner.training.setup import StudySetup

NEVER = 1e9  # seconds between commits


@dataclass(frozen=True, slots=True)
class Replay:
    """How many values of the curves were compared and how many were not the same bits.

    `causes`: what is not as it was when the trial was recorded, in words: of the workload, and of the Numerics.
    """

    values: int
    different: int
    first_difference: str
    causes: tuple[str, ...] = ()


class ListRecorder:
    """A recorder that is a list."""

    def __init__(self) -> None:
        self.measurements: list[Measurement] = []

    def record(self, updates: Sequence[TrialUpdate]) -> None:
        for update in updates:
            self.measurements += update.measurements


def replayed(  # noqa: PLR0913 - keywords with defaults
    ledger: Ledger,
    row: StudyRow,
    number: int,
    workload: Trainable,
    *,
    device: str | None = None,
    threads: int = 1,
    study_file: Path | None = None,
    engine: EngineMaker | None = None,
    tell: Callable[[str], None] = lambda words: None,
) -> Replay:
    """Train trial `number` of a study again and compare every value of its curves. Writes nothing that stays.

    All of its steps are trained, also those that it inherited from another trial. `tell` is called before that with
    each circumstance that has changed.
    """
    record = ledger.trial(row.study_id, number)
    trial = replace(record.readable_trial(), pins=())
    recorder = ListRecorder()
    with tempfile.TemporaryDirectory() as folder:
        machine = Machine(Path(folder), device, threads, commit_seconds=NEVER)
        loaded = LoadedWorkload(workload, machine, study_file, engine)
        loaded.inherit_recorded(ledger, row, folder_to_read(ledger, None))
        setup = loaded.setup(row.study, "replay")
        trained_by = loaded.engine(setup)
        recorded = common_promises(launch.promises for launch in ledger.launches(row.study_id))
        promises = recorded if isinstance(workload, OwnLoop) else trained_by.promises
        causes = _causes(record, setup, promises, changed_since(row, loaded.identifier, setup, beginning=True))
        for words in (*causes, *_about(record, promises)):
            tell(words)
        trained_by.settle(trial)
        trained_by.trainer(recorder, lambda claim, step: None).train([Claim(record.trial_id, 1, trial, 1)])
    return replace(_compared(ledger, row, record, recorder.measurements), causes=tuple(causes))


def _about(record: TrialRecord, promises: Promises) -> list[str]:
    """What to know of a replay besides what has changed."""
    told = []
    missing = promises.missing_of(["exact_resume", "deterministic"])
    if missing:
        told.append(f"not promised: {'; '.join(missing)}")
    if record.inherited.steps:
        told.append(
            f"all {record.step:,} steps are trained from the first one; of the recorded ones "
            f"{record.inherited.steps:,} were inherited from another trial"
        )
    return told


def _causes(record: TrialRecord, setup: StudySetup, promises: Promises, changed: Sequence[str]) -> list[str]:
    """Why the bits may differ: another workload, or other Numerics."""
    found = [f"the workload is not the one that was recorded: {'; '.join(changed)}"] if changed else []
    if not record.exact and promises.exact_resume:
        found.append("the trial was not trained under one set of Numerics and code alone (exact=false)")
    different = setup.numerics.differences(record.numerics) if record.numerics else ()
    return found + ([f"other Numerics: {'; '.join(different)}"] if different else [])


def _compared(ledger: Ledger, row: StudyRow, record: TrialRecord, again: Sequence[Measurement]) -> Replay:
    stored = ledger.measurements(row.study_id)
    columns = zip(stored.trial_numbers, stored.steps, stored.metrics, stored.values, strict=True)
    recorded = {(step, metric): value for trial, step, metric, value in columns if trial == record.number}
    until = max((step for step, _ in recorded), default=0)  # an unfinished trial has no curve beyond it
    fresh = {(m.step, m.metric): m.value for m in again if record.state.finished or m.step <= until}
    different = [
        f"{metric} at step {step}: recorded {recorded.get((step, metric))}, now {fresh.get((step, metric))}"
        for step, metric in sorted(recorded.keys() | fresh.keys())
        if _bits(recorded.get((step, metric))) != _bits(fresh.get((step, metric)))
    ]
    return Replay(len(recorded), len(different), different[0] if different else "")


def _bits(value: float | None) -> str:
    return "missing" if value is None else value.hex()
