"""Adapters between stages, in the files of a campaign, and in its exports: without the study's code."""

import copy
import hashlib

import pytest
import torch
from safetensors.torch import load_file, save
from support.adapted import disturbed
from support.shell import tuner
from support.study_files import write_study
from support.tiny import tiny_study
from torch import nn

import tuner as api
from tuner import SearchSpace, choice, log_uniform, with_lora
from tuner.errors import InputError, StorageError
from tuner.records.conclusions import Selected, StageStart
from tuner.rounds.prepared_round import _coupled_alpha
from tuner.training.inherited import StartWeights

__all__ = ["tuner"]
WITH_LORA = """nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))
        torch.manual_seed(3)  # as weights that were trained before: the same base in every trial
        for parameter in model.parameters():
            nn.init.normal_(parameter)
        return with_lora(model, "*", rank=point["rank"], alpha=point["alpha"], dropout=point["lora_dropout"])"""


@pytest.fixture
def launched(tuner, tmp_path):
    write_study(tmp_path, replace=[
        ('return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(point["dropout"]), nn.Linear(16, 2))',
         f"model = {WITH_LORA}"),
        ('dropout=uniform(0.0, 0.5, limits="low")', 'alpha=8, rank=2, lora_dropout=uniform(0.0, 0.2)'),
    ])  # fmt: skip
    run = tuner("launch", "tiny.py", "--round", 1)
    assert run.code == 0, run.err
    return run


def test_the_best_adapter_is_exported_merged_and_for_peft(launched, tuner, tmp_path):
    merged = tuner("best", "tiny", "--export", "merged.safetensors", "--as", "merged")
    assert merged.code == 0, merged.err
    weights = load_file(tmp_path / "merged.safetensors")
    assert sorted(weights) == ["0.bias", "0.weight", "2.bias", "2.weight"]
    whole = load_file(api.export_weights("tiny", tmp_path / "whole.safetensors"))
    torch.testing.assert_close(weights["0.weight"], whole["0.weight"] + 4.0 * whole["0.lora_B"] @ whole["0.lora_A"])
    assert not torch.equal(weights["0.weight"], whole["0.weight"])
    peft = tuner("best", "tiny", "--export", "adapter", "--as", "peft")
    assert peft.code == 0, peft.err
    assert "an adapter in peft's format with 4 tensors" in peft.err
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert torch.equal(tensors["base_model.model.0.lora_A.weight"], whole["0.lora_A"])
    again = tuner("best", "tiny", "--export", "adapter", "--as", "peft")
    assert again.code != 0
    assert "is there already" in again.err
    assert api.export_weights("tiny", tmp_path / "other.safetensors", as_="peft") == tmp_path / "other"
    with pytest.raises(InputError, match="'merged' or 'peft'"):
        api.export_weights("tiny", tmp_path / "x", as_="onnx")
    alone = tuner("best", "tiny", "--as", "peft")
    assert alone.code != 0
    assert "--export FILE" in alone.err


def test_weights_without_adapters_are_not_exported_as_such(tuner, tmp_path):
    write_study(tmp_path, trials=1)
    assert tuner("launch", "tiny.py", "--round", 1).code == 0
    with pytest.raises(StorageError, match="have no adapters"):
        api.export_weights("tiny", tmp_path / "x", as_="merged")
    run = tuner("best", "tiny", "--export", "x", "--as", "peft")
    assert "have no adapters" in run.err
    assert not (tmp_path / "x").exists()


def start_of(model, **words):
    content = save({name: tensor.contiguous() for name, tensor in model.state_dict().items()})
    selected = Selected(hashlib.sha256(content).hexdigest(), len(content), campaign="first", study="round-1")
    return StartWeights(StageStart((selected,), **words), contents=(content,))


def base():
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))


def test_a_base_is_carried_into_a_model_with_adapters_by_its_names():
    earlier, later = base(), with_lora(base(), "*", rank=2, alpha=6)
    start = start_of(earlier)
    start.into(later, {})
    assert torch.equal(later[0]._parameters["weight"], earlier[0].weight)
    assert set(start.handed.carried) == set(earlier.state_dict())
    assert set(start.handed.fresh) == {f"{at}.lora_{what}" for at in (0, 2) for what in ("A", "B", "scale")}
    given = torch.randn(5, 4)
    assert torch.equal(later(given), earlier(given))


def test_an_adapter_is_carried_and_its_scale_is_that_of_the_point():
    earlier = disturbed(with_lora(base(), "0", rank=2, alpha=6))
    later = with_lora(base(), "*", rank=2, alpha=4)
    start_of(earlier).into(later, {})
    assert torch.equal(later[0].lora_B, earlier[0].lora_B)
    assert (later[0].lora_scale.item(), earlier[0].lora_scale.item()) == (2.0, 3.0)
    fresh = copy.deepcopy(later)
    start_of(earlier, fresh="*lora*").into(with_lora(base(), "*", rank=2), {})
    assert later[2].lora_B.abs().sum().item() == 0.0
    assert torch.equal(fresh[0].lora_A, earlier[0].lora_A)


@pytest.mark.parametrize(
    ("declared", "says"),
    [
        ("alpha=log_uniform(1, 64), rank=choice(1, 2, 3)", "rank 3 is above 2, the smaller dimension of 2 (Linear)"),
        ("alpha=choice(1, 2, 0), rank=1", "alpha of with_lora is above 0, got 0.0"),
    ],
)
def test_numbers_that_a_layer_cannot_have_are_found_before_anything_is_trained(declared, says, tuner, tmp_path):
    declared = f"{declared}, lora_dropout=0.0"
    write_study(tmp_path, trials=12, replace=[
        ('return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(point["dropout"]), nn.Linear(16, 2))',
         f"model = {WITH_LORA}"),
        ('dropout=uniform(0.0, 0.5, limits="low")', declared),
    ])  # fmt: skip
    run = tuner("launch", "tiny.py", "--round", 1)
    assert run.code != 0
    assert says in run.err
    assert not (tmp_path / "runs" / "tuner.sqlite").exists() or "complete" not in tuner("status", "tiny").out


def test_an_alpha_and_a_rate_that_are_both_wide_open_are_noted(tuner, tmp_path):
    write_study(tmp_path, trials=2, steps=20, replace=[
        ('dropout=uniform(0.0, 0.5, limits="low")', "dropout=0.0, alpha=log_uniform(1, 64), rank=2"),
    ])  # fmt: skip
    run = tuner("launch", "tiny.py", "--round", 1)
    assert "alpha and learning_rate are both wide open in round-1" in run.err
    assert "with SGD with alpha squared" in run.err


@pytest.mark.parametrize(
    "declared",
    [
        {"alpha": 8, "rank": 2},
        {"alpha": log_uniform(8, 16), "rank": 2},
        {"alpha": log_uniform(1, 64)},  # of something else
        {"alpha": choice(8, 16), "rank": choice(2, 4)},
    ],
)
def test_an_alpha_that_is_narrow_or_of_something_else_is_not_noted(declared):
    space = SearchSpace(learning_rate=log_uniform(1e-3, 1.0), **declared)
    assert list(_coupled_alpha(tiny_study(space=space))) == []
