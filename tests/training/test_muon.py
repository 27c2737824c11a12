"""Muon: a step by hand, which parameters it is for, and AdamW with its own rate and state for the others."""

import io
import math

import numpy as np
import pytest
import torch
from support.fusible import Mlp, runs_of
from support.tiny import setting_for, tiny_study
from torch import nn

from tuner import SearchSpace, log_uniform, uniform
from tuner.design.optimizers import ParameterGroup, one_group
from tuner.fused.making import exact_group
from tuner.rounds.plan import planned_trials
from tuner.training.checkpoints import canonical_digest
from tuner.training.optimizer_speed import _words, step_seconds, told_of_optimizer
from tuner.training.optimizers import make_optimizer, state_bytes
from tuner.training.preflight import check_workload
from tuner.training.trial_run import TrialRun

NO_MATRIX = "muon is for the matrices of hidden layers, and this model has none to train, so AdamW trains all of it"
SPACE = SearchSpace(learning_rate=log_uniform(1e-3, 1e-2), label_smoothing=0.1)


def made(model, point=None, rate=0.01, groups=None):
    return make_optimizer("muon", groups or one_group(model.parameters()), point or {}, rate, model)


def rules(optimizer, model):
    """The names of the parameters by the rule that updates them."""
    names = {id(one): name for name, one in model.named_parameters()}
    found: dict[str, set[str]] = {"muon": set(), "adamw": set()}
    for group in optimizer.param_groups:
        found[group["rule"]] |= {names[id(one)] for one in group["params"]}
    return found


def test_a_first_step_by_hand():
    """Of diag(3, 4): over its norm, 5, that is diag(0.6, 0.8), and the Newton-Schulz polynomial of each, five times.

    The update is 0.2 times the root of the longer side, times that, times the rate 0.1.
    """
    values = [0.6, 0.8]
    for _ in range(5):
        values = [3.4445 * one - 4.775 * one**3 + 2.0315 * one**5 for one in values]
    weight = nn.Parameter(torch.zeros(2, 2))
    optimizer = make_optimizer("muon", one_group([weight]), {}, 0.1)
    weight.grad = torch.diag(torch.tensor([3.0, 4.0]))
    optimizer.step()
    expected = [-0.1 * 0.2 * math.sqrt(2) * one for one in values]
    np.testing.assert_allclose(torch.diag(weight.detach()).numpy(), expected, rtol=0.06)  # bfloat16 has 8 bits
    assert [0.6 < abs(one) / (0.02 * math.sqrt(2)) < 1.3 for one in expected] == [True, True]
    np.testing.assert_allclose(weight.detach().numpy()[[0, 1], [1, 0]], 0.0, atol=1e-4)


class Sequences(nn.Module):
    """An embedding, a convolution, two hidden matrices, and a head that is tied to the embedding where it is asked."""

    def __init__(self, tied):
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.mix = nn.Conv1d(8, 8, 3)
        self.blocks = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 20, bias=False)
        if tied:
            self.head.weight = self.embed.weight


@pytest.mark.parametrize("tied", [False, True])
def test_the_matrices_of_hidden_layers_alone_are_its(tied):
    model = Sequences(tied)
    optimizer = made(model)
    assert rules(optimizer, model)["muon"] == {"blocks.0.weight", "blocks.1.weight"}
    assert len([one for group in optimizer.param_groups for one in group["params"]]) == len(list(model.parameters()))


def test_other_parameters_have_a_multiple_of_the_rate_and_state_of_their_own():
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4))
    groups = [
        ParameterGroup(params=[model[0].weight, model[0].bias], rate=0.5, decay=0.0),
        ParameterGroup(params=[model[1].weight, model[1].bias], rate=1.0, decay=1.0),
    ]
    optimizer = made(model, {"adamw_rate": 3.0, "weight_decay": 0.1}, 0.01, groups)
    settings = [
        (one["rule"], one["lr"], one.get("lr_factor", 1.0), one["weight_decay"]) for one in optimizer.param_groups
    ]
    assert settings == [
        ("muon", 0.005, 0.5, 0.0), ("adamw", 0.015, 1.5, 0.0), ("adamw", 0.03, 3.0, 0.1),
    ]  # fmt: skip
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    kept = [set(optimizer.state[one]) for one in (model[0].weight, model[0].bias, model[1].weight)]
    assert kept == [{"momentum_buffer"}, *[{"step", "exp_avg", "exp_avg_sq"}] * 2]
    assert state_bytes(optimizer) == 4 * 30 + 8 * (5 + 20 + 4) + 3 * 4


