"""How many trials train together: by what a short probe measures, within the memory, and never at a loss."""

from dataclasses import replace

import pytest
import torch
from support.fusible import Gru, Mlp, runs_of
from support.tiny import setting_for, tiny_study

from tuner.budget.step_budget import StepBudget
from tuner.fused import fusion
from tuner.fused.fusion import best_fusion, trials_that_fit
from tuner.fused.group import Group
from tuner.fused.making import make_group
from tuner.rounds.plan import planned_trials
from tuner.training.trial_run import TrialRun

LONG = StepBudget(100_000, 50_000)


def probed(workload, tmp_path, *, trials=16, budget=LONG, ahead=64, **changes):
    study = tiny_study(num_trials=trials, batch_size=workload.batch_size, budget=budget, space=runs_space())
    return best_fusion(setting_for(study, tmp_path, workload), planned_trials(study), ahead, **changes)


def runs_space():
    return runs_of(Mlp(), 1)[0].setup.study.space


class VirtualClock:
    """Tells what steps and recordings are said to take: a step of a trial alone, of a group by its size, a recording.

    The steps themselves are made.
    """

    def __init__(self, alone, group, recording):
        self.now, self.alone, self.group, self.recording = 0.0, alone, group, recording

    def advancing(self, advance, seconds):
        """The same method of a run or a group, of which this clock says what its steps took."""

        def timed(trained, asked):
            first = trained.runs[0] if isinstance(trained, Group) else trained
            began, then = first.step, self.now
            result = advance(trained, asked)
            self.now = then + (first.step - began) * seconds(trained)
            return result

        return timed

    def recorded(self, runs):
        then = self.now
        group = make_group(runs)  # which makes steps to compare
        self.now = then + self.recording
        return group


@pytest.fixture
def clock(monkeypatch):
    """Puts a virtual clock in the place of the real one, whose verdict would depend on the machine."""

    def made(*, alone=1e-4, group=lambda size: 1e-4 + 1e-5 * size, recording=1e-2):
        clock = VirtualClock(alone, group, recording)
        monkeypatch.setattr(fusion, "clock_of", lambda device: lambda: clock.now)
        monkeypatch.setattr(TrialRun, "advance", clock.advancing(TrialRun.advance, lambda run: clock.alone))
        monkeypatch.setattr(
            Group, "advance", clock.advancing(Group.advance, lambda group: clock.group(len(group.runs)))
        )
        monkeypatch.setattr(fusion, "make_group", clock.recorded)
        return clock

    return made


def test_a_small_model_with_much_work_ahead_trains_in_a_large_group(clock, tmp_path):
    clock()
    found = probed(Mlp(), tmp_path)
    assert found.num_trials == 16
    assert found.ways["linear"] == "rule"
    # 100 us alone; of 16 together 260 / 16 = 16.25 us each, and of the recording 0.01 s / (16 * 100,000 steps)
    assert found.reason == "6.15 times as fast as one by one (16 us a trial's step)"
    assert found.seconds == pytest.approx(16.25e-6 + 6.25e-9)


def test_larger_groups_are_tried_until_one_is_not_faster(clock, tmp_path):
    clock(group=lambda size: 1e-4 + 1e-5 * size + 1e-5 * max(0, size - 8) ** 2)
    assert probed(Mlp(), tmp_path).num_trials == 8


def test_a_probe_ends_before_the_next_group_takes_it_beyond_its_time(clock, tmp_path):
    """Of recordings that take 0.45 s two would fit into a second, but the second is expected to take 0.9 s."""
    slow = clock(recording=0.45)
    assert probed(Mlp(), tmp_path).num_trials == 4
    assert slow.now < fusion.PROBE_SECONDS


def test_a_short_study_is_not_probed(tmp_path):
    found = probed(Mlp(), tmp_path, budget=StepBudget(50, 25), ahead=2, trials=2)
    assert (found.num_trials, found.probed) == (1, False)
    assert "too few for a probe" in found.reason


def test_steps_that_do_not_wait_for_python_are_left_alone(clock, tmp_path):
    slow = clock(alone=2 * fusion.SLOW_STEP)
    found = probed(Mlp(), tmp_path)
    assert found.num_trials == 1
    assert found.reason == "steps of 0.2 s gain nothing from each other"
    assert slow.now == pytest.approx(4 * fusion.SLOW_STEP), "one to warm up, and one"


@pytest.mark.parametrize(("share", "trials"), [(0.81, 1), (0.79, 4)])
def test_a_group_has_to_be_faster_by_a_fifth(share, trials, clock, tmp_path):
    clock(group=lambda size: share * 1e-4 * size + 1e-7 * (size - 4) ** 2, recording=0.0)
    found = probed(Mlp(), tmp_path)
    assert (found.num_trials, found.probed) == (trials, True)
    assert (found.reason == "training together is not faster") == (trials == 1)


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
    monkeypatch.setattr(fusion, "free_bytes", lambda device: 2**40)
    roomy = trials_that_fit(setting, [trial])
    one = fusion.MEMORY_SHARE * 2**40 / roomy
    monkeypatch.setattr(fusion, "free_bytes", lambda device: 20.5 * one)
    assert trials_that_fit(setting, [trial]) == 10
    assert trials_that_fit(setting, [trial], workers=2) == 5
    parameters = 64 * 32 + 32 + 32 * 32 + 32 + 32 * 10 + 10
    assert one > 4 * 4 * parameters, "values, gradients and two moments, and what a pass computes"
    found = probed(Mlp(), tmp_path)
    assert found.num_trials < 16


@pytest.mark.parametrize(("share", "trials"), [(1.0, 1), (0.5, 8)])
def test_a_model_that_loops_is_chosen_by_its_time(share, trials, clock, tmp_path):
    clock(group=lambda size: share * 1e-4 * size - 1e-6 * size**2)
    found = probed(Gru(), tmp_path, trials=8)
    assert (found.num_trials, found.probed) == (trials, True)
    assert trials == 1 or found.ways["gru"] == "loop"


def test_a_group_that_was_interrupted_in_the_probe_leaves_no_trace(tmp_path):
    study = tiny_study(num_trials=8, budget=LONG, batch_size=32, space=runs_space())
    setting = setting_for(study, tmp_path, Mlp())
    before = torch.get_rng_state()
    best_fusion(replace(setting, stop=lambda: True), planned_trials(study), 64)
    assert torch.equal(torch.get_rng_state(), before)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("workload", "trials", "first"), [(Mlp, 16, 4), (Mlp, 3, 3), (Gru, 8, 2)])
def test_the_first_group_is_large_enough_to_gain_and_small_where_each_trial_is_recorded(
    workload, trials, first, clock, tmp_path, monkeypatch
):
    clock()
    tried = []
    monkeypatch.setattr(fusion, "make_group", lambda runs: tried.append(len(runs)) or make_group(runs))
    probed(workload(), tmp_path, trials=trials)
    assert tried[0] == first
    assert tried == sorted(set(tried))
