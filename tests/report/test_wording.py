"""Values and declarations in words."""

import math
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest

from tuner.budget.families import constant, constant_then_decay, cosine, inverse_sqrt, linear
from tuner.budget.schedules import ScheduleFamily
from tuner.design.hyperparameters import choice, integers, log_uniform
from tuner.report.tables import table_of
from tuner.report.wording import domain_words, in_words, readable, scale_words, schedule_words
from tuner.security import without_secrets
from tuner.shown import counted


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0123456, "0.01235"),
        (1e-6, "1e-06"),
        (np.float64(128.0), "128"),
        (1234567, "1,234,567"),
        (1e12, "1e+12"),
        (math.nan, "–"),
        (None, "–"),
        (pd.NA, "–"),
        (math.inf, "inf"),
        (np.bool_(True), "yes"),
        (False, "no"),
        ("NA", "NA"),
        ("=cmd()", "=cmd()"),
    ],
)
def test_a_value_is_written_for_a_reader(value: Any, text: str) -> None:
    assert readable(value) == text


@pytest.mark.parametrize(
    ("family", "words"),
    [
        (constant(), "constant for 2,000 steps"),
        (linear(), "linear decay over 2,000 steps to zero"),
        (cosine(0.1), "cosine decay over 2,000 steps to 0.1 of the base rate"),
        (constant_then_decay(0.2), "constant for 1,600 steps, linear decay over 400 steps to zero"),
        (
            constant_then_decay(1500, shape="one_minus_sqrt"),
            "constant for 500 steps, one minus square root decay over 1,500 steps to zero",
        ),
        (inverse_sqrt(), "inverse square root decay over 2,000 steps"),
    ],
)
def test_a_schedule_is_a_phrase(family: ScheduleFamily, words: str) -> None:
    assert schedule_words(family, [family.schedule(2000)] * 3) == words


def test_different_schedules_are_told_by_their_ranges_of_steps() -> None:
    family = constant_then_decay(0.2)
    decays = [constant_then_decay(share).schedule(100, 10) for share in (0.2, 0.5)]
    assert schedule_words(family, decays) == (
        "warmup over 10 steps, constant for 40 to 70 steps, linear decay over 20 to 50 steps to zero"
    )
    assert schedule_words(family, [decays[0], family.schedule(100)]) == "2 different schedules"
    assert schedule_words(family, []) == "no trial yet"


@pytest.mark.parametrize(("name", "word"), [("unknown", "not known"), ("decaying", "falling")])
def test_a_schedule_that_is_not_known_is_not_described(name: Literal["unknown", "decaying"], word: str) -> None:
    words = schedule_words(ScheduleFamily(name), [linear().schedule(100)])
    assert word in words
    assert "linear" not in words


def test_a_range_and_its_scale_are_words() -> None:
    assert (domain_words(log_uniform(1e-4, 0.1)), scale_words(log_uniform(1e-4, 0.1))) == ("0.0001 to 0.1", "log")
    assert scale_words(integers(1, 8)) == "linear, integer"
    assert (domain_words(choice("a", None, True)), scale_words(choice("a", "b"))) == ("a, none, yes", "choice")


def test_counts_have_their_nouns() -> None:
    assert [counted(1, "trial"), counted(2, "study"), counted(1000, "step")] == ["1 trial", "2 studies", "1,000 steps"]
    assert in_words("maybe_too_short") == "maybe too short"


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("--storage postgresql+psycopg://u:p@ss@host/db", "--storage postgresql+psycopg://u:***@host/db"),
        ("--token abc --trials 3", "--token *** --trials 3"),
        ("HF_TOKEN=abc", "HF_TOKEN=***"),
        ("tuner launch studies/digits.py --round 1", "tuner launch studies/digits.py --round 1"),
        ("sqlite:////home/me/runs/tuner.sqlite", "sqlite:////home/me/runs/tuner.sqlite"),
    ],
)
def test_secrets_are_stars(command: str, shown: str) -> None:
    assert without_secrets(command) == shown


def test_a_table_keeps_hyperparameters_to_the_letter_and_numbers_that_are_names_ungrouped() -> None:
    frame = pd.DataFrame({"trial": [12345], "best_step": [12345], "weight_decay": [0.1]})
    table = table_of(frame, names=["weight_decay"])
    assert [column.title for column in table.columns] == ["trial", "best step", "weight_decay"]
    assert table.rows == (("12345", "12,345", "0.1"),)


def test_a_table_counts_what_it_left_out() -> None:
    table = table_of(pd.DataFrame({"x": range(5)}), most=2)
    assert (table.rows, table.hidden) == ((("0",), ("1",)), 3)
    assert table_of(pd.DataFrame({"x": []})).rows == ()
