"""A trial in shards goes on to the bits of one that was never stopped, and its parts make up what one process has."""

import json
import os
import re
import signal
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from support.sharded import CLAIM, Normed, going_on, last_state, sharded_study, the_trial, train_sharded
from support.tiny import MemoryRecorder, StopAt, setting_for
from torch import nn

from tuner.errors import Infeasible
from tuner.execution.quota import _shards_without_state
from tuner.records import Checkpoint, Claim, State, is_shard
from tuner.storage.folder_files import was_written_here
from tuner.training.alone import Alone
from tuner.training.checkpoints import canonical_digest, export_weights, read_state, read_weights
from tuner.training.fsdp_state import CUT, rows_of
from tuner.training.logbook import Logbook
from tuner.training.numerics import numerics
from tuner.training.supervisor import Supervisor


def decisive(state):
    """What of a state is the same however often a trial was stopped."""
    return canonical_digest({name: state[name] for name in ("step", *CUT) if name in state})


def alone(study, folder, workload=None, claim=None):
    recorder = MemoryRecorder()
    setup = setting_for(study, folder, workload or Normed())
    (update,) = Supervisor(Alone(setup), recorder).train([claim or Claim(CLAIM, 1, the_trial(study), 1)])
    return update, recorder.measurements


def files_of(update):
    return {one.file for one in update.checkpoints}


def test_two_ranks_train_what_one_process_trains(tmp_path):
    study = sharded_study(ema_steps=5)
    update, curve = train_sharded(study, tmp_path / "two")
    of_one, expected = alone(study, tmp_path / "one")
    whole, same = last_state(update, tmp_path / "two"), last_state(of_one, tmp_path / "one")
    for name in ("model", "averages"):
        for key, tensor in same[name].items():
            torch.testing.assert_close(whole[name][key], tensor, rtol=1e-4, atol=1e-6)
    for at, held in same["optimizer"]["state"].items():
        for key, tensor in held.items():
            torch.testing.assert_close(whole["optimizer"]["state"][at][key], tensor, rtol=1e-3, atol=1e-6)
    assert curve.keys() == expected.keys()
    for key, value in expected.items():
        assert float.fromhex(curve[key]) == pytest.approx(float.fromhex(value), rel=1e-4, abs=1e-6), key
    told = json.loads(update.numerics.canonical)
    assert (told["shard"], told["world"], update.numerics.exact) == ("fsdp2", 2, True)

    best = next(one for one in update.checkpoints if one.kind == "best")
    exported = load_file(export_weights(tmp_path / "two", best, tmp_path / "whole.safetensors").path)
    weights = read_weights(tmp_path / "one", next(one for one in of_one.checkpoints if one.kind == "best"))
    assert exported.keys() == weights.keys()
    for key, tensor in weights.items():
        torch.testing.assert_close(exported[key], tensor, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_rank_holds_and_saves_its_share(tmp_path):
    study = sharded_study()
    update, _ = train_sharded(study, tmp_path)
    (latest,) = [one for one in update.checkpoints if one.kind == "latest"]
    (shard,) = [one for one in update.checkpoints if is_shard(one.kind)]
    assert shard.file.endswith(f"/shard-{latest.step:09d}-1-1of2.pt")
    numbers = [sum(part["__shard__"].numel() for part in read_state(tmp_path, one)["model"].values())
               for one in (latest, shard)]  # fmt: skip
    assert numbers == [7 * 6 + 3 * 7 + 13 + 1, 6 * 6 + 3 * 6 + 13 + 1]
    on_disk = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert on_disk == files_of(update)


@pytest.mark.parametrize("questions", [12, *(pytest.param(at, marks=pytest.mark.slow) for at in (5, 9, 20, 27))])
def test_straight_equals_resumed(questions, tmp_path):
    study = sharded_study(ema_steps=5)
    straight, curve = train_sharded(study, tmp_path / "straight")
    stopped, begun = train_sharded(study, tmp_path / "stopped", stop_after=questions)
    assert stopped.state is State.RUNNING
    assert 0 < stopped.step < 24
    update, rest = train_sharded(study, tmp_path / "stopped", claim=going_on(stopped, study))
    assert (update.state, update.numerics) == (State.COMPLETE, straight.numerics)
    assert decisive(last_state(update, tmp_path / "stopped")) == decisive(last_state(straight, tmp_path / "straight"))
    assert begun | rest == curve


@pytest.mark.slow
def test_a_damaged_part_is_not_loaded(tmp_path):
    """The trial falls back to the state before; without one it begins again, with the same bits."""
    study = sharded_study()
    straight, curve = train_sharded(study, tmp_path / "straight")
    stopped, _ = train_sharded(study, tmp_path / "stopped", stop_after=12)
    (shard,) = [one for one in stopped.checkpoints if is_shard(one.kind)]
    content = bytearray((tmp_path / "stopped" / shard.file).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "stopped" / shard.file).write_bytes(content)
    update, rest = train_sharded(study, tmp_path / "stopped", claim=going_on(stopped, study))
    assert update.cut_back_to == -1 or update.cut_back_to is None
    assert rest == curve
    assert decisive(last_state(update, tmp_path / "stopped")) == decisive(last_state(straight, tmp_path / "straight"))


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 4])
def test_a_trial_that_goes_on_with_other_shards_is_marked(world, tmp_path):
    study = sharded_study(ema_steps=5)
    stopped, begun = train_sharded(study, tmp_path, stop_after=12)
    before = last_state(stopped, tmp_path)
    claim = going_on(stopped, study)
    update, rest = alone(study, tmp_path, claim=claim) if world == 1 else train_sharded(
        study, tmp_path, world=world, claim=claim
    )  # fmt: skip
    assert (update.state, update.numerics.exact, stopped.numerics.exact) == (State.COMPLETE, False, True)
    _, expected = alone(study, tmp_path / "alone")
    for key, value in (begun | rest).items():
        assert float.fromhex(value) == pytest.approx(float.fromhex(expected[key]), rel=1e-4, abs=1e-6), key
    assert before["step"] == stopped.step


