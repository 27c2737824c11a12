"""Captions in another order and without some of their words: what stays, what changes, and from which draws."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from tuner import branches, choice, dropped, fixed, integers, shuffled, uniform
from tuner.design.captions import looking_at_captions
from tuner.design.space import SearchSpace
from tuner.errors import DeclarationError, WorkloadError

LENGTHS = (5, 1, 0, 7, 3, 2)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def padded_words(lengths=LENGTHS, dtype=torch.long, padding=0):
    """Captions of different words, 10 times the caption's number on, with padding behind them."""
    rows = [torch.arange(1, length + 1) + 10 * number for number, length in enumerate(lengths)]
    return pad_sequence(rows, batch_first=True, padding_value=padding).to(dtype)


def as_tags(words, padding=0):
    return [[str(word) for word in row if word != padding] for row in words.tolist()]


def words_of(row, padding=0):
    return [word for word in row.tolist() if word != padding]


@pytest.mark.parametrize("keep", [0, 1, 3])
@pytest.mark.parametrize(("dtype", "padding"), [(torch.long, 0), (torch.int32, -7), (torch.uint8, 0)])
def test_a_shuffled_caption_has_the_same_words_and_begins_with_the_same_ones(keep, dtype, padding):
    words = padded_words(dtype=dtype, padding=padding)
    before = words.clone()
    for seed in range(20):
        found = shuffled(words, seeded(seed), keep=keep, padding=padding)
        assert found.dtype == dtype
        assert torch.equal(found == padding, words == padding), "padding stays behind the words"
        assert torch.equal(found.sort(1).values, words.sort(1).values)
        assert torch.equal(found[:, :keep], words[:, :keep])
    assert torch.equal(words, before), "the batch itself is not changed"


def test_padding_in_front_of_the_words_stays_there():
    words = padded_words().flip(1)
    found = shuffled(words, seeded(), keep=1)
    assert torch.equal(found == 0, words == 0)
    assert torch.equal(found.sort(1).values, words.sort(1).values)
    assert [words_of(row)[:1] for row in found] == [words_of(row)[:1] for row in words]


@pytest.mark.parametrize("keep", [0, 1])
def test_all_orders_are_equally_likely(keep):
    number = 24_000
    found = shuffled(torch.tensor([[1, 2, 3, 4, 0, 0]]).expand(number, 6), seeded(), keep=keep)
    counts = Counter(map(tuple, found[:, keep:4].tolist()))
    orders = list(itertools.permutations(range(1 + keep, 5)))
    assert set(counts) == set(orders)
    expected = number / len(orders)
    squares = sum((counts[order] - expected) ** 2 / expected for order in orders)
    freedom = len(orders) - 1
    assert squares < freedom + 4 * math.sqrt(2 * freedom), "chi squared, 4 standard deviations above its mean"


def test_a_share_of_the_captions_is_shuffled():
    words = torch.arange(1, 9).expand(20_000, 8)
    found = shuffled(words, seeded(), share=0.3)
    changed = float((found != words).any(1).double().mean())
    assert changed == pytest.approx(0.3 * (1 - 1 / math.factorial(8)), abs=0.013), "4 standard deviations"


@pytest.mark.parametrize("keep", [0, 1])
def test_whole_captions_are_dropped_as_often_as_asked(keep):
    words = torch.arange(1, 5).expand(20_000, 4)
    found = dropped(words, seeded(), share=0.2, keep=keep)
    whole = (found == words).all(1)
    empty = (found[:, keep:] == 0).all(1) & (found[:, :keep] == words[:, :keep]).all(1)
    assert bool((whole | empty).all())
    assert float(empty.double().mean()) == pytest.approx(0.2, abs=0.0114), "4 standard deviations"


@pytest.mark.parametrize("keep", [0, 2])
def test_each_word_is_dropped_for_itself_and_the_rest_closes_up(keep):
    words = torch.cat([torch.arange(1, 7), torch.zeros(2, dtype=torch.long)]).expand(20_000, 8)
    found = dropped(words, seeded(), share=0.25, each=True, keep=keep)
    left = (found != 0).sum(1)
    assert torch.equal(found != 0, torch.arange(8) < left[:, None]), "padding stands behind what is left"
    ordered = found.masked_fill(found == 0, 99)
    assert torch.equal(ordered, ordered.sort(1).values), "in the old order"
    for word in range(1, 7):
        there = float((found == word).any(1).double().mean())
        assert there == (1.0 if word <= keep else pytest.approx(0.75, abs=0.0123)), "4 standard deviations"
    free = 6 - keep
    assert float((left == keep).double().mean()) == pytest.approx(0.25**free, abs=4 * 0.5**free / 141)


