"""Trials that may start from each other's first steps, through a real Ledger and a real backend; what came out."""

from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from support.loaded import loaded, train
from support.tiny import Tiny
from tuner.budget.transfer import lengthened
from tuner.errors import Interrupted
from tuner.records import State
from tuner.storage.store import Ledger, open_ledger
from tuner.training.checkpoints import canonical_digest, read_state, read_weights


class Counting(Tiny):
    """Counts the steps that are really executed: one augmentation a step."""

    executed = 0

    def augment(self, batch, point, generator):
        type(self).executed += 1
        return super().augment(batch, point, generator)


@dataclass
class Bench:
    """A storage with a checkpoint folder, and one way of training in it."""

    ledger: Ledger
    root: Path
    workload: Tiny

    def train(self, study, trials, *, stops=(), **how):
        """Train a study to its end, interrupted after so many steps of each life; returns its row."""
        for stop in [*stops, None]:
            here = loaded(self.workload, self.root, **how)
            row = self.ledger.start_study("test", study, here.fingerprint())
            self.ledger.plan_trials(row.study_id, trials)
            try:
                train(here, self.ledger, row, stop=_never if stop is None else StopAfter(stop))
            except Interrupted:
                assert stop is not None
        assert self.ledger.state_counts(row.study_id)[State.COMPLETE] == len(trials)
        return row

    def meaning(self, row, number):
        """All that a trial leaves behind, to the last bit."""
        record = self.ledger.trial(row.study_id, number)
        curve = [
            (m.step, m.metric, m.value.hex())
            for m in self.ledger.measured_until(record.trial_id, record.step)
        ]  # fmt: skip
        files = [
            (kept.kind, kept.step, kept.value, canonical_digest(self._content(kept)))
            for kept in record.checkpoints
            if kept.kind != "trunk"
        ]
        return record.state, record.step, record.numerics, curve, files

    def inherited(self, row):
        return [record.inherited.steps for record in self.ledger.trials(row.study_id)]

    def _content(self, kept):
        return (read_weights if kept.kind == "best" else read_state)(self.root, kept)


class StopAfter:
    """Says stop after so many questions (one is asked at each step), and from then on."""

    def __init__(self, steps):
        self.left = steps

    def __call__(self):
        self.left -= 1
        return self.left < 0


def _never():
    return False


@contextmanager
def bench(folder, workload=None):
    folder.mkdir(parents=True, exist_ok=True)
    with open_ledger(str(folder / "ledger.sqlite")) as ledger:
        yield Bench(ledger, folder / "checkpoints", workload or Tiny())


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def longer(trial, steps, **changes):
    """The same trial under its schedule carried over to more steps."""
    return replace(trial, schedule=lengthened(trial.schedule, steps), pins=(), **changes)