class Linear(Mlp):
    def model(self, point):
        return nn.Linear(64, 10)


def test_of_a_model_without_a_hidden_matrix_is_said_that_adamw_trains_all_of_it(tmp_path):
    """One architecture of several may have none: that is no reason to stop a comparison of them."""
    weights = {}
    for name in ("muon", "adamw"):
        study = tiny_study(optimizer=name, space=SPACE, batch_size=32)
        setting, trial = setting_for(study, tmp_path, Linear()), planned_trials(study)[0]
        check_workload(setting, trial)
        told = told_of_optimizer(setting, trial)
        assert [one.partition(":")[0] for one in told] == [NO_MATRIX] * (name == "muon")
        run = TrialRun(setting, trial)
        run.advance(5)
        weights[name] = run.parameters
    assert all(map(torch.equal, *weights.values()))


def test_thirty_of_sixty_steps_go_on_to_the_same_bits_through_a_file():
    def trained(run, first, last):
        model, optimizer = run
        for number in range(first, last):
            x = torch.randn(16, 6, generator=torch.Generator().manual_seed(number))
            optimizer.zero_grad()
            (model(x) - x.sum(1, keepdim=True)).square().mean().backward()
            optimizer.step()

    def fresh():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 1))
        return model, made(model, {"weight_decay": 0.1, "adamw_rate": 0.5})

    whole, part, later = fresh(), fresh(), fresh()
    trained(whole, 0, 60)
    trained(part, 0, 30)
    file = io.BytesIO()
    torch.save([part[0].state_dict(), part[1].state_dict()], file)
    file.seek(0)
    for holder, state in zip(later, torch.load(file, weights_only=True), strict=True):
        holder.load_state_dict(state)
    trained(later, 30, 60)
    assert all(map(torch.equal, whole[0].parameters(), later[0].parameters()))


def test_trials_of_a_group_differ_in_both_rates_and_keep_their_bits():
    space = SearchSpace(
        learning_rate=log_uniform(1e-3, 1e-1), adamw_rate=uniform(0.1, 2.0), weight_decay=uniform(0.0, 0.1),
        one_minus_momentum=uniform(0.05, 0.3), label_smoothing=0.1,
    )  # fmt: skip
    together, alone = (runs_of(Mlp(), 3, space, optimizer="muon") for _ in range(2))
    exact_group(together).advance(6)
    for run, other in zip(together, alone, strict=True):
        other.advance(6)
        assert canonical_digest(run.state()) == canonical_digest(other.state())


# --- What its step costs ------------------------------------------------------------------------------------------


class Square(Mlp):
    """Matrices that take a while to multiply, and a batch that does not."""

    def model(self, point):
        return nn.Sequential(nn.Linear(64, 400), nn.ReLU(), nn.Linear(400, 400), nn.ReLU(), nn.Linear(400, 10))


def test_the_first_look_says_what_its_step_costs_here(tmp_path):
    """Fifteen products of 400 x 400 matrices, against one pass over 170,000 numbers."""
    for name, told in (("muon", True), ("adamw", False)):
        study = tiny_study(optimizer=name, space=SPACE, batch_size=32)
        sentences = told_of_optimizer(setting_for(study, tmp_path, Square()), planned_trials(study)[0])
        assert [name in one for one in sentences] == [True] * told
    assert list(tmp_path.iterdir()) == []


def test_what_is_said_of_a_slow_step():
    told = _words("muon", "a reason", 0.24, 0.003, 0.3)
    assert told == (
        "a step of muon takes 240 ms here, and one of adamw 3 ms (80 times as long); it is 80% of an update: a reason"
    )
    assert _words("muon", "a reason", 0.0059, 0.003, 0.006) == ""  # less than twice as long
    assert _words("muon", "a reason", 0.24, 0.003, 3.0) == ""  # less than a tenth of an update


def test_timing_a_step_changes_neither_weights_nor_optimizer():
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4))
    optimizer = made(model)
    before = [one.detach().clone() for one in model.parameters()]
    assert step_seconds(optimizer, torch.device("cpu")) > 0.0
    assert all(map(torch.equal, before, model.parameters()))
    assert not optimizer.state
    assert all(one.grad is None for one in model.parameters())
