"""A precision by the real path: declared, searched, priced, trained together, scored, and told where it is refused."""

import json
import re

import pytest
import torch
from support.records import CURVES, rows
from support.study_files import write_study


def precise(folder, name, **changes):
    return write_study(folder, more=f"precision={name!r},", **changes)


def test_bf16_is_priced_trained_together_and_shown_in_the_budget_of_the_next_round(tuner, tmp_path, monkeypatch):
    study = precise(tmp_path, "bf16")
    dry = tuner("launch", study, "--round", 1, "--dry-run")
    assert dry.code == 0, dry.err
    assert "x of float32 on this processor" in dry.err
    assert tuner("launch", study, "--round", 1, "--fuse", 2).code == 0
    together = rows(tmp_path, CURVES)
    assert together
    (tmp_path / "alone").mkdir()
    monkeypatch.chdir(tmp_path / "alone")
    assert tuner("launch", study, "--round", 1, "--fuse", "off").code == 0
    assert rows(tmp_path / "alone", CURVES) == together
    monkeypatch.chdir(tmp_path)
    assert tuner("report", "tiny", "--out", "page.html").code == 0
    assert re.search(r"Precision\s*</\w+>\s*<\w+[^>]*>\s*bf16", (tmp_path / "page.html").read_text())
    plain = write_study(tmp_path)
    refused = tuner("launch", plain, "--round", 1)
    assert refused.code == 2
    assert "precision" in refused.err
    later = tuner("launch", precise(tmp_path, "float32"), "--round", 2)
    assert later.code == 0, later.err
    assert "note: stale budget" in later.err
    assert "precision was bf16, now float32" in " ".join(later.err.split())


def test_a_searched_precision_is_a_choice_like_any_other(tuner, tmp_path):
    searched = 'dropout=uniform(0.0, 0.5, limits="low")', 'precision=choice("float32", "bf16", "fp16")'
    study = write_study(tmp_path, trials=6, replace=[(searched[0], f"dropout=0.1, {searched[1]}")])
    run = tuner("launch", study, "--round", 1)
    assert run.code == 0, run.err
    assert "nothing reads" not in run.err
    points = [json.loads(point) for (point,) in rows(tmp_path, "select point from trial")]
    assert {point["precision"] for point in points} == {"float32", "bf16", "fp16"}
    assert {row[2] for row in rows(tmp_path, CURVES)} >= {"batch/skipped_updates", "validation/loss"}
    assert tuner("verify", "tiny").code == 0


def test_tf32_on_a_cpu_is_one_error_before_anything_is_written(tuner, tmp_path):
    run = tuner("launch", precise(tmp_path, "tf32"), "--round", 1, "--device", "cpu")
    assert run.code == 2
    assert 'precision "tf32" changes nothing on a CPU' in " ".join(run.err.split())
    assert not rows(tmp_path, "select * from trial")


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_the_test_split_is_scored_in_the_precision_of_the_trial(tuner, tmp_path, name):
    test = ("validation=(x[50:], y[50:]))", "validation=(x[50:], y[50:]), test=(x[:50], y[:50]))")
    half = '"error_rate": wrong}', '"error_rate": wrong, "half": torch.ones_like(wrong) * (logits.itemsize == 2)}'
    study = precise(tmp_path, name, replace=[test, half])
    assert tuner("launch", study, "--round", 1).code == 0
    run = tuner("score-test", study, "--format", "json")
    assert run.code == 0, run.err
    assert '"test/half": 1.0' in run.out
    assert torch.backends.mkldnn.matmul.fp32_precision == "none"  # type: ignore[attr-defined]
