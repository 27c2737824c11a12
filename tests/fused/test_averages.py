"""Averages of the weights of trials that train together: the bits of each trial alone."""

from dataclasses import replace

import pytest
import torch
from support.fusible import Mlp, Residual, runs_of
from support.fusing import meaning, trained_alone, trained_together
from support.tiny import Tiny, setting_for, tiny_study

from tuner import SearchSpace, choice, integers, log_uniform
from tuner.errors import Interrupted
from tuner.fused.averages import GroupAverages
from tuner.fused.engine import Fused
from tuner.fused.evaluation import GroupEvaluation
from tuner.fused.group import Group
from tuner.fused.making import exact_group, first_difference
from tuner.rounds.plan import planned_trials
from tuner.training.averages import Averages
from tuner.training.checkpoints import canonical_digest

RATE = log_uniform(1e-3, 1e-1)
SPACES = {
    "alike": SearchSpace(learning_rate=RATE, ema_steps=6),
    "different": SearchSpace(learning_rate=RATE, ema_steps=integers(2, 12, log=True)),
    "some without": SearchSpace(learning_rate=RATE, ema_steps=choice(None, 6, 9)),
}


def digests(runs):
    return [canonical_digest(run.state()) for run in runs]


@pytest.mark.parametrize("space", SPACES)
def test_trials_trained_together_have_the_bits_of_each_alone(space, tmp_path):
    study = tiny_study(space=SPACES[space], num_trials=5)
    trials = planned_trials(study)
    assert len({trial.shape_group for trial in trials}) == 1
    folders = tmp_path / "together", tmp_path / "alone"
    together = trained_together(setting_for(study, folders[0]), trials)
    alone = trained_alone(setting_for(study, folders[1]), trials)
    for trial in trials:
        assert meaning(together, folders[0], trial) == meaning(alone, folders[1], trial), f"trial {trial.number}"


@pytest.mark.parametrize("workload", [Mlp, Residual])
def test_evaluating_together_shows_the_averages_of_all(workload):
    runs = runs_of(workload(), 3, ema_steps=4)
    group = exact_group(runs)
    group.advance(6)
    before = digests(runs)
    evaluation = GroupEvaluation(group)
    first = evaluation.of([0, 1, 2])
    evaluation._saved = 1e9  # seconds: it goes on together on a slow machine, too
    second = evaluation.of([0, 1, 2])
    assert not evaluation.refused
    for measured in (first, second):
        assert {trial: repr(one) for trial, one in measured.items()} == {
            trial: repr(run.evaluate()) for trial, run in enumerate(runs)
        }
    assert digests(runs) == before
    averages, runs[1].averages = runs[1].averages, None
    assert runs[1].evaluate() != first[1], "the weights themselves measure something else"
    runs[1].averages = averages


def test_an_interrupted_evaluation_of_a_group_leaves_the_trained_weights():
    runs = runs_of(Mlp(), 3, ema_steps=4)
    group = exact_group(runs)
    group.advance(6)
    before, asked = digests(runs), []
    group.setup = replace(group.setup, stop=lambda: asked.append(1) or len(asked) > 1)
    with pytest.raises(Interrupted):
        GroupEvaluation(group).of([0, 1, 2])
    assert digests(runs) == before


def test_one_call_moves_all_trials_that_move_alike(monkeypatch):
    group = Group(runs_of(Mlp(), 3, ema_steps=4))
    monkeypatch.setattr(Averages, "take", lambda *_: pytest.fail("one by one"))
    group.advance(2)
    assert group.averages.num_bytes == sum(stack.nbytes for stack in group.averages.stacks) > 0


def test_a_trial_that_ends_leaves_its_mates_as_they_are():
    runs, alone = runs_of(Mlp(), 3, ema_steps=4), runs_of(Mlp(), 3, ema_steps=4)
    group = exact_group(runs)
    group.advance(3)
    group.retire(1)
    group.advance(3)
    for run, steps in zip(alone, (6, 3, 6), strict=True):
        run.advance(steps)
    assert [digests(runs)[place] for place in (0, 2)] == [digests(alone)[place] for place in (0, 2)]


def test_the_check_of_a_group_changes_no_average_and_sees_one_that_differs(monkeypatch):
    runs = runs_of(Mlp(), 3, ema_steps=4)
    before = digests(runs)
    group = exact_group(runs)
    assert digests(runs) == before
    take = GroupAverages.take

    def wrong(self, live):
        take(self, live)
        self.stacks[0][1] += 1e-4

    monkeypatch.setattr(GroupAverages, "take", wrong)
    assert first_difference(group) == "trial 1: the average of 0.weight"
    assert digests(runs) == before


def test_a_group_that_is_resumed_has_the_bits_of_one_that_ran_through():
    runs, through = runs_of(Mlp(), 3, ema_steps=4), runs_of(Mlp(), 3, ema_steps=4)
    exact_group(through).advance(8)
    exact_group(runs).advance(5)
    again = runs_of(Mlp(), 3, ema_steps=4)
    for run, fresh in zip(runs, again, strict=True):
        fresh.load(run.state())
    exact_group(again).advance(3)
    assert digests(again) == digests(through)


def test_no_model_sees_over_how_many_steps_weights_are_averaged(tmp_path):
    class Reading(Tiny):
        def model(self, point):
            assert "ema_steps" not in point
            return super().model(point)

    study = tiny_study(space=SPACES["different"])
    Fused(setting_for(study, tmp_path, Reading())).trainee(planned_trials(study)[0])


def test_lerp_has_the_bits_of_any_cut():
    """What the one call for all rows rests on; where a build of torch has other bits, the check of groups sees it."""
    generator = torch.Generator().manual_seed(0)
    for dtype in (torch.float32, torch.float64):
        one, other = (torch.randn(4, 1283, dtype=dtype, generator=generator) for _ in range(2))
        for share in (0.005, 9 / 11, 0.5):
            whole, cut = one.clone(), one.clone()
            torch._foreach_lerp_([whole], [other], share)
            for row, weights in zip(cut, other, strict=True):
                torch._foreach_lerp_(list(row.split(37)), list(weights.split(37)), share)
            assert torch.equal(whole, cut)
