"""What a gang would gain, by hand: a step of 400 ms, 4 places, 300 MB of gradients at 1 GB a second."""

import math
from dataclasses import replace

import pytest
import torch
from support.fusible import MlpWithDropout
from support.tiny import CPU, setting_for, tiny_study

from tuner import system
from tuner.budget.step_budget import StepBudget
from tuner.cli.launch import print_plan, process_seconds
from tuner.execution.gang_estimate import estimated_gang, exchange_speed
from tuner.execution.machine import Machine
from tuner.fused import fusion
from tuner.records import Price
from tuner.records.gang_price import GangPrice
from tuner.records.hourly_price import parsed_price
from tuner.rounds.launch import Plan
from tuner.rounds.plan import planned_trials
from tuner.training.preflight import measured_price

GANG = GangPrice(4, 4, 400.0, 300_000_000, 1e9, why_alone="steps of 0.4 s gain nothing from each other")


def said(gang, trials, steps):
    return " ".join(gang.words("round-1", trials, steps))


def test_a_step_of_a_gang_by_hand():
    assert GANG.exchanged == 2 * 3 / 4 * 300_000_000
    assert GANG.exchange_ms == pytest.approx(450.0)
    assert GANG.gang_ms == pytest.approx(550.0)
    assert replace(GANG, fixed_ms=2.0).gang_ms == pytest.approx(556.0), "three others, one after the other"
    assert replace(GANG, places=2).gang_ms == pytest.approx(650.0)
    assert replace(GANG, ranks=2).exchanged == 300_000_000


def test_the_three_ways_by_hand():
    fast = replace(GANG, rate=10e9, group=16, group_ms=50.0)
    assert fast.gang_seconds(24, 100) == pytest.approx(24 * 100 * 0.145)
    assert fast.worker_seconds(24, 100) == pytest.approx(6 * 100 * 0.4)
    assert fast.worker_seconds(1, 100) == pytest.approx(100 * 0.4)
    assert fast.group_seconds(24, 100) == pytest.approx(6 * 100 * 0.05), "four groups of six, one in each worker"
    assert fast.group_seconds(100, 100) == pytest.approx(2 * 16 * 100 * 0.05), "seven groups of 16 in two rounds"
    assert GANG.group_seconds(24, 100) == math.inf
    assert fast.process_seconds(100, 8.0) == pytest.approx(4 * (14.5 + 2.0))
    late = replace(fast, start=5.0)
    assert late.gang_seconds(24, 100) == pytest.approx(24 * 100 * 0.145 + 5.0)
    assert late.worker_seconds(24, 100) == pytest.approx(6 * 100 * 0.4 + 5.0)
    assert late.worker_seconds(1, 100) == pytest.approx(100 * 0.4), "one process is there"


def test_which_way_is_better_is_said():
    fast = replace(GANG, rate=10e9)
    assert "a step takes 400 ms in one process, at best about 145 ms in the gang" in said(fast, 24, 100)
    assert "100 ms for its slices, 45 ms for its exchanges, of 450.0 MB at 10.0 GB a second" in said(fast, 24, 100)
    assert "Workers are the better way here. A gang pays where steps are long, and fewer" in said(fast, 24, 100)
    assert said(fast, 1, 100).endswith("The gang is the better way here")
    assert "in one process; groups" in said(fast, 1, 100)
    assert said(replace(fast, fixed_ms=10.0), 1, 100).endswith("The gang is the better way here"), "295 ms at worst"
    assert said(replace(fast, fixed_ms=20.0), 1, 100).endswith("The gang is hardly faster here, so leave it out")
    assert "One process is the better way here" in said(replace(fast, fixed_ms=100.0), 1, 100)
    assert "One process is the better way here" in said(replace(fast, start=60.0), 1, 100)
    together = said(replace(fast, group=16, group_ms=50.0), 24, 100)
    assert together.endswith("Small trials in groups on one device are the better way here, without a gang")
    assert "groups (--fuse): steps of 0.4 s gain nothing from each other." in said(fast, 24, 100)
    assert "only 2 of the ranks have a core of their own" in said(replace(fast, places=2), 24, 100)


def test_without_a_gang_it_is_only_said_where_it_clearly_pays():
    unasked = replace(GANG, rate=10e9, asked=False)
    assert said(unasked, 24, 100) == ""
    assert said(unasked, 0, 100) == ""
    assert said(unasked, 1, 100).startswith(
        "round-1 would end sooner with a gang of 4 processes for each trial (--gang 4)"
    )
    assert said(replace(unasked, rate=1e9), 1, 100) == "", "the exchange takes longer than the slices"


def test_the_cost_counts_all_ranks(capsys):
    study = tiny_study(num_trials=2, budget=StepBudget(100, 2))
    # 2 trials of 100 steps of 3,600 ms, 50 evaluations of 7,200 ms: 1,440 s. In a gang of 2 with exchanges of 400 ms:
    # 2 x (200 x 2.2 + 720 / 2) = 1,600 s.
    gang = GangPrice(2, 2, 3600.0, 400_000_000, 1e9)
    plan = Plan(study, planned_trials(study), Price(3600.0, 7200.0, 1, 1))
    assert process_seconds(plan) == plan.seconds == pytest.approx(1440.0)
    unasked = replace(plan, price=replace(plan.price, gang=replace(gang, asked=False)))
    assert process_seconds(unasked) == plan.seconds
    print_plan(replace(plan, price=replace(plan.price, gang=gang)), price=parsed_price("9"))
    told = " ".join(capsys.readouterr().err.split())
    assert "about 4.00 (at 9 an hour of a worker)" in told
    assert "each of the 2 processes of a gang counts" in told
    assert "groups (--fuse): a step takes 3,600 ms in one process, at best about 2,200 ms in the gang" in told


def priced(machine, slices=8, **changes):
    study = tiny_study(batch_size=32, slices=slices, num_trials=4)
    setup, trials = setting_for(study, None, MlpWithDropout(), CPU), planned_trials(study)
    trials = [replace(one, point=one.point.with_values(dropout=0.1, label_smoothing=0.0)) for one in trials]
    price = replace(measured_price(setup, trials[0]), **changes)
    return estimated_gang(setup, trials, price, machine)


def test_the_estimate_is_of_measured_numbers(monkeypatch):
    monkeypatch.setattr(system, "num_cores", lambda: 2)
    found = priced(Machine("runs", gang=4))
    weights = sum(one.numel() for one in MlpWithDropout().model({"dropout": 0.1}).parameters())
    assert (found.ranks, found.places, found.gradients, found.asked) == (4, 2, 4 * weights, True)
    assert found.fixed_ms > 0.0
    assert found.start > 0.0
    assert found.why_alone or found.group > 1
    assert priced(Machine("runs"), step_ms=1.0) is None, "short steps gain nothing"
    monkeypatch.setattr(fusion, "PROBE_SECONDS", 0.0)
    slow = priced(Machine("runs"), step_ms=400.0)
    assert (slow.ranks, slow.asked) == (2, False)
    assert priced(Machine("runs"), slices=1, step_ms=400.0) is None
    assert priced(Machine("runs", threads=2), step_ms=400.0) is None, "one process has both cores"


def test_the_exchanges_of_two_ranks_are_measured():
    fixed, rate = exchange_speed(torch.device("cpu"))
    assert 1e-6 < fixed < 10.0
    assert 1e5 < rate < 1e12
