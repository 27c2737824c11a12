"""The test split is read once, on request, for the final model, and by nothing else."""

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from support.shell import tuner
from support.study_files import write_study

from tuner import load
from tuner.design.study_file import load_campaign
from tuner.design.workload import Workload
from tuner.records.conclusions import Adoption
from tuner.storage.store import open_ledger
from tuner.training.checkpoints import read_weights

__all__ = ["tuner"]
TEST = (
    "return Splits(training=(x[:50], y[:50]), validation=(x[50:], y[50:]))",
    "return Splits(training=(x[:50], y[:50]), validation=(x[50:70], y[50:70]), test=Watched(x[70:], y[70:]))",
)
WATCHED = (
    "class Tiny(Workload):",
    '''class Watched:
    """A test split that writes down every example that is asked for."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        with open("read.txt", "a") as file:
            file.write(f"{i} ")
        return self.x[i], self.y[i]


class Tiny(Workload):''',
)


@pytest.fixture
def study(tmp_path):
    return write_study(tmp_path, trials=3, steps=40, replace=[TEST, WATCHED])


def reads(tmp_path):
    file = tmp_path / "read.txt"
    return file.read_text().split() if file.exists() else []


def test_the_test_split_is_scored_once_and_read_by_nothing_else(tuner, tmp_path, study):
    assert tuner("launch", study, "-q").code == 0
    assert tuner("launch", study, "--round", 2, "-q").code == 0
    assert tuner("adopt", study, "--candidate", "1/0", "--baseline", "1/1", "--replicates", 2, "-q").code == 0
    assert tuner("best", "tiny", "--export", "model.safetensors").code == 0
    assert reads(tmp_path) == []
    first = tuner("score-test", study, "-f", "json")
    assert first.code == 0, first.err
    assert "scored" in first.err
    assert reads(tmp_path) == [str(i) for i in range(10)]
    score = json.loads(first.out)
    trained = load("tiny").trials(score["study"]).set_index("trial")
    assert load("tiny").final().fresh
    assert score["value"] == trained.loc[score["trial"], "best_value"], "of this checkpoint, and no median of others"
    again = tuner("score-test", study, "-f", "json")
    assert again.out == first.out
    assert "recorded before" in again.err
    assert len(reads(tmp_path)) == 10, "not read again"


def test_the_score_is_that_of_the_chosen_checkpoint(tuner, tmp_path, study):
    """Against the model put together by hand from the exported weights."""
    assert tuner("launch", study, "-q").code == 0
    score = json.loads(tuner("score-test", study, "-f", "json").out)
    best = load("tiny").best()
    assert (score["trial"], score["step"], score["value"]) == (best.record.number, best.step, best.value)
    workload = load_campaign(study)[1].workload
    assert isinstance(workload, Workload)
    model = workload.model(dict(best.record.point)).eval()
    model.load_state_dict(read_weights(tmp_path / "runs" / "checkpoints", best.checkpoint))
    test = workload.data().test
    with torch.no_grad():
        expected = F.cross_entropy(model(test.x), test.y).item()
    assert score["metrics"]["test/loss"] == pytest.approx(expected, rel=1e-5)
    assert score["examples"] == 10


def test_what_was_adopted_is_final(tuner, tmp_path, study):
    assert tuner("launch", study, "-q").code == 0
    worst = load("tiny").trials().sort_values("best_value")["trial"].iloc[-1]
    with open_ledger(str(tmp_path / "runs" / "tuner.sqlite")) as ledger:
        best = load("tiny").best().record.number
    assert (
        tuner("adopt", study, "--candidate", f"1/{worst}", "--baseline", f"1/{best}", "--replicates", 2, "-q").code == 0
    )
    name = f"adopt-round-1-{worst}-over-round-1-{best}"
    with open_ledger(str(tmp_path / "runs" / "tuner.sqlite")) as ledger:
        row = ledger.study("tiny", name)
        concluded = ledger.conclusion("tiny", Adoption, row.study_id)
        ledger.conclude("tiny", replace(concluded, verdict="adopt"), row.study_id)
    assert load("tiny").final().record.number == worst
    assert json.loads(tuner("score-test", study, "-f", "json").out)["trial"] == worst


def test_changed_code_and_a_missing_test_split_are_refused(tuner, tmp_path):
    path = write_study(tmp_path, trials=2, steps=20)
    assert tuner("launch", path, "-q").code == 0
    refused = tuner("score-test", path)
    assert (refused.code, "Tiny.data gives no test split" in refused.err) == (2, True)
    path.write_text(path.read_text().replace("nn.ReLU()", "nn.Tanh()"))
    refused = tuner("score-test", path)
    assert (refused.code, "changed since round-1" in refused.err) == (2, True)
