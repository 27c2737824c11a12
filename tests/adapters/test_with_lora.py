"""What `with_lora` names, what it freezes, and what it refuses before anything is changed."""

import copy

import pytest
import torch
from support.adapted import BareWeight, TwiceTheWeight
from torch import nn

from tuner import merged, with_lora
from tuner.errors import WorkloadError


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(9, 8)
        self.blocks = nn.ModuleList([Block() for _ in range(2)])
        self.position = nn.Parameter(torch.zeros(5, 8))
        self.head = nn.Linear(8, 3)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm, self.drop = nn.LayerNorm(8), nn.Dropout(0.1)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))


class WithOwnBranch(nn.Linear):
    def __init__(self, num_in, num_out):
        super().__init__(num_in, num_out)
        self.lora_A = nn.Parameter(torch.zeros(2, num_in))


def trained(model):
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("head", ["head"]),
        ("head.*", ["head"]),
        ("head.weight", ["head"]),
        ("blocks.?.mlp.*|head", ["blocks.0.mlp.0", "blocks.0.mlp.2", "blocks.1.mlp.0", "blocks.1.mlp.2", "head"]),
        ("blocks.1.attention", ["blocks.1.attention.in_proj_weight", "blocks.1.attention.out_proj"]),
        ("blocks.1.attention.*", ["blocks.1.attention.in_proj_weight", "blocks.1.attention.out_proj"]),
        ("blocks.1.attention.in_proj_weight", ["blocks.1.attention.in_proj_weight"]),
        ("blocks.1.attention.out_proj", ["blocks.1.attention.out_proj"]),
        ("blocks.1.*",
         ["blocks.1.attention.in_proj_weight", "blocks.1.attention.out_proj", "blocks.1.mlp.0", "blocks.1.mlp.2"]),
        ("position", ["position"]),
        ("embedding | head", ["embedding", "head"]),
    ],
)  # fmt: skip
def test_a_pattern_names_layers_and_tensors(pattern, names):
    model = with_lora(Net(), pattern, rank=2)
    found = [name.replace("lora_embedding_A", "lora_A") for name in trained(model)]
    found = [name.rpartition("lora_A")[0].rstrip("_.") for name in found if name.endswith("lora_A")]
    assert sorted(found) == sorted(names)


def test_all_matrices_of_known_layers_are_named_by_a_star_and_bare_tensors_are_not():
    model = with_lora(Net(), "*", rank=2)
    assert not hasattr(model, "position_lora_A")
    assert sum(name.endswith("lora_scale") for name, _ in model.named_buffers()) == 1 + 2 * 4 + 1


def test_everything_but_the_adapters_is_frozen_and_keeps_its_name():
    base = Net()
    names = [name for name, _ in base.named_parameters()]
    model = with_lora(base, "head", rank=2)
    assert model is base
    assert trained(model) == ["head.lora_A", "head.lora_B"]
    assert [name for name, _ in model.named_parameters() if "lora_" not in name] == names


def test_a_pattern_says_what_is_trained_besides():
    model = with_lora(Net(), "head", rank=2, trained="*.norm.*|position|blocks.0.mlp")
    assert set(trained(model)) - {"head.lora_A", "head.lora_B"} == {
        *(f"blocks.{block}.norm.{name}" for block in (0, 1) for name in ("weight", "bias")),
        "position", "blocks.0.mlp.0.weight", "blocks.0.mlp.0.bias", "blocks.0.mlp.2.weight", "blocks.0.mlp.2.bias",
    }  # fmt: skip


def test_a_second_call_adds_adapters_of_another_rank_and_freezes_nothing_again():
    model = with_lora(Net(), "head", rank=2, trained="position")
    with_lora(model, "blocks.*", rank=4, alpha=2)
    assert {"head.lora_A", "position", "blocks.0.mlp.0.lora_A"} <= set(trained(model))
    assert (model.head.lora_A.shape[0], model.blocks[0].mlp[0].lora_A.shape[0]) == (2, 4)
    with_lora(model, "position", rank=1)
    assert model.position_lora_A.shape == (1, 8)


