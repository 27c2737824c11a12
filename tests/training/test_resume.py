"""A trial stopped at any step and resumed ends with the same bits: weights, optimizer state and curve."""

import gc
import hashlib
import io
import pickle
import random
import weakref
from pathlib import Path

import pytest
import torch
from support.tiny import CuttingRecorder, MemoryRecorder, StopAt, Tiny, setting_for, tiny_study, train_alone

from tuner import SearchSpace, log_uniform
from tuner.errors import CorruptCheckpoint, DeviceLost, LeaseLost, Unreachable
from tuner.records import Checkpoint, Claim, Numerics, State
from tuner.rounds.plan import planned_trials
from tuner.training.checkpoints import CheckpointFolder, canonical_digest, read_state, read_weights

STEPS = 24
OPTIMIZERS = {
    "adamw": SearchSpace(learning_rate=log_uniform(1e-3, 1e-1), weight_decay=0.1),
    "adam": SearchSpace(learning_rate=log_uniform(1e-3, 1e-1), clip_norm=0.5),
    "sgd": SearchSpace(learning_rate=log_uniform(1e-3, 1e-1), momentum=0.9, nesterov=True),
}


def trained(study, folder, stops=()):
    """Train trial 0, interrupted at each of `stops` (counted in steps of that life), and return what is left."""
    recorder = MemoryRecorder()
    trial = planned_trials(study)[0]
    for stop in [*stops, None]:
        changes = {} if stop is None else {"stop": StopAt(stop + 1)}
        update = train_alone(setting_for(study, folder, **changes), recorder, recorder.claim(trial))
    assert update.state is State.COMPLETE
    return recorder


def meaning(recorder, folder):
    """Curves, the canonical digest of the last state, and the digests of the kept weights."""
    latest = next(c for c in recorder.checkpoints if c.kind == "latest")
    best = [c for c in recorder.checkpoints if c.kind == "best"]
    return (
        recorder.measurements,
        canonical_digest(read_state(folder, latest)),
        [(c.step, c.value, canonical_digest(read_weights(folder, c))) for c in best],
    )


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_trial_stopped_at_any_step_ends_with_the_same_bits(optimizer, tmp_path):
    study = tiny_study(optimizer=optimizer, space=OPTIMIZERS[optimizer])
    whole = meaning(trained(study, tmp_path / "whole"), tmp_path / "whole")
    for stop in range(STEPS):
        folder = tmp_path / f"stopped-{stop}"
        assert meaning(trained(study, folder, [stop]), folder) == whole, f"stopped at step {stop}"


def test_a_trial_stopped_many_times_ends_with_the_same_bits(tmp_path):
    study = tiny_study()
    whole = meaning(trained(study, tmp_path / "whole"), tmp_path / "whole")
    assert meaning(trained(study, tmp_path / "many", [1] * 20), tmp_path / "many") == whole


def test_durable_commits_in_between_change_nothing_but_what_survives(tmp_path):
    study = tiny_study()
    whole = meaning(trained(study, tmp_path / "whole"), tmp_path / "whole")
    recorder = MemoryRecorder()
    folder = tmp_path / "often"
    train_alone(setting_for(study, folder, commit_seconds=0.0), recorder, recorder.claim(planned_trials(study)[0]))
    assert len(recorder.updates) > 4
    assert meaning(recorder, folder) == whole
    on_disk = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert on_disk == {c.file for c in recorder.checkpoints}, "no file that the record does not know"


def test_a_damaged_checkpoint_is_noticed_and_the_trial_starts_again(tmp_path):
    study = tiny_study()
    whole = meaning(trained(study, tmp_path / "whole"), tmp_path / "whole")
    recorder = MemoryRecorder()
    trial = planned_trials(study)[0]
    train_alone(setting_for(study, tmp_path, stop=StopAt(13)), recorder, recorder.claim(trial))
    latest = next(c for c in recorder.checkpoints if c.kind == "latest")
    content = bytearray((tmp_path / latest.file).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / latest.file).write_bytes(content)
    claim = recorder.claim(trial)
    recorder.updates.clear()
    train_alone(setting_for(study, tmp_path), recorder, claim)
    assert meaning(recorder, tmp_path) == whole


