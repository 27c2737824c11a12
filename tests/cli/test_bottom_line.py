"""The last lines of `tuner run`: what to take and what it reaches come first, then what is left."""

import os
from dataclasses import dataclass, field, replace

import pandas as pd
import pytest
from support.study_files import write_study

from tuner.analysis.finding import Finding
from tuner.cli.run import bottom_line, on_the_page
from tuner.reading import load

FINE = Finding("transfer", "winner", "confirmed", "weak", "Better by 0.1.", pd.DataFrame(), {}, "Nothing to do.")
ACT = Finding("boundary", "dropout", "expand_high", "strong", "At the edge.", pd.DataFrame(), {}, "Widen it.", True)
OPEN = replace(FINE, verdict="unconfirmed", strength="none", action="Train both with more fresh seeds.")


@pytest.fixture(scope="module")
def winner(tmp_path_factory):
    """The best of a round of two trials."""
    from support.shell import run_in

    folder = tmp_path_factory.mktemp("trained")
    write_study(folder, trials=2)
    with pytest.MonkeyPatch.context() as patched:
        assert run_in(folder, patched, "launch", "tiny.py") == 0
    return load("tiny", str(folder / "runs" / "tuner.sqlite")).best()


def test_a_plot_of_a_later_round_is_no_next_step_where_there_is_none(tmp_path, monkeypatch, capsys):
    from support.shell import run_in

    write_study(tmp_path, trials=2)
    for command in ("launch", "conclusions"):
        assert run_in(tmp_path, monkeypatch, command, "tiny.py") == 0
    assert "plot transfer" not in capsys.readouterr().err


def test_a_page_that_an_interrupted_run_did_not_write_is_written_by_the_next_one(tmp_path, monkeypatch):
    from support.shell import run_in

    sweep = "    sweep=Sweep(learning_rate=log_grid(1e-3, 1.0), start_steps=100, max_steps=800, seeds=2),\n"
    write_study(tmp_path, trials=1, steps=20, replace=[(sweep, ""), ('        Round("the best", promote=2),\n', "")])
    page, before = tmp_path / "runs" / "tiny.html", 1_000_000_000

    def run():
        assert run_in(tmp_path, monkeypatch, "run", "tiny.py", "--yes", "-q") in (0, 3)
        return page.stat().st_mtime_ns

    run()
    os.utime(page, (before, before))  # of the time before its trials ended
    written = run()
    assert written > before * 1e9
    assert run() == written, "nothing was trained: it is the page that it would be"


@dataclass
class Case:
    findings: list[Finding]
    last: list[str] = field(default_factory=list)


@pytest.mark.parametrize(
    "case",
    [
        Case([FINE], ["every question that was asked has an answer, and nothing is left to do"]),
        Case([FINE, ACT], ["to do, dropout: Widen it."]),
        Case([OPEN, ACT], [
            "to do, dropout: Widen it.", "not known: Is the winner still better than its rival?",
            "Is the winner still better than its rival? Train both with more fresh seeds.",
        ]),
    ],
)  # fmt: skip
def test_the_configuration_comes_first_and_what_is_left_last(winner, case):
    lines = list(bottom_line(winner, case.findings, ended=True))
    rate = winner.point["learning_rate"]
    assert lines[0].startswith(f"Result: take learning_rate {rate:.4g}, dropout ")
    assert lines[0].endswith("and train 60 steps (10 epochs)")
    assert lines[1].startswith(f"  validation/loss {winner.value:.4g}, ")
    assert [line.strip() for line in lines[-len(case.last) :]] == case.last


def test_what_the_rounds_answered_stands_between(winner):
    lines = list(bottom_line(winner, [FINE], ended=False))
    assert lines[0].startswith("So far: take ")
    assert "  Is the winner still better than its rival? confirmed. Better by 0.1." in lines


def test_what_a_control_shows_is_an_answer_and_a_doubt_of_several_rounds_is_told_once(winner):
    control = Finding("control", "round-2", "no_gain", "weak", "No clear gain.", pd.DataFrame(), {}, "Adopt.")
    doubt = Finding("boundary", "dropout", "inconclusive", "none", "Open.", pd.DataFrame(), {}, "More trials.")
    lines = list(bottom_line(winner, [doubt, control, doubt], ended=True))
    assert "  Does starting from the earlier stage help (round-2)? no_gain. No clear gain." in lines
    assert lines[-1] == "  not known: dropout"


def test_the_last_lines_leave_nothing_out_that_the_page_asks_for():
    """Train 30 steps instead of 60: the result must not tell of 60 steps alone."""
    shorter = Finding("best_steps", "round-2", "too_long", "strong", "", pd.DataFrame(), {}, "Train 30 steps.", True)
    agreed = replace(OPEN, action="First train 30 steps.")
    ranges = replace(ACT, question="boundary", subject="dropout", action="Nothing more.", needs_action=False)
    found = on_the_page([ACT, OPEN, OPEN], [agreed, shorter, replace(FINE, subject="ranking")])
    assert [one.action for one in found] == [ACT.action, "First train 30 steps.", OPEN.action, "Train 30 steps."]
    assert on_the_page([ACT], [ranges]) == [ranges]


def test_a_rival_that_is_taken_already_is_nothing_to_do(winner):
    rejected = replace(
        FINE, verdict="rejected", needs_action=True, action="Use the rival, trial 7 of round-1: it is better."
    )
    from_rival = trained_again(winner, "round-1 trial 7, fresh seeds")
    another = trained_again(winner, "round-1 trial 17, same seed")
    for one, lines in ((from_rival, 0), (another, 1), (winner, 1)):
        assert sum("to do, " in line for line in bottom_line(one, [rejected], ended=True)) == lines


def trained_again(winner, origin):
    trial = replace(winner.record.trial, origin=origin)
    return replace(winner, record=replace(winner.record, trial=trial))
