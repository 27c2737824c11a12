"""Training a recorded trial again, from its first step, to see whether the same bits come out (B45)."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tuner.design.trial import Trial
from tuner.design.workload import Workload
from tuner.errors import StorageError
from tuner.records import Claim, Measurement, TrialRecord, TrialUpdate
from tuner.storage.store import Ledger
from tuner.storage.studies import StudyRow
from tuner.training.determinism import settle_determinism
from tuner.training.numerics import choose_device, prepare_numerics
from tuner.training.setting import Data, Setting
from tuner.training.trainer import Trainer


@dataclass(frozen=True, slots=True)
class Outcome:
    """How many values of the curves were compared and how many were not the same bits."""

    values: int
    different: int
    first_difference: str
    recorded_numerics: str | None


class ListRecorder:
    """A recorder that is a list."""

    def __init__(self) -> None:
        self.measurements: list[Measurement] = []

    def record(self, updates: Sequence[TrialUpdate]) -> None:
        for update in updates:
            self.measurements += update.measurements


def replayed(
    ledger: Ledger, row: StudyRow, number: int, workload: Workload, *, device: str | None = None, threads: int = 1
) -> Outcome:
    """Train trial `number` of a study again and compare every value of its curves. Writes nothing that stays."""
    record = ledger.trial(row.study_id, number)
    if record.schedule is None:
        raise StorageError(f"trial {number} has no recorded schedule and cannot be replayed")
    trial = Trial(number, record.point, record.seed, record.data_seed, record.schedule, record.origin)
    chosen = choose_device(device)
    prepare_numerics(chosen, threads)
    recorder = ListRecorder()
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(row.study, workload, Data.of(workload, chosen), chosen, Path(folder), "replay", 1e9)
        settle_determinism(setting, trial)
        Trainer(setting, recorder).train(Claim(record.trial_id, 1, trial, 1))
    return _compared(ledger, row, record, recorder.measurements)


def _compared(ledger: Ledger, row: StudyRow, record: TrialRecord, again: Sequence[Measurement]) -> Outcome:
    stored = ledger.measurements(row.study_id)
    columns = zip(stored.trial_numbers, stored.steps, stored.metrics, stored.values, strict=True)
    recorded = {(step, metric): value for trial, step, metric, value in columns if trial == record.number}
    fresh = {(m.step, m.metric): m.value for m in again}
    different = [
        f"{metric} at step {step}: recorded {recorded.get((step, metric))}, now {fresh.get((step, metric))}"
        for step, metric in sorted(recorded.keys() | fresh.keys())
        if _bits(recorded.get((step, metric))) != _bits(fresh.get((step, metric)))
    ]
    return Outcome(len(recorded), len(different), different[0] if different else "", record.numerics)


def _bits(value: float | None) -> str:
    return "missing" if value is None else value.hex()
