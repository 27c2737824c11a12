"""What is frozen is written once for all trials of a study, and every reader gets it back, bit for bit."""

from dataclasses import replace

import pytest
import safetensors.torch
import torch
from support.fusing import TrialsRecorder, meaning, trained_alone, trained_together
from support.partly_frozen import (
    Follows,
    HeadOnly,
    Lora,
    RandomFeatures,
    Teaching,
    Tied,
    bases,
    bytes_of_state,
    written_whole,
)
from support.tiny import StopAt, Tiny, setting_for, tiny_study
from torch import nn

from tuner.errors import CorruptCheckpoint
from tuner.rounds.plan import planned_trials
from tuner.training.checkpoints import canonical_digest, export_weights, frozen_names, read_state, read_weights
from tuner.training.trial_run import TrialRun

STUDY = tiny_study(num_trials=2)


@pytest.fixture
def trials():
    return planned_trials(STUDY)


def setting(folder, workload, **changes):
    return setting_for(changes.pop("study", STUDY), folder, workload(), **changes)


def size(folder, pattern):
    return sum(path.stat().st_size for path in folder.rglob(pattern))


def everything(recorder, folder, trials):
    return [meaning(recorder, folder, trial) for trial in trials]


WAYS = [
    pytest.param(how, workload, marks=[pytest.mark.slow] * (workload in (HeadOnly, RandomFeatures)))
    for how in (trained_alone, trained_together)
    for workload in (Lora, HeadOnly, RandomFeatures, Teaching, Tied)
    if (how, workload) != (trained_together, Teaching)  # a loss that changes the model trains alone
]


@pytest.mark.parametrize(("how", "workload"), WAYS)
def test_what_is_read_is_what_would_have_been_written_whole(how, workload, trials, tmp_path, monkeypatch):
    parted = how(setting(tmp_path / "parted", workload), trials)
    assert bases(tmp_path / "parted") != []
    assert all(kept.base is not None for trial in trials for kept in parted.checkpoints(trial))
    written_whole(monkeypatch)
    whole = how(setting(tmp_path / "whole", workload), trials)
    assert bases(tmp_path / "whole") == []
    assert everything(parted, tmp_path / "parted", trials) == everything(whole, tmp_path / "whole", trials)
    files = [size(tmp_path / name, "*.*") for name in ("parted", "whole")]
    assert files[0] < files[1]


def test_a_checkpoint_is_as_small_as_what_is_trained_and_all_trials_share_one_base(trials, tmp_path):
    folder = tmp_path / "parted"
    recorder = trained_alone(setting(folder, Lora), trials)
    (base,) = bases(folder)
    model = TrialRun(setting(folder, Lora), trials[0]).model
    trained = {name: one for name, one in model.named_parameters() if one.requires_grad}
    frozen = {name: one for name, one in model.named_parameters() if not one.requires_grad}
    assert safetensors.torch.load_file(base).keys() == frozen.keys()
    assert sum(one.nbytes for one in frozen.values()) > 10 * sum(one.nbytes for one in trained.values())
    for kept in recorder.checkpoints(trials[1]):
        if kept.kind == "best":
            rest = read_weights(folder, kept)
            only = len(safetensors.torch.save({n: t for n, t in rest.items() if n not in frozen}))
        else:
            state = read_state(folder, kept)
            only = bytes_of_state(state | {"model": {n: t for n, t in state["model"].items() if n not in frozen}})
        assert only <= (folder / kept.file).stat().st_size <= 1.2 * only
    best = next(kept for kept in recorder.checkpoints(trials[0]) if kept.kind == "best")
    assert best.num_bytes <= 1.2 * sum(one.nbytes for one in trained.values())


@pytest.mark.parametrize("workload", [Lora, Teaching])
@pytest.mark.parametrize("aside", [False, True])
def test_a_trial_goes_on_from_what_was_left_out(workload, aside, trials, tmp_path, monkeypatch):
    if aside:
        monkeypatch.setattr("tuner.training.committing.BACKGROUND_BYTES", 0)
    straight = trained_alone(setting(tmp_path / "straight", workload), trials)
    folder = tmp_path / "stopped"
    often = setting(folder, workload, commit_seconds=0.0, stop=StopAt(12))
    recorder = trained_alone(often, trials)
    again = trained_alone(setting(folder, workload, commit_seconds=0.0), trials, recorder)
    for trial in trials:
        assert last_values(again, folder, trial) == last_values(straight, tmp_path / "straight", trial)
    assert len(bases(folder)) == len({kept.base for trial in trials for kept in again.checkpoints(trial)})


