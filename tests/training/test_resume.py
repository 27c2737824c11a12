"""A trial stopped at any step and resumed ends with the same bits: weights, optimizer state and curve."""

import pytest
import torch
from support.tiny import MemoryRecorder, StopAt, setting_for, tiny_study

from tuner import SearchSpace, log_uniform
from tuner.records import State
from tuner.rounds.plan import planned_trials
from tuner.training.checkpoints import canonical_digest, read_state, read_weights
from tuner.training.trainer import Trainer

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
        update = Trainer(setting_for(study, folder, **changes), recorder).train(recorder.claim(trial))
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
    Trainer(setting_for(study, folder, commit_seconds=0.0), recorder).train(recorder.claim(planned_trials(study)[0]))
    assert len(recorder.updates) > 4
    assert meaning(recorder, folder) == whole
    on_disk = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert on_disk == {c.file for c in recorder.checkpoints}, "no file that the record does not know"


def test_a_damaged_checkpoint_is_noticed_and_the_trial_starts_again(tmp_path):
    study = tiny_study()
    whole = meaning(trained(study, tmp_path / "whole"), tmp_path / "whole")
    recorder = MemoryRecorder()
    trial = planned_trials(study)[0]
    Trainer(setting_for(study, tmp_path, stop=StopAt(13)), recorder).train(recorder.claim(trial))
    latest = next(c for c in recorder.checkpoints if c.kind == "latest")
    content = bytearray((tmp_path / latest.file).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / latest.file).write_bytes(content)
    claim = recorder.claim(trial)
    recorder.updates.clear()
    Trainer(setting_for(study, tmp_path), recorder).train(claim)
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
    Trainer(setting_for(study, tmp_path, stop=StopAt(10)), recorder).train(recorder.claim(trial))
    monkeypatch.setattr("tuner.training.setting.numerics", lambda device: '{"engine": "another"}')
    update = Trainer(setting_for(study, tmp_path), recorder).train(recorder.claim(trial))
    assert update.numerics == '{"engine": "another", "exact": false}'
