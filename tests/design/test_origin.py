"""Where a promoted point came from: the same text for people and programs."""

import pytest

from tuner.design.origin import Origin, promoted_from

TEXTS = {
    "round-1 trial 7, same seed": Origin("round-1", 7, "same"),
    "round-2 trial 0, fresh seeds": Origin("round-2", 0, "fresh"),
    "round-1 trial 1003, fresh seeds, 0.5 x its rate": Origin("round-1", 1003, "fresh", 0.5),
}


@pytest.mark.parametrize("text", TEXTS)
def test_the_text_says_all_and_is_read_back(text):
    assert promoted_from(text) == TEXTS[text]
    assert str(TEXTS[text]) == text
    assert TEXTS[text].replicates == ("x its rate" not in text)


def test_before_there_was_a_choice_seeds_were_fresh():
    assert promoted_from("round-1 trial 7") == Origin("round-1", 7, "fresh")


@pytest.mark.parametrize("text", ["quasi-random 12", "grid", "", "round-1 trial x", "fresh seed 3"])
def test_what_was_not_promoted_has_no_parent(text):
    assert promoted_from(text) is None
