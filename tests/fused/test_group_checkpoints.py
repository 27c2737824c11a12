"""The latest checkpoints of a group are one file: resumed by anybody, deleted when unnamed, damaged for each."""

from pathlib import Path

import pytest
import torch
from support.fusing import TrialsRecorder, meaning, trained_alone, trained_together
from support.tiny import StopAt, setting_for, tiny_study

from tuner.errors import CorruptCheckpoint, LeaseLost, Unreachable
from tuner.records import State
from tuner.rounds.plan import planned_trials
from tuner.training.checkpoints import canonical_digest, read_state
from tuner.training.stacked_states import stacked_states, state_of_member


def latest(recorder, trial):
    return [kept for kept in recorder.checkpoints(trial) if kept.kind == "latest"]


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def named(recorder, trials):
    return {kept.file for trial in trials for kept in recorder.checkpoints(trial)}


@pytest.fixture
def trials():
    return planned_trials(tiny_study(num_trials=4))


def stopped(folder, trials, step, **changes):
    study = tiny_study(num_trials=4)
    return trained_together(setting_for(study, folder, stop=StopAt(step + 1), **changes), trials)


def test_states_stacked_in_one_are_the_same_states():
    states = {
        name: {
            "step": step, "model": {"w": torch.full((2, 3), float(step))}, "losses": torch.zeros(step),
            "best": [(step, 0.5)], "optimizer": {"state": {0: {"step": torch.tensor(float(step))}}},
        }
        for name, step in [("a", 1), ("b", 2), ("c", 2)]
    }  # fmt: skip
    content = stacked_states(states)
    assert content["states"]["model"]["w"][1].shape == (3, 2, 3)
    for name, state in states.items():
        assert canonical_digest(state_of_member(content, name)) == canonical_digest(state)
    with pytest.raises(CorruptCheckpoint, match="no state of d"):
        state_of_member(content, "d")


def test_a_stopped_group_leaves_one_file_with_every_trial_as_a_member(trials, tmp_path):
    recorder = stopped(tmp_path, trials, 7)
    kept = [latest(recorder, trial)[-1] for trial in trials]
    assert len({one.file for one in kept}) == 1
    assert [one.member for one in kept] == [f"trial-{trial.number:05d}" for trial in trials]
    assert [read_state(tmp_path, one)["step"] for one in kept] == [7] * 4
    assert files(tmp_path) == named(recorder, trials)


def test_a_file_goes_when_no_trial_names_it_and_not_before(trials, tmp_path):
    study = tiny_study(num_trials=4)
    recorder = stopped(tmp_path, trials, 13, commit_seconds=0.0)
    assert files(tmp_path) == named(recorder, trials), "two generations, and nothing older"
    shared = latest(recorder, trials[0])[0].file
    trained_alone(setting_for(study, tmp_path), trials[:2], recorder)
    assert shared in files(tmp_path) & named(recorder, trials)
    trained_together(setting_for(study, tmp_path), trials[2:], recorder)
    assert shared not in named(recorder, trials)


@pytest.mark.parametrize("damage", ["flipped", "missing"])
def test_a_damaged_group_file_sends_each_trial_back_to_the_one_before(damage, trials, tmp_path):
    study = tiny_study(num_trials=4)
    alone = trained_alone(setting_for(study, tmp_path / "alone"), trials)
    folder = tmp_path / "together"
    recorder = stopped(folder, trials, 13, commit_seconds=0.0)
    newest, before = (sorted(latest(recorder, trials[0]), key=lambda kept: -kept.step))[:2]
    path: Path = folder / newest.file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content) if damage == "flipped" else path.unlink()
    trained_together(setting_for(study, folder), trials[:3], recorder)
    trained_alone(setting_for(study, folder), trials[3:], recorder)
    cuts = {update.cut_back_to for trial in trials for update in recorder.of(trial)} - {None}
    assert cuts == {before.step}
    for trial in trials:
        assert meaning(recorder, folder, trial)[0] == meaning(alone, tmp_path / "alone", trial)[0]
        assert meaning(recorder, folder, trial)[2] == meaning(alone, tmp_path / "alone", trial)[2]


def test_the_file_stays_for_whoever_took_a_trial_over(trials, tmp_path):
    class OneIsLost(TrialsRecorder):
        lost = False

        def record(self, updates):
            if self.transactions > 3 and not self.lost:
                self.lost = any(update.trial_id == 2 for update in updates)
            if self.lost and any(update.trial_id == 2 for update in updates):
                raise LeaseLost("trial 2 is another's")
            super().record(updates)

    study = tiny_study(num_trials=4)
    recorder = trained_together(setting_for(study, tmp_path, commit_seconds=0.0), trials, OneIsLost())
    assert recorder.lost
    taken = latest(recorder, trials[1])
    assert {read_state(tmp_path, kept)["step"] for kept in taken} == {kept.step for kept in taken}


def test_a_group_trains_on_while_the_database_is_away(trials, tmp_path):
    class AwayForAWhile(TrialsRecorder):
        refused = 0

        def record(self, updates):
            if self.transactions > 1 and self.refused < 2:
                self.refused += 1
                raise Unreachable("the database is away")
            super().record(updates)

    study = tiny_study(num_trials=4)
    alone = trained_alone(setting_for(study, tmp_path / "alone"), trials)
    folder = tmp_path / "together"
    recorder = trained_together(setting_for(study, folder, commit_seconds=0.0), trials, AwayForAWhile())
    assert recorder.refused == 2
    assert {recorder.state(trial) for trial in trials} == {State.COMPLETE}
    for trial in trials:
        assert meaning(recorder, folder, trial) == meaning(alone, tmp_path / "alone", trial)
    assert files(folder) == named(recorder, trials)
