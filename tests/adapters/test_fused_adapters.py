"""Trials with adapters: trained together they keep the bits of each alone, and they resume exactly."""

import pytest
import torch
from support.fusible import Images, Mlp, Residual, SdpaTransformer, TiedLm, TransformerEncoder, runs_of
from support.tiny import tiny_study
from torch import nn

from tuner import SearchSpace, choice, log_uniform, uniform, with_lora
from tuner.errors import NotFusible
from tuner.fused.group import Group
from tuner.fused.making import exact_group
from tuner.training.checkpoints import canonical_digest

STEPS = 4


def space(**changed):
    declared = {"alpha": log_uniform(1.0, 32.0), "rank": 3, "lora_dropout": 0.0, "label_smoothing": 0.0}
    return SearchSpace(learning_rate=log_uniform(1e-4, 1e-2), **(declared | changed))


def pretrained(model):
    """The same base in every trial."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


def adapted(kind, pattern, trained=""):
    """A workload whose model has adapters."""

    def model(self, point):
        return with_lora(
            pretrained(kind.model(self, point)), pattern, rank=point["rank"], alpha=point["alpha"],
            dropout=point["lora_dropout"], trained=trained,
        )  # fmt: skip

    return type(f"{kind.__name__}WithAdapters", (kind,), {"model": model, "__module__": __name__})()


WITH_DROPOUT = space(lora_dropout=uniform(0.05, 0.4))
CASES = {
    "mlp": (adapted(Mlp, "*"), WITH_DROPOUT),
    "mlp and a trained head": (adapted(Mlp, "0|2", trained="4"), WITH_DROPOUT),
    "convolutions": (adapted(Residual, "blocks.*|head"), WITH_DROPOUT),
    "embedding": (adapted(TiedLm, "emb|block.*"), space()),
    "attention": (adapted(TransformerEncoder, "encoder.*|head"), space()),
    "attention by hand": (adapted(SdpaTransformer, "blocks.*"), WITH_DROPOUT),
}


def digests(runs):
    return [canonical_digest(run.state()) for run in runs]


@pytest.mark.parametrize("name", CASES)
def test_adapters_trained_together_have_the_bits_of_each_alone(name):
    workload, searched = CASES[name]
    runs, alone = runs_of(workload, 3, searched), runs_of(workload, 3, searched)
    group = exact_group(runs)
    group.advance(STEPS)
    for run in alone:
        run.advance(STEPS)
    assert digests(group.runs) == digests(alone)
    assert len({float(scale) for run in runs for key, scale in run.model.named_buffers() if "scale" in key}) >= 3


def test_a_run_with_adapters_resumes_exactly(tmp_path):
    workload, searched = CASES["mlp"]
    whole, first = runs_of(workload, 1, searched)[0], runs_of(workload, 1, searched)[0]
    whole.advance(2 * STEPS)
    first.advance(STEPS)
    torch.save(first.state(), tmp_path / "state.pt")
    resumed = runs_of(workload, 1, searched)[0]
    resumed.load(torch.load(tmp_path / "state.pt", weights_only=True))
    resumed.advance(2 * STEPS)
    assert digests([resumed]) == digests([whole])


def test_only_adapters_and_what_is_trained_besides_move():
    workload, searched = CASES["mlp and a trained head"]
    run = runs_of(workload, 1, searched)[0]
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    run.advance(STEPS)
    moved = {name for name, tensor in run.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {"0.lora_A", "0.lora_B", "2.lora_A", "2.lora_B", "4.weight", "4.bias"}


def test_another_rank_is_another_group_and_another_alpha_is_not():
    searched = space(rank=choice(2, 4), alpha=choice(4, 8, 16))
    study, runs = tiny_study(space=searched, num_trials=6), runs_of(adapted(Mlp, "*"), 6, searched)
    groups = {study.shape_group(run.trial.point): run.trial.point["rank"] for run in runs}
    assert sorted(groups.values()) == [2, 4]
    with pytest.raises(NotFusible, match="lora_A"):
        Group(runs)


def test_whole_alphas_train_together():
    runs = runs_of(adapted(Mlp, "*"), 3, space(alpha=choice(4, 8, 16)))
    assert len({run.trial.point["alpha"] for run in runs}) > 1
    exact_group(runs).advance(1)


class NothingTrained(Images):
    def model(self, point):
        return with_lora(nn.Sequential(nn.Linear(64, 10)), "0", rank=2).requires_grad_(False)


def test_adapters_that_are_frozen_again_are_refused():
    with pytest.raises(Exception, match="no parameter"):
        runs_of(NothingTrained(), 1, space())[0].advance(1)
