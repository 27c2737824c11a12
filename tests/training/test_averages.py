"""Averages of the weights against closed forms and torch's AveragedModel; they never change what is trained."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from support.tiny import MemoryRecorder, StopAt, Tiny, setting_for, tiny_study, train_alone
from torch import nn
from torch.optim.swa_utils import AveragedModel

from tuner import SearchSpace, log_uniform
from tuner.budget.step_budget import StepBudget
from tuner.errors import Interrupted, WorkloadError
from tuner.records import State
from tuner.rounds.plan import planned_trials
from tuner.training.averages import Averages, Exponential
from tuner.training.checkpoints import canonical_digest, read_state, read_weights
from tuner.training.preflight import checkpoint_bytes
from tuner.training.step_memory import foreseen_memory
from tuner.training.trial_run import TrialRun

STEPS = 24
RATE = SearchSpace(learning_rate=log_uniform(1e-3, 1e-1))


def run_of(workload=None, **changes):
    study = tiny_study(**changes)
    return TrialRun(setting_for(study, "nowhere", workload), planned_trials(study)[0])


def trained(study, folder, stops=(), workload=None):
    """Trial 0, stopped at each of `stops` (steps of that life)."""
    recorder, trial = MemoryRecorder(), planned_trials(study)[0]
    for stop in [*stops, None]:
        changes = {} if stop is None else {"stop": StopAt(stop + 1)}
        update = train_alone(setting_for(study, folder, workload, **changes), recorder, recorder.claim(trial))
    assert update.state is State.COMPLETE
    return recorder


def state_of(recorder, folder):
    return read_state(folder, next(one for one in recorder.checkpoints if one.kind == "latest"))


def meaning(recorder, folder):
    best = [one for one in recorder.checkpoints if one.kind == "best"]
    kept = [(one.step, one.value, canonical_digest(read_weights(folder, one))) for one in best]
    return recorder.measurements, canonical_digest(state_of(recorder, folder)), kept


def lag_on_a_ramp(steps, updates):
    """How far an average is behind weights that move by 1 an update, solved by hand.

    While the decay is (1 + t)/(10 + t), the lag L(t) = d (L(t - 1) + 1) with L(0) = 0 is (t + 1)/10 less a tenth of the
    product of the decays, which is (t + 1)! 10!/(t + 10)!. From the switch on it nears steps - 1 by a power of d.
    """
    switch = min(updates, max(0, math.floor(9 * steps - 10)))
    product = math.exp(math.lgamma(switch + 2) + math.lgamma(11) - math.lgamma(switch + 11))
    early = (switch + 1 - product) / 10
    return steps - 1 + (1 - 1 / steps) ** (updates - switch) * (early - (steps - 1))


@pytest.mark.parametrize("steps", [1, 2, 7, 50])
def test_the_average_of_a_linear_ramp_has_its_closed_form(steps):
    model = nn.Linear(3, 1, dtype=torch.float64)
    first = model.weight.detach().clone()
    averages = Averages(Exponential(steps), model)
    for update in range(1, 1001):
        with torch.no_grad():
            model.weight.copy_(first + 0.25 * update)
        averages.take(update)
        if update in (1, 2, 9, 10, 53, 54, 300, 1000):
            expected = first + 0.25 * (update - lag_on_a_ramp(steps, update))
            torch.testing.assert_close(averages.values[0], expected, rtol=1e-12, atol=1e-12)


def test_torchs_averaged_model_is_the_same():
    run = run_of(ema_steps=6)

    def moved(averages, weights, count):
        decay = min(1 - 1 / 6, (1 + int(count)) / (10 + int(count)))
        torch._foreach_mul_(averages, decay)
        torch._foreach_add_(averages, weights, alpha=1 - decay)

    other = AveragedModel(run.model, multi_avg_fn=moved)
    other.update_parameters(run.model)  # the first one is a copy
    for step in range(1, STEPS + 1):
        run.advance(step)
        other.update_parameters(run.model)
    expected = other.module.state_dict()
    assert expected.keys() == run.weights().keys()
    for name, value in run.weights().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-6, atol=1e-7)
    before = torch.random.get_rng_state()
    measured = run.evaluate()
    torch.random.set_rng_state(before)
    run.averages = None
    run.model.load_state_dict(expected)
    assert run.evaluate() == pytest.approx(measured, rel=1e-5)


def test_one_step_is_the_weights_themselves():
    plain, run = run_of(), run_of(ema_steps=1)
    for one in (plain, run):
        one.advance(STEPS)
    assert canonical_digest(run.weights()) == canonical_digest(plain.weights())
    assert run.evaluate() == plain.evaluate()


def test_buffers_are_those_of_the_model_and_integers_too():
    run = run_of(ema_steps=6)
    run.advance(10)
    weights, model = run.weights(), run.model.state_dict()
    names = [name for name, _ in run.model.named_buffers()]
    assert len(names) == 3
    assert all(torch.equal(weights[name], model[name]) for name in names)
    assert weights["1.num_batches_tracked"] == 10
    assert not any(torch.equal(weights[name], model[name]) for name, _ in run.model.named_parameters())


def test_trials_that_differ_in_ema_steps_alone_are_trained_alike(tmp_path):
    states, curves = [], []
    for place, steps in enumerate((0, 3, 12)):
        study = tiny_study(ema_steps=steps)
        recorder = trained(study, tmp_path / str(place))
        states.append(state_of(recorder, tmp_path / str(place)))
        curves.append(recorder.measurements)
    for state, curve in zip(states[1:], curves[1:], strict=True):
        for part in ("model", "optimizer", "losses", "gradient_norm"):
            assert canonical_digest(state[part]) == canonical_digest(states[0][part]), part
        own = {key: value for key, value in curve.items() if key[1].startswith("batch/")}
        assert own
        assert own == {key: value for key, value in curves[0].items() if key[1].startswith("batch/")}
        assert curve.keys() == curves[0].keys()
        assert curve != curves[0]


def test_how_often_one_evaluates_changes_no_bit_of_the_last_weights(tmp_path):
    found = []
    for place, every in enumerate((1, 5, STEPS)):
        study = tiny_study(ema_steps=6, budget=StepBudget(STEPS, every))
        state = state_of(trained(study, tmp_path / str(place)), tmp_path / str(place))
        found.append([canonical_digest(state[part]) for part in ("model", "optimizer", "averages")])
    assert found[0] == found[1] == found[2]


def test_a_trial_stopped_at_any_step_ends_with_the_same_bits(tmp_path):
    study = tiny_study(ema_steps=6)
    whole = meaning(trained(study, tmp_path / "whole"), tmp_path / "whole")
    assert "averages" in state_of(trained(study, tmp_path / "again"), tmp_path / "again")
    for stop in range(STEPS):
        folder = tmp_path / f"stopped-{stop}"
        assert meaning(trained(study, folder, [stop]), folder) == whole, f"stopped at step {stop}"


def test_an_interrupted_evaluation_leaves_the_trained_weights():
    asked = []
    run = run_of(ema_steps=6)
    run.advance(7)
    before = canonical_digest(run.state())
    run.setup = replace(run.setup, stop=lambda: asked.append(1) or len(asked) > 1)
    with pytest.raises(Interrupted):
        run.evaluate()
    assert canonical_digest(run.state()) == before


def test_an_error_while_averages_are_shown_puts_the_trained_weights_back():
    run = run_of(ema_steps=6)
    run.advance(7)
    held, view = run.model[0].weight, run.model[0].weight.detach().view(-1)[:3]
    before, averages = canonical_digest(run.state()), [value.clone() for value in run.averages.values]

    def fail():
        with run.shown():
            assert run.model[0].weight is held
            assert torch.equal(view, averages[0].view(-1)[:3]), "who holds a view sees the averages"
            with run.shown():  # what is shown already stays
                assert torch.equal(held, averages[0])
            assert torch.equal(held, averages[0])
            with torch.no_grad():
                held.add_(1.0)  # of an evaluation that writes into weights nothing stays
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        fail()
    assert canonical_digest(run.state()) == before


def test_a_state_without_averages_goes_on_from_its_weights_and_is_not_exact():
    old, run = run_of(), run_of(ema_steps=6)
    old.advance(9)
    run.load(old.state())
    assert not run.exact
    assert all(torch.equal(one, two) for one, two in zip(run.averages.values, run.parameters, strict=True))
    run.advance(12)
    assert not torch.equal(run.averages.values[0], run.parameters[0])


def test_averages_of_another_model_are_refused():
    run = run_of(ema_steps=6)
    state = run.state()
    with pytest.raises(LookupError, match=r"averages of 0\.weight"):
        run.load(state | {"averages": {}})
    with pytest.raises(ValueError, match=r"0\.weight has the form"):
        run.load(state | {"averages": state["averages"] | {"0.weight": torch.zeros(2)}})


def test_a_checkpoint_counts_the_averages():
    run = run_of(ema_steps=6)
    assert checkpoint_bytes(run) == checkpoint_bytes(run_of()) + run.averages.num_bytes
    assert run.averages.num_bytes == sum(parameter.nbytes for parameter in run.parameters)


def test_the_memory_of_a_trial_counts_the_averages():
    run = run_of(Odd(), ema_steps=6)
    assert foreseen_memory(run).kept == foreseen_memory(run_of(Odd())).kept + run.averages.num_bytes


class Odd(Tiny):
    """A frozen layer, tied weights, a parametrization, and extra state."""

    def model(self, point):
        torch.manual_seed(0)
        return OddModel()


class OddModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.frozen = nn.Linear(6, 6).requires_grad_(False)
        self.one, self.other = nn.Linear(6, 6), nn.Linear(6, 6)
        self.other.weight = self.one.weight
        self.head = nn.utils.parametrizations.weight_norm(nn.Linear(6, 2))
        self.calls = 0

    def forward(self, x):
        self.calls += self.training
        return self.head(self.other(torch.tanh(self.one(self.frozen(x)))))

    def get_extra_state(self):
        return {"calls": self.calls}

    def set_extra_state(self, state):
        self.calls = state["calls"]


def test_what_is_frozen_tied_or_parametrized_is_kept_right():
    run = run_of(Odd(), ema_steps=6)
    run.advance(10)
    weights, model = run.weights(), run.model
    assert len(run.averages.names) == 6, "a tied weight counts once"
    assert torch.equal(weights["frozen.weight"], model.frozen.weight)
    assert torch.equal(weights["one.weight"], weights["other.weight"])
    assert torch.equal(weights["one.weight"], run.averages.state()["one.weight"])
    original = "head.parametrizations.weight.original1"
    assert torch.equal(weights[original], run.averages.state()[original])
    assert not torch.equal(weights[original], model.state_dict()[original])
    again = run_of(Odd(), ema_steps=6)
    again.load(copy.deepcopy(run.state()))
    assert again.model.calls == 10
    for one in (run, again):
        one.advance(15)
    assert canonical_digest(again.state()) == canonical_digest(run.state())


def test_averages_of_half_precision_are_float32():
    model = nn.Linear(4, 4, dtype=torch.bfloat16)
    averages = Averages(Exponential(1000), model)
    first = averages.values[0].clone()
    with torch.no_grad():
        model.weight.add_(0.5)
    for update in range(20_000, 20_100):  # late: each share is 1/1000, less than bfloat16 resolves
        averages.take(update)
    moved = (averages.values[0] - first) / (model.weight.detach().float() - first)
    torch.testing.assert_close(moved, torch.full_like(moved, 1 - 0.999**100), rtol=1e-3, atol=1e-5)
    with averages.shown():
        assert torch.equal(model.weight, averages.values[0].bfloat16())


def test_a_sparse_parameter_is_refused_by_name():
    model = nn.Module()
    model.table = nn.Parameter(torch.eye(3).to_sparse())
    with pytest.raises(WorkloadError, match="table is sparse; leave ema_steps out"):
        Averages(Exponential(5), model)
