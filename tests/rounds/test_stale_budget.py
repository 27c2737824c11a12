"""A later round under other conditions than those its budget and points were chosen under (A7, A16, B7)."""

import json

from support.study_files import write_study


def test_the_next_command_names_what_changed_and_what_to_redo(tuner, tmp_path):
    study = write_study(tmp_path)
    assert tuner("launch", study, "--round", 1).code == 0
    assert "stale" not in tuner("launch", study, "--round", 2, "--dry-run").err
    smaller = ("batch_size = 8", "batch_size = 4")
    wider = [("nn.Linear(6, 16)", "nn.Linear(6, 32)"), ("nn.Linear(16, 2)", "nn.Linear(32, 2)")]
    changed = write_study(tmp_path, replace=[smaller, *wider])
    refused = tuner("launch", changed, "--round", 1)
    assert refused.code == 2
    assert "batch_size" in refused.err, "a declared change is named by its key"
    refused = tuner("launch", write_study(tmp_path, replace=wider), "--round", 1)
    assert "(architecture changed; the study file: method Tiny.model changed)" in refused.err
    changed = write_study(tmp_path, replace=[smaller, *wider])
    launched = tuner("launch", changed, "--round", 2)
    assert launched.code == 0, launched.err
    assert "note: stale budget. The budget of round-2 was chosen from round-1" in launched.err
    assert "batch_size was 8, now 4; architecture changed" in launched.err
    findings = json.loads(tuner("check", "tiny", "--round", 2, "-f", "json").out)["findings"]
    stale = [finding for finding in findings if finding["question"] == "stale_budget"]
    assert [row["part"] for row in stale[0]["evidence"]] == ["batch_size", "architecture"]
    first = json.loads(tuner("check", "tiny", "--round", 1, "-f", "json").out)["findings"]
    assert not [finding for finding in first if finding["question"] == "stale_budget"]
