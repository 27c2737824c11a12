"""Campaigns that go on where more or less fits into memory: a campaign keeps the size of its slices."""

import pytest
from support.records import rows
from support.shell import tuner
from support.study_files import write_study

__all__ = ["tuner"]
BATCH = "    batch_size = 8\n"
CURVES = (
    "select t.number, m.step, m.value from measurement m join trial t on t.id = m.trial_id join study s on s.id = "
    "t.study_id where s.name = '{}' order by 1, 2, m.metric_id"
)


def study_with(folder, words):
    return write_study(folder, trials=2, steps=20, replace=[(BATCH, f"{BATCH}    {words}\n")])


def launched(tuner, folder, words, *more):
    folder.mkdir(exist_ok=True)
    return tuner("launch", study_with(folder, words), "--fuse", "off", "--storage", folder / "runs/tuner.sqlite", *more)


def curves(folder, name="round-1"):
    return rows(folder, CURVES.format(name))


@pytest.mark.slow
def test_a_campaign_goes_on_with_its_slices_on_a_larger_machine(tuner, tmp_path):
    first = launched(tuner, tmp_path, "micro_batch_size = 2")
    assert first.code == 0, first.err
    again = launched(tuner, tmp_path, "micro_batch_size = 4", "--round", "2")
    assert again.code == 0, again.err
    without = launched(tuner, tmp_path, "micro_batch_size = None", "--round", "2")
    assert without.code == 0, without.err
    kept = launched(tuner, tmp_path / "kept", "micro_batch_size = 2", "--round", "1")
    assert launched(tuner, tmp_path / "kept", "micro_batch_size = 2", "--round", "2").code == 0, kept.err
    assert curves(tmp_path) == curves(tmp_path / "kept")
    assert curves(tmp_path, "round-2") == curves(tmp_path / "kept", "round-2")


def test_a_smaller_machine_goes_on_where_slices_were_declared(tuner, tmp_path):
    assert launched(tuner, tmp_path, "slices, micro_batch_size = 4, 8").code == 0
    smaller = launched(tuner, tmp_path, "slices, micro_batch_size = 4, 2", "--round", "2")
    assert smaller.code == 0, smaller.err
    planned = tuner("launch", study_with(tmp_path, "slices = 4"), "--dry-run", "--storage", tmp_path / "x.sqlite")
    assert "round-1: each batch is computed in 4 slices of 2 examples" in " ".join(planned.err.split())


@pytest.mark.parametrize(
    ("before", "begun"),
    [("micro_batch_size = 4", "slices of 4 examples"), ("micro_batch_size = None", "whole batches of 8 examples")],
)
def test_less_than_a_slice_at_a_time_is_refused_with_the_way_out(tuner, tmp_path, before, begun):
    assert launched(tuner, tmp_path, before).code == 0
    larger = launched(tuner, tmp_path, "micro_batch_size = 8")
    assert larger.code == 0, larger.err
    refused = launched(tuner, tmp_path, "micro_batch_size = 2", "--round", "2")
    assert refused.code == 2
    said = " ".join(refused.err.split())
    assert f"computes {begun}, and micro_batch_size = 2 is no multiple of that" in said
    assert "its class says slices = 4 from the beginning" in said
    assert "round-2" not in [name for (name,) in rows(tmp_path, "select name from study")]


@pytest.mark.slow
@pytest.mark.parametrize("more", [("--fuse", "2"), ("--fuse", "off", "--workers", "2")])
def test_trials_together_and_in_several_processes_have_the_same_curves(tuner, tmp_path, more):
    for folder, options in ((tmp_path / "alone", ("--fuse", "off")), (tmp_path / "together", more)):
        folder.mkdir()
        study = study_with(folder, "slices = 4")
        ran = tuner("launch", study, *options, "--storage", folder / "runs/tuner.sqlite")
        assert ran.code == 0, ran.err
    assert curves(tmp_path / "together") == curves(tmp_path / "alone")