def last_values(recorder, folder, trial):
    values = {(m.step, m.metric): m.value.hex() for update in recorder.of(trial) for m in update.measurements}
    last = max((kept for kept in recorder.checkpoints(trial) if kept.kind == "latest"), key=lambda kept: kept.step)
    return values, canonical_digest(read_state(folder, last)["model"])


def test_the_trials_of_a_group_go_on_alone(trials, tmp_path):
    straight = trained_alone(setting(tmp_path / "straight", Lora), trials)
    folder = tmp_path / "stopped"
    recorder = trained_together(setting(folder, Lora, stop=StopAt(12)), trials)
    assert {kept.member for trial in trials for kept in recorder.checkpoints(trial)} >= {"trial-00000", "trial-00001"}
    trained_alone(setting(folder, Lora), trials, recorder)
    for trial in trials:
        assert last_values(recorder, folder, trial) == last_values(straight, tmp_path / "straight", trial)
    assert len(bases(folder)) == 1


def test_what_has_changed_since_is_in_the_checkpoint_itself(trials, tmp_path):
    recorder = trained_alone(setting(tmp_path, Teaching), trials[:1])
    (base,) = bases(tmp_path)
    assert safetensors.torch.load_file(base).keys() == {"encoder.weight", "encoder.bias"}
    (last,) = (kept for kept in recorder.checkpoints(trials[0]) if kept.kind == "latest")
    fresh = TrialRun(setting(tmp_path, Teaching), trials[0])
    assert isinstance(fresh.model, Follows)
    state = read_state(tmp_path, last)["model"]
    assert torch.equal(state["encoder.weight"], fresh.model.encoder.weight)
    assert not torch.equal(state["teacher.weight"], fresh.model.teacher.weight)


class ChangesLate(Tiny):
    """Its frozen layer is changed by hand at the last steps, after a part of it was written as frozen."""

    def model(self, point):
        self.steps = 0
        return nn.Sequential(nn.Linear(6, 4000).requires_grad_(False), nn.Linear(4000, 2))

    def loss(self, model, batch, point):
        self.steps += model.training
        if self.steps > 20:
            model[0].weight.data[0, 0] = float(self.steps)
        return super().loss(model, batch, point)


def test_what_changes_late_is_read_back_as_it_was_at_each_step(trials, tmp_path):
    recorder = trained_alone(setting(tmp_path, ChangesLate, commit_seconds=0.0), trials[:1])
    kept = {(one.kind, one.step): one for update in recorder.updates for one in update.checkpoints or ()}
    last = kept["latest", 24]
    assert read_state(tmp_path, last)["model"]["0.weight"][0, 0] == 24.0
    assert last.base is not None, "the bias is as it was"
    assert last.num_bytes > 6 * 4000 * 4


def test_signs_of_zero_and_what_is_no_number_are_kept_to_the_bit(trials, tmp_path, monkeypatch):
    class Odd(Tiny):
        def model(self, point):
            net = nn.Sequential(nn.Linear(6, 4000).requires_grad_(False), nn.ReLU(), nn.Linear(4000, 2))
            net.register_parameter("odd", nn.Parameter(torch.tensor([0.0, -0.0, torch.nan]), requires_grad=False))
            return net

        def loss(self, model, batch, point):
            model.odd.data[0] = -0.0
            return super().loss(model, batch, point)

    recorder = trained_alone(setting(tmp_path / "parted", Odd), trials[:1])
    written_whole(monkeypatch)
    whole = trained_alone(setting(tmp_path / "whole", Odd), trials[:1])
    assert everything(recorder, tmp_path / "parted", trials[:1]) == everything(whole, tmp_path / "whole", trials[:1])
    assert bases(tmp_path / "parted") != []