def test_what_a_call_for_a_part_did_not_reach_is_frozen_by_a_call_for_the_whole():
    model = Net()
    with_lora(model.blocks, "*.mlp.0", rank=2, trained="*.norm")
    with_lora(model, "head", rank=2)
    known = ("lora_A", "lora_B", "norm.weight", "norm.bias")
    assert all(name.endswith(known) for name in trained(model))
    assert {"blocks.0.norm.bias", "head.lora_A"} <= set(trained(model))


def test_a_second_call_does_not_train_what_has_an_adapter_already():
    model = with_lora(Net(), "head", rank=2)
    refused(model, "position", rank=1, trained="head", says=["head", "has an adapter"])


def test_attention_gets_its_tensors_in_two_calls():
    model = with_lora(Net(), "blocks.0.attention.out_proj", rank=2)
    with_lora(model, "blocks.0.attention.in_proj_weight", rank=3)
    assert merged(model).blocks[0].attention.in_proj_weight.shape == (24, 8)


def refused(model, *given, says, **words):
    before = {name: one.requires_grad for name, one in model.named_parameters()}
    kinds = [type(one) for one in model.modules()]
    with pytest.raises(WorkloadError) as error:
        with_lora(model, *given, **words)
    for text in says:
        assert text in str(error.value), str(error.value)
    assert {name: one.requires_grad for name, one in model.named_parameters()} == before
    assert [type(one) for one in model.modules()] == kinds


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("hed.*", ["no module or parameter", "did you mean head.*"]),
        ("blocks.0", ["did you mean blocks.0.*"]),
        ("head|tail", ["'tail'"]),
        ("blocks.*.norm", ["blocks.0.norm.weight", "LayerNorm", "two dimensions"]),
        ("head.bias", ["head.bias", "two dimensions"]),
        ("", ["takes names of parameters as text"]),
        (None, ["takes names of parameters as text"]),
        ("head|", ["takes names of parameters as text"]),
    ],
)
def test_a_pattern_that_names_nothing_is_refused(pattern, says):
    refused(Net(), pattern, rank=2, says=says)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"rank": 4}, ["rank 4 is above 3", "head", "3 x 8", "rank <= 3"]),
        ({"rank": 0}, ["at least 1", "got 0"]),
        ({"rank": -1}, ["at least 1"]),
        ({"rank": 2.0}, ["whole number", "2.0"]),
        ({"rank": True}, ["whole number"]),
        ({"rank": "2"}, ["whole number"]),
        ({"rank": None}, ["needs a rank"]),
        ({"rank": 2, "alpha": 0}, ["above 0", "alpha=None", "kohya's 0"]),
        ({"rank": 2, "alpha": -1.0}, ["above 0", "alpha=None"]),
        ({"rank": 2, "alpha": float("nan")}, ["alpha"]),
        ({"rank": 2, "alpha": float("inf")}, ["alpha"]),
        ({"rank": 2, "alpha": True}, ["alpha"]),
        ({"rank": 2, "alpha": 1e39}, ["1e+39", "float32 does not hold"]),
        ({"rank": 2, "alpha": 1e-320}, ["float32 does not hold"]),
        ({"rank": 2, "alpha": "8"}, ["alpha"]),
        ({"rank": 2, "dropout": 1.0}, ["share from 0 to below 1"]),
        ({"rank": 2, "dropout": -0.1}, ["share"]),
        ({"rank": 2, "dropout": True}, ["share"]),
        ({"rank": 2, "scaling": "root"}, ["'sqrt_rank'"]),
        ({"rank": 2, "trained": "head.*"}, ["head", "has an adapter"]),
        ({"rank": 2, "trained": "hed"}, ["trained= of with_lora", "did you mean"]),
        ({}, ["needs a rank", 'rank=point["rank"]']),
        ({"network_dim": 4}, ["kohya", "write rank"]),
        ({"r": 4}, ["peft", "write rank"]),
        ({"rank": 2, "network_dim": 4}, ["kohya", "write rank"]),
        ({"rank": 2, "network_alpha": 4}, ["kohya", "alpha = rank", "takes 1"]),
        ({"rank": 2, "conv_dim": 4}, ["kohya", "call with_lora once for each"]),
        ({"rank": 2, "network_dropout": 0.1}, ["kohya", "after the down projection"]),
        ({"rank": 2, "r": 4}, ["peft", "write rank"]),
        ({"rank": 2, "lora_alpha": 4}, ["peft", "write alpha"]),
        ({"rank": 2, "target_modules": ["head"]}, ["peft", "pattern"]),
        ({"rank": 2, "use_rslora": True}, ["sqrt_rank"]),
        ({"rank": 2, "ranks": 3}, ["has no ranks"]),
    ],
)
def test_words_that_cannot_be_are_refused(words, says):
    refused(Net(), "head", says=says, **words)


