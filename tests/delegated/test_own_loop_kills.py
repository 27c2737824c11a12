"""An own loop that is killed again and again at random moments of `tuner run` leaves what one leaves that never was."""

import random

import pytest
from support.kills import killed_after
from support.loop_runs import left, running, steps_made, write_loop_study
from support.processes import told


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """What an undisturbed run leaves, and how many steps it makes."""
    folder = write_loop_study(tmp_path_factory.mktemp("calm") / "study")
    code, err = told(running(folder))
    assert code == 0, err
    return left(folder), steps_made(folder)


def killed(folder, steps, *options):
    """Kill a run when it has made another so many steps; whether it was still at work."""
    return killed_after(running(folder, *options), steps, lambda: steps_made(folder))


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--workers", "2")])
def test_ten_kills_at_random_moments_change_no_row(options, calm, tmp_path):
    expected, steps = calm
    folder = write_loop_study(tmp_path / "study")
    drawn = random.Random(17)
    kills = sum(killed(folder, drawn.randrange(30, steps // 8), *options) for _ in range(10))
    assert kills >= 8
    code, err = told(running(folder, *options))
    assert code == 0, err
    found = left(folder)
    assert found[0] == expected[0]
    assert found[1] == expected[1]


def test_a_killed_round_of_an_own_loop_goes_on_to_the_same_rows(tuner, tmp_path, monkeypatch):
    folders = [write_loop_study(tmp_path / name, sweep="", length="max_train_steps=120, ") for name in ("a", "b")]
    assert killed(folders[0], 250)
    found = []
    for folder in folders:
        monkeypatch.chdir(folder)
        run = tuner("run", "mine.py", "--yes")
        assert run.code == 0, run.err
        found.append(left(folder))
    assert found[0] == found[1]
    assert len({key[:2] for key in found[0][1]}) >= 6
