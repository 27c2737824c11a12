"""Words of other tools, and words in the wrong place: refused, or told, with what to write."""

from dataclasses import fields
from typing import Any

import pytest
from support.tiny import Tiny

from tuner import Campaign, Round, SearchSpace, Sweep, log_uniform
from tuner.design.other_words import _INSTEAD, instead_of, refuse_unknown
from tuner.design.words import misplaced
from tuner.errors import DeclarationError

SPACE = SearchSpace(learning_rate=log_uniform(1e-3, 1e-1))
ROUND = Round("Which rate?", trials=4, space=SPACE, max_train_steps=20)


def no_campaign(word: str, value: object = 4) -> Campaign:
    given: dict[str, Any] = {word: value}
    return Campaign(Tiny(), rounds=[ROUND], **given)


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("gradient_accumulation_steps", "write micro_batch_size = 32 in the class"),
        ("accumulate_grad_batches", "write micro_batch_size = 32 in the class"),
        ("micro_batch_size", "write micro_batch_size = 32 in the class"),
        ("slices", "write micro_batch_size = 32 in the class"),
        ("bf16", 'write precision="bf16"'),
        ("mixed_precision", 'write precision="bf16"'),
        ("fp16", 'write precision="fp16"'),
        ("swa_start", "write ema_steps=50"),
        ("patience_steps", "write patience_steps=500 in the last Round"),
        ("early_stopping", "write patience_steps=500 in the last Round"),
        ("max_grad_norm", "write clip_norm=1.0 in the SearchSpace"),
        ("gradient_checkpointing", "write torch.utils.checkpoint"),
        ("torch_compile", "write torch.compile"),
        ("load_in_8bit", 'write optimizer="adamw_8bit"'),
        ("batch_size", "write it in the class of the workload"),
        ("max_train_steps", "write it in a Round"),
    ],
)
def test_a_campaign_refuses_a_word_of_another_tool_or_place_with_what_to_write(word: str, written: str) -> None:
    with pytest.raises(DeclarationError, match="^Campaign has no '" + word) as told:
        no_campaign(word)
    assert written in str(told.value)


def test_a_misspelt_word_is_told_what_it_may_mean_and_an_unknown_one_what_there_is() -> None:
    with pytest.raises(DeclarationError, match=r"Campaign has no 'precison'; did you mean precision\?"):
        no_campaign("precison", "bf16")
    with pytest.raises(DeclarationError, match="Campaign has no 'colour'; it has workload, rounds, optimizer"):
        no_campaign("colour")


@pytest.mark.parametrize(
    ("word", "written"), [("patience", "patience_steps"), ("precision", "in Campaign"), ("ema_steps", "in Campaign")]
)
def test_a_round_refuses_them_too(word: str, written: str) -> None:
    given: dict[str, Any] = {word: 4}
    with pytest.raises(DeclarationError, match=f"Round has no '{word}'; .*{written}"):
        Round("Which rate?", trials=4, space=SPACE, **given)


def test_a_sweep_refuses_them_too() -> None:
    given: dict[str, Any] = {"precision": "bf16"}
    with pytest.raises(DeclarationError, match="Sweep has no 'precision'; write precision="):
        Sweep(**given)


def test_no_word_of_ours_is_refused_where_it_stands() -> None:
    for kind in (Campaign, Round, Sweep):
        refuse_unknown(kind, {one.name: None for one in fields(kind)})


def test_letters_alone_count() -> None:
    assert instead_of("MixedPrecision") == instead_of("mixed_precision") == _INSTEAD["mixedprecision"]
    assert instead_of("width") == ""
    assert all(name == name.lower() and name.isalnum() for name in _INSTEAD)


def test_a_class_is_told_of_words_that_nothing_reads_and_keeps_those_that_its_own_code_reads() -> None:
    class Misplaced(Tiny):
        gradient_accumulation_steps = 4
        ema_steps = 10
        precision = "bf16"
        amp = 2.0
        width = 3

        def provenance(self) -> dict[str, Any]:
            return {"amplitude": self.amp}

    assert sorted(misplaced(Misplaced())) == ["ema_steps", "gradient_accumulation_steps", "precision"]
    assert misplaced(Tiny()) == {}
