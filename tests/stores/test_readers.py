"""Everything that reads checkpoints, or has a loop write files, where the checkpoints are in a bucket."""

import tempfile

import pytest
from support.loop_files import LOOP
from support.stage_files import write_stages
from support.study_files import write_study

from tuner.stores import uploads
from tuner.stores.places import files_below, parsed_root

pytestmark = [pytest.mark.usefixtures("object_store"), pytest.mark.slow]


def places(request):
    """Where each of two storages has its checkpoints."""
    return {"folder.sqlite": "folder", "bucket.sqlite": f"s3://place/{request.node.name}"}


def test_stages_start_from_weights_in_a_bucket(tuner, tmp_path, request):
    write_stages(tmp_path)
    exported = []
    for storage, root in places(request).items():
        for stage in ("pre", "staged-branch"):
            run = tuner("launch", f"staged.py:{stage}", "--storage", storage, "--checkpoints", root, "-q")
            assert run.code == 0, run.err
            assert tuner("verify", stage, "--storage", storage).code == 0
        file = tmp_path / f"{storage}.safetensors"
        run = tuner("best", "staged.py:staged-branch", "--storage", storage, "--export", file)
        assert run.code == 0, run.err
        exported.append(file.read_bytes())
    assert exported[0] == exported[1]
    started = files_below(parsed_root(places(request)["bucket.sqlite"]) / "starts")
    assert len(started) == 1
    started[0].store.replace(started[0].key, b"changed by hand")
    run = tuner("verify", "staged-branch", "--storage", "bucket.sqlite")
    assert (run.code, "which its trials start from" in run.out.replace("\n", " ")) == (3, True)
    run = tuner("launch", "staged.py:staged-branch", "--storage", "bucket.sqlite", "-q")  # it is copied again
    assert run.code == 0, run.err
    assert tuner("verify", "staged-branch", "--storage", "bucket.sqlite").code == 0


def test_the_mean_of_the_best_and_the_test_score_read_from_a_bucket(tuner, tmp_path, request):
    splits = "return Splits(training=(x[:50], y[:50]), validation=(x[50:], y[50:]))"
    tested = (splits, f"{splits[:-1]}, test=(x[50:], y[50:]))")
    write_study(tmp_path, trials=2, steps=40, more="keep_best=3,", replace=[tested])
    exported = []
    for storage, root in places(request).items():
        run = tuner("launch", "tiny.py", "--storage", storage, "--checkpoints", root, "-q")
        assert run.code == 0, run.err
        file = tmp_path / f"{storage}.safetensors"
        run = tuner("best", "tiny.py", "--storage", storage, "--export", file, "--average")
        assert run.code == 0, run.err
        exported.append(file.read_bytes())
        assert tuner("adopt", "tiny.py", "1", "--round", "1", "--storage", storage).code in (0, 2, 3)
    assert exported[0] == exported[1]


def test_a_loop_keeps_its_files_in_the_bucket_and_writes_its_own_on_this_machine(
    tuner, tmp_path, request, caplog, monkeypatch
):
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # where no earlier run has left files of the same address
    monkeypatch.setattr(tempfile, "tempdir", None)
    (tmp_path / "mine.py").write_text(LOOP)
    root = parsed_root(places(request)["bucket.sqlite"])
    run = tuner("launch", "mine.py", "--checkpoints", root)
    assert run.code == 0, run.err
    assert "stays on this machine" in run.err + caplog.text
    assert {path.name.partition("-")[0] for path in files_below(root)} >= {"best", "latest"}
    assert [path.name for path in files_below(root) if path.name == "notes.txt"] == []
    assert list(uploads.spool_folder().glob("files/*/trial-00000/files/notes.txt"))
    run = tuner("best", "mine.py", "--export", "mine.safetensors")
    assert run.code == 0, run.err
    assert tuner("verify", "mine.py").code == 0