@pytest.mark.parametrize(
    ("make", "pattern", "says"),
    [
        (lambda: nn.LSTM(4, 4), "*", ["LSTM", "cannot have an adapter"]),
        (lambda: nn.ConvTranspose2d(4, 4, 2), "*", ["ConvTranspose2d"]),
        (lambda: nn.EmbeddingBag(9, 4), "0", ["EmbeddingBag"]),
        (lambda: nn.Bilinear(4, 4, 4), "0.weight", ["Bilinear"]),
        (lambda: nn.GRUCell(4, 4), "0", ["GRUCell"]),
        (lambda: nn.LazyLinear(4), "0", ["has not made its weights yet"]),
        (lambda: nn.Embedding(9, 4, max_norm=1.0), "0", ["max_norm=1.0"]),
        (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), "0", ["made at each call", "weight_norm"]),
        (lambda: nn.Linear(4, 4, dtype=torch.complex64), "0", ["complex64"]),
        (lambda: nn.Sequential(nn.Embedding(9, 0)), "0.0", ["rank 2 is above 0"]),
        (lambda: WithOwnBranch(4, 4), "0", ["lora_A of its own", "rename"]),
        (lambda: with_lora(nn.Sequential(nn.Linear(4, 4)), "0", rank=1), "0.0", ["has an adapter already"]),
    ],
)
def test_layers_that_cannot_have_an_adapter_are_refused_by_name(make, pattern, says):
    refused(nn.Sequential(make()), pattern, rank=2, says=says)


@pytest.mark.parametrize(
    ("model", "pattern", "why"),
    [
        (Net(), "embedding", "numbers of rows"),
        (Net(), "blocks.0.attention.in_proj_weight", "parametrization"),
        (Net(), "blocks.0.attention.out_proj", "without calling it"),
        (BareWeight(), "qkv", "parametrization"),
        (nn.Sequential(TwiceTheWeight(4, 4)), "0", "parametrization"),
    ],
)
def test_dropout_where_nothing_goes_through_the_adapter_is_refused(model, pattern, why):
    refused(model, pattern, rank=2, dropout=0.1, says=["dropout=0.1", why])
    with_lora(copy.deepcopy(model), pattern, rank=2, dropout=0.0)


def test_dropout_drops_what_goes_into_a_and_nothing_of_the_base():
    model = with_lora(nn.Sequential(nn.Linear(8, 4, bias=False)), "0", rank=2, dropout=0.5).double()
    with torch.no_grad():
        model[0].lora_B.fill_(1.0)
    given = torch.randn(5, 8).double()
    torch.manual_seed(3)
    found = model(given)
    torch.manual_seed(3)
    dropped = nn.functional.dropout(given, 0.5)
    base, a, b = model[0]._parameters["weight"], model[0].lora_A, model[0].lora_B
    torch.testing.assert_close(found, given @ base.t() + dropped @ a.t() @ b.t())
    torch.testing.assert_close(model.eval()(given), merged(model)(given))


def test_what_is_no_model_is_refused():
    with pytest.raises(WorkloadError, match=r"takes a torch.nn.Module, got dict"):
        with_lora({}, "head", rank=2)
    with pytest.raises(WorkloadError, match="no adapters"):
        merged(Net())
    with pytest.raises(WorkloadError, match=r"takes a torch.nn.Module"):
        merged({})
