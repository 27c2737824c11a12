"""Points of an imported study, compared by the replicates that were run elsewhere; numbers by hand."""

import json

import pytest
from support.shell import tuner

from tuner.analysis.questions.adoption import adoption_log
from tuner.analysis.replicates import welch_difference
from tuner.errors import DeclarationError
from tuner.interchange.imported import write_imported
from tuner.interchange.tables_in import TableTerms, imported_from_tables
from tuner.rounds.imported_contest import imported_contest, imported_row, settle
from tuner.storage.store import open_ledger

__all__ = ["tuner"]
# run, rate, activation, best value: four runs of one point, three of another, two of a third, three with a choice None.
RUNS = [
    ("a", 0.1, "relu", 0.50), ("b", 0.1, "relu", 0.52), ("c", 0.1, "relu", 0.51), ("d", 0.1, "relu", 0.53),
    ("e", 0.2, "relu", 0.60), ("f", 0.2, "relu", 0.62), ("g", 0.2, "relu", 0.61),
    ("h", 0.3, "null", 0.40), ("i", 0.3, "null", 0.41),
    ("j", 0.2, "null", 0.51), ("k", 0.2, "null", 0.53), ("l", 0.2, "null", 0.52),
]  # fmt: skip


def write(folder, *, runs=RUNS, states=None):
    rows = ["run,step,val_loss"]
    rows += [f"{name},{step},{value + 1 / step - 0.01}" for name, _, _, value in runs for step in range(10, 101, 10)]
    (folder / "mine.csv").write_text("\n".join(rows))
    points = ["run,lr,act,state"]
    points += [f"{name},{rate},{act},{(states or {}).get(name, '')}" for name, rate, act, _ in runs]
    (folder / "points.csv").write_text("\n".join(points))
    (folder / "space.json").write_text(
        json.dumps({"lr": {"kind": "float", "low": 0, "high": 1}, "act": {"kind": "choice", "choices": ["relu", None]}})
    )
    return folder / "mine.csv"


@pytest.fixture
def ledger(tmp_path):
    with open_ledger(str(tmp_path / "tuner.sqlite")) as opened:
        yield opened


def stored(ledger, folder, **given):
    write_imported(
        ledger, "mine", imported_from_tables(write(folder, **given), None, None, TableTerms("val_loss", "minimize"))
    )


def test_the_answer_is_that_of_the_values_that_were_imported(ledger, tmp_path):
    stored(ledger, tmp_path)
    made = imported_contest(ledger, "mine", "a", "lr=0.2, act=relu")
    assert [made.count(side) for side in (0, 1)] == [4, 3]
    finding = settle(ledger, "mine", made)
    wanted = welch_difference([-0.50, -0.52, -0.51, -0.53], [-0.60, -0.62, -0.61], 0.8)
    row = finding.evidence.iloc[0]
    assert finding.verdict == "adopt"
    assert [row["gain"], row["low"], row["high"]] == pytest.approx([wanted.gain, wanted.low, wanted.high])
    assert "median of 4 replicates" in finding.summary
    assert "fresh seeds" not in finding.summary
    settle(ledger, "mine", imported_contest(ledger, "mine", "0", "4"))
    log = adoption_log(ledger, "mine")
    assert log[["candidate", "baseline", "verdict"]].to_numpy().tolist() == [
        ["round-1 trial 0", "round-1 trial 4", "adopt"]]  # fmt: skip
    assert settle(ledger, "mine", imported_contest(ledger, "mine", "lr=0.2,act=None", "c")).verdict == "tie"


@pytest.mark.parametrize(
    ("candidate", "baseline", "message"),
    [
        ("h", "a", r"the candidate \(trial 7\) has 2 replicates that finished, and 3 are needed"),
        ("a", "h", r"the baseline \(trial 7\) has 2 replicates"),
        ("a", "b", r"same point \(trial 0\); name two"),
        ("lr=0.2", "a", "--candidate lr=0.2 means 2 points: give more of its values"),
        ("zz", "a", "--candidate zz is no trial, run or point of it; .* by values"),
        ("rate=1", "a", "'rate' is no hyperparameter of the study; there are: lr, act"),
        (None, None, "name the baseline: --baseline TRIAL; points with 3 or more: trials 4, 5, 6; trials 9, 10, 11"),
    ],
)
def test_what_cannot_be_compared_is_one_clear_error(ledger, tmp_path, candidate, baseline, message):
    stored(ledger, tmp_path)
    with pytest.raises(DeclarationError, match=message):
        imported_contest(ledger, "mine", candidate, baseline)
    assert adoption_log(ledger, "mine").empty


def test_copies_of_one_run_are_no_replicates(ledger, tmp_path):
    copies = [("a", 0.1, "relu", 0.5)] + [(name, 0.1, "relu", 0.52) for name in "bcd"] + RUNS[4:7]
    stored(ledger, tmp_path, runs=copies)
    with pytest.raises(DeclarationError, match=r"trial 0.* has 2 replicates that finished"):
        imported_contest(ledger, "mine", "a", "e")


def test_where_replicates_were_stopped_early_nothing_rests_on_the_others(ledger, tmp_path):
    stored(ledger, tmp_path, states={"d": "pruned"})
    finding = settle(ledger, "mine", imported_contest(ledger, "mine", "a", "e"))
    assert finding.verdict == "inconclusive"
    assert "--retry-failed" not in finding.action


def test_adopt_reads_an_imported_study_by_its_name(tuner, tmp_path):
    write(tmp_path)
    assert tuner("import", "table", "mine.csv", "--objective", "val_loss", "--direction", "minimize").code == 0
    done = tuner("adopt", "mine", "--candidate", "a", "--baseline", "lr=0.2,act=relu", "-f", "json")
    assert (done.code, json.loads(done.out)["findings"][0]["verdict"]) == (0, "adopt"), done.err
    assert tuner("verify", "mine").code == 0
    refused = tuner("adopt", "mine", "--candidate", "h", "--baseline", "a")
    assert (refused.code, refused.err.count("error: ")) == (2, 1)
    with open_ledger(str(tmp_path / "runs" / "tuner.sqlite")) as opened:
        assert imported_row(opened, "mine") is not None
        assert imported_row(opened, "other") is None