@pytest.mark.slow
def test_a_trial_of_one_process_goes_on_in_shards(tmp_path):
    study = sharded_study(ema_steps=5)
    _, expected = alone(study, tmp_path / "one")
    recorder = MemoryRecorder()
    setup = setting_for(study, tmp_path / "two", Normed(), stop=StopAt(12))
    (stopped,) = Supervisor(Alone(setup), recorder).train([Claim(CLAIM, 1, the_trial(study), 1)])
    update, rest = train_sharded(study, tmp_path / "two", claim=going_on(stopped, study))
    assert (update.state, update.numerics.exact) == (State.COMPLETE, False)
    for key, value in (recorder.measurements | rest).items():
        assert float.fromhex(value) == pytest.approx(float.fromhex(expected[key]), rel=1e-4, abs=1e-6), key


class Failing(Normed):
    """Raises on one rank, in the midst of a forward pass, while the other one waits for it to gather a block."""

    error = ValueError("a label of -7")

    def loss(self, model, batch, point):
        self.calls = getattr(self, "calls", 0) + 1
        if torch.distributed.get_rank() == 1 and self.calls == 9:
            raise self.error
        return super().loss(model, batch, point)


class OutOfMemory(Failing):
    error = Infeasible("too wide")


@pytest.mark.parametrize(
    ("workload", "state", "text"),
    [
        (Failing, State.FAILED, "on rank 1: ValueError: a label of -7"),
        pytest.param(OutOfMemory, State.INFEASIBLE, "on rank 1: too wide", marks=pytest.mark.slow),
    ],
)
def test_an_error_of_one_rank_ends_the_trial_on_all(workload, state, text, tmp_path):
    update, _ = train_sharded(sharded_study(), tmp_path, workload=workload)
    assert (update.state, update.step) == (state, 4)
    assert text in update.reason


class Killed(Normed):
    def loss(self, model, batch, point):
        self.calls = getattr(self, "calls", 0) + 1
        if torch.distributed.get_rank() == 1 and self.calls == 9:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().loss(model, batch, point)


@pytest.mark.slow
def test_a_killed_rank_is_no_fault_of_the_trial(tmp_path):
    with pytest.raises(RuntimeError, match="GangLost"):
        train_sharded(sharded_study(), tmp_path, workload=Killed)


class Unlike(Normed):
    """Diverges."""

    def loss(self, model, batch, point):
        return super().loss(model, batch, point) * float("inf")


@pytest.mark.slow
def test_a_divergence_is_seen(tmp_path):
    update, _ = train_sharded(sharded_study(), tmp_path, workload=Unlike)
    assert (update.state, update.reason) == (State.INFEASIBLE, "diverged at step 1: the loss became inf")


