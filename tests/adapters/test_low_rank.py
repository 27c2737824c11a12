"""The change W + alpha/rank * B A, layer by layer: its size, its start, its merging, and what alpha does."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from support.adapted import CASES, disturbed, made
from torch import nn

from tuner import merged, with_lora


def bits(tensor):
    return tensor.detach().contiguous().view(torch.uint8).flatten().tolist()


def trained_numbers(model):
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("rank", [1, 3])
def test_a_change_has_rank_times_inputs_and_outputs_many_numbers(name, rank):
    model, _ = made(name)
    with_lora(model, CASES[name].pattern, rank=rank)
    assert trained_numbers(model) == sum(rank * (inputs + outputs) for inputs, outputs in CASES[name].sizes)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_at_the_start_nothing_changes_to_the_bit(name, mode):
    model, given = made(name)
    base = copy.deepcopy(model)
    with_lora(model, CASES[name].pattern, rank=2, alpha=16)
    getattr(model, mode)(), getattr(base, mode)()
    assert bits(model(given)) == bits(base(given))
    base.requires_grad_(False)  # torch's attention has other kernels for what needs no gradient
    with torch.no_grad():
        assert bits(model(given)) == bits(base(given))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_merged_weights_compute_what_the_branch_computes(name, dtype, tolerance):
    model, given = made(name, dtype)
    base = copy.deepcopy(model)
    disturbed(with_lora(model, CASES[name].pattern, rank=2, alpha=0.5))
    plain = merged(model)
    assert [type(one) for one in plain.modules()] == [type(one) for one in base.modules()]
    assert list(plain.state_dict()) == list(base.state_dict())
    found, wanted, before = model(given), plain(given), base(given)
    scale = wanted.abs().max().clamp(min=1.0)
    assert (found - wanted).abs().max() <= tolerance * scale
    assert (before - wanted).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["linear", "conv2d", "grouped", "embedding", "bare"])
def test_twice_the_alpha_is_twice_the_change(name):
    def change(alpha):
        model, given = made(name, torch.float64)
        model = nn.Sequential(model[0]) if name == "linear" else model
        base = model(given)
        disturbed(with_lora(model, "qkv" if name == "bare" else "0", rank=2, alpha=alpha))
        return model(given) - base

    torch.testing.assert_close(2.0 * change(3.0), change(6.0), rtol=1e-11, atol=1e-11)


def test_the_scale_is_alpha_by_the_rank_or_by_its_root():
    for alpha, scaling, scale in ((6, "rank", 2.0), (6, "sqrt_rank", 6 / math.sqrt(3)), (None, "rank", 1.0)):
        model = with_lora(nn.Sequential(nn.Linear(4, 4)), "0", rank=3, alpha=alpha, scaling=scaling)
        torch.testing.assert_close(model[0].lora_scale, torch.tensor(scale))


def test_a_convolution_is_the_sum_over_inputs_ranks_and_places():
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 3, (2, 3), stride=(1, 2), bias=False).double()
    given, base = torch.randn(1, 2, 4, 7).double(), layer.weight.detach().clone()
    model = disturbed(with_lora(nn.Sequential(layer), "0", rank=2, alpha=3))
    a, b = layer.lora_A.tolist(), layer.lora_B.tolist()
    found = model(given)
    for out in range(3):
        for row in range(found.shape[2]):
            for column in range(found.shape[3]):
                total = 0.0
                for i in range(2):
                    for y in range(2):
                        for x in range(3):
                            change = sum(b[out][r][0][0] * a[r][i][y][x] for r in range(2)) * 3 / 2
                            weight = float(base[out, i, y, x]) + change
                            total += weight * float(given[0, i, row + y, 2 * column + x])
                assert found[0, out, row, column].item() == pytest.approx(total, rel=1e-12)


def test_an_embedding_adds_the_row_of_a_through_b_and_nothing_to_padding():
    layer = nn.Embedding(6, 4, padding_idx=2)
    model = disturbed(with_lora(nn.Sequential(layer), "0", rank=3, alpha=6))
    base = layer._parameters["weight"]
    ids = torch.tensor([0, 5, 2])
    wanted = base[ids] + 2.0 * (layer.lora_embedding_A[:, ids].t() @ layer.lora_embedding_B.t())
    torch.testing.assert_close(model(ids), wanted)
    assert model(ids)[2].tolist() == [0.0] * 4
    model(ids).sum().backward()
    assert layer.lora_embedding_A.grad[:, 2].tolist() == [0.0] * 3
    assert layer.lora_embedding_A.grad[:, [1, 3, 4]].abs().sum() == 0  # rows that were not read


def test_the_fast_path_of_an_encoder_layer_reads_the_changed_weights(monkeypatch):
    model, given = made("encoder")
    disturbed(with_lora(model, "layers.*", rank=2, alpha=0.5))
    called = []
    fast = torch._transformer_encoder_layer_fwd
    monkeypatch.setattr(torch, "_transformer_encoder_layer_fwd", lambda *given: called.append(1) or fast(*given))
    slow = model.train()(given)
    with torch.no_grad():
        quick = model.eval()(given)
    assert called
    torch.testing.assert_close(quick, slow, rtol=1e-5, atol=1e-5)


def test_a_tied_output_layer_that_reads_the_weight_of_the_embedding_reads_the_change():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(9, 4)

        def forward(self, ids):
            return F.linear(self.embedding(ids), self.embedding.weight)

    model = disturbed(with_lora(Tied(), "embedding", rank=2))
    ids = torch.arange(9)
    torch.testing.assert_close(model(ids), merged(model)(ids), rtol=1e-5, atol=1e-5)


def test_of_two_layers_with_one_weight_each_has_a_change_of_its_own():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    disturbed(with_lora(model, "1", rank=2))
    given = torch.randn(3, 4)
    base = model[0]._parameters["weight"]
    assert model[0].weight is base
    plain = merged(model)
    assert torch.equal(plain[0].weight, base)
    assert not torch.equal(plain[1].weight, base)
    torch.testing.assert_close(plain(given), model(given), rtol=1e-5, atol=1e-5)


def test_a_module_with_two_names_has_one_change():
    layer = nn.Linear(4, 4)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    disturbed(with_lora(model, "*", rank=2))
    assert trained_numbers(model) == 2 * (4 + 4)
    given = torch.randn(3, 4)
    torch.testing.assert_close(merged(model)(given), model(given), rtol=1e-5, atol=1e-5)


def test_a_full_rank_fits_any_target():
    torch.manual_seed(1)
    layer = nn.Linear(5, 4, bias=False).double()
    target = torch.randn(4, 5).double()
    model = with_lora(nn.Sequential(layer), "0", rank=4)
    optimizer = torch.optim.LBFGS([p for p in model.parameters() if p.requires_grad], max_iter=400, history_size=40)

    def closure():
        optimizer.zero_grad()
        loss = (layer.weight - target).square().sum()
        loss.backward()
        return loss

    for _ in range(5):
        optimizer.step(closure)
    assert closure().item() < 1e-10


@pytest.mark.parametrize("alpha", [1.0, 3.0])
def test_the_first_step_of_sgd_grows_with_alpha_squared_and_that_of_adam_with_alpha(alpha):
    """By hand, 1 x 1: y = (w + alpha b a) x with b = 0, loss y. db = alpha a x, da = 0.

    SGD: b = -rate alpha a x, so y changes by alpha b a x = -rate (alpha a x)^2. Adam: b = -rate times the sign of its
    gradient, so y changes by -rate alpha |a x|.
    """
    rate, x = 0.25, 2.0
    changes = []
    for optimizer in (torch.optim.SGD, lambda p, lr: torch.optim.Adam(p, lr=lr, eps=1e-30)):
        torch.manual_seed(2)
        model = with_lora(nn.Sequential(nn.Linear(1, 1, bias=False)).double(), "0", rank=1, alpha=alpha)
        a = model[0].lora_A.item()
        given = torch.tensor([[x]]).double()
        before = model(given)
        step = optimizer([p for p in model.parameters() if p.requires_grad], lr=rate)
        before.sum().backward()
        step.step()
        changes.append(((model(given) - before).item(), a))
    (sgd, a), (adam, _) = changes
    assert sgd == pytest.approx(-rate * (alpha * a * x) ** 2, rel=1e-12)
    assert adam == pytest.approx(-rate * alpha * abs(a * x), rel=1e-12)


def test_a_is_drawn_by_kaimings_rule_from_the_generator_of_the_model():
    def fresh(seed):
        torch.manual_seed(seed)
        return with_lora(nn.Sequential(nn.Linear(400, 30)), "0", rank=20)[0]

    drawn = fresh(0).lora_A.detach()
    bound = 1 / math.sqrt(400)
    assert bound * 0.99 < float(drawn.abs().max()) <= bound
    assert float(drawn.std()) == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert torch.equal(drawn, fresh(0).lora_A)
    assert not torch.equal(drawn, fresh(1).lora_A)
    table = with_lora(nn.Sequential(nn.Embedding(400, 30)), "0", rank=20)[0].lora_embedding_A.detach()
    assert 0.99 < float(table.abs().max()) <= 1.0


def test_a_copy_of_the_model_is_a_model_of_its_own():
    model = with_lora(nn.Sequential(nn.Linear(4, 4)), "0", rank=2)
    twin = copy.deepcopy(model)
    disturbed(twin)
    assert model[0].lora_B.abs().sum().item() == 0.0
    assert type(twin[0]) is type(model[0])
    assert isinstance(model[0], nn.Linear)


def test_functional_calls_with_other_parameters_use_them():
    model, given = made("linear")
    disturbed(with_lora(model, "*", rank=2))
    zeros = {name: torch.zeros_like(one) for name, one in model.named_parameters() if name.endswith("lora_B")}
    base = copy.deepcopy(made("linear")[0])
    torch.testing.assert_close(torch.func.functional_call(model, zeros, given), base(given))


def test_weights_under_autocast_stay_what_they_are():
    model, given = made("linear")
    disturbed(with_lora(model, "*", rank=2))
    with torch.autocast("cpu", torch.bfloat16):
        assert model(given).dtype == torch.bfloat16


def test_a_module_that_calls_itself_has_one_change():
    class Again(nn.Module):
        def __init__(self):
            super().__init__()
            self.core = nn.Parameter(torch.randn(4, 4))

        def forward(self, x, times=3):
            return self(x @ self.core, times - 1) if times else x

    model = with_lora(Again(), "core", rank=1)
    nn.init.normal_(model.core_lora_B)
    x = torch.randn(2, 4)
    torch.testing.assert_close(model(x), merged(model)(x))
