"""`--fuse`: trials trained together from the shell, with the records of trials trained one by one."""

import json

import pytest
import torch
from support.records import CURVES, rows
from support.study_files import write_study

from tuner.errors import StudyChanged
from tuner.execution.in_process import check_profile
from tuner.storage.store import open_ledger
from tuner.training.engine import Fusion
from tuner.training.supervisor import Supervisor


@pytest.mark.parametrize("fuse", ["3", "auto"])
def test_fused_trials_leave_the_records_of_single_ones(fuse, tuner, tmp_path, monkeypatch):
    for folder, option in (("together", fuse), ("alone", "off")):
        place = tmp_path / folder
        place.mkdir()
        monkeypatch.chdir(place)
        run = tuner("launch", write_study(place), "--fuse", option)
        assert run.code == 0, run.err
        assert run.err.count("complete, best validation/loss") == 4
        assert ("trials were trained 3 at a time as one model" in run.err) == (option == "3")
    assert rows(tmp_path / "together", CURVES) == rows(tmp_path / "alone", CURVES)
    kept = rows(tmp_path / "together", "select count(*) from conclusion where kind = 'fusion'")
    assert kept == [(int(fuse != "auto"),)], "a study too short for a probe is trained as if nothing was asked for"


def test_a_group_that_runs_out_of_memory_goes_on_as_smaller_ones(tuner, tmp_path, monkeypatch, caplog):
    alone, halved = tmp_path / "alone", tmp_path / "halved"
    whole = Supervisor.train

    def train(self, claims):
        if len(claims) > 1:
            whole(self, claims[:1])  # something is trained and committed before the memory ends
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return whole(self, claims)

    for place in (alone, halved):
        place.mkdir()
        monkeypatch.chdir(place)
        if place == halved:
            monkeypatch.setattr(Supervisor, "train", train)
        run = tuner("launch", write_study(place), "--fuse", "off" if place == alone else "4")
        assert run.code == 0, run.err
    said = [record.getMessage() for record in caplog.records if "memory" in record.getMessage()]
    assert [one.partition(": ")[0] for one in said] == [
        "4 trials together ran out of memory; training 2",
        "2 trials together ran out of memory; training 1",
    ]
    assert all("a trial needs about" in one and one.endswith(" free") for one in said)
    assert rows(alone, CURVES) == rows(halved, CURVES)


def test_what_was_checked_is_kept_in_the_ledger(tuner, tmp_path):
    tuner("launch", write_study(tmp_path), "--fuse", "4")
    ((data,),) = rows(tmp_path, "select data from conclusion where kind = 'fusion'")
    (told,) = json.loads(data).values()
    assert (told["trials"], told["self_check"]) == (4, "identical")
    assert told["ways"]["linear"] in ("rule", "loop")


def test_a_dry_run_lists_how_each_operation_would_run(tuner, tmp_path):
    run = tuner("launch", write_study(tmp_path), "--dry-run", "-v")
    assert run.code == 0, run.err
    assert "cross_entropy" in run.out
    assert "can be fused (the same bits as each trial alone)" in run.err


@pytest.mark.parametrize("value", ["0", "many", "-2", "99999"])
def test_a_wrong_number_of_trials_is_an_error_that_says_what_is_right(value, tuner, tmp_path):
    run = tuner("launch", write_study(tmp_path), f"--fuse={value}")
    assert run.code == 2
    assert f"off, auto or a number of trials from 1 to 1024, got '{value}'" in run.err


def test_a_model_that_cannot_be_fused_is_an_error_that_names_the_operation(tuner, tmp_path):
    branch = (
        "return F.cross_entropy(model",
        "return (1.0 if model(batch[0]).sum() > 0 else 2.0) * F.cross_entropy(model",
    )
    study = write_study(tmp_path, replace=[branch])
    refused = tuner("launch", study, "--fuse", "2")
    assert refused.code == 2
    assert "__bool__: the code branches on the value of a tensor that differs between trials" in refused.err
    assert "--fuse auto" in refused.err
    alone = tuner("launch", study, "--fuse", "auto")
    assert alone.code == 0, alone.err


def test_a_short_study_with_workers_auto_is_trained_in_this_process(tuner, tmp_path):
    run = tuner("launch", write_study(tmp_path), "--workers", "auto")
    assert run.code == 0, run.err
    assert run.err.count("complete, best validation/loss") == 4


@pytest.mark.parametrize("value", ["0", "many", "-3", "1000"])
def test_a_wrong_number_of_workers_is_an_error_that_says_what_is_right(value, tuner, tmp_path):
    run = tuner("launch", write_study(tmp_path), f"--workers={value}")
    assert run.code == 2
    assert f"--workers is auto or a number of processes from 1 to 256, got '{value}'" in run.err


def test_of_two_who_begin_at_once_with_two_profiles_the_second_is_refused(tuner, tmp_path):
    """Nothing has begun, so only what the first concluded tells; an exact one concluded nothing before."""
    study = write_study(tmp_path, steps=20)
    assert tuner("launch", study, "--fuse", "off").code == 0
    with open_ledger(str(tmp_path / "runs" / "tuner.sqlite")) as ledger:
        row = ledger.study("tiny", "round-1")
        with ledger._database.writing() as connection:
            connection.exec_driver_sql("update trial set state = 'waiting', finished = null")
        with pytest.raises(StudyChanged, match="was begun with --profile exact"):
            check_profile(ledger, row, "fast")


def test_trials_of_two_profiles_are_not_mixed(tuner, tmp_path):
    study = write_study(tmp_path)
    assert tuner("launch", study, "--fuse", "2", "--profile", "fast").code == 0
    ((told,),) = rows(tmp_path, "select distinct numerics from trial")
    assert '"engine": "fast"' in told
    assert '"exact": false' in told
    more = tuner("launch", write_study(tmp_path, trials=6), "--fuse", "2")
    assert more.code == 2
    assert "was begun with --profile fast" in more.err
    assert tuner("launch", study, "--fuse", "2", "--profile", "fast").code == 0


def test_what_a_probe_found_is_used_by_later_studies(tuner, tmp_path, monkeypatch):
    study = write_study(tmp_path, steps=500, trials=4)
    found = Fusion(2, "twice as fast", seconds=1e-4, probed=True)
    monkeypatch.setattr("tuner.execution.fusing.best_fusion", lambda *rest, **named: found)
    assert tuner("launch", study, "--fuse", "auto").code == 0
    told = [json.loads(data) for (data,) in rows(tmp_path, "select data from conclusion where kind = 'fusion'")]
    monkeypatch.setattr("tuner.execution.fusing.best_fusion", lambda *rest, **named: pytest.fail("probed twice"))
    again = tuner("launch", study, "--round", "2", "--fuse", "auto")
    assert again.code == 0, again.err
    assert {one["trials"] for group in told for one in group.values()} == {2}