@pytest.mark.parametrize("workload", [Tiny, HeadOnly])
def test_nothing_and_little_that_is_frozen_stays_where_it_was(workload, trials, tmp_path, monkeypatch):
    if workload is HeadOnly:
        monkeypatch.setattr("tuner.training.frozen.LEAST_BYTES", 10**6)
    recorder = trained_alone(setting(tmp_path, workload), trials)
    assert bases(tmp_path) == []
    for kept in recorder.checkpoints(trials[0]):
        assert kept.base is None
        if kept.kind == "best":
            whole = safetensors.torch.load((tmp_path / kept.file).read_bytes())
            assert canonical_digest(read_weights(tmp_path, kept)) == canonical_digest(whole)
            assert bool(frozen_names(tmp_path, kept)) is (workload is HeadOnly)
            assert set(frozen_names(tmp_path, kept)) < set(whole)
        else:
            assert "frozen" not in read_state(tmp_path, kept)


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped"])
def test_a_base_that_is_lost_is_noticed_and_written_again(damage, trials, tmp_path):
    recorder = trained_alone(setting(tmp_path, Lora, stop=StopAt(12)), trials)
    (base,) = bases(tmp_path)
    content = base.read_bytes()
    if damage == "missing":
        base.unlink()
    else:
        base.write_bytes(content[:-4] if damage == "cut" else content[:-1] + bytes([content[-1] ^ 1]))
    for kept in recorder.checkpoints(trials[0]):
        with pytest.raises(CorruptCheckpoint, match=base.name):
            (read_weights if kept.kind == "best" else read_state)(tmp_path, kept)
    trained_alone(setting(tmp_path, Lora), trials[:1], recorder)
    assert base.read_bytes() == content
    assert [update.cut_back_to for update in recorder.of(trials[0])][-1] is None, "no step was trained again"
    for kept in recorder.checkpoints(trials[1]):
        (read_weights if kept.kind == "best" else read_state)(tmp_path, kept)


def test_an_export_is_whole(trials, tmp_path, monkeypatch):
    exported = {}
    for name in ("parted", "whole"):
        recorder = trained_alone(setting(tmp_path / name, Lora), trials[:1])
        best = next(kept for kept in recorder.checkpoints(trials[0]) if kept.kind == "best")
        export_weights(tmp_path / name, best, tmp_path / f"{name}.safetensors")
        exported[name] = safetensors.torch.load_file(tmp_path / f"{name}.safetensors")
        written_whole(monkeypatch)
    assert canonical_digest(exported["parted"]) == canonical_digest(exported["whole"])
    model = TrialRun(setting(tmp_path, Lora), trials[0]).model
    assert exported["parted"].keys() == model.state_dict().keys()


def test_trials_with_frozen_parts_of_their_own_take_no_more_room_than_before(trials, tmp_path, monkeypatch):
    trained_alone(setting(tmp_path / "parted", RandomFeatures), trials)
    assert len(bases(tmp_path / "parted")) == len(trials)
    written_whole(monkeypatch)
    trained_alone(setting(tmp_path / "whole", RandomFeatures), trials)
    assert size(tmp_path / "parted", "*.*") < size(tmp_path / "whole", "*.*")


def test_a_trunk_leaves_out_what_is_frozen_in_it_and_in_its_best_weights(trials, tmp_path):
    pinned = replace(trials[0], pins=(10,))
    recorder = TrialsRecorder()
    trained_alone(replace(setting(tmp_path, Lora), fingerprint="code"), [pinned], recorder)
    (trunk,) = (kept for kept in recorder.checkpoints(pinned) if kept.kind == "trunk")
    frozen = sum(path.stat().st_size for path in bases(tmp_path))
    assert trunk.num_bytes < frozen / 2
    held = read_state(tmp_path, trunk)
    assert held["best_weights"]
    for weights in held["best_weights"].values():
        assert torch.equal(weights["4.weight"], held["model"]["4.weight"])


class WritesAnArray(RandomFeatures):
    """The frozen part is moved through an array of NumPy's that shows it, which torch does not see."""

    def model(self, point):
        model = super().model(point)
        model.array = model[0].weight.detach().numpy()
        return model

    def loss(self, model, batch, point):
        model.array *= 0.99
        return super().loss(model, batch, point)


def test_what_is_written_through_numpy_is_saved_as_it_was_at_each_step(trials, tmp_path):
    whole = trained_alone(setting(tmp_path / "whole", WritesAnArray), trials[:1])
    folder = tmp_path / "parted"
    stopped = setting(folder, WritesAnArray, commit_seconds=0.0, stop=StopAt(12))
    recorder = trained_alone(setting(folder, WritesAnArray), trials[:1], trained_alone(stopped, trials[:1]))
    assert everything(recorder, folder, trials[:1]) == everything(whole, tmp_path / "whole", trials[:1])
