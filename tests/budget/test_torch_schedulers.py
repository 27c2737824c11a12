"""Why torch's stateful schedulers are not used: what they do past their end (D17), checked against torch itself."""

from itertools import pairwise

import pytest
import torch

from tuner.budget.families import constant_then_decay, cosine, linear


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
