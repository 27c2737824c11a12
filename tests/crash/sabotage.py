"""The program broken on purpose, one promise at a time: the suite that proves the promises must notice each."""

import os
import stat
from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import patch

import torch

from tuner import system
from tuner.errors import LeaseLost
from tuner.records import FROZEN_FOLDER
from tuner.storage import claims, engine, recording
from tuner.storage.reading import declared_trial
from tuner.storage.store import Ledger
from tuner.stores import writing
from tuner.training import checkpoints, logbook
from tuner.training import order as order_of_batches


def no_fence():
    """Whoever ever owned a trial may write to it."""
    whole = recording._batches

    def without(batch):
        guarded = "trial.fence = ? AND trial.state = 'running'"
        assert guarded in batch.sql
        return replace(batch, sql=batch.sql.replace(guarded, "trial.fence >= ?"))

    def batches_without(dialect):
        known = whole(dialect)
        return replace(known, go_on=without(known.go_on), end=without(known.end))

    recording._batches = batches_without


def pointer_before_file():
    """The Ledger points to a checkpoint before it is written."""
    later = []
    write = writing.write_durably
    sweep = checkpoints.CheckpointFolder.sweep

    def write_elsewhere(path, content, digits="", **options):
        if path.parent.name == FROZEN_FOLDER:
            return write(path, content, digits, **options)
        later.append(path)
        path.parent.mkdir(exist_ok=True, parents=True)
        return write(path.parent.parent / f"{path.name}.later", content)

    def move_later(self, keep):
        for path in later:
            path.parent.mkdir(exist_ok=True)
            (path.parent.parent / f"{path.name}.later").rename(path)
        later.clear()
        sweep(self, keep)

    patch.object(checkpoints, "write_durably", write_elsewhere).start()
    checkpoints.CheckpointFolder.sweep = move_later


def curve_outside_the_transaction():
    """Measurements are written on their own, after the state."""
    record = Ledger.record
    measure = recording.write_measurements

    def twice(self, updates):
        recording.write_measurements = lambda *arguments: None
        record(self, updates)
        recording.write_measurements = measure
        self._database.write(lambda connection: measure(connection, updates, self._metric_ids))

    Ledger.record = twice


def collection_before_commit():
    """Older checkpoints are deleted before the pointer to the new one is durable."""
    commit = logbook.Logbook._write_files

    def sweeping(self, state):
        written = commit(self, state)
        self.folder.sweep({checkpoint.file for checkpoint in written})
        return written

    logbook.Logbook._write_files = sweeping


def loader_on_the_global_generator():
    """The order of the examples draws from torch's global generator."""
    order = lambda data_seed, epoch, num_examples: torch.randperm(num_examples)  # noqa: E731
    patch.object(order_of_batches, "epoch_order", order).start()


def no_attempt_cap():
    """A trial may take down any number of workers."""
    every = lambda connection, rows, checkpoints, most: {row.id: declared_trial(row) for row in rows}  # noqa: E731
    patch.object(claims, "_worth_trying", every).start()


def no_fence_in_names():
    """Two owners of a trial write under the same names."""
    made = checkpoints.CheckpointFolder.__init__

    def without(self, root, place, fence=0):
        made(self, root, place, 0)

    checkpoints.CheckpointFolder.__init__ = without


def no_repetition():
    """A commit whose answer got lost is an end, although it was written."""

    def refuse(connection, updates):
        raise LeaseLost("not ours")

    recording._refuse_lost = refuse


def _sync_only(wanted):
    """Let checkpoints sync only what is `wanted` by its mode."""

    def sync(descriptor):
        if wanted(os.fstat(descriptor).st_mode):
            os.fsync(descriptor)

    files = SimpleNamespace(**{**vars(os), "fsync": sync})
    for module in (writing, system):
        patch.object(module, "os", files).start()


def no_sync_of_files():
    """A checkpoint gets its name before its contents are on the disk."""
    _sync_only(stat.S_ISDIR)


def no_sync_of_folders():
    """The name of a checkpoint is not on the disk when the Ledger points to it."""
    _sync_only(stat.S_ISREG)


def no_sync_of_frozen_files():
    """Checkpoints leave out what may not be on the disk yet."""
    write = checkpoints.CheckpointFolder.write_base

    def without(self, name, content, number):
        files = SimpleNamespace(**{**vars(os), "fsync": lambda descriptor: None})
        with patch.object(writing, "os", files):
            return write(self, name, content, number)

    checkpoints.CheckpointFolder.write_base = without


def commits_that_are_not_synced():
    """SQLite answers before the commit is on the disk."""
    engine._PRAGMAS = tuple(pragma.replace("FULL", "NORMAL") for pragma in engine._PRAGMAS)


EVERY_SEVENTH = ("systematic", (3, 7))
AT_COMMITS = ("power", (0, 10_000))
SABOTAGES = {  # the mode of the loop that must notice it, and its numbers
    "no_fence": ("zombie", ()),
    "no_fence_in_names": ("zombie", ()),
    "pointer_before_file": EVERY_SEVENTH,
    "curve_outside_the_transaction": EVERY_SEVENTH,
    "collection_before_commit": EVERY_SEVENTH,
    "loader_on_the_global_generator": EVERY_SEVENTH,
    "no_sync_of_files": AT_COMMITS,
    "no_sync_of_folders": AT_COMMITS,
    "no_sync_of_frozen_files": AT_COMMITS,
    "commits_that_are_not_synced": AT_COMMITS,
    "no_attempt_cap": ("poison", ()),
    "no_repetition": ("lost", ()),
}


def sabotage(name):
    """Break the program in this process."""
    globals()[name]()
