"""A study with parameter groups through the program: launched, shown, changed, replayed, promoted, trained longer."""

import csv
import io
import json

import pytest
from support.records import rows
from support.study_files import write_study

GROUPS = """no_decay = "vectors"

    def parameter_groups(self, model, point):
        return [matching("3.*", rate=point["head_rate"], decay=0.5)]

    def loss("""
SPACE = ('dropout=uniform(0.0, 0.5, limits="low")', "dropout=0.1, head_rate=log_uniform(0.1, 10.0), weight_decay=0.01")


@pytest.fixture
def write(tmp_path):
    def make(groups=GROUPS, **options):
        options = {"trials": 2, "steps": 20, "more": 'regime="not_compute_bound",'} | options
        return write_study(tmp_path, replace=(("def loss(", groups), SPACE), **options)

    return make


def groups_of(tuner, number, study="tiny"):
    """Trial to (point, groups) as `tuner trials` gives them to programs."""
    found = json.loads(tuner("trials", study, "--round", number, "-f", "json").out)
    return {one["trial"]: (one, one["parameter_groups"]) for one in found}


def test_what_each_group_got_is_recorded_and_shown(tuner, write):
    assert tuner("launch", write()).code == 0
    for point, groups in groups_of(tuner, 1).values():
        head = point["head_rate"]
        assert [(one["name"], one["rate"], one["decay"], one["num_values"]) for one in groups] == [
            ("3.*", head, 0.5, 32), ("3.*, vectors", head, 0.0, 2),
            ("all others", 1.0, 1.0, 96), ("all others, vectors", 1.0, 0.0, 16),
        ]  # fmt: skip
        assert [one["parameters"] for one in groups] == [["3.weight"], ["3.bias"], ["0.weight"], ["0.bias"]]
    shown = tuner("trials", "tiny")
    rate = groups_of(tuner, 1)[0][0]["head_rate"]
    assert "trial 0 has 4 parameter groups, with multiples of the learning rate and of weight_decay:" in shown.err
    assert f"  3.*: rate {rate:.4g}, decay 0.5; 32 parameters in 1 tensor: 3.weight" in shown.err
    (first, _) = csv.DictReader(io.StringIO(tuner("trials", "tiny", "-f", "csv").out))
    assert first["parameter_groups"].endswith("all others: rate 1, decay 1; all others, vectors: rate 1, decay 0")


def test_a_study_without_groups_shows_none(tuner, tmp_path):
    assert tuner("launch", write_study(tmp_path, trials=2, steps=20)).code == 0
    assert "group" not in tuner("trials", "tiny").err
    assert [groups for _, groups in groups_of(tuner, 1).values()] == [[], []]
    assert rows(tmp_path, "select distinct parameter_groups from trial") == [("[]",)]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("decay=0.5", "decay=0.25", "method Tiny.parameter_groups changed"),
        ('"3.*"', '"3.weight"', "method Tiny.parameter_groups changed"),
        ('no_decay = "vectors"', "no_decay = None", "class Tiny changed"),
    ],
)
def test_changed_groups_are_another_workload(old, new, told, tuner, write, tmp_path):
    assert tuner("launch", write()).code == 0
    assert old in GROUPS
    refused = tuner("launch", write(GROUPS.replace(old, new), trials=3))
    assert refused.code == 2
    assert f"the study file: {told}" in refused.err, refused.err
    assert rows(tmp_path, "select count(*) from trial") == [(2,)]


HELPED = GROUPS.replace('[matching("3.*"', '[__import__("import" + "lib").import_module("hel" + "per").chosen("3.*"')


def test_code_that_only_the_groups_run_is_part_of_the_study(tuner, write, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    helper = tmp_path / "helper.py"
    helper.write_text(
        "from tuner import matching\n\n\ndef chosen(pattern, **more):\n    return matching(pattern, **more)\n"
    )
    assert tuner("launch", write(HELPED)).code == 0
    assert "helper.py" in json.loads(rows(tmp_path, "select identity from study")[0][0])["code"]


def test_groups_go_along_to_longer_rounds_to_a_budget_curve_and_to_a_replay(tuner, write, tmp_path):
    study = write()
    assert tuner("launch", study).code == 0
    assert tuner("launch", study, "--round", 2, "--max-train-steps", 40).code == 0
    first, second = groups_of(tuner, 1), groups_of(tuner, 2)
    by_rate = {point["head_rate"]: groups for point, groups in first.values()}
    assert {point["head_rate"] for point, _ in second.values()} <= set(by_rate)
    assert all(groups == by_rate[point["head_rate"]] for point, groups in second.values())
    replayed = tuner("replay", study, "--round", 2, "--trial", 0)
    assert (replayed.code, "0 differ" in replayed.out) == (0, True)
    curve = tuner("budget-curve", study, "--lengths", "30,40,60")
    assert curve.code in (0, 1), curve.err
    kept = rows(tmp_path, "select distinct parameter_groups from trial join study on study.id = study_id "
                "where step in (30, 60)")  # fmt: skip
    assert [json.loads(text)[0]["rate"] for (text,) in kept] == [json.loads(kept[0][0])[0]["rate"]]
    assert json.loads(kept[0][0])[0]["rate"] in by_rate
    saved = rows(tmp_path, "select max(inherited_steps) from trial where step in (30, 60)")
    assert saved[0][0] > 0, "the lengths share their first steps"


def test_a_misspelt_pattern_is_one_error_before_anything_is_trained(tuner, write, tmp_path):
    refused = tuner("launch", write(GROUPS.replace("3.*", "hed.*")))
    assert refused.code == 2
    assert 'Tiny.parameter_groups: matching("hed.*"): no parameter of the model matches' in refused.err
    assert "Traceback" not in refused.err
    assert rows(tmp_path, "select count(*) from trial where state <> 'waiting'") in ([(0,)], [])
