"""The longer suite: thousands of kills, double faults, a server that is stopped, cut off and not heard (make slow)."""

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(0)]
on_postgresql = pytest.mark.needs("postgresql")


@pytest.mark.parametrize("seed", range(10, 20))
def test_two_thousand_kills_at_random_change_nothing(seed, loop):
    found = loop("at_random", 200, seed)
    assert (found["kills"], found["wrong"]) == (200, [])


def test_a_kill_at_each_pass_of_each_failpoint_changes_nothing(loop):
    found = loop("systematic", 1, 1)
    assert found["wrong"] == []
    assert found["kills"] >= 220


@pytest.mark.parametrize("seed", range(4))
def test_a_second_kill_during_the_recovery_from_the_first_changes_nothing(seed, loop):
    assert loop("double", 125, seed)["wrong"] == []


def test_two_hundred_kills_while_a_thread_saves_beside_the_training_change_nothing(loop):
    assert loop("aside", 200, 2)["wrong"] == []


def test_a_study_ends_with_the_same_bits_from_every_state_in_which_a_power_cut_leaves_the_disk(loop):
    found = loop("power", 0, 1)
    assert (found["wrong"], found["recovered"]) == ([], found["states"])


@on_postgresql
def test_two_hundred_kills_cut_connections_and_six_stops_of_the_server_change_nothing(loop):
    found = loop("at_random", 200, 1, 6, postgresql=True)
    assert (found["kills"], found["wrong"]) == (200, [])
    assert found["stops"] >= 6


@on_postgresql
@pytest.mark.parametrize("every", [2, 3])
def test_dropped_answers_to_commits_change_nothing(every, loop):
    found = loop("unanswered", 10, every, postgresql=True)
    assert found["wrong"] == []
    assert found["dropped"] >= 100


@on_postgresql
def test_only_what_gets_on_no_more_is_given_up_on_a_server(loop):
    assert loop("gets_on", 20, postgresql=True)["wrong"] == []
    assert loop("stuck", False, postgresql=True)["wrong"] == []


@on_postgresql
@pytest.mark.parametrize("mode", ["zombie", "poison", "lost", "launchers"])
def test_the_same_holds_on_a_server(mode, loop):
    numbers = (12, 1) if mode == "launchers" else ()
    assert loop(mode, *numbers, postgresql=True)["wrong"] == []


@on_postgresql
def test_a_kill_at_every_third_pass_of_a_failpoint_changes_nothing_on_a_server(loop):
    assert loop("systematic", 1, 3, postgresql=True)["wrong"] == []
