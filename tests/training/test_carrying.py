"""What is carried from an earlier stage arrives whole, in the tensors that the patterns mean, or is one error."""

import hashlib

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from tuner import with_lora
from tuner.design.stages import best_of
from tuner.errors import WorkloadError
from tuner.records.conclusions import Selected, StageStart
from tuner.training.checkpoints import weights_as_file
from tuner.training.extra_state import state_dict_of
from tuner.training.inherited import StartWeights, file_of_weights


def start_with(weights, **said):
    content = weights_as_file(weights)
    chosen = Selected(hashlib.sha256(content).hexdigest(), len(content), campaign="pre", study="round-1")
    return StartWeights(StageStart((chosen,), **said), contents=(content,))


def carried_into(model, weights, **said):
    start = start_with(weights, **said)
    start.into(model, {})
    return start.handed


class Buffered(nn.Module):
    def __init__(self, buffer):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.register_buffer("seen", buffer)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Linear(2, 2, bias=False)
        self.head = nn.Linear(2, 2, bias=False)
        self.head.weight = self.embedding.weight


class Copying(nn.Module):
    """A module whose state dict holds a copy, which `load_state_dict` would not fill either."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.register_state_dict_post_hook(lambda one, state, prefix, _: state.update({prefix + "weight": _copy(one)}))


def _copy(module):
    return module.weight.detach().clone()


class Counting(nn.Module):
    def __init__(self, extra):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.extra = extra

    def get_extra_state(self):
        return self.extra

    def set_extra_state(self, state):
        self.extra = state


ONES = {"weight": torch.ones(2)}


@pytest.mark.parametrize(
    ("here", "there"),
    [
        (torch.zeros(2, dtype=torch.int64), torch.tensor([1.7, 2.9])),
        (torch.zeros(2), torch.tensor([1, 2])),
        (torch.zeros(2), torch.tensor([1.0j, 2.0])),
        (torch.zeros(2, dtype=torch.float16), torch.tensor([1e6, 1.0])),
        (torch.zeros(2, dtype=torch.int8), torch.tensor([300, 1])),
        (torch.zeros(2, dtype=torch.bool), torch.tensor([2, 1])),
    ],
)
def test_numbers_that_a_type_cannot_hold_are_refused(here, there):
    weights = state_dict_of(Buffered(there))
    with pytest.raises(WorkloadError, match=r"seen .* is torch.* here, torch.* there, which cannot hold its values"):
        carried_into(Buffered(here), weights)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_numbers_of_another_precision_are_carried_and_told(dtype):
    model = Buffered(torch.zeros(2))
    start = start_with({"weight": torch.ones(2), "seen": torch.tensor([0.1, -torch.inf]).to(dtype)})
    start.into(model, {})
    assert torch.equal(model.seen, torch.tensor([0.1, -torch.inf]).to(dtype).float())
    assert "in another precision: 1 (seen)" in start.words


@pytest.mark.parametrize("dtype", [torch.complex64, torch.float8_e4m3fn])
def test_types_that_safetensors_has_no_name_for_are_carried(dtype):
    there = Buffered(torch.tensor([1.0, 2.0]).to(dtype))
    model = Buffered(torch.zeros(2).to(dtype))
    carried_into(model, state_dict_of(there))
    assert torch.equal(model.seen.to(torch.complex64), there.seen.to(torch.complex64))


def test_tied_weights_get_one_value_and_count_as_carried_together():
    one, other = torch.ones(2, 2), torch.zeros(2, 2)
    with pytest.raises(WorkloadError, match=r"embedding.weight and head.weight are one tensor"):
        carried_into(Tied(), {"embedding.weight": one, "head.weight": other})
    for weights in ({"embedding.weight": one, "head.weight": one.clone()}, {"embedding.weight": one}):
        model = Tied()
        assert carried_into(model, weights).carried == ("embedding.weight", "head.weight")
        assert torch.equal(model.head.weight, one)
    assert carried_into(Tied(), {"embedding.weight": one}, parameters="embedding.*").fresh == ()


def test_a_file_of_tied_weights_is_a_file_of_weights(tmp_path):
    torch.save(Tied().state_dict(), tmp_path / "tied.pt")
    content = file_of_weights(tmp_path / "tied.pt", (tmp_path / "tied.pt").read_bytes())
    start = StartWeights(StageStart((Selected("", 0),)), contents=(content,))
    assert start.weights().keys() == {"embedding.weight", "head.weight"}


def test_what_does_not_arrive_is_no_carried_tensor():
    with pytest.raises(WorkloadError, match="weight does not hold what was carried into it"):
        carried_into(Copying(), ONES)
    with pytest.raises(WorkloadError, match=r"seen cannot be carried .* single memory location"):
        carried_into(Buffered(torch.tensor(1.0).expand(2)), ONES | {"seen": torch.ones(2)})
    with pytest.raises(WorkloadError, match=r"weight .* has no shape yet"):
        carried_into(nn.LazyLinear(2), {"weight": torch.ones(2, 2), "bias": torch.zeros(2)})


@pytest.mark.parametrize("extra", [torch.arange(3.0), {"epochs": 3}])
def test_extra_state_is_carried_as_tensors_are(extra, tmp_path):
    there = Counting(extra)
    torch.save(there.state_dict(), tmp_path / "counted.pt")
    content = file_of_weights(tmp_path / "counted.pt", (tmp_path / "counted.pt").read_bytes())
    of_file = StartWeights(StageStart((Selected("", 0),)), contents=(content,))
    for start in (start_with(state_dict_of(there)), of_file):
        model = Counting(torch.zeros(3))
        start.into(model, {})
        assert start.handed.carried == ("weight", "_extra_state")
        assert str(model.extra) == str(extra)
    with pytest.raises(WorkloadError, match=r"_extra_state is to be carried from .*, which has no such tensor"):
        carried_into(Counting({}), ONES)
    assert carried_into(Counting({}), ONES, fresh="*_extra_state").fresh == ("_extra_state",)


def test_a_weight_that_a_parametrization_computes_is_not_what_it_computes_it_from():
    there = state_dict_of(parametrizations.spectral_norm(nn.Linear(2, 2)))
    with pytest.raises(WorkloadError, match=r"weight .* where a parametrization computes it from parametrizations"):
        carried_into(nn.Linear(2, 2), there)
    same = parametrizations.spectral_norm(nn.Linear(2, 2))
    assert carried_into(same, there).fresh == ()
    assert torch.equal(same.state_dict()["parametrizations.weight.original"], there["parametrizations.weight.original"])
    assert carried_into(nn.Linear(2, 2), there, fresh="weight").carried == ("bias",)


def test_a_weight_without_the_adapters_that_were_trained_for_it_is_refused():
    there = state_dict_of(with_lora(nn.Sequential(nn.Linear(2, 2)), "*", rank=1, alpha=1.0))
    with pytest.raises(
        WorkloadError, match=r"0.lora_[AB] has no place in the model: its weight alone is that of before"
    ):
        carried_into(nn.Sequential(nn.Linear(2, 2)), there)
    left = carried_into(nn.Sequential(nn.Linear(2, 2)), there, fresh="*lora_*").left
    assert {"0.lora_A", "0.lora_B"} <= set(left)


def test_brackets_in_a_name_mean_themselves():
    layers = nn.ModuleDict({name: nn.Linear(1, 1) for name in ("a[0]", "a0", "a1", "a2")})
    weights = state_dict_of(layers)
    assert carried_into(layers, weights, parameters="a[0].*").carried == ("a[0].weight", "a[0].bias")
    assert carried_into(layers, weights, parameters="a[0].bias").carried == ("a[0].bias",)
    assert carried_into(layers, weights, parameters="a[1-2].bias | a?.weight", fresh="a1.*").carried == (
        "a0.weight", "a2.weight", "a2.bias",
    )  # fmt: skip


def test_each_part_of_a_pattern_means_something():
    layers = nn.ModuleDict({"encoder": nn.Linear(1, 1), "head": nn.Linear(1, 1)})
    with pytest.raises(WorkloadError, match=r"carries 'encodr.\*', and no tensor of the model .* nearest are encoder"):
        carried_into(layers, state_dict_of(layers), parameters="head.*|encodr.*")


@pytest.mark.parametrize("renamed", [{"a": "b", "a.c": "d"}, {"a.c": "d", "a": "b"}])
def test_the_longest_beginning_renames_in_whatever_order_they_are_written(renamed):
    model = nn.ModuleDict({"a": nn.ModuleDict({"c": nn.Linear(1, 1), "e": nn.Linear(1, 1)})})
    weights = {"d.weight": torch.ones(1, 1), "d.bias": torch.ones(1)}
    weights |= {"b.c.weight": torch.zeros(1, 1), "b.e.weight": torch.zeros(1, 1)}
    weights |= {"b.c.bias": torch.zeros(1), "b.e.bias": torch.zeros(1)}
    carried_into(model, weights, renamed=renamed)
    assert [float(one.detach()) for one in model.parameters()] == [1.0, 1.0, 0.0, 0.0]


def test_a_dot_after_the_name_of_a_module_says_the_same():
    assert best_of("pre", renamed={"body.": "encoder."}).renamed == best_of("pre", renamed={"body": "encoder"}).renamed
