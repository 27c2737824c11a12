"""Every command that trains or records, killed at its commits: the same command again goes on to the same rows."""

import pytest

pytestmark = pytest.mark.timeout(0)  # the loop ends when nothing moves
COMMANDS = {  # command: the first commit at which it is killed, every how many, and the exit code of all of it
    "launch": (1, 5, 0),
    "launch-fused": (2, 4, 0),
    "launch-expanded": (3, 1000, 0),
    "sweep": (20, 1000, 0),
    "boundaries": (2, 1, 0),
    "adopt": (16, 1000, 0),
    "exploit": (16, 1000, 0),
    "budget-curve": (19, 1000, 0),
    "stability": (19, 1000, 0),
    "score-test": (3, 1, 0),
    "import-table": (2, 1, 0),
    "import-optuna": (2, 1, 0),
    "run": (40, 1000, 0),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_is_killed_after_a_commit_goes_on_to_the_same_rows(name, command_loop):
    first, stride, code = COMMANDS[name]
    found = command_loop("killed", name, first, stride)
    assert (found["wrong"], found["code"]) == ([], code)
    assert found["kills"] >= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", [*COMMANDS, "run-expanded"])
def test_the_same_after_every_commit(name, command_loop):
    found = command_loop("killed", name, 1, 1)
    assert (found["wrong"], found["kills"]) == ([], found["commits"])


@pytest.mark.slow
@pytest.mark.parametrize("by", ["count", "moment"])
@pytest.mark.parametrize("seed", range(3))
def test_sixty_kills_within_one_run_of_the_playbook_change_nothing(by, seed, command_loop):
    found = command_loop("hunted", 60, seed, by)
    assert (found["kills"], found["wrong"]) == (60, [])