CHANGES = {
    "shuffled": lambda words, generator, **also: shuffled(words, generator, share=0.7, **also),
    "dropped": lambda words, generator, **also: dropped(words, generator, share=0.4, **also),
    "tags dropped": lambda words, generator, **also: dropped(words, generator, share=0.4, each=True, **also),
}


@pytest.mark.parametrize("keep", [0, 2])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_lists_of_tags_change_as_padded_words_do(change, keep):
    words = padded_words()
    for seed in range(20):
        generators = seeded(seed), seeded(seed)
        found = change(words, generators[0], keep=keep)
        assert change(as_tags(words), generators[1], keep=keep) == as_tags(found)
        assert torch.equal(*(one.get_state() for one in generators)), "from the same draws"


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_is_a_function_of_the_generator_alone(change):
    words = padded_words(range(20))
    torch.manual_seed(0)
    outside = torch.get_rng_state()
    found = [change(words, seeded(seed)) for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), outside), "nothing is drawn from the global generator"
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert not torch.equal(found[0], words)


@pytest.mark.parametrize("captions", [padded_words(), as_tags(padded_words())], ids=["words", "tags"])
def test_a_share_of_zero_changes_and_draws_nothing(captions):
    generator, untouched = seeded(), seeded()
    assert shuffled(captions, generator, share=0) is captions
    assert dropped(captions, generator, share=0.0) is captions
    assert dropped(captions, generator, share=0.0, each=True) is captions
    assert torch.equal(generator.get_state(), untouched.get_state())


def test_no_captions_and_captions_without_words_stay_what_they_are():
    for words in (torch.zeros(0, 4, dtype=torch.long), torch.zeros(3, 0, dtype=torch.long), torch.zeros(3, 4).long()):
        for change in CHANGES.values():
            assert torch.equal(change(words, seeded()), words)
    assert shuffled([], seeded()) == []
    assert dropped([[], []], seeded(), share=1.0) == [[], []]


def test_a_look_has_one_call_act_alone_with_the_draws_of_all():
    words = padded_words()

    def both(acting):
        generator = seeded()
        with looking_at_captions(acting) as look:
            found = dropped(shuffled(words, generator, share=0.01), generator, share=0.01)
            dropped(words, generator, share=0)
        return found, look, generator.get_state()

    as_is, look, state = both(None)
    assert torch.equal(as_is, words)
    assert look.calls == ["shuffle_caption", "caption_dropout"]
    assert not look.changed
    for acting, empty in ((0, False), (1, True)):
        found, look, other = both(acting)
        assert look.changed
        assert not torch.equal(found, words)
        assert bool((found == 0).all()) is empty
        assert torch.equal(state, other)


WRONG = {
    "a list of tensors": ([torch.tensor([1, 2]), torch.tensor([3])], {}, r"tensors of 1 and 2 words: .*padded\("),
    "lists of numbers": ([[1, 2], [3]], {}, r"a list of int for each caption: .*padded\("),
    "texts": (["a, b", "c"], {}, r"a caption is a list of tags, got the text 'a, b': .*text.split"),
    "a text": ("a, b", {}, "got str"),
    "a list of a number": ([3], {}, "a caption is a list of tags, got int"),
    "an array": (np.zeros((2, 3), dtype=np.int64), {}, "got ndarray"),
    "embeddings": (torch.zeros(2, 3), {}, r"got float32 \[2, 3\]: change words before they are embedded"),
    "one caption": (torch.arange(3), {}, r"got int64 \[3\]"),
    "embedded captions": (torch.zeros(2, 3, 4).long(), {}, r"got int64 \[2, 3, 4\]"),
    "booleans": (torch.zeros(2, 3, dtype=torch.bool), {}, r"got bool \[2, 3\]"),
    "a share above 1": (padded_words(), {"share": 1.5}, r"from 0 to 1, got 1.5; .*uniform\(0, 1\)"),
    "a share below 0": (padded_words(), {"share": -0.1}, "from 0 to 1, got -0.1"),
    "no share": (padded_words(), {"share": float("nan")}, "from 0 to 1, got nan"),
    "a text as a share": (padded_words(), {"share": "half"}, "from 0 to 1, got 'half'"),
    "a negative keep": (padded_words(), {"keep": -1}, r"whole and from 0 on, got -1; .*integers\(0, 2\)"),
    "half a word": (padded_words(), {"keep": 1.5}, "whole and from 0 on, got 1.5"),
    "whether to keep": (padded_words(), {"keep": True}, "whole and from 0 on, got True"),
    "a share for each": (padded_words(), {"share": torch.tensor([0.5, 0.1])}, "from 0 to 1, got tensor"),
    "padding below all": (padded_words(dtype=torch.uint8), {"padding": -1}, "padding=-1 is no number of uint8"),
    "padding above all": (padded_words(dtype=torch.uint8), {"padding": 256}, "padding=256 is no number of uint8"),
    "half a padding": (padded_words(), {"padding": 0.5}, "padding is the whole number .* got 0.5"),
    "no generator": (padded_words(), {"generator": None}, r"got NoneType; pass on the generator that augment"),
    "a generator of numpy": (padded_words(), {"generator": np.random.default_rng(0)}, "got Generator; pass on"),
}


