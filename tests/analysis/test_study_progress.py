"""How far studies are, in numbers and in words, and the trials that FAILED."""

from array import array
from dataclasses import replace
from types import SimpleNamespace

import pytest
from analysis.handmade import METRIC, planned, record, study

from tuner.analysis.study_progress import LONGEST_REASON, MOST_LISTED, failures, first_line, in_words, listed, standing
from tuner.records import State


def ledger_of(records, values=(), **declared):
    """One study with these trials; `values`: (trial, step, value) of the objective."""
    made = replace(study(), name="round-1", goal="find a rate", **declared)
    row = SimpleNamespace(study=made, study_id=1, campaign="digits", identity={})
    counts = {state: sum(one.state is state for one in records) for state in State}
    columns = list(zip(*values, strict=True)) or [(), (), ()]
    curves = SimpleNamespace(
        trial_numbers=array("q", columns[0]), steps=array("q", columns[1]), values=array("d", columns[2])
    )
    return row, SimpleNamespace(
        studies=lambda name: [row],
        trials=lambda study_id: records,
        state_counts=lambda study_id: counts,
        measurements=lambda study_id, metrics=None: curves,
        conclusion=lambda *asked: None,
    )


def half_done():
    return [
        record(0),
        replace(record(1, state=State.RUNNING), step=500),
        replace(record(2, state=State.WAITING), step=0),
    ]


def test_a_study_is_counted_by_the_states_of_its_trials_and_their_steps():
    _, ledger = ledger_of(half_done(), [(0, 20, 0.5), (0, 1000, 0.7), (1, 20, 0.1)])
    (row,) = standing(ledger, ["digits"]).to_dict("records")
    assert (row["campaign"], row["study"], row["trials"]) == ("digits", "round-1", 3)
    assert (row["complete"], row["running"], row["waiting"], row["failed"]) == (1, 1, 1, 0)
    assert row["steps_done"] == "50%"
    assert row["best_value"] == 0.5, "of complete trials, at any step"
    assert row["identity"] == "whole"


def test_a_study_without_trials_has_no_share_of_steps():
    _, ledger = ledger_of([])
    (row,) = standing(ledger, ["digits"]).to_dict("records")
    assert (row["steps_done"], row["best_value"]) == ("-", None)


@pytest.mark.parametrize(
    ("source", "identity", "words"),
    [(None, {}, "whole"), (None, None, "weaker (tuner 0.1)"), ("Optuna study mine", None, "imported")],
)
def test_how_much_is_known_of_the_code_is_named(source, identity, words):
    row, ledger = ledger_of(half_done(), source=source)
    row.identity = identity
    table = standing(ledger, ["digits"])
    assert table["identity"].tolist() == [words]
    assert ("identity" in in_words(table)) == words.startswith("weaker")


def test_states_without_trials_are_left_out_of_the_words():
    _, ledger = ledger_of(half_done())
    words = in_words(standing(ledger, ["digits", "digits"]))
    assert words["states"].tolist() == ["1 waiting, 1 running, 1 complete"] * 2
    assert words["goal"].tolist() == ["find a rate", ""], "once for studies that share it"
    assert words["done"].tolist() == ["50%", "50%"]


def test_failed_trials_are_listed_with_the_first_line_of_their_reason():
    failed = planned(replace(record(4, state=State.FAILED), reason="\n  \nKeyError: 'x'\n  at line 3"))
    row, ledger = ledger_of([record(0), failed])
    (found,) = failures(ledger, [row])
    assert (found.study, found.number, found.reason) == ("round-1", 4, "KeyError: 'x'")
    assert listed([found]) == ["round-1 trial 4: KeyError: 'x'"]


def test_of_many_failed_trials_the_first_are_listed():
    records = [replace(record(number, state=State.FAILED), reason="boom") for number in range(MOST_LISTED + 3)]
    row, ledger = ledger_of(records)
    lines = listed(failures(ledger, [row]))
    assert len(lines) == MOST_LISTED + 1
    assert lines[-1] == "and 3 more: `tuner trials` lists them all"


@pytest.mark.parametrize(
    ("reason", "line"),
    [
        ("", "no reason was recorded"),
        ("\n \n", "no reason was recorded"),
        ("a" * (LONGEST_REASON + 1), "a" * (LONGEST_REASON - 1) + "…"),
        ("red \x1b[31mtext", "red \\x1b[31mtext"),
    ],
)
def test_a_reason_fits_on_a_terminal(reason, line):
    assert first_line(reason) == line


def test_metrics_of_other_names_are_not_asked_for():
    asked = []
    row, ledger = ledger_of(half_done(), [(0, 20, 0.5)])
    curves = ledger.measurements(1)
    ledger.measurements = lambda study_id, metrics=None: asked.append((study_id, metrics)) or curves
    standing(ledger, ["digits"])
    assert asked == [(1, [METRIC])]
    assert row.study.objective.metric == METRIC