def test_the_global_generator_of_the_caller_is_left_alone(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    trained(tiny_study(), tmp_path)
    assert torch.equal(torch.rand(3), expected)


def test_other_numerics_are_marked_and_never_silent(tmp_path, monkeypatch):
    study = tiny_study()
    recorder = MemoryRecorder()
    trial = planned_trials(study)[0]
    train_alone(setting_for(study, tmp_path, stop=StopAt(10)), recorder, recorder.claim(trial))
    monkeypatch.setattr("tuner.training.setup.numerics", lambda *rest, **named: Numerics.of({"engine": "another"}))
    update = train_alone(setting_for(study, tmp_path), recorder, recorder.claim(trial))
    assert update.numerics.text == '{"engine": "another", "exact": false}'


def damaged(content, kind, generator):
    """One flipped bit, or a shorter file."""
    place = generator.randrange(len(content))
    if kind == "truncated":
        return content[:place]
    return content[:place] + bytes([content[place] ^ (1 << generator.randrange(8))]) + content[place + 1 :]


@pytest.mark.parametrize("kind", ["flipped", "truncated"])
def test_a_damaged_checkpoint_is_noticed_and_the_one_before_it_gives_the_same_bits(kind, tmp_path, caplog):
    study = tiny_study()
    whole = meaning(trained(study, tmp_path / "whole"), tmp_path / "whole")
    generator = random.Random(kind)
    for time in range(20):
        folder, recorder = tmp_path / f"{time}", CuttingRecorder()
        trial = planned_trials(study)[0]
        stop = StopAt(generator.randrange(12, STEPS))
        train_alone(setting_for(study, folder, stop=stop, commit_seconds=0.0), recorder, recorder.claim(trial))
        newest, previous = (c for c in recorder.checkpoints if c.kind == "latest")
        path = folder / newest.file
        path.write_bytes(damaged(path.read_bytes(), kind, generator))
        caplog.clear()
        claim = recorder.claim(trial)
        train_alone(setting_for(study, folder), recorder, claim)
        assert "is damaged" in caplog.text
        assert recorder.updates[-1].cut_back_to == previous.step
        assert meaning(recorder, folder) == whole


def test_when_every_checkpoint_is_damaged_the_trial_starts_again(tmp_path, caplog):
    study = tiny_study()
    whole = meaning(trained(study, tmp_path / "whole"), tmp_path / "whole")
    recorder = CuttingRecorder()
    trial = planned_trials(study)[0]
    train_alone(setting_for(study, tmp_path, stop=StopAt(20), commit_seconds=0.0), recorder, recorder.claim(trial))
    for kept in recorder.checkpoints:
        (tmp_path / kept.file).write_bytes(b"")
    train_alone(setting_for(study, tmp_path), recorder, recorder.claim(trial))
    assert recorder.updates[-1].cut_back_to == -1
    assert meaning(recorder, tmp_path) == whole


def test_a_pickle_that_runs_code_is_refused_although_its_digest_is_right(tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "marker"), "w"))

    for number, content in enumerate([pickle.dumps(Payload()), zipped(Payload())]):
        (tmp_path / f"{number}.pt").write_bytes(content)
        hostile = Checkpoint("latest", 5, f"{number}.pt", hashlib.sha256(content).hexdigest(), len(content))
        with pytest.raises(CorruptCheckpoint, match=f"{number}.pt is no training state"):
            read_state(tmp_path, hostile)
        with pytest.raises(CorruptCheckpoint, match=f"{number}.pt holds no weights"):
            read_weights(tmp_path, hostile)
    assert not (tmp_path / "marker").exists()


