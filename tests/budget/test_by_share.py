"""A function of the share of training becomes a stored curve, and torch's schedulers are answered with our words."""

import json
import math
from dataclasses import asdict
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from tuner import by_share, constant_then_decay, cosine, linear, polynomial, step_drops
from tuner.budget.by_share import MOST_KNOTS, declared_schedule
from tuner.budget.transfer import lengthened
from tuner.errors import DeclarationError, TransferError


def fractions_of(function, steps, warmup=0):
    return np.array(by_share(function).schedule(steps + warmup, warmup).fractions()[warmup:])


@pytest.mark.parametrize(
    "function",
    [
        lambda share: 1.0,
        lambda share: 1.0 - share,
        lambda share: 0.5 * (1.0 + math.cos(math.pi * share)),
        lambda share: math.sqrt(1.0 - share),
        lambda share: 1e-6**share,
        lambda share: min(1.0, 0.05 + 10.0 * share) * (1.0 - share) ** 3,
        lambda share: 0.1 if 1 / 3 <= share < 0.7 else 1.0,
    ],
)
@pytest.mark.parametrize("steps", [1, 7, 300, 10_007])
def test_the_stored_curve_is_the_function_to_a_few_parts_in_ten_thousand(function, steps):
    expected = np.array([function(step / steps) for step in range(steps)])
    np.testing.assert_allclose(fractions_of(function, steps, warmup=13), expected, rtol=5e-4, atol=5e-7)


@given(place=st.integers(1, 999), of=st.integers(1000, 5000))
def test_a_jump_lies_at_the_very_step_where_the_function_jumps(place, of):
    found = fractions_of(lambda share: 1.0 if share < place / of else 0.25, of)
    assert found.tolist() == [1.0] * place + [0.25] * (of - place)


def test_straight_lines_and_jumps_are_stored_with_few_numbers_and_exactly():
    assert by_share(lambda share: 1.0 - 0.5 * share).curve == (0.0, 1.0 - 2.0**-24, 1.0, 0.5 + 2.0**-25)
    assert len(by_share(lambda share: 0.1 ** sum(share >= one for one in (0.3, 0.8))).curve) // 2 <= 8
    assert by_share(lambda share: 0.5 * (1.0 + math.cos(20 * share))).curve


def test_a_function_that_says_what_a_family_says_has_its_rates():
    drops = step_drops((0.5, 0.75)).schedule(1000, 50).fractions()
    assert by_share(lambda share: 0.1 ** sum(share >= one for one in (0.5, 0.75))).schedule(1000, 50).fractions() == (
        pytest.approx(drops)
    )
    by_hand = by_share(lambda share: (1.0 - share) ** 2).schedule(1000, 50).fractions()
    assert by_hand == pytest.approx(polynomial().schedule(1000, 50).fractions(), rel=2e-4, abs=2e-7)


def test_the_function_is_called_where_it_is_declared_and_never_again():
    calls = []
    family = by_share(lambda share: calls.append(share) or 1.0 - share)
    count = len(calls)
    assert count > 1000
    first = family.schedule(5000, 10).fractions()
    assert lengthened(family.schedule(5000, 10), 10_000, "rescale").fractions()[10:11] == first[10:11]
    assert len(calls) == count


def test_equal_functions_make_equal_declarations_and_others_do_not():
    def falling(share):
        return 1.0 - share

    assert by_share(lambda share: 1.0 - share) == by_share(falling)
    assert by_share(lambda share: 1.0 - share) != by_share(lambda share: 1.0 - 0.999 * share)
    assert str(by_share(falling)) != str(by_share(lambda share: 1.0 - 0.999 * share)), "a budget knows the difference"


def test_a_curve_as_json_is_the_same_curve():
    family = by_share(lambda share: math.exp(-3.0 * share))
    assert tuple(json.loads(json.dumps(asdict(family)))["curve"]) == family.curve


def test_a_curve_is_stretched_at_equal_shares_and_held_at_its_first_rate():
    short = by_share(lambda share: math.exp(-3.0 * share)).schedule(110, 10)
    with pytest.raises(TransferError, match="no rule carries the schedule curve"):
        lengthened(short, 1010)
    stretched = lengthened(short, 1010, "rescale").fractions()
    assert stretched[10::10] == pytest.approx(short.fractions()[10:], rel=1e-12)
    assert stretched[:10] == short.fractions()[:10]
    held = lengthened(short, 1010, "hold_then_decay").fractions()
    assert (held[10:910], held[910:]) == ((1.0,) * 900, short.fractions()[10:])


