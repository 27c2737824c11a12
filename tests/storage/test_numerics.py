"""Numerics as they are stored: equal values have equal texts, and texts of older versions are read as they were."""

import pytest

from tuner.errors import StorageError
from tuner.records import Numerics

# As tuner 0.1 wrote them: keys sorted, and "exact" appended behind the last one.
STORED = '{"device": "cpu", "engine": "module", "packages": {"a": "1.0", "b": "2"}, "threads": 2}'
NOT_EXACT = '{"device": "cpu", "engine": "module", "packages": {"a": "1.0", "b": "2"}, "threads": 2, "exact": false}'
VALUES = {"threads": 2, "packages": {"b": "2", "a": "1.0"}, "engine": "module", "device": "cpu"}


def test_equal_values_are_equal_numerics_and_one_text_whatever_their_order():
    assert Numerics.of(VALUES) == Numerics.from_text(STORED)
    assert Numerics.of(VALUES).text == STORED
    assert Numerics.from_text(STORED).values == VALUES


def test_what_is_not_exact_is_marked_in_the_text_and_differs_from_what_is():
    marked = Numerics.from_text(NOT_EXACT)
    assert not marked.exact
    assert marked.text == NOT_EXACT
    assert marked.values == VALUES, "the mark is no value"
    assert marked != Numerics.from_text(STORED)
    assert hash(Numerics.of(VALUES)) == hash(Numerics.from_text(STORED))


@pytest.mark.parametrize("text", ["cpu", "[1, 2]", '{"device": '])
def test_a_damaged_text_is_kept_is_equal_to_no_other_and_has_no_values(text):
    damaged = Numerics.from_text(text)
    assert damaged.text == text
    assert damaged != Numerics.of(VALUES)
    with pytest.raises(StorageError, match="numerics: "):
        damaged.values  # noqa: B018


def numerics(**values):
    return Numerics.of({"torch": "2.13", "threads": 1, "processor": "GenuineIntel avx2"} | values)


def test_what_an_earlier_version_did_not_write_is_unknown_and_not_different():
    older = Numerics.of({"torch": "2.13", "threads": 1})
    assert numerics().agrees_with(older)
    assert older.agrees_with(numerics())
    assert numerics().differences(older) == ()
    assert not numerics(torch="2.12").agrees_with(older)
    assert not numerics(compiler="gcc 13").agrees_with(numerics()), "what was always written is no such name"


def test_differences_are_told_by_name_with_the_value_here_first():
    other = numerics(torch="2.12", packages={"a": "1"}, settings={"MKL_CBWR": "AVX2"}, half=["amx_tile"])
    mine = numerics(packages={"a": "2", "b": "1"}, settings={}, half=[], engine="fast")
    assert mine.differences(other) == (
        "half nothing, not amx_tile",
        "package a 2, not 1",
        "package b 1, not nothing",
        "variable MKL_CBWR nothing, not AVX2",
        "torch 2.13, not 2.12",
    )
    assert numerics().differences(Numerics.from_text("damaged")) == ("what cannot be read",)
    assert Numerics.from_text("damaged").differences(Numerics.from_text("damaged")) == ()


def test_all_texts_of_the_same_numerics():
    older = Numerics.of({"torch": "2.13", "threads": 1})
    marked = [Numerics(one.canonical, exact=False).text for one in (numerics(), older)]
    assert sorted(numerics().texts) == sorted([numerics().text, older.text, *marked])