class WithBatchNorm(Normed):
    def model(self, point):
        return nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.Linear(12, 2))


class WithScalar(Normed):
    def model(self, point):
        model = super().model(point)
        model.register_parameter("scale", nn.Parameter(torch.tensor(1.0)))
        return model


class Tied(Normed):
    def model(self, point):
        model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 2))
        model[1].weight = model[0].weight
        return model


@pytest.mark.parametrize(
    ("workload", "changes", "text"),
    [
        pytest.param(WithBatchNorm, {}, "1 keeps running statistics", marks=pytest.mark.slow),
        pytest.param(WithScalar, {}, "scale has no dimension", marks=pytest.mark.slow),
        pytest.param(Tied, {}, "which is gathered for itself", marks=pytest.mark.slow),
        pytest.param(Normed, {"optimizer": "muon"}, "the optimizer muon", marks=pytest.mark.slow),
        pytest.param(Normed, {"precision": "fp16"}, 'precision="bf16"', marks=pytest.mark.slow),
    ],
)
def test_what_cannot_be_in_shards_is_refused_by_name(workload, changes, text, tmp_path):
    with pytest.raises(RuntimeError, match=f"WorkloadError.*{re.escape(text)}"):
        train_sharded(sharded_study(**changes), tmp_path, workload=workload)


def test_numerics_tell_shards_from_whole_models():
    """What other tools leave out of a run's description: where it is missing, the model was whole."""
    whole, two = (numerics(torch.device("cpu"), in_shards=ranks) for ranks in (0, 2))
    assert two.differences(whole) == ("shard fsdp2, not nothing", "world 2, not nothing")
    assert two.differences(numerics(torch.device("cpu"), in_shards=4)) == ("world 2, not 4",)
    assert not two.agrees_with(whole)
    assert two.agrees_with(numerics(torch.device("cpu"), in_shards=2))


def test_a_part_of_a_state_is_deleted_with_the_last_state_that_needs_it():
    def kept(kind, step):
        return Checkpoint(kind, step, f"{kind}-{step}", "", 10)

    record = SimpleNamespace(trial_id=7, checkpoints=(
        kept("latest", 6), kept("trunk", 6), kept("shard-1", 6), kept("latest", 3), kept("shard-1", 3)
    ))  # fmt: skip
    gone = {(7, kept("latest", 6))}
    assert _shards_without_state(record, 6, gone) == []
    assert _shards_without_state(record, 6, gone | {(7, kept("trunk", 6))}) == [kept("shard-1", 6)]
    assert _shards_without_state(record, 3, gone | {(7, kept("latest", 3))}) == [kept("shard-1", 3)]


def test_a_state_that_is_kept_keeps_its_parts_where_one_process_goes_on():
    """A trial in shards that was stopped at its end is completed without a gang, and its state is not written again."""
    kept = tuple(Checkpoint(kind, 24, f"t/{kind}-000000024-1.pt", "0" * 64, 1) for kind in ("latest", "shard-1"))
    nothing = SimpleNamespace(kept=[])
    book = SimpleNamespace(
        trainee=SimpleNamespace(step=24), checkpoints=kept, in_background=(), best=nothing, trunks=(),
        folder=SimpleNamespace(write_state=pytest.fail), latest_value=lambda: None,
    )  # fmt: skip
    assert tuple(write() for write in Logbook.writes(book, {"step": 24})) == kept
    assert Logbook.writes(book, None) == []


def test_a_part_is_known_by_its_name():
    place = "digits/round-1/trial-00003"
    fences = {place: 2}
    assert was_written_here(f"{place}/shard-000000060-2-1of4.pt", fences)
    assert was_written_here(f"{place}/.shard-000000060-2-3of4.pt.471.tmp", fences)
    assert not was_written_here(f"{place}/shard-000000060-3-1of4.pt", fences)


@pytest.mark.parametrize(("total", "world"), [(13, 2), (13, 4), (5, 4), (3, 4), (0, 2)])
def test_rows_are_those_of_torch(total, world):
    rows = torch.arange(total)
    chunks = [chunk.tolist() for chunk in torch.chunk(rows, world)]
    assert [rows[rows_of(total, rank, world)].tolist() for rank in range(world)] == chunks + [[]] * (
        world - len(chunks)
    )