def test_a_curve_that_rises_is_not_held_at_its_low_first_rate():
    short = by_share(lambda share: 0.1 + 0.9 * share).schedule(100)
    with pytest.raises(TransferError, match=r"begins at 0\.1 of the base rate and rises to 0\.991 later"):
        lengthened(short, 400, "hold_then_decay")
    assert lengthened(short, 400, "rescale").fraction(200) == pytest.approx(0.55)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda share: math.nan if share > 0.5 else 1.0, "gives nan at the share 0.500977 of training, which is no"),
        (lambda share: 1.0 / (share or 1e-320), "gives inf at the share 0 of training"),
        (lambda share: 0.5 - share, "gives -0.0009765625 at the share 0.500977 of training; it is a fraction"),
        (lambda share: 10.0 - share, r"gives 10.0 at the share 0 of .*in 0\.\.1, so let learning_rate be the highest"),
        (lambda share: "1.0", "must give a number, and gives '1.0' at the share 0 of training"),
        (lambda share: None, "must give a number, and gives None at the share 0"),
        (lambda share: torch.tensor(1.0), r"must give a number, and gives tensor\(1.\) at the share 0"),
        (lambda share: 0.0 / (share - 0.25) + 0.5, "fails at the share 0.25 of training: ZeroDivisionError"),
        (lambda: 1.0, "fails at the share 0 of training: TypeError"),
        (lambda share: 0.0, "gives 0 at every share of training, which trains nothing"),
        (lambda share: np.random.rand(), "gives another value at a second call with the share 0; .*no random numbers"),
        (lambda share: 0.5 + 0.5 * math.sin(1e6 * share), "bends or jumps too often to be stored as a curve"),
    ],
)
def test_a_function_that_is_no_schedule_is_refused_with_the_share(function, message):
    with pytest.raises(DeclarationError, match=f"the schedule function <lambda> {message}"):
        by_share(function)


def test_the_number_of_knots_has_a_bound():
    with pytest.raises(DeclarationError, match="too often"):
        by_share(lambda share: 0.5 + 0.5 * math.sin(4000 * share))
    assert len(by_share(lambda share: 0.5 + 0.5 * math.sin(20 * share)).curve) // 2 < MOST_KNOTS


def test_a_campaign_takes_a_family_or_a_function_and_says_what_else_is_wrong():
    assert declared_schedule(cosine()) == cosine()
    assert declared_schedule(lambda share: 1.0 - share) == by_share(lambda share: 1.0 - share)
    with pytest.raises(DeclarationError, match=r"schedule=linear is the function itself; call it: schedule=linear\("):
        declared_schedule(linear)
    with pytest.raises(DeclarationError, match=r"or is a function of the share of training, got 'cosine'"):
        declared_schedule("cosine")


OPTIMIZER = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)


@pytest.mark.parametrize(
    ("scheduler", "word"),
    [
        (lr_scheduler.StepLR, r"StepLR is step_drops\("),
        (partial(lr_scheduler.MultiStepLR, milestones=[30, 60]), r"MultiStepLR is step_drops\("),
        (lr_scheduler.ExponentialLR(OPTIMIZER, gamma=0.9), r"ExponentialLR is exponential\(final\)"),
        (partial(partial(lr_scheduler.PolynomialLR), power=2), r"PolynomialLR is polynomial\(power\)"),
        (lr_scheduler.CosineAnnealingLR, r"CosineAnnealingLR is cosine\(final\)"),
        (lr_scheduler.OneCycleLR, r"OneCycleLR is cosine\(\) with warmup=0.2"),
        (lr_scheduler.LinearLR, r"LinearLR is linear\(final\)"),
        (lr_scheduler.ConstantLR, r"ConstantLR is constant\(\)"),
        (lr_scheduler.LambdaLR, "LambdaLR is a function of the share"),
        (lr_scheduler.SequentialLR, r"SequentialLR is pieces\("),
        (lr_scheduler.ReduceLROnPlateau, "ReduceLROnPlateau is refused: it waits until validation stalls"),
        (lr_scheduler.CosineAnnealingWarmRestarts, "WarmRestarts is refused: the rate rises again after it fell"),
        (partial(lr_scheduler.CyclicLR, base_lr=0.1), "CyclicLR is refused: the rate rises again after it fell"),
    ],
)
def test_a_scheduler_of_torch_is_answered_with_the_word_for_it(scheduler, word):
    with pytest.raises(DeclarationError, match=f"takes no scheduler of torch.*{word}"):
        declared_schedule(scheduler)


def test_every_scheduler_of_torch_has_its_answer():
    kinds = [kind for kind in vars(lr_scheduler).values() if isinstance(kind, type)]
    found = [kind for kind in kinds if issubclass(kind, lr_scheduler.LRScheduler) and not kind.__name__.startswith("_")]
    assert len(found) > 12
    for kind in found:
        with pytest.raises(DeclarationError, match="takes no scheduler of torch") as told:
            declared_schedule(kind)
        assert kind is lr_scheduler.LRScheduler or f"{kind.__name__} is " in str(told.value)


class OwnScheduler(lr_scheduler.LRScheduler):
    """A scheduler that a user wrote on torch's."""


def test_an_own_scheduler_on_torchs_is_refused_too():
    with pytest.raises(
        DeclarationError, match="no scheduler of torch, got OwnScheduler; write a function of the share"
    ):
        declared_schedule(OwnScheduler)


def test_the_default_schedule_is_what_it_was():
    assert declared_schedule(constant_then_decay()) == constant_then_decay(0.2)
