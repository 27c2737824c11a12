"""What in a model is in the way of fusing is said in the words of its author, with what to change."""

import random

import pytest
import torch
import torch.nn.functional as F
from support.fusible import Gru, Images, Mlp, runs_of
from torch import nn

from tuner.errors import NotFusible
from tuner.fused.making import make_group
from tuner.fused.obstacles import check_obstacles


class Listed(nn.Module):
    """Tensors or modules where torch does not look for them."""

    def __init__(self, held):
        super().__init__()
        self.linear = nn.Linear(64, 10)
        self.held = held

    def forward(self, x):
        return self.linear(x)


HELD = {
    "a list of parameters": (lambda: [nn.Parameter(torch.randn(3))], "held, a list of parameters, .*nn.ParameterList"),
    "a tuple of modules": (lambda: (nn.Linear(2, 2),), "held, a tuple of modules, .*nn.ModuleList"),
    "a dict of numbers": (
        lambda: {"rate": random.random()},
        "held, a dict: hold a number .* in an attribute of its own",
    ),
    "a dict of tensors": (lambda: {"a": torch.randn(3)}, "held, a dict of tensors: .*register_buffer"),
}


@pytest.mark.parametrize("kind", HELD)
def test_tensors_in_a_python_list_are_named_with_the_class_that_registers_them(kind):
    make, told = HELD[kind]

    class Model(Images):
        def model(self, point):
            return Listed(make())

    with pytest.raises(NotFusible, match=told):
        make_group(runs_of(Model(), 2))


def scripted(model):
    model[2] = torch.jit.script(model[2])


def hooked(model):
    model[0].weight.register_hook(lambda gradient: 0.5 * gradient)


def hooked_after(model):
    model[0].weight.register_post_accumulate_grad_hook(lambda parameter: None)


def hooked_module(model):
    model[0].register_full_backward_hook(lambda module, given, gone: None)


IN_THE_WAY = {
    "TorchScript": (scripted, "module 2 is TorchScript, .*: use the module that it was made from"),
    "a hook on a gradient": (hooked, "parameter 0.weight has a hook on its gradient, .* in forward or the loss"),
    "a hook after the gradient": (hooked_after, "parameter 0.weight has a hook on its gradient"),
    "a backward hook": (hooked_module, "module 0 has a backward hook, .* in forward instead"),
}


@pytest.mark.parametrize("kind", IN_THE_WAY)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_part_that_a_recording_would_leave_out_is_named(kind):
    change, told = IN_THE_WAY[kind]

    class Model(Mlp):
        def model(self, point):
            model = super().model(point)
            change(model)
            return model

    with pytest.raises(NotFusible, match=told):
        make_group(runs_of(Model(), 2))


def test_a_compiled_model_is_named():
    with pytest.raises(NotFusible, match=r"the model is made by torch\.compile: use the module itself"):
        check_obstacles(torch.compile(nn.Linear(2, 2), backend="eager"))


def test_forward_hooks_are_no_obstacle():
    model = nn.Linear(2, 2)
    model.register_forward_hook(lambda module, given, result: 2.0 * result)
    check_obstacles(model)


def test_autocast_is_named_where_the_bits_are_not_those_of_each_trial_alone():
    class Cast(Gru):
        def loss(self, model, batch, point):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return F.cross_entropy(model(batch[0]), batch[1])

    with pytest.raises(NotFusible, match=r"the loss runs under torch\.autocast"):
        make_group(runs_of(Cast(), 2))
