"""Lengths that are written in epochs or examples become steps, and steps are shown in both (C15)."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner import epochs, examples
from tuner.budget.step_budget import steps_in_words
from tuner.errors import DeclarationError


def steps(length, num_examples, batch_size):
    """The steps of a length, which says to type checkers that it is a number of steps."""
    return length.steps(num_examples, batch_size)


def test_what_is_left_over_at_the_end_of_an_epoch_makes_no_step():
    assert steps(epochs(10), 1000, 10) == 1000, "1,000 examples in batches of 10 are 100 steps an epoch"
    assert steps(epochs(10), 1009, 10) == 1000
    assert steps(epochs(10), 1000, 64) == 150, "15 batches of 64, and 40 examples are dropped"
    assert steps(epochs(1), 64, 64) == 1


def test_a_part_of_a_step_is_a_whole_one():
    assert steps(epochs(0.5), 1000, 64) == 8, "7.5 steps: in doubt longer (A9)"
    assert steps(examples(50_000), 1000, 64) == 782, "781.25 batches"
    assert steps(examples(64_000), None, 64) == 1000


@given(st.integers(1, 10_000), st.integers(1, 10_000), st.integers(1, 1000), st.integers(1, 1000))
def test_epochs_are_the_smallest_number_of_steps_that_covers_them(batches, batch_size, tenths, rest):
    num_examples = batches * batch_size + rest % batch_size
    exact = Fraction(tenths, 10) * batches
    if exact < 1:
        with pytest.raises(DeclarationError, match="is less than one step"):
            steps(epochs(tenths / 10), num_examples, batch_size)
    else:
        assert steps(epochs(tenths / 10), num_examples, batch_size) == math.ceil(exact)


@pytest.mark.parametrize("count", [0, -1, math.nan, math.inf, "10", None, True])
def test_a_count_that_is_none_is_refused(count):
    with pytest.raises(DeclarationError, match=r"epochs takes a number above 0, got epochs\("):
        epochs(count)
    with pytest.raises(DeclarationError, match=r"examples takes a whole number above 0, got examples\("):
        examples(count)


def test_half_an_example_is_refused():
    with pytest.raises(DeclarationError, match=r"whole number above 0, got examples\(10.5\)"):
        examples(10.5)


@pytest.mark.parametrize(
    ("length", "num_examples", "message"),
    [
        (epochs(0.01), 1000, r"epochs\(0.01\) is less than one step: an epoch has 15 steps"),
        (examples(63), 1000, r"examples\(63\) is less than one step: batches have 64 examples"),
        (epochs(10), 63, "batch_size 64 is larger than the training split of 63 examples; make the batches smaller"),
        (epochs(10), None, "the training split is a stream, which has no epochs; write a number of steps, or examples"),
    ],
)
def test_a_length_without_a_step_is_refused(length, num_examples, message):
    with pytest.raises(DeclarationError, match=message):
        steps(length, num_examples, 64)


def test_a_length_reads_as_it_is_written():
    assert [str(length) for length in (epochs(10), epochs(0.5), examples(50_000))] == [
        "epochs(10)", "epochs(0.5)", "examples(50_000)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("count", "each", "words"),
    [
        (1500, 62.5, "1,500 steps (24 epochs)"),
        (1, 1, "1 step (1 epoch)"),
        (150, 15, "150 steps (10 epochs)"),
        (100, 15, "100 steps (6.7 epochs)"),
        (1, 24, "1 step (0.042 epochs)"),
        (100_000, 39, "100,000 steps (2,564 epochs)"),
        (100, None, "100 steps"),
        (100, 0, "100 steps"),
    ],
)
def test_steps_are_shown_in_epochs_where_the_length_of_one_is_known(count, each, words):
    assert steps_in_words(count, each) == words