def zipped(payload):
    buffer = io.BytesIO()
    torch.save({"step": payload}, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("file", ["../secret.pt", "/etc/hostname", "link/secret.pt"])
def test_nothing_is_read_outside_the_checkpoint_folder(file, tmp_path):
    root = tmp_path / "checkpoints"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    (tmp_path / "secret.pt").write_bytes(b"x")
    digest = hashlib.sha256(b"x").hexdigest()
    with pytest.raises(CorruptCheckpoint, match="lies outside the checkpoint folder"):
        read_state(root, Checkpoint("latest", 5, file, digest, 1))


def test_an_owner_that_lost_its_trial_neither_overwrites_nor_sweeps_the_files_of_the_next(tmp_path):
    old, new = CheckpointFolder(tmp_path, "trial-00000", 1), CheckpointFolder(tmp_path, "trial-00000", 2)
    mine = new.write_state("latest", 10, {"step": 10}, None)
    stale = old.write_state("latest", 10, {"step": 10.0}, None)
    old.sweep(set())
    assert read_state(tmp_path, mine) == {"step": 10}
    assert not (tmp_path / stale.file).exists()
    (tmp_path / "trial-00000" / ".latest-000000020-1.pt.77.tmp").write_bytes(b"torn")
    new.sweep({mine.file})
    assert [path.name for path in (tmp_path / "trial-00000").iterdir()] == ["latest-000000010-2.pt"]


def test_a_file_that_cannot_be_deleted_stops_no_training(tmp_path, monkeypatch, caplog):
    folder = CheckpointFolder(tmp_path, "trial-00000", 1)
    folder.write_state("latest", 10, {"step": 10}, None)
    monkeypatch.setattr(Path, "unlink", refuse)
    folder.sweep(set())
    assert "cannot delete" in caplog.text


def refuse(path, **options):
    raise PermissionError(f"no: {path}")


class AwayRecorder(CuttingRecorder):
    """A recorder whose database is away at some of its calls, having written or not."""

    def __init__(self, away, *, answer_lost):
        super().__init__()
        self.away, self.answer_lost, self.calls = away, answer_lost, 0

    def record(self, updates):
        self.calls += 1
        if self.calls not in self.away or self.answer_lost:
            super().record(updates)
        if self.calls in self.away:
            raise Unreachable("the server is away")


@pytest.mark.parametrize("answer_lost", [False, True])
def test_training_goes_on_while_the_database_is_away(answer_lost, tmp_path):
    study = tiny_study()
    whole = meaning(trained(study, tmp_path / "whole"), tmp_path / "whole")
    recorder = AwayRecorder({1, 2, 4}, answer_lost=answer_lost)
    folder = tmp_path / "away"
    trial = planned_trials(study)[0]
    train_alone(setting_for(study, folder, commit_seconds=0.0), recorder, recorder.claim(trial))
    assert recorder.calls == len({*study.budget.evaluation_steps, *trial.pins}), "a commit wherever it stops to look"
    assert meaning(recorder, folder) == whole


def test_the_end_of_a_trial_is_not_taken_for_written_while_the_database_is_away(tmp_path):
    recorder = AwayRecorder({1}, answer_lost=False)
    with pytest.raises(Unreachable):
        train_alone(setting_for(tiny_study(), tmp_path), recorder, recorder.claim(planned_trials(tiny_study())[0]))


def test_a_refused_commit_takes_its_files_back(tmp_path):
    recorder = AwayRecorder(set(), answer_lost=False)
    recorder.record = refuse_lease
    with pytest.raises(LeaseLost):
        train_alone(setting_for(tiny_study(), tmp_path), recorder, Claim(1, 1, planned_trials(tiny_study())[0], 1))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def refuse_lease(updates):
    raise LeaseLost("trial 0 is somebody else's")


def test_a_dead_accelerator_ends_the_process_and_not_the_trial(tmp_path, monkeypatch):
    def assert_on_device(*arguments, **options):
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(Tiny, "loss", assert_on_device)
    recorder = MemoryRecorder()
    with pytest.raises(DeviceLost, match="device-side assert"):
        train_alone(setting_for(tiny_study(), tmp_path), recorder, recorder.claim(planned_trials(tiny_study())[0]))
    assert recorder.updates == []


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), None], ids=["device", "host"])
def test_out_of_memory_is_the_points_fault_and_leaves_nothing_in_memory(error, tmp_path, monkeypatch):
    models = []

    def run_out(self, model, batch, point):
        models.append(weakref.ref(model))
        if error is not None:
            raise error.with_traceback(None)
        torch.empty(10**14)

    monkeypatch.setattr(Tiny, "loss", run_out)
    recorder = MemoryRecorder()
    update = train_alone(setting_for(tiny_study(), tmp_path), recorder, recorder.claim(planned_trials(tiny_study())[0]))
    if error is not None:
        error.__traceback__ = None  # of the test's own object
    gc.collect()
    assert update.state is State.INFEASIBLE
    assert "memory" in update.reason
    assert models[0]() is None
