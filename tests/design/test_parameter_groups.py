"""The words for parameter groups: what each chooses of named parameters, and what is refused with the way out."""

import math

import numpy as np
import pytest

from tuner import by_depth, matching, vectors
from tuner.design.parameter_groups import NamedParameter, divided
from tuner.errors import WorkloadError


def parameters(*names, tied=(), frozen=()):
    """Parameters by name: biases, norms and `scale` are vectors; `tied`: pairs (name, another name of it)."""
    others = dict(tied)
    return [
        NamedParameter(
            (name, others[name]) if name in others else (name,),
            1 if name.endswith(("bias", "scale", "norm.weight")) else 2,
            name not in frozen,
        )
        for name in names
    ]


NET = parameters(
    "embed.weight", "blocks.0.fc.weight", "blocks.0.norm.weight", "blocks.1.fc.weight", "blocks.1.fc.bias",
    "blocks.2.fc.weight", "head.weight", "head.bias",
)  # fmt: skip


def groups_of(words, parameters=NET, **options):
    """Label to (rate, decay, names)."""
    made = divided(parameters, [(str(word), word.chosen(parameters)) for word in words], **options)
    return {
        one.label: (one.rate, 1.0 if one.decay is None else one.decay, [parameters[place].name for place in one.places])
        for one in made
    }


def test_the_first_word_that_chooses_a_parameter_has_it_and_the_rest_keeps_both():
    assert groups_of([vectors(decay=0.0), matching("head.*", rate=10.0)]) == {
        "vectors": (1.0, 0.0, ["blocks.0.norm.weight", "blocks.1.fc.bias", "head.bias"]),
        "head.*": (10.0, 1.0, ["head.weight"]),
        "all others": (
            1.0, 1.0, ["embed.weight", "blocks.0.fc.weight", "blocks.1.fc.weight", "blocks.2.fc.weight"]
        ),
    }  # fmt: skip
    assert groups_of([matching("head.*", rate=10.0), vectors(decay=0.0)])["head.*"][2] == ["head.weight", "head.bias"]


def test_rates_by_depth_fall_by_the_factor_from_block_to_block_and_then_before_them():
    made = groups_of([by_depth("blocks.{}", 0.5, before="embed.*", rate=2.0, decay=3.0)])
    assert {label: values[:2] for label, values in made.items()} == {
        "before blocks.{}": (0.25, 3.0), "blocks.0": (0.5, 3.0), "blocks.1": (1.0, 3.0), "blocks.2": (2.0, 3.0),
        "all others": (1.0, 1.0),
    }  # fmt: skip
    assert made["blocks.1"][2] == ["blocks.1.fc.weight", "blocks.1.fc.bias"]
    assert made["before blocks.{}"][2] == ["embed.weight"]


def test_blocks_are_counted_in_the_order_of_their_numbers_whatever_these_are():
    layers = parameters("net.0.weight", "net.2.weight", "net.10.weight", "out.weight")
    assert {label: rate for label, (rate, _, _) in groups_of([by_depth("net.{}", 0.1)], layers).items()} == {
        "net.0": pytest.approx(0.01), "net.2": 0.1, "net.10": 1.0, "all others": 1.0,
    }  # fmt: skip
    stages = parameters("stem.weight", "layer1.0.conv.weight", "layer2.0.conv.weight", "layer2.1.conv.weight")
    assert groups_of([by_depth("layer{}", 0.5)], stages)["layer1"] == (0.5, 1.0, ["layer1.0.conv.weight"])
    inside = parameters("enc.layer.0.mlp.3.weight", "enc.layer.1.mlp.3.weight")
    assert list(groups_of([by_depth("*.{}", 0.5)], inside)) == ["*.0", "*.1"]


def test_a_block_keeps_its_depth_where_another_word_or_freezing_took_it():
    frozen = parameters("net.0.weight", "net.1.weight", "net.2.weight", frozen=["net.0.weight"])
    made = groups_of([matching("net.2.*", rate=7.0), by_depth("net.{}", 0.5)], frozen)
    assert {label: values[0] for label, values in made.items()} == {"net.2.*": 7.0, "net.1": 0.5}


def test_no_decay_of_vectors_holds_within_every_group_and_keeps_their_rate():
    made = groups_of([matching("head.*", rate=10.0, decay=2.0), by_depth("blocks.{}", 0.5)], vectors_decay=False)
    assert made["head.*"] == (10.0, 2.0, ["head.weight"])
    assert made["head.*, vectors"] == (10.0, 0.0, ["head.bias"])
    assert made["blocks.0, vectors"] == (0.25, 0.0, ["blocks.0.norm.weight"])
    assert made["all others"] == (1.0, 1.0, ["embed.weight"])
    assert groups_of([], vectors_decay=False)["all others, vectors"][2][-1] == "head.bias"
    assert groups_of([vectors(rate=3.0)], vectors_decay=False)["vectors"][:2] == (3.0, 0.0)
    with pytest.raises(WorkloadError, match=r'no_decay = "vectors" takes all of the group vectors .* decay=0\.5'):
        groups_of([vectors(decay=0.5)], vectors_decay=False)


