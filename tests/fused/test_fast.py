"""The profile `fast`: each trial as alone but for rounding, the same bits each time, never mixed with exact trials."""

from dataclasses import replace

import pytest
import torch
from support.fusible import MUST_FUSE, Mlp, MlpWithDropout, runs_of
from support.fusing import trained_together
from support.tiny import setting_for, tiny_study

from tuner.errors import NotFusible
from tuner.fused import making
from tuner.fused.group import Group
from tuner.fused.making import far_from_alone, make_group
from tuner.fused.rules_fast import TABLE
from tuner.rounds.plan import planned_trials
from tuner.training.checkpoints import canonical_digest
from tuner.training.trial_run import TrialRun

FORMULAS = {"conv2d", "batch_norm", "layer_norm", "linear", "cross_entropy", "gelu", "tanh", "silu"}


def fast_runs(workload, num_trials):
    runs = runs_of(workload, num_trials)
    return [TrialRun(replace(run.setup, profile="fast"), run.trial) for run in runs]


def digests(runs):
    return [canonical_digest(run.state()) for run in runs]


@pytest.mark.parametrize("workload", MUST_FUSE)
def test_fast_rules_give_each_trial_as_alone_but_for_rounding(workload):
    group = Group(fast_runs(workload(), 3), rules=TABLE)
    assert far_from_alone(group) is None
    assert not {name for name, way in group.ways.items() if way == "loop"} & FORMULAS


@pytest.mark.parametrize("workload", [MlpWithDropout, MUST_FUSE[3]])
def test_a_fast_group_is_repeatable(workload):
    first, second = fast_runs(workload(), 3), fast_runs(workload(), 3)
    for runs in (first, second):
        Group(runs, rules=TABLE).advance(4)
    assert digests(first) == digests(second)


def test_the_check_of_a_fast_group_sees_more_than_rounding(monkeypatch):
    monkeypatch.setattr("tuner.fused.noise.draw_seed", lambda *rest: 5)
    with pytest.raises(NotFusible, match="by more than rounding: trial 0: the loss"):
        make_group(fast_runs(MlpWithDropout(), 2))


def test_trials_of_the_fast_profile_say_so_and_promise_no_bits(tmp_path):
    study = tiny_study(num_trials=2)
    setting = replace(setting_for(study, tmp_path), profile="fast")
    recorder = trained_together(setting, planned_trials(study))
    told = [update.numerics for update in recorder.updates if update.numerics]
    assert {(one.values["engine"], one.exact) for one in told} == {("fast", False)}


def test_without_a_compiler_there_is_a_message_and_no_error(monkeypatch, caplog):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    group = Group(fast_runs(Mlp(), 2))
    assert not making.compile_group(group)
    assert "no C++ compiler (g++ or clang++, or the one that $CXX names) is found" in caplog.text
    assert "apt-get install g++" in caplog.text


@pytest.mark.slow
@pytest.mark.needs("compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, of its compiler
def test_a_compiled_group_trains_as_each_trial_alone_but_for_rounding_and_is_repeatable(monkeypatch):
    monkeypatch.setattr(making, "PAYS_AFTER", 0.0)
    first, second = fast_runs(MlpWithDropout(), 3), fast_runs(MlpWithDropout(), 3)
    for runs in (first, second):
        group = make_group(runs, steps=1000)
        assert all(recording.compiled for recording, _ in group._recordings.values())
        assert far_from_alone(group) is None
        with torch.no_grad():
            group.advance(4)
    assert digests(first) == digests(second)


def test_a_graph_that_cannot_be_compiled_is_replayed_as_it_is(monkeypatch, caplog):
    def refused(*inputs):
        raise torch._dynamo.exc.Unsupported("not this one")

    monkeypatch.setattr(torch, "compile", lambda replay, **options: refused)
    compiled, plain = fast_runs(Mlp(), 2), fast_runs(Mlp(), 2)
    group = Group(compiled)
    assert making.compile_group(group)
    group.advance(3)
    Group(plain).advance(3)
    assert digests(compiled) == digests(plain)
    assert caplog.text.count("cannot be compiled, and is trained without that: not this one") == 1
