"""What trials cost, by hand: seconds of training at a price for an hour."""

from dataclasses import replace

import pytest

from tuner.analysis.spending import Spent, spent_on
from tuner.errors import InputError
from tuner.records import Inherited, State, TrialRecord, UnreadableTrial
from tuner.records.hourly_price import HourlyPrice, amount_words, parsed_price


def trial(number, steps, seconds, inherited=0):
    named = UnreadableTrial(number, 0, 0, "")
    return TrialRecord(
        number, named, State.COMPLETE, "", steps, 1, None, inherited=Inherited(inherited, 0), seconds=seconds
    )


def test_what_was_spent_and_what_shared_steps_saved():
    first, second = trial(0, 100, 60.0), trial(1, 100, 30.0, inherited=50)
    found = spent_on([first, second, trial(2, 0, None), trial(3, 100, None)])
    # 90 s for 150 steps are 0.6 s a step, and 50 steps were not trained again.
    assert found == Spent(seconds=90.0, trials=2, unknown=1, saved_seconds=pytest.approx(30.0))
    assert HourlyPrice("40", 40.0).of(found.seconds) == 1.0
    assert found + Spent(10.0, 1, 2, 0.5) == Spent(100.0, 3, 3, pytest.approx(30.5))
    assert spent_on([]) == Spent()


def test_a_trial_of_which_every_attempt_came_to_nothing_has_cost_its_time():
    lost = replace(trial(0, 0, 36.0), state=State.FAILED)
    assert spent_on([lost]) == Spent(36.0, 1, 0, 0.0)


@pytest.mark.parametrize(
    ("amount", "words"),
    [(0.0, "0.00"), (1234.5, "1,234.50"), (12.4, "12.40"), (0.5, "0.50"), (0.0417, "0.0417"), (0.0004, "0.0004"),
     (0.00012345, "0.000123"), (0.9999, "1.00"), (0.09996, "0.10"), (1e-9, "0.000000001")],
)  # fmt: skip
def test_amounts_keep_two_decimals_and_small_ones_three_digits(amount, words):
    assert amount_words(amount) == words


def test_a_price_is_shown_as_it_was_given():
    price = parsed_price("2.50")
    assert price.about(4.96 * 3600) == "about 12.40 (at 2.50 an hour of a worker)"
    assert parsed_price("0.0004").about(3600.0) == "about 0.0004 (at 0.0004 an hour of a worker)"
    assert parsed_price("0").about(7200.0) == "about 0.00 (at 0 an hour of a worker)"
    assert parsed_price(None) is None
    assert parsed_price("-0.0").about(7200.0).startswith("about 0.00 ")


@pytest.mark.parametrize("wrong", ["-1", "nan", "inf", "2.50 EUR", "$2", "", "two"])
def test_a_price_that_is_none_is_one_sentence(wrong):
    with pytest.raises(InputError, match=r"a number of at least 0 without a currency, like 2\.50, got "):
        parsed_price(wrong)
