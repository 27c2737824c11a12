"""The order of durable actions (R22): file, its name, its folder, then the record; deletions last of all."""

import os
from pathlib import Path

import pytest
from support.tiny import CuttingRecorder, setting_for, tiny_study, train_alone

from tuner.rounds.plan import planned_trials
from tuner.training import committing

STUDY = tiny_study()


class Journal:
    """What is done to files, and when the record speaks of which."""

    def __init__(self, monkeypatch):
        self.entries = []
        fsync, replace, unlink = os.fsync, Path.replace, Path.unlink

        def synced(descriptor):
            self.entries.append(("sync", os.readlink(f"/proc/self/fd/{descriptor}")))
            fsync(descriptor)

        def renamed(path, target):
            self.entries.append(("rename", f"{path} {target}"))
            return replace(path, target)

        def deleted(path, missing_ok=False):
            self.entries.append(("delete", str(path)))
            unlink(path, missing_ok=missing_ok)

        monkeypatch.setattr(os, "fsync", synced)
        monkeypatch.setattr(Path, "replace", renamed)
        monkeypatch.setattr(Path, "unlink", deleted)

    def before(self, place, kind, what):
        """The last place before `place` where this was done."""
        return max(i for i, entry in enumerate(self.entries[:place]) if entry == (kind, what))


class Recording(CuttingRecorder):
    def __init__(self, journal):
        super().__init__()
        self.journal = journal

    def record(self, updates):
        self.journal.entries.append(("record", tuple(kept.file for kept in updates[0].checkpoints)))
        super().record(updates)


@pytest.mark.parametrize("beside", [False, True])
def test_a_file_is_durable_before_it_is_recorded_and_deleted_after_it_is_forgotten(beside, tmp_path, monkeypatch):
    monkeypatch.setattr(committing, "BACKGROUND_BYTES", 0 if beside else 1 << 40)
    journal = Journal(monkeypatch)
    recorder = Recording(journal)
    root = tmp_path / "checkpoints"
    train_alone(setting_for(STUDY, root, commit_seconds=0.0), recorder, recorder.claim(planned_trials(STUDY)[0]))
    named, checked = (), 0
    for place, (kind, what) in enumerate(journal.entries):
        if kind == "record":
            for file in set(what) - set(named):
                path = root / file
                rename = next(
                    entry for entry in journal.entries if entry[0] == "rename" and entry[1].endswith(f" {path}")
                )
                renamed = journal.before(place, *rename)
                assert journal.before(renamed, "sync", rename[1].split(" ")[0]) < renamed
                assert journal.before(place, "sync", str(path.parent)) > renamed
                checked += 1
            named = what
        if kind == "delete":
            assert os.path.relpath(what, root) not in named
    assert checked >= 3
    folders = [root / "tiny" / "round-1" / "trial-00000", root / "tiny" / "round-1", root / "tiny", root]
    first = next(i for i, (kind, _) in enumerate(journal.entries) if kind == "record")
    for folder in folders:
        assert ("sync", str(folder.parent)) in journal.entries[:first], "a new folder is synced into the one above"
