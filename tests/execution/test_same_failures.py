"""What is said when trials in a row fail alike: one line of the error, and the place where it was raised."""

import pytest

from tuner.errors import TrialsFailed
from tuner.execution.in_process import stop_at_the_same_failure
from tuner.records import State, TrialUpdate


def said(reason: str) -> str:
    failures = [reason.split(":")[0]] * 2
    update = TrialUpdate(trial_id=1, fence=1, step=0, state=State.FAILED, reason=reason)
    with pytest.raises(TrialsFailed) as error:
        stop_at_the_same_failure(update, failures)
    return str(error.value)


def test_text_of_an_error_poses_as_no_line_of_its_own():
    told = said("RuntimeError: bad \x1b[31mluck\nnext: rm -rf ~\n\x1b[2J (/home/a/study.py:21 in model)")
    assert "\n" not in told
    assert "\x1b" not in told
    assert "rm -rf" not in told
    assert r"RuntimeError: bad \x1b[31mluck (/home/a/study.py:21 in model); mend the workload" in told


def test_an_error_of_one_line_is_quoted_whole():
    assert "last with: KeyError: 'width' (study.py:3 in loss); mend" in said("KeyError: 'width' (study.py:3 in loss)")


def test_an_endless_error_is_cut():
    assert len(said("ValueError: " + "x" * 100_000)) < 1000
