"""Hostile checkpoint files, links where files belong, and who may read what is written (R51, R52, R56, R60)."""

import hashlib
import os
import pickle
import stat
import struct

import numpy as np
import pytest
import torch
from support.tiny import CuttingRecorder, StopAt, Tiny, setting_for, tiny_study, train_alone

from tuner.errors import CorruptCheckpoint, StorageError
from tuner.records import Checkpoint, State
from tuner.rounds.plan import planned_trials
from tuner.storage.verify import clear_strays, stray_files
from tuner.training.checkpoints import CheckpointFolder, read_state, read_weights

STUDY = tiny_study()
TRIAL = planned_trials(STUDY)[0]


class Payload:
    """Unpickled, it writes a file."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return (open, (self.marker, "w"))


def torch_zip(path, payload):
    torch.save({"step": 5, "model": payload}, path)


def torch_legacy(path, payload):
    torch.save({"step": 5, "model": payload}, path, _use_new_zipfile_serialization=False)


def plain_pickle(path, payload):
    path.write_bytes(pickle.dumps(payload))


def numpy_objects(path, payload):
    with path.open("wb") as file:
        np.save(file, np.array([payload], dtype=object), allow_pickle=True)


def scripted(path, payload):
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), str(path))


def huge_header(path, payload):
    path.write_bytes(struct.pack("<Q", 2**60) + b"{}")


def names_of_others(path, payload):
    header = b'{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,4000000]}}'
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 16)


def garbage(path, payload):
    path.write_bytes(os.urandom(1000))


FORGERIES = (
    torch_zip, torch_legacy, plain_pickle, numpy_objects, scripted, huge_header, names_of_others, garbage,
)  # fmt: skip


def recorded(root, file, kind="latest", step=5):
    """A checkpoint of which the Ledger, in a stranger's hands, says that it is just as it should be."""
    content = (root / file).read_bytes()
    return Checkpoint(kind, step, file, hashlib.sha256(content).hexdigest(), len(content))


@pytest.mark.parametrize("forge", FORGERIES)
def test_a_forged_checkpoint_is_refused_and_runs_nothing(forge, tmp_path):
    marker = tmp_path / "marker"
    forge(tmp_path / "forged.pt", Payload(marker))
    forged = recorded(tmp_path, "forged.pt")
    for read in (read_state, read_weights):
        with pytest.raises(CorruptCheckpoint):
            read(tmp_path, forged)
    assert not marker.exists()


def test_the_payload_would_have_run(tmp_path):
    torch_zip(tmp_path / "forged.pt", Payload(tmp_path / "marker"))
    loaded = torch.load(tmp_path / "forged.pt", weights_only=False)
    loaded["model"].close()
    assert (tmp_path / "marker").exists()


def test_a_folder_of_distributed_checkpoints_is_no_checkpoint(tmp_path):
    (tmp_path / "forged.pt").mkdir()
    (tmp_path / "forged.pt" / ".metadata").write_bytes(pickle.dumps(Payload(tmp_path / "marker")))
    for read in (read_state, read_weights):
        with pytest.raises(CorruptCheckpoint, match="missing"):
            read(tmp_path, Checkpoint("latest", 5, "forged.pt", "0" * 64, 1))
    assert not (tmp_path / "marker").exists()


STRANGE_STATES = {
    "a list": [1, 2],
    "no step": {"model": {}},
    "a text for a step": {"step": "x", "model": {}, "optimizer": {}, "best": []},
    "another model": {"step": 5, "model": {"0.weight": torch.zeros(3)}, "optimizer": {}, "best": []},
}


@pytest.mark.parametrize("name", STRANGE_STATES)
def test_a_state_of_something_else_is_passed_over_and_the_trial_starts_again(name, tmp_path):
    recorder = CuttingRecorder()
    torch.save(STRANGE_STATES[name], tmp_path / "strange.pt")
    claim = recorder.claim(TRIAL)
    claim = type(claim)(1, 1, TRIAL, 1, (recorded(tmp_path, "strange.pt"),))
    update = train_alone(setting_for(STUDY, tmp_path), recorder, claim)
    assert (update.state, update.step) == (State.COMPLETE, 24)


def test_nothing_is_written_or_deleted_through_a_link(tmp_path):
    root, outside = tmp_path / "checkpoints", tmp_path / "outside"
    for folder in (root / "tiny" / "round-1", outside):
        folder.mkdir(parents=True)
    (outside / "diary.txt").write_text("mine")
    (root / "tiny" / "round-1" / "trial-00000").symlink_to(outside)
    folder = CheckpointFolder(root, "tiny/round-1/trial-00000", 1)
    folder.sweep(set())
    with pytest.raises(StorageError, match="leads out of the checkpoint folder; remove the link there"):
        folder.write_state("latest", 5, {"step": 5}, None)
    assert [path.name for path in outside.iterdir()] == ["diary.txt"]


