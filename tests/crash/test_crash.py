"""Killed at every durable action, at random, woken too late, poisoned, unanswered: the same bits come out."""

import re
from pathlib import Path

import pytest
from crash.sabotage import SABOTAGES

pytestmark = pytest.mark.timeout(0)  # the loop ends when nothing moves
PACKAGE = Path(__file__).parents[2] / "tuner"


@pytest.mark.parametrize("part", [0, 1])
def test_a_kill_at_the_first_the_last_and_every_fourth_pass_of_failpoints_changes_nothing(part, loop):
    found = loop("each_kind", part, 2, 4)
    assert found["wrong"] == []
    assert found["passes"] >= 220
    assert found["kills"] >= 60


@pytest.mark.slow
def test_kills_while_a_thread_saves_beside_the_training_change_nothing(loop):
    assert loop("aside", 12, 1)["wrong"] == []


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_hundred_kills_at_random_with_two_workers_change_nothing(seed, loop):
    assert loop("at_random", 100, seed)["wrong"] == []


def test_a_power_cut_at_any_moment_takes_nothing_that_is_recorded_and_changes_no_bit(loop):
    found = loop("power", 7, 16)
    assert found["wrong"] == []
    assert found["states"] > 200


@pytest.mark.parametrize("mode", ["zombie", "poison"])
def test_a_worker_that_wakes_too_late_and_a_trial_that_kills_its_workers(mode, loop):
    assert loop(mode)["wrong"] == []


def test_a_trial_that_gets_on_is_never_given_up_even_where_it_has_a_way_to_go_again(loop):
    assert loop("gets_on", 20)["wrong"] == []


@pytest.mark.parametrize("damaged", [False, True])
def test_a_trial_that_always_dies_at_one_step_is_given_up_and_keeps_its_state(damaged, loop):
    assert loop("stuck", damaged)["wrong"] == []


def test_a_kill_at_a_heartbeat_and_two_kills_in_a_row_change_nothing(loop):
    assert loop("beats", 4)["wrong"] == []


def test_four_launchers_at_once_create_one_study_and_train_each_trial_once(loop):
    assert loop("launchers", 12, 1)["wrong"] == []


def test_a_lost_answer_of_any_commit_changes_nothing(loop):
    found = loop("lost")
    assert found["wrong"] == []
    assert found["commits"] > 10


def test_every_failpoint_in_the_source_is_passed(loop):
    gangs = ("gang.py", "gang_command.py", "gang_follower.py")  # see tests/training/test_gang_agreement.py
    others = ("failpoints.py", "copies.py", "uploads.py", *gangs)  # an adoption, and a bucket, have tests of their own
    source = "".join(path.read_text() for path in PACKAGE.rglob("*.py") if path.name not in others)
    assert set(re.findall(r'failpoint\("([\w-]+)"\)', source)) == set(loop("names")["names"])
    assert source.count("failpoint(") == len(re.findall(r'failpoint\("[\w-]+"\)', source)), "names are literals"


@pytest.mark.parametrize("first", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_the_suite_notices_each_broken_program(first, loop):
    found = loop("sabotaged", first, 2)
    assert list(found) == list(SABOTAGES)[first::2]
    assert [name for name, wrong in found.items() if not wrong] == []
