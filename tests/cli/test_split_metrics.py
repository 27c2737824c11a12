"""A study that is selected by the AUC of the whole split, from the sweep to the score on the test split."""

import json

import pytest
import torch
from support.records import rows
from support.study_files import write_study

from tuner import load
from tuner.design.study_file import load_campaign
from tuner.design.workload import Workload
from tuner.training.checkpoints import read_weights

AUC = [
    (
        """        wrong = logits.argmax(-1) != batch[1]
        return {"loss": F.cross_entropy(logits, batch[1], reduction="none"), "error_rate": wrong}
""",
        """        loss = F.cross_entropy(logits, batch[1], reduction="none")
        return {"loss": loss, "score": logits[:, 1] - logits[:, 0], "positive": batch[1] == 1}

    not_averaged = ("score", "positive")

    def split_metrics(self, each):
        return {"auc": auc(each["score"], each["positive"])}


def auc(score, positive):
    above = score[positive][:, None] - score[~positive][None, :]
    return float(((above > 0).double() + 0.5 * (above == 0)).mean()) if above.numel() else None
""",
    ),
    ('minimize("validation/loss")', 'maximize("validation/auc")'),
    ('at_most("training/error_rate", 0.0)', 'at_least("training/auc", 1.0)'),
    (
        "validation=(x[50:], y[50:]))",
        "validation=(x[50:70], y[50:70]), test=(x[70:], y[70:]))",
    ),
]
SWEPT = [*AUC, ("max_train_steps=60, ", "")]


def auc_of(model, split):
    """By pairs, one after the other."""
    x, y = split
    with torch.no_grad():
        logits = model.eval()(x).double()
    scores = (logits[:, 1] - logits[:, 0]).tolist()
    ones, zeros = ([score for score, label in zip(scores, y.tolist(), strict=True) if label == kind] for kind in (1, 0))
    return sum((one > zero) + 0.5 * (one == zero) for one in ones for zero in zeros) / (len(ones) * len(zeros))


def test_a_study_is_swept_selected_checked_reported_and_scored_by_auc(tuner, tmp_path):
    study = write_study(tmp_path, trials=5, replace=SWEPT)
    ran = tuner("run", study, "--yes", "--device", "cpu")
    assert ran.code == 0, ran.err
    assert "learning_rate: fitted" in ran.err
    assert "best validation/auc" in ran.err
    recorded = {name for (name,) in rows(tmp_path, "select name from metric")}
    assert {"training/auc", "validation/auc", "training/loss", "validation/loss"} <= recorded
    assert not {name for name in recorded if "score" in name or "positive" in name}
    best = load("tiny").best()
    workload = load_campaign(study)[1].workload
    assert isinstance(workload, Workload)
    model = workload.model(dict(best.record.point))
    model.load_state_dict(read_weights(tmp_path / "runs" / "checkpoints", best.checkpoint))
    assert best.selected_value == pytest.approx(auc_of(model, workload.data().validation), abs=1e-12)
    scored = tuner("score-test", study, "-f", "json")
    assert scored.code == 0, scored.err
    score = json.loads(scored.out)
    model.load_state_dict(read_weights(tmp_path / "runs" / "checkpoints", load("tiny").final().checkpoint))
    assert score["objective"] == "validation/auc"
    assert score["metrics"]["test/auc"] == pytest.approx(auc_of(model, workload.data().test), abs=1e-12)
    assert set(score["metrics"]) == {"test/loss", "test/auc"}
    checked = tuner("check", "tiny")
    assert "training/auc falls for good in 0 of" in checked.out
    assert tuner("plot", "curves", "tiny", "-o", "curves.png").code == 0
    assert "validation/auc" in (tmp_path / "runs" / "tiny.html").read_text(encoding="utf-8")


def test_workers_and_groups_train_the_same_trials_and_exports_can_be_imported(tuner, tmp_path):
    study = write_study(tmp_path, trials=4, replace=AUC)
    found = []
    for name, options in (("alone", ["--fuse", "off"]), ("group", ["--fuse", 2]), ("workers", ["--workers", 2])):
        storage = f"sqlite:///{tmp_path}/{name}.sqlite"
        launched = tuner("launch", study, "--round", 1, "-q", "--device", "cpu", "--storage", storage, *options)
        assert launched.code == 0, launched.err
        found.append(load("tiny", storage).trials(1)[["trial", "state", "best_value", "best_step", "last_value"]])
    assert found[0].equals(found[1])
    assert found[0].equals(found[2])
    assert tuner("export", "tiny", "-r", 1, "--to", "csv", "tables", "--storage", storage).code == 0
    imported = tuner(
        "import", "table", "tables/curves.csv", "--objective", "validation/auc", "--direction", "maximize",
        "--study", "again", "--storage", storage,
    )  # fmt: skip
    assert imported.code == 0, imported.err
    assert load("again", storage).best().value == found[0]["best_value"].max()


def test_a_metric_without_a_value_at_some_evaluations_is_checked_and_plotted(tuner, tmp_path):
    """No AUC at a quarter of the evaluations, by the digits of the scores."""
    absent = 'int(abs(float(each["score"].sum())) * 1e5) % 4 == 0 and float(each["score"].std()) > 0.6'
    some = (
        "def split_metrics(self, each):",
        f"def split_metrics(self, each):\n        if {absent}:\n            return {{}}",
    )
    study = write_study(tmp_path, replace=[*AUC, some])
    assert tuner("launch", study, "--round", 1, "-q", "--device", "cpu").code == 0
    counts = dict(
        rows(tmp_path, "select name, count(*) from measurement join metric on metric.id = metric_id group by 1")
    )
    assert 0 < counts["validation/auc"] < counts["validation/loss"] == 4 * 20
    assert set(load("tiny").trials(1)["state"]) == {"complete"}
    assert tuner("check", "tiny", "--round", 1).code == 0
    for kind in ("curves", "best-steps", "axes"):
        assert tuner("plot", kind, "tiny", "-o", f"{kind}.png").code == 0
    assert tuner("report", "tiny").code == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('each["score"]', 'each["scores"]'), "split_metrics reads 'scores', which Tiny.metrics does not return"),
        (('"auc": auc(each["score"], each["positive"])', '"auc": each["score"].mean()'),
         "returns a tensor () for 'auc'; a metric of a split is one number"),
        (('"validation/auc"', '"validation/score"'), "reads 'validation/score', but not_averaged names 'score'"),
        (('"validation/auc"', '"validation/f1"'), "'validation/f1' is to be read, but Tiny.metrics returns only"),
        (('("score", "positive")', '"score"'), "not_averaged is a tuple of names of metrics, like ('score',)"),
        (("validation=(x[50:70], y[50:70])", "validation=(x[50:70], y[50:70] * 0)"),
         "returns None for 'auc' over all 20 validation examples"),
        (("training=(x[:50], y[:50])", "training=(x[:50], y[:50] * 0 + 1)"),
         "returns None for 'auc' over all 50 training examples"),
    ],
)  # fmt: skip
def test_wrong_metrics_of_the_split_are_refused_before_anything_is_written(tuner, tmp_path, change, words):
    study = write_study(tmp_path, replace=[*AUC, change])
    refused = tuner("launch", study, "--round", 1, "-q", "--device", "cpu")
    assert refused.code == 2, refused.err
    assert words in " ".join(refused.err.split())
    assert "Traceback" not in refused.err
    assert not (tmp_path / "runs" / "checkpoints").exists()
