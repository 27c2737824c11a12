"""Why torch's stateful schedulers are not used: what they do past their end (D17), checked against torch itself."""

from itertools import pairwise

import pytest
import torch

from tuner.budget.by_share import by_share
from tuner.budget.families import (
    constant_then_decay,
    cosine,
    exponential,
    linear,
    pieces,
    polynomial,
    step_drops,
)


def scheduled(make, steps):
    """The rate of every update a torch scheduler gives, and one beyond."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def cosine_to(t_max):
    return lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=t_max)


def test_torchs_cosine_rises_back_to_the_peak_when_a_run_goes_on():
    rates = scheduled(cosine_to(10), 21)
    assert rates[10] == pytest.approx(0.0, abs=1e-12)
    assert all(earlier < later for earlier, later in pairwise(rates[10:21]))
    assert rates[20] == pytest.approx(1.0)


def test_torchs_cosine_takes_its_old_length_back_from_a_state_dict():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    short = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    longer = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40)
    longer.load_state_dict(short.state_dict())
    assert longer.T_max == 10


def test_raising_the_length_of_torchs_cosine_late_keeps_the_low_rate_where_the_closed_form_is_high():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    for _ in range(8):
        optimizer.step()
        scheduler.step()
    scheduler.T_max = 40
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0955, abs=5e-5)
    assert cosine().schedule(40).fraction(8) == pytest.approx(0.9045, abs=5e-5)


def test_torchs_linear_schedule_stays_at_its_end_when_a_run_goes_on():
    rates = scheduled(
        lambda optimizer: torch.optim.lr_scheduler.LinearLR(
            optimizer, start_factor=1.0, end_factor=0.05, total_iters=10
        ),
        30,
    )
    assert rates[10:] == pytest.approx([0.05] * 20)


@pytest.mark.parametrize("steps", [1, 7, 100])
def test_within_its_length_the_cosine_equals_torchs(steps):
    assert cosine().schedule(steps).fractions() == pytest.approx(scheduled(cosine_to(steps), steps), abs=1e-9)


def test_within_its_length_the_linear_schedule_equals_torchs():
    rates = scheduled(
        lambda optimizer: torch.optim.lr_scheduler.LinearLR(
            optimizer, start_factor=1.0, end_factor=0.0, total_iters=50
        ),
        50,
    )
    assert linear().schedule(50).fractions() == pytest.approx(rates, abs=1e-9)


def test_constant_then_decay_equals_torchs_sequence_of_a_constant_and_a_line():
    def make(optimizer):
        parts = [
            torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0, total_iters=1),
            torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=20),
        ]
        return torch.optim.lr_scheduler.SequentialLR(optimizer, parts, milestones=[80])

    assert constant_then_decay(20).schedule(100).fractions() == pytest.approx(scheduled(make, 100), abs=1e-9)


@pytest.mark.parametrize(("steps", "power"), [(1, 1.0), (50, 2.0), (173, 0.5)])
def test_the_polynomial_schedule_equals_torchs(steps, power):
    rates = scheduled(lambda one: torch.optim.lr_scheduler.PolynomialLR(one, total_iters=steps, power=power), steps)
    assert polynomial(power).schedule(steps).fractions() == pytest.approx(rates, rel=1e-9)


def test_the_exponential_schedule_equals_torchs_with_the_factor_of_a_step():
    rates = scheduled(lambda one: torch.optim.lr_scheduler.ExponentialLR(one, gamma=0.97), 120)
    assert exponential(0.97**120).schedule(120).fractions() == pytest.approx(rates, rel=1e-9)


def test_step_drops_equal_torchs_at_the_shares_of_its_milestones():
    every = scheduled(lambda one: torch.optim.lr_scheduler.StepLR(one, step_size=30, gamma=0.1), 120)
    assert step_drops((0.25, 0.5, 0.75)).schedule(120).fractions() == pytest.approx(every, rel=1e-9)
    some = scheduled(lambda one: torch.optim.lr_scheduler.MultiStepLR(one, milestones=[30, 80], gamma=0.2), 90)
    assert step_drops((30 / 90, 80 / 90), 0.2).schedule(90).fractions() == pytest.approx(some, rel=1e-9)


def test_pieces_equal_torchs_sequence_of_schedulers():
    def make(optimizer):
        parts = [
            torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0, total_iters=1),
            torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1.0, end_factor=0.1, total_iters=30),
        ]
        return torch.optim.lr_scheduler.SequentialLR(optimizer, parts, milestones=[50])

    family = pieces(("constant", 0.5), ("linear", 0.3, 0.1), ("constant", 0.2))
    assert family.schedule(100).fractions() == pytest.approx(scheduled(make, 100), rel=1e-9)


def test_a_function_of_the_share_equals_torchs_lambda_of_the_step():
    def rate(share):
        return (1.0 - share) ** 0.9 if share < 0.6 else 0.05

    rates = scheduled(lambda one: torch.optim.lr_scheduler.LambdaLR(one, lambda step: rate(step / 250)), 250)
    assert by_share(rate).schedule(250).fractions() == pytest.approx(rates, rel=2e-4)


def test_one_cycle_is_a_warmup_and_a_cosine_with_the_highest_rate_as_learning_rate():
    """torch's warmup is a cosine too, and a step behind; after it both are half a cosine to almost 0."""

    def make(optimizer):
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=1.0, total_steps=101, pct_start=0.2, final_div_factor=1e12, cycle_momentum=False
        )

    ours = cosine().schedule(100, warmup_steps=19).fractions()
    assert ours[19:] == pytest.approx(scheduled(make, 100)[19:], abs=0.02)
