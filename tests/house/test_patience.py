"""Tests wait as long as something moves, and end ten minutes after the last move. The clock here is a virtual one."""

import subprocess

import pytest
from support import patience
from support.patience import STILL, Patience, all_said, wait_for


class Clock:
    """Time passes only where somebody sleeps."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(patience, "time", clock)
    return clock


def test_where_nothing_moves_waiting_ends_after_ten_minutes(clock):
    with pytest.raises(AssertionError, match="nothing has moved for ten minutes"):
        wait_for(lambda: False)
    assert clock.now == pytest.approx(STILL, abs=0.1)
    assert STILL == 600.0


def test_where_something_moves_every_nine_minutes_waiting_goes_on_for_an_hour(clock):
    def moved():
        return min(clock.now // 540.0, 6)

    with pytest.raises(AssertionError, match="nothing has moved"):
        wait_for(lambda: False, moves=moved)
    assert clock.now == pytest.approx(6 * 540.0 + STILL, abs=0.1)


def test_waiting_ends_with_what_it_waited_for_and_at_once_where_a_process_has_died(clock):
    wait_for(lambda: clock.now >= 1.0)
    assert clock.now == pytest.approx(1.0, abs=0.1)
    died = subprocess.Popen(["sh", "-c", "echo lost >&2; exit 3"], stderr=subprocess.PIPE, text=True)
    died.wait()
    with pytest.raises(AssertionError, match="lost"):
        wait_for(lambda: False, alive=[died])
    assert clock.now == pytest.approx(1.0, abs=0.1)


class Silent:
    """A process that never ends; it can be asked as long as one likes."""

    def __init__(self, clock):
        self.clock = clock

    def communicate(self, timeout):
        self.clock.sleep(timeout)
        raise subprocess.TimeoutExpired("silent", timeout)


def test_a_process_that_never_ends_is_given_up_after_ten_minutes(clock):
    with pytest.raises(AssertionError, match="nothing has moved for ten minutes"):
        all_said(Silent(clock))
    assert clock.now == pytest.approx(STILL, abs=0.1)


def test_what_is_left_counts_down_and_begins_again_with_each_move(clock):
    seen = [0]
    waiting = Patience(lambda: seen[0])
    clock.sleep(599.0)
    assert waiting.left() == pytest.approx(1.0)
    seen[0] = 1
    assert waiting.left() == pytest.approx(STILL)
    clock.sleep(601.0)
    with pytest.raises(AssertionError, match="ten minutes"):
        waiting.left()
