"""A study of a command, killed again and again: the same rows as without, and everything complete."""

import pytest
from support import kills
from support.processes import started, told
from support.programs import RESUMED, WORDS, write_fit

STUDY = """
from tuner import *

campaign = Campaign(
    Command(
        "{words}", select_by=minimize("validation/loss"), fitted_when=at_most("training/error_rate", 0.0),
        env={{"HERE": {here!r}}},
    ),
    rounds=[
        Round("Which rate?", trials={trials}, max_train_steps=40, space=SearchSpace(learning_rate=log_uniform(0.1, 9))),
        Round("Is it still best?", promote=2, max_train_steps=40),
    ],
)
"""
COUNTED = "open('count', 'a').write('.')"  # each report, with the steps of first looks


def write_study(folder, more, *, here=COUNTED, trials=4):
    folder.mkdir(exist_ok=True)
    path = write_fit(folder)
    path.write_text(STUDY.format(words=f"{WORDS} {more} --off {{regularization_off}}", here=here, trials=trials))
    (folder / "count").touch()
    return folder


def begun(folder, *options, verb=("run", "study.py", "--yes")):
    return started(folder, *verb, "--storage", "study.sqlite", *options)


def killed(folder, times, *options, **verb):
    """The rows of a run that is killed at some number of reports, so many times."""
    kills.killed(lambda: begun(folder, *options, **verb), folder / "count", times, (12, 60))
    return kills.rows_of(folder, 2)


def test_a_killed_round_of_a_command_has_the_same_rows(tmp_path):
    launch = {"verb": ("launch", "study.py")}
    whole = killed(write_study(tmp_path / "whole", f"--rates {{rates}} {RESUMED}", trials=2), 0, **launch)
    again = killed(write_study(tmp_path / "killed", f"--rates {{rates}} {RESUMED}", trials=2), 1, **launch)
    assert whole == again


@pytest.mark.slow
@pytest.mark.parametrize("more", [f"--rates {{rates}} {RESUMED}", "--rates {rates}"])
@pytest.mark.parametrize("options", [(), ("--workers", "2")])
def test_killed_ten_times_it_has_the_same_rows(tmp_path, more, options):
    here = f"{COUNTED}; time.sleep(0.01)"
    whole = killed(write_study(tmp_path / "whole", more, here=here, trials=6), 0)
    again = killed(write_study(tmp_path / "killed", more, here=here, trials=6), 10, *options)
    assert whole == again


@pytest.mark.slow
def test_a_program_killed_by_somebody_is_started_again(tmp_path):
    """Its attempt counts as lost; the trial goes on from its checkpoint, and the study goes on."""
    here = f"{COUNTED}; not os.path.exists('done') and step > 20 and (open('done', 'w'), os.kill(os.getpid(), 9))"
    folder = write_study(tmp_path / "lost", f"--rates {{rates}} {RESUMED}", here=here, trials=2)
    process = begun(folder)
    code, said = told(process)
    assert code in (0, 3), said
    assert "is tried again: lost: python fit.py was ended by signal 9" in said
    whole = killed(write_study(tmp_path / "whole", f"--rates {{rates}} {RESUMED}", trials=2), 0)
    assert kills.rows_of(folder, 2) == whole