@pytest.mark.parametrize(("words", "given", "told"), WRONG.values(), ids=WRONG)
def test_what_are_no_captions_is_one_error_with_the_way_out(words, given, told):
    given = {"share": 0.5, "generator": seeded()} | given
    generator = given.pop("generator")
    for change in (shuffled, dropped):
        with pytest.raises(WorkloadError, match=told):
            change(words, generator, **given)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_a_nested_tensor_is_told_of_padding():
    nested = torch.nested.nested_tensor([torch.tensor([1, 2]), torch.tensor([3])])
    with pytest.raises(WorkloadError, match=r"a nested tensor: .*padded\("):
        shuffled(nested, seeded())


def test_the_names_of_the_field_are_known_augmentations():
    shares = {name: uniform(0, 1) for name in ("shuffle_caption", "caption_dropout", "caption_tag_dropout")}
    space = SearchSpace(captions=branches(yes={**shares, "keep_tokens": integers(0, 2)}, no={}))
    off = {f"yes.{name}": 0.0 for name in shares}
    assert space.off_values() == off
    assert {one.family for one in space if one.name in off} == {"augmentation"}
    assert space["yes.keep_tokens"].family is None
    assert SearchSpace(shuffle_caption=0.5).off_values() == {"shuffle_caption": 0.0}
    assert SearchSpace(caption_dropout=choice(False, True)).off_values() == {"caption_dropout": 0.0}


@pytest.mark.parametrize("name", ["shuffle_caption", "caption_dropout", "caption_tag_dropout"])
@pytest.mark.parametrize("domain", [uniform(0, 1.5), uniform(-0.1, 0.5), choice(0.5, 2.0), 1.5, "half", fixed(-1.0)])
def test_a_share_that_is_none_is_refused_when_it_is_declared(name, domain):
    for space in ({name: domain}, {"captions": branches(yes={name: domain}, no={})}):
        with pytest.raises(
            DeclarationError, match=rf"{name} is a share of captions, from 0 to 1, got .*uniform\(0, 1\)"
        ):
            SearchSpace(**space)


@pytest.mark.parametrize("domain", [uniform(0, 2), integers(-1, 2), choice(1.5, 2), -1, 0.5, True])
def test_a_number_of_tags_that_is_none_is_refused_when_it_is_declared(domain):
    with pytest.raises(DeclarationError, match=r"keep_tokens is the number of first tags .*integers\(0, 2\)"):
        SearchSpace(keep_tokens=domain)


CONDITIONAL = {"shuffle_caption": uniform(0, 1)}


@pytest.mark.parametrize("name", ["shuffle_caption", "caption_dropout", "keep_tokens"])
@pytest.mark.parametrize(
    "captions", [False, "no", None, choice("yes", "no"), choice(True, False), branches(a={}, no={})]
)
def test_what_changes_captions_is_refused_where_there_are_none(name, captions):
    with pytest.raises(DeclarationError, match=rf"{name} would change nothing where captions = .*branches\(yes="):
        SearchSpace(captions=captions, **{name: 1})
    assert len(SearchSpace(captions="yes", **{name: 1}).fixed) == 2


def test_what_changes_captions_is_refused_in_the_branch_without_captions():
    with pytest.raises(DeclarationError, match=r"no\.shuffle_caption would change nothing"):
        SearchSpace(captions=branches(yes={}, no=CONDITIONAL))
    assert len(SearchSpace(captions=branches(tags=CONDITIONAL, sentence=CONDITIONAL))) == 3
