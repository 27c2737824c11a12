"""peft as a second implementation of LoRA, and as the reader of what is exported."""

import copy

import pytest
import torch
from support.adapted import disturbed
from torch import nn

from tuner import merged, with_lora
from tuner.adapters.files import adapters_in, merged_weights, peft_adapter
from tuner.errors import StorageError
from tuner.training.adapter_export import write_peft

pytestmark = [
    pytest.mark.needs("peft"),
    pytest.mark.filterwarnings("ignore:.*groups > 1.*"),  # peft cannot merge such adapters; it trains and reads them
]


class Net(nn.Module):
    """A layer of each kind that peft has an adapter for."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 12, padding_idx=0)
        self.attention = nn.MultiheadAttention(12, 2, batch_first=True)
        self.blocks = nn.ModuleList([nn.Linear(12, 12), nn.Linear(12, 5)])
        self.conv, self.grouped = nn.Conv2d(4, 6, 3, padding=1, stride=2), nn.Conv2d(6, 4, 3, groups=2)
        self.norm, self.head = nn.BatchNorm1d(5), nn.Linear(5, 3)

    def forward(self, ids, images):
        x = self.embedding(ids)
        x = self.attention(x, x, x, need_weights=False)[0]
        x = self.blocks[1](torch.relu(self.blocks[0](x))).mean(1)
        return torch.cat([self.head(self.norm(x)), self.grouped(torch.relu(self.conv(images))).flatten(1)], 1)


def given():
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 11, (7, 5), generator=generator), torch.randn(7, 4, 9, 9, generator=generator).double()


def adapted():
    """A base, and the same with adapters of three ranks and alphas."""
    torch.manual_seed(0)
    base = Net().double().eval()
    model = with_lora(copy.deepcopy(base), "embedding|attention.in_proj_weight|blocks.*|conv", rank=3, alpha=5.5)
    with_lora(model, "grouped", rank=1, alpha=3)
    with_lora(model, "head", rank=2, scaling="sqrt_rank")
    return base, disturbed(model).eval()


def loaded_by_peft(base, folder):
    from peft import PeftModel

    return PeftModel.from_pretrained(copy.deepcopy(base), str(folder)).eval()


def test_peft_loads_the_export_and_computes_the_same(tmp_path):
    base, model = adapted()
    written = write_peft(model.state_dict(), tmp_path / "adapter")
    assert sorted(path.name for path in written.path.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    wanted = model(*given())
    torch.testing.assert_close(loaded_by_peft(base, written.path)(*given()), wanted, rtol=1e-12, atol=1e-12)
    assert (base(*given()) - wanted).abs().max() > 1.0


def test_the_export_is_found_by_names_that_cannot_mean_another_layer(tmp_path):
    """A layer "0" of the model, and "inner.0", which ends alike and has another rank, or none."""

    def base():
        torch.manual_seed(0)
        return nn.ModuleDict({"0": nn.Linear(6, 6), "a": nn.ModuleDict({"0": nn.Linear(6, 6), "1": nn.Linear(6, 6)})})

    model = with_lora(with_lora(base(), "0", rank=2), "a.0", rank=3, alpha=7)
    tensors, config = peft_adapter(disturbed(model).state_dict())
    assert (config["r"], config["rank_pattern"], config["alpha_pattern"]) == (2, {"^a\\.0": 3}, {"^a\\.0": 7})
    written = write_peft(model.state_dict(), tmp_path / "adapter").path
    read = loaded_by_peft(base(), written).base_model.model
    x = torch.randn(4, 6)
    for name in ("0", "a.0", "a.1"):
        torch.testing.assert_close(read.get_submodule(name)(x), model.get_submodule(name)(x))
    assert len(tensors) == 4


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_peft_trains_as_we_do_from_the_same_numbers(dropout):
    """Copied A and B, one generator: the same outputs in train mode, the same gradients, the same place of dropout."""
    from peft import LoraConfig, inject_adapter_in_model

    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(9, 7), nn.Tanh(), nn.Linear(7, 5)).double()
    ours = disturbed(with_lora(copy.deepcopy(base), "*", rank=2, alpha=3, dropout=dropout))
    config = LoraConfig(r=2, lora_alpha=3, lora_dropout=dropout, target_modules=["0", "2"])
    theirs = inject_adapter_in_model(config, copy.deepcopy(base))
    with torch.no_grad():
        for place in (0, 2):
            theirs[place].lora_A["default"].weight.copy_(ours[place].lora_A)
            theirs[place].lora_B["default"].weight.copy_(ours[place].lora_B)
    x, outputs = torch.randn(6, 9).double(), []
    for model in (ours, theirs):
        torch.manual_seed(4)
        outputs.append(model.train()(x))
        outputs[-1].square().sum().backward()
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-12, atol=1e-12)
    for place in (0, 2):
        torch.testing.assert_close(ours[place].lora_A.grad, theirs[place].lora_A["default"].weight.grad)
        torch.testing.assert_close(ours[place].lora_B.grad, theirs[place].lora_B["default"].weight.grad)


def test_merged_weights_are_those_of_the_merged_model():
    _, model = adapted()
    found, wanted = merged_weights(model.state_dict()), merged(model).state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_alphas_are_written_as_they_were_given():
    for alpha in (16, 0.7, 5.5, 1e-3, 7.123456):
        model = with_lora(nn.ModuleDict({"a": nn.Linear(20, 20)}), "a", rank=12, alpha=alpha)
        assert peft_adapter(model.state_dict())[1]["lora_alpha"] == pytest.approx(alpha, rel=1e-7)
    assert peft_adapter(model.state_dict())[1]["lora_alpha"] == 7.123456


def test_what_was_trained_besides_is_saved_with_its_module(tmp_path):
    base, model = adapted()
    frozen = {name for name, _ in base.named_parameters()}
    with torch.no_grad():
        model.norm.running_mean.add_(1.0)
    kept = {name for name, _ in base.named_buffers()}
    tensors, config = peft_adapter(model.state_dict(), frozen)
    assert config["modules_to_save"] == ["norm"]
    written = write_peft(model.state_dict(), tmp_path / "adapter", frozen).path
    torch.testing.assert_close(loaded_by_peft(base, written)(*given()), model(*given()), rtol=1e-12, atol=1e-12)
    assert len(peft_adapter(model.state_dict(), frozen | kept)[0]) == len(tensors) - len(kept) - 2
    with pytest.raises(StorageError, match=r"head.bias was trained besides"):
        peft_adapter(model.state_dict(), frozen - {"head.bias"})


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: nn.Linear(4, 4), "no adapters"),
        (lambda: with_lora(nn.Linear(4, 4), "weight", rank=2), "of the model itself"),
        (lambda: with_lora(nn.ModuleDict({"a": nn.MultiheadAttention(4, 2)}), "a.out_proj", rank=2), "twice"),
        (lambda: with_lora(nn.ModuleDict({"a": nn.MultiheadAttention(4, 2, kdim=3)}), "a", rank=2), "bare tensor"),
    ],
)
def test_what_peft_cannot_hold_is_refused(make, says):
    with pytest.raises(StorageError, match=says):
        peft_adapter(make().state_dict())


def test_weights_without_adapters_have_none():
    with pytest.raises(StorageError, match="no adapters"):
        adapters_in({"a.weight": torch.ones(2, 2), "a.lora_A": torch.ones(2, 2)})


def test_an_encoder_layer_of_torchs_needs_its_other_way_for_peft_which_is_said(tmp_path, caplog):
    torch.manual_seed(0)
    base = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)).eval()
    model = disturbed(with_lora(copy.deepcopy(base), "*.linear?", rank=2)).eval()
    peft = loaded_by_peft(base, write_peft(model.state_dict(), tmp_path / "adapter").path)
    assert "0 has the names of an nn.TransformerEncoderLayer" in caplog.text
    x = torch.randn(2, 3, 8)
    with torch.no_grad():
        assert not torch.allclose(peft(x), model(x), atol=1e-3), "peft or torch have learned it: take the warning out"
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            torch.testing.assert_close(peft(x), model(x), rtol=1e-5, atol=1e-5)
        finally:
            torch.backends.mha.set_fastpath_enabled(True)
