"""How many trials train together: by what a short probe measures, within the memory, and never at a loss."""

import time
from dataclasses import replace

import pytest
import torch
from support.fusible import Gru, Mlp, runs_of
from support.tiny import setting_for, tiny_study

from tuner.budget.step_budget import StepBudget
from tuner.rounds.plan import planned_trials
from tuner.training.fused import choice
from tuner.training.fused.choice import best_choice, trials_that_fit
from tuner.training.fused.making import make_group

LONG = StepBudget(100_000, 50_000)


def probed(workload, tmp_path, *, trials=16, budget=LONG, ahead=64, **changes):
    study = tiny_study(num_trials=trials, batch_size=workload.batch_size, budget=budget, space=runs_space())
    return best_choice(setting_for(study, tmp_path, workload), planned_trials(study), ahead, **changes)


def runs_space():
    return runs_of(Mlp(), 1)[0].setting.study.space


def test_a_small_model_with_much_work_ahead_trains_in_a_large_group(tmp_path):
    began = time.thread_time()
    found = probed(Mlp(), tmp_path)
    assert found.num_trials >= 8
    assert found.ways["linear"] == "rule"
    assert "times as fast as one by one" in found.reason
    assert time.thread_time() - began < 3 * choice.PROBE_SECONDS


def test_a_short_study_is_not_probed(tmp_path):
    found = probed(Mlp(), tmp_path, budget=StepBudget(50, 25), ahead=2, trials=2)
    assert (found.num_trials, found.probed) == (1, False)
    assert "too few for a probe" in found.reason


def test_steps_that_do_not_wait_for_python_are_left_alone(tmp_path):
    class Slow(Mlp):
        def loss(self, model, batch, point):
            end = time.thread_time() + 2 * choice.SLOW_STEP
            while time.thread_time() < end:
                pass
            return super().loss(model, batch, point)

    began = time.thread_time()
    found = probed(Slow(), tmp_path)
    assert found.num_trials == 1
    assert "gain nothing from each other" in found.reason
    assert time.thread_time() - began < 10 * choice.SLOW_STEP


def test_a_probe_that_loses_keeps_trials_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(choice, "PAYS", 1e-3)
    found = probed(Mlp(), tmp_path)
    assert (found.num_trials, found.reason, found.probed) == (1, "training together is not faster", True)


def test_what_cannot_be_fused_is_found_out_and_kept(tmp_path):
    class Item(Mlp):
        def loss(self, model, batch, point):
            loss = super().loss(model, batch, point)
            return loss * loss.item()

    found = probed(Item(), tmp_path)
    assert (found.num_trials, found.probed) == (1, True)
    assert found.reason.startswith("item: the code reads")


def test_an_error_of_user_code_under_trial_tensors_is_a_refusal(tmp_path):
    class Fussy(Mlp):
        def loss(self, model, batch, point):
            if type(point["dropout"]) is not float:
                raise TypeError("a float, please")
            return super().loss(model, batch, point)

    found = probed(Fussy(), tmp_path)
    assert found.num_trials == 1
    assert "TypeError while the loss was recorded: a float, please" in found.reason


def test_the_free_memory_bounds_a_group_and_workers_share_it(tmp_path, monkeypatch):
    study = tiny_study(num_trials=4, batch_size=32, space=runs_space())
    setting, trial = setting_for(study, tmp_path, Mlp()), planned_trials(study)[0]
    monkeypatch.setattr(choice, "free_bytes", lambda device: 2**40)
    roomy = trials_that_fit(setting, [trial])
    one = choice.MEMORY_SHARE * 2**40 / roomy
    monkeypatch.setattr(choice, "free_bytes", lambda device: 20.5 * one)
    assert trials_that_fit(setting, [trial]) == 10
    assert trials_that_fit(setting, [trial], crew=2) == 5
    parameters = 64 * 32 + 32 + 32 * 32 + 32 + 32 * 10 + 10
    assert one > 4 * 4 * parameters, "values, gradients and two moments, and what a pass computes"
    found = probed(Mlp(), tmp_path)
    assert found.num_trials < 16


def test_a_model_that_loops_is_chosen_by_its_time(tmp_path):
    found = probed(Gru(), tmp_path, trials=8)
    assert found.probed
    assert found.num_trials == 1 or found.ways["gru"] == "loop"


def test_a_group_that_was_interrupted_in_the_probe_leaves_no_trace(tmp_path):
    study = tiny_study(num_trials=8, budget=LONG, batch_size=32, space=runs_space())
    setting = setting_for(study, tmp_path, Mlp())
    before = torch.get_rng_state()
    best_choice(replace(setting, stop=lambda: True), planned_trials(study), 64)
    assert torch.equal(torch.get_rng_state(), before)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("workload", "trials", "first"), [(Mlp, 16, 4), (Mlp, 3, 3), (Gru, 8, 2)])
def test_the_first_group_is_large_enough_to_gain_and_small_where_each_trial_is_recorded(
    workload, trials, first, tmp_path, monkeypatch
):
    tried = []
    monkeypatch.setattr(choice, "make_group", lambda runs: tried.append(len(runs)) or make_group(runs))
    probed(workload(), tmp_path, trials=trials)
    assert tried[0] == first
    assert tried == sorted(set(tried))