def test_every_trained_parameter_is_in_one_group_and_a_frozen_one_in_none():
    net = parameters(*[one.name for one in NET], frozen=["embed.weight", "blocks.0.norm.weight"])
    words = [vectors(decay=0.0), by_depth("blocks.{}", 0.8, before="embed.*|head.weight")]
    chosen = [name for _, _, names in groups_of(words, net).values() for name in names]
    assert sorted(chosen) == sorted(one.name for one in net if one.trained)


def test_a_tied_parameter_is_matched_under_any_of_its_names_and_stands_in_one_group():
    net = parameters("embed.weight", "body.weight", tied=[("embed.weight", "head.weight")])
    assert groups_of([matching("head.*", rate=3.0)], net)["head.*"] == (3.0, 1.0, ["embed.weight"])
    assert list(groups_of([matching("head.*", rate=3.0), matching("*.weight", rate=2.0)], net)) == [
        "head.*",
        "*.weight",
    ]
    assert list(groups_of([matching("embed.*|head.*", rate=3.0), matching("body.*")], net)) == [
        "embed.*|head.*", "body.*"
    ]  # fmt: skip
    with pytest.raises(WorkloadError, match=r"head\.weight and embed\.weight are one parameter \(tied\): matching"):
        groups_of([matching("head.*", rate=3.0), matching("embed.*", rate=0.1)], net)
    shared = parameters("net.0.weight", "net.2.weight", tied=[("net.0.weight", "net.1.weight")])
    with pytest.raises(WorkloadError, match=r"net\.0\.weight and net\.1\.weight are one parameter"):
        groups_of([by_depth("net.{}", 0.5)], shared)
    assert groups_of([matching("net.0.*|net.1.*"), by_depth("net.{}", 0.5)], shared)["net.2"][0] == 1.0


@pytest.mark.parametrize(
    ("word", "told"),
    [
        (matching("hed.*"), r"no parameter of the model matches 'hed\.\*'; did you mean head\.\*"),
        (matching("head"), r"did you mean head\.\*\?"),
        (matching("head.*|haed.bias"), r"matches 'haed\.bias'; did you mean .*head\.bias"),
        (matching("zzz"), r"the model has embed\.weight, blocks\.0\.fc\.weight, blocks\.0\.norm\.weight, \.\.\."),
        (by_depth("block.{}", 0.8), r'by_depth\("block\.\{\}"\): no parameter of the model matches'),
        (by_depth("blocks.{}", 0.8, before="emb.*"), r'before="emb\.\*" of by_depth.*did you mean embed\.\*'),
        (by_depth("blocks.{}", 0.8, before="blocks.0.*"), r"matches parameters of the blocks only \(blocks\.0\.fc"),
    ],
)
def test_a_pattern_that_matches_nothing_is_an_error_with_the_nearest_names(word, told):
    with pytest.raises(WorkloadError, match=told):
        groups_of([word])


def test_a_model_without_vectors_is_no_error():
    assert list(groups_of([vectors(decay=0.0)], parameters("body.weight"))) == ["all others"]


def test_a_word_that_is_left_without_a_trained_parameter_is_an_error_with_the_reason():
    frozen = parameters("head.weight", "body.weight", frozen=["head.weight"])
    with pytest.raises(WorkloadError, match=r"chooses frozen parameters only \(head\.weight, \.\.\.: requires_grad"):
        groups_of([matching("head.*", rate=2.0)], frozen)
    words = [matching("head.*", rate=2.0), matching("head.bias", rate=3.0)]
    with pytest.raises(WorkloadError, match=r'matching\("head\.bias"\) is left .* put matching\("head\.bias"\) first'):
        groups_of(words)


@pytest.mark.parametrize("make", [lambda **number: matching("head.*", **number), vectors,
                                  lambda **number: by_depth("blocks.{}", 0.8, **number)])  # fmt: skip
@pytest.mark.parametrize(
    ("number", "told"),
    [
        ({"rate": -1.0}, r"rate of .* must be finite and not negative.*got -1\.0"),
        ({"rate": math.nan}, "got nan"),
        ({"decay": math.inf}, "decay of .* must be finite"),
        ({"rate": 0.0}, r"freeze them in model\(\), by requires_grad_\(False\)"),
        ({"rate": True}, "must be a number, a multiple of the learning rate of each step, got True"),
        ({"decay": "0.1"}, "must be a number, a multiple of weight_decay, got '0.1'"),
    ],
)
def test_a_multiple_that_cannot_be_is_refused(make, number, told):
    with pytest.raises(WorkloadError, match=told):
        make(**number)


def test_a_number_of_numpy_is_a_number():
    assert matching("head.*", rate=np.float32(0.5)).rate == 0.5


@pytest.mark.parametrize("pattern", ["", "head.*|", 3, ["head.*"]])
def test_a_pattern_is_text_with_names(pattern):
    with pytest.raises(WorkloadError, match="takes names of parameters as text"):
        matching(pattern)


def test_a_pattern_by_depth_says_once_where_the_number_stands():
    for pattern in ("blocks.*", "{}.{}"):
        with pytest.raises(WorkloadError, match=r"write \{\} there, once"):
            by_depth(pattern, 0.8)
    with pytest.raises(WorkloadError, match=r"factor of .* is 0"):
        by_depth("blocks.{}", 0.0)
    deep = parameters(*[f"blocks.{number}.weight" for number in range(3)])
    with pytest.raises(WorkloadError, match=r"blocks\.0, is 0, so that its parameters would not be trained"):
        groups_of([by_depth("blocks.{}", 1e-200)], deep)