def test_a_link_in_the_place_of_a_new_file_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    folder = CheckpointFolder(tmp_path / "root", "trial-00000", 1)
    (tmp_path / "root" / "trial-00000").mkdir(parents=True)
    for name in (f".latest-000000005-1.pt.{os.getpid()}.tmp", "latest-000000006-1.pt"):
        (tmp_path / "root" / "trial-00000" / name).symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        folder.write_state("latest", 5, {"step": 5}, None)
    written = folder.write_state("latest", 6, {"step": 6}, None)
    assert read_state(tmp_path / "root", written) == {"step": 6}
    assert victim.read_text() == "mine"


class Unknowing:
    """A Ledger that knows no file and no trial."""

    def trials(self, study_id):
        return []

    def checkpoint_files(self):
        return []

    def fences_by_folder(self):
        return {}


def test_strays_are_looked_for_in_the_folder_of_the_study_alone(tmp_path):
    root, outside = tmp_path / "checkpoints", tmp_path / "outside"
    for folder in (root / "tiny", outside):
        folder.mkdir(parents=True)
    (outside / "diary.txt").write_text("mine")
    (root / "tiny" / "elsewhere").symlink_to(outside)
    (root / "tiny" / "stray.pt").write_text("x")
    assert stray_files(Unknowing(), 1, root, "../outside") == []
    assert clear_strays(Unknowing(), 1, root, "tiny") == 2, "the stray file and the link itself"
    assert {path.name for path in root.rglob(".trash/*/tiny/*")} == {"elsewhere", "stray.pt"}
    assert (outside / "diary.txt").exists()


def test_what_is_written_is_for_its_owner_alone(tmp_path):
    before = os.umask(0)
    try:
        train_alone(setting_for(STUDY, tmp_path / "new" / "root"), CuttingRecorder(), CuttingRecorder().claim(TRIAL))
    finally:
        os.umask(before)
    for path in (tmp_path / "new", *(tmp_path / "new").rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_a_training_whose_old_files_cannot_be_deleted_goes_on_to_its_end(tmp_path, monkeypatch, caplog):
    def refuse(path, **options):
        raise PermissionError(13, f"no: {path}")

    monkeypatch.setattr(type(tmp_path), "unlink", refuse)
    recorder = CuttingRecorder()
    update = train_alone(setting_for(STUDY, tmp_path, commit_seconds=0.0), recorder, recorder.claim(TRIAL))
    assert update.state is State.COMPLETE
    assert "cannot delete" in caplog.text
    assert all((tmp_path / kept.file).is_file() for kept in recorder.checkpoints)


def test_other_threads_than_before_are_told_and_never_silent(tmp_path):
    recorder, threads = CuttingRecorder(), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        train_alone(setting_for(STUDY, tmp_path, stop=StopAt(10)), recorder, recorder.claim(TRIAL))
        torch.set_num_threads(2)
        update = train_alone(setting_for(STUDY, tmp_path), recorder, recorder.claim(TRIAL))
    finally:
        torch.set_num_threads(threads)
    assert '"threads": 2' in update.numerics.text
    assert update.numerics.text.endswith('"exact": false}')


def test_one_gradient_that_is_no_number_under_clipping_ends_the_trial_with_finite_weights(tmp_path):
    class Poisoned(Tiny):
        def loss(self, model, batch, point):
            loss = super().loss(model, batch, point)
            self.steps = getattr(self, "steps", 0) + 1
            if self.steps == 14:
                loss.register_hook(lambda gradient: gradient * float("nan"))
            return loss

    study = tiny_study(space=None)
    trial = planned_trials(study)[0]
    clipped = type(trial.point).of({**dict(trial.point), "clip_norm": 0.5})
    recorder = CuttingRecorder()
    trial = type(trial)(0, clipped, trial.seed, trial.data_seed, trial.schedule, trial.origin)
    update = train_alone(setting_for(study, tmp_path, Poisoned(), commit_seconds=0.0), recorder, recorder.claim(trial))
    assert update.state is State.INFEASIBLE
    assert "step 1" in update.reason
    kept = [read_weights(tmp_path, one) for one in recorder.checkpoints if one.kind == "best"]
    assert kept
    assert all(bool(torch.isfinite(tensor).all()) for weights in kept for tensor in weights.values())
