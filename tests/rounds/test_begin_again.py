"""Code that broke before it trained anything that is kept may be mended: the study begins with what it is then."""

import json

import pytest
from support.loop_study import loop_study
from support.records import rows
from support.shell import tuner
from support.study_files import write_study

from tuner.storage.store import open_ledger

__all__ = ["tuner"]
SAID = "begins with the code of today"
BREACH = "if trial.number == 0 and step == 20 and not trial.trying: return\n            " + (
    'optimizer.param_groups[0]["lr"] = trial.rate(step)'
)
BROKEN = [("return F.cross_entropy(model(batch[0]), batch[1])", "raise OSError(2, 'gone') if Tiny.calls() else None")]
COUNTED = (
    "    def loss(self, model, batch, point):\n",
    "    made = 0\n\n    @classmethod\n    def calls(cls):\n        cls.made += 1\n        return cls.made > {calls}\n\n"
    "    def loss(self, model, batch, point):\n        if Tiny.calls():\n            raise KeyError('a column')\n",
)


def states(folder):
    return [state for (state,) in rows(folder, "select state from trial order by number")]


def curves(folder):
    return rows(
        folder, "select t.number, m.step, m.value from measurement m join trial t on t.id = m.trial_id order by 1, 2, 3"
    )


def untouched(tuner, study, folder):
    """What the mended study gives in a storage of its own."""
    assert tuner("launch", study, "--storage", "elsewhere/tuner.sqlite").code == 0
    return curves(folder / "elsewhere")


@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_a_loop_that_broke_its_contract_in_its_first_trial_can_be_mended(tuner, tmp_path, workers):
    broken = tuner("launch", loop_study(tmp_path, follow=BREACH, length="max_train_steps=60,"), *workers)
    assert broken.code == 2, broken.err
    assert "returned after 20 of 60 updates" in broken.err
    before = rows(tmp_path, "select fingerprint, identity from study")
    study = loop_study(tmp_path)
    mended = tuner("launch", study, *workers)
    assert mended.code == 0, mended.err
    assert mended.err.count(SAID) == 1
    assert states(tmp_path) == ["complete"] * 4
    assert curves(tmp_path) == untouched(tuner, study, tmp_path)
    ((fingerprint, identity),) = rows(tmp_path, "select fingerprint, identity from study")
    assert (fingerprint, identity) != before[0]
    assert json.loads(identity)["code"] != json.loads(before[0][1])["code"]
    again = tuner("launch", study)
    assert (again.code, SAID in again.err) == (0, False)
    refused = tuner("launch", loop_study(tmp_path, follow=BREACH), *workers)
    assert refused.code == 2
    assert "the code or the data of the workload changed" in refused.err
