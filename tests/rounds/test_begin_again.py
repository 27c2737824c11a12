"""Code that broke before it trained anything that is kept may be mended: the study begins with what it is then."""

import json

import pytest
from support.records import rows
from support.shell import tuner
from support.shown_loops import loop_study
from support.study_files import write_study

from tuner.storage.store import open_ledger

__all__ = ["tuner"]
SAID = "begins with the code of today"
BREACH = """if step == 1 and not trial.trying:
                return
            optimizer.param_groups[0]["lr"] = trial.rate(step)"""
RAISES = (  # in trials, and in no look before them
    "    def loss(self, model, batch, point):\n",
    """    def loss(self, model, batch, point):
        import sqlite3
        if sqlite3.connect("runs/tuner.sqlite").execute("select count(*) from launch").fetchone()[0]:
            raise KeyError("a column")
""",
)
CURVES = (
    "select t.number, m.step, m.value from measurement m join trial t on t.id = m.trial_id order by 1, 2, m.metric_id"
)


def states(folder):
    return [state for (state,) in rows(folder, "select state from trial order by number")]


def untouched(tuner, study, folder):
    """What the mended study gives in a storage of its own."""
    ran = tuner("launch", study, "--storage", folder / "elsewhere" / "runs" / "tuner.sqlite")
    assert ran.code == 0, ran.err
    return rows(folder / "elsewhere", CURVES)


@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_a_loop_that_broke_its_contract_in_its_first_trial_can_be_mended(tuner, tmp_path, caplog, workers):
    broken = tuner("launch", loop_study(tmp_path, follow=BREACH), *workers)
    assert broken.code == 2, broken.err
    assert "returned after 1 of 60 updates" in broken.err
    before = rows(tmp_path, "select fingerprint, identity from study")
    study = loop_study(tmp_path)
    mended = tuner("launch", study, *workers)
    assert mended.code == 0, mended.err
    assert caplog.text.count(SAID) == 1
    assert states(tmp_path) == ["complete"] * 4
    assert rows(tmp_path, CURVES) == untouched(tuner, study, tmp_path)
    ((fingerprint, identity),) = rows(tmp_path, "select fingerprint, identity from study")
    assert (fingerprint, json.loads(identity)["code"]) != (before[0][0], json.loads(before[0][1])["code"])
    again = tuner("launch", study)
    assert (again.code, caplog.text.count(SAID)) == (0, 1), "said once"
    refused = tuner("launch", loop_study(tmp_path, follow=BREACH), *workers)
    assert refused.code == 2
    assert "the code or the data of the workload changed" in refused.err


@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_a_workload_whose_loss_raised_in_every_trial_can_be_mended(tuner, tmp_path, caplog, workers):
    broken = tuner("launch", write_study(tmp_path, replace=[RAISES]), "--fuse", "off", *workers)
    assert broken.code == 4, broken.err
    assert "a column" in broken.err
    assert "failed" in states(tmp_path)
    study = write_study(tmp_path)
    mended = tuner("launch", study, *workers)
    assert (mended.code, caplog.text.count(SAID)) == (0, 1), mended.err
    assert states(tmp_path) == ["complete"] * 4, "those that failed are trained, too"
    assert rows(tmp_path, CURVES) == untouched(tuner, study, tmp_path)


def test_a_later_round_does_not_begin_again_beside_rounds_of_the_old_code(tuner, tmp_path):
    study = write_study(tmp_path)
    assert tuner("launch", study).code == 0
    with open_ledger(str(tmp_path / "runs" / "tuner.sqlite")) as ledger:
        before = ledger.study("tiny", "round-1")
    changed = write_study(tmp_path, replace=[("nn.ReLU()", "nn.GELU()")])
    for command in (["launch", changed], ["run", changed, "--yes"]):
        refused = tuner(*command)
        assert refused.code == 2
        assert "could not be compared" in refused.err
    with open_ledger(str(tmp_path / "runs" / "tuner.sqlite")) as ledger:
        assert ledger.study("tiny", "round-1") == before
