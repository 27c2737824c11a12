"""A study whose checkpoints are in a bucket: the bits of one in a folder, alone, resumed, by workers, exported."""

import json
import sqlite3

import pytest
from storage.proxy import Proxy
from support.patience import wait_for
from support.processes import started, told
from support.records import rows
from support.study_files import write_study

from tuner.storage.store import open_ledger
from tuner.stores import buckets, uploads
from tuner.stores.places import files_below, parsed_root
from tuner.training.checkpoints import canonical_digest, read_state, read_weights

pytestmark = pytest.mark.usefixtures("object_store")
STUDY = {"trials": 2, "steps": 20}


def kept(storage, root):
    """What every checkpoint of a storage holds, by trial, kind and step."""
    with open_ledger(str(storage), create=False) as ledger:
        (row,) = ledger.studies("tiny")
        records = ledger.trials(row.study_id)
    read = {"best": read_weights, "latest": read_state, "trunk": read_state}
    return {
        (record.number, one.kind, one.step): canonical_digest(read[one.kind](root, one))
        for record in records
        for one in record.checkpoints
    }


def address(request):
    return f"s3://place/{request.node.name}"


def test_it_has_the_bits_of_one_in_a_folder_and_everything_reads_it(tuner, tmp_path, request):
    write_study(tmp_path, **STUDY)
    there = address(request)
    assert tuner("launch", "tiny.py", "--storage", "folder.sqlite", "--checkpoints", "folder").code == 0
    run = tuner("launch", "tiny.py", "--storage", "bucket.sqlite", "--checkpoints", there)
    assert run.code == 0, run.err
    in_folder = kept(tmp_path / "folder.sqlite", tmp_path / "folder")
    assert kept(tmp_path / "bucket.sqlite", parsed_root(there)) == in_folder
    assert len(in_folder) >= 4
    # From now on nobody has to name the place: the storage does.
    here = ("--storage", "bucket.sqlite")
    assert tuner("launch", "tiny.py", *here).code == 0
    assert tuner("verify", "tiny.py", *here).code == 0
    for name, storage in (("one", "folder.sqlite"), ("other", "bucket.sqlite")):
        run = tuner("best", "tiny.py", "--storage", storage, "--export", f"{name}.safetensors")
        assert run.code == 0, run.err
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "other.safetensors").read_bytes()
    run = tuner("replay", "tiny.py", "--round", "1", "--trial", "1", *here)
    assert run.code == 0, run.err
    assert not (tmp_path / "checkpoints").exists()
    assert not list(uploads.spool_folder().glob("*.part"))


@pytest.mark.slow
def test_strays_are_swept_and_those_of_others_are_put_aside(tuner, tmp_path, request):
    write_study(tmp_path, **STUDY)
    root = parsed_root(address(request))
    assert tuner("launch", "tiny.py", "--checkpoints", root).code == 0
    whole = files_below(root)
    trial = root / "tiny/round-1/trial-00000"
    stray, foreign = trial / "latest-000000007-1.pt", trial / "latest-000000007-9.pt"
    stray.store.create_from(stray.key, b"left by a killed worker")
    run = tuner("verify", "tiny.py")
    assert (run.code, "belongs to no trial" in run.out.replace("\n", " ")) == (3, True)
    assert tuner("launch", "tiny.py").code == 0
    assert files_below(root) == whole
    foreign.store.create_from(foreign.key, b"a backup was put back")
    run = tuner("verify", "tiny.py", "--repair")
    assert (run.code, "older than its checkpoint folder" in run.err) == (2, True)
    foreign.unlink()
    stray.store.create_from(stray.key, b"left by a killed worker")
    run = tuner("verify", "tiny.py", "--repair")
    assert run.code == 0, run.err
    assert "moved to" in run.out + run.err
    assert [path.name for path in files_below(root / ".trash")] == [stray.name]


@pytest.mark.slow
def test_a_damaged_state_is_found_by_verify(tuner, tmp_path, request):
    write_study(tmp_path, **STUDY)
    root = parsed_root(address(request))
    assert tuner("launch", "tiny.py", "--checkpoints", root).code == 0
    damaged, gone = (path for path in files_below(root) if path.name.startswith("best"))
    damaged.store.replace(damaged.key, damaged.read_bytes()[:-1] + b"!")
    gone.unlink()
    run = tuner("verify", "tiny.py")
    assert run.code == 3
    assert "is damaged: its sha256 is not the recorded one" in run.out.replace("\n", " ")
    assert "is missing" in run.out


@pytest.mark.slow
def test_a_place_belongs_to_one_storage_and_a_copy_can_adopt_its_files(tuner, tmp_path, request):
    write_study(tmp_path, **STUDY)
    there = address(request)
    assert tuner("launch", "tiny.py", "--checkpoints", there).code == 0
    run = tuner("launch", "tiny.py", "--storage", "other.sqlite", "--checkpoints", there)
    assert run.code == 2
    assert f"the checkpoint folder {there} belongs to the storage" in run.err
    copied = ("--storage", "copy.sqlite")
    assert tuner("backup", "copy.sqlite").code == 0
    run = tuner("launch", "tiny.py", *copied)
    assert (run.code, "tuner adopt-storage" in run.err) == (2, True)
    assert tuner("verify", "tiny.py", *copied).code == 0  # a copy can be read
    run = tuner("adopt-storage", *copied, "--checkpoints", f"{there}-copy", "--from", there, "--yes")
    assert run.code == 0, run.err
    assert tuner("verify", "tiny.py", *copied).code == 0
    assert len(files_below(parsed_root(f"{there}-copy"))) == len(files_below(parsed_root(there)))
    assert tuner("launch", "tiny.py").code == 0  # the original goes on


@pytest.mark.parametrize(
    ("bucket", "code", "words"),
    [("nobody-made-it", 2, "NoSuchBucket"), ("readonly", 2, "AccessDenied"), ("forgetful", 2, "overwrites objects"),
     ("down", 75, "503 Service Unavailable")],
)  # fmt: skip
def test_a_bucket_that_cannot_be_used_is_one_error_before_training(bucket, code, words, tuner, tmp_path):
    write_study(tmp_path, **STUDY)
    run = tuner("launch", "tiny.py", "--checkpoints", f"s3://{bucket}/place")
    assert run.code == code
    assert words in run.err
    assert "Traceback" not in run.err
    with sqlite3.connect(tmp_path / "runs/tuner.sqlite") as connection:
        assert connection.execute("select count(*) from trial where attempt > 0").fetchall() == [(0,)]
        assert "nobody" not in json.dumps(connection.execute("select checkpoints from storage").fetchall())
    connection.close()


@pytest.mark.slow
def test_a_quota_deletes_objects(tuner, tmp_path, request):
    write_study(tmp_path, **STUDY)
    root = parsed_root(address(request))
    run = tuner("launch", "tiny.py", "--checkpoints", root, "--keep-checkpoints", "1kB")
    assert run.code == 0, run.err
    with sqlite3.connect(tmp_path / "runs/tuner.sqlite") as connection:
        names = {path for (path,) in connection.execute("select path from checkpoint_file")}
    connection.close()
    there = {str(path.relative_to(root)) for path in files_below(root)} - {".tuner-storage.json"}
    assert there == names
    assert tuner("verify", "tiny.py").code == 0


GOES_AWAY = """calls.append(0)
        if len(calls) == 25 and not Path("went").exists():
            Path("went").touch()
            Path({!r}).touch()
        {}"""
LOSS = "return F.cross_entropy(model(batch[0]), batch[1])"


def write_leaving(folder, flag):
    """A study whose 25th loss, once, makes the store go away."""
    imports = ("import torch\n", "import torch\nfrom pathlib import Path\n")
    counted = ("class Tiny(", "calls = []\n\n\nclass Tiny(")
    return write_study(folder, **STUDY, replace=[(LOSS, GOES_AWAY.format(str(flag), LOSS)), imports, counted])


def test_a_store_that_goes_away_is_a_pause_and_the_same_command_goes_on(
    tuner, tmp_path, request, object_store, monkeypatch
):
    write_leaving(tmp_path, object_store.away)
    monkeypatch.setattr(buckets, "RETRY_SECONDS", 0.5)
    root = parsed_root(address(request))
    try:
        run = tuner("launch", "tiny.py", "--checkpoints", root)
    finally:
        object_store.away.unlink(missing_ok=True)
    assert (run.code, "503 Service Unavailable" in run.err, "Traceback" in run.err) == (75, True, False), run.err
    with sqlite3.connect(tmp_path / "runs/tuner.sqlite") as connection:
        states = {state for (state,) in connection.execute("select state from trial")}
    connection.close()
    assert states <= {"waiting", "complete"}
    run = tuner("launch", "tiny.py")
    assert run.code == 0, run.err
    assert tuner("verify", "tiny.py").code == 0
    assert tuner("launch", "tiny.py", "--storage", "folder.sqlite", "--checkpoints", "folder").code == 0
    assert kept(tmp_path / "runs/tuner.sqlite", root) == kept(tmp_path / "folder.sqlite", tmp_path / "folder")


def test_two_workers_train_into_it(tuner, tmp_path, request):
    write_study(tmp_path, **STUDY)
    there = address(request)
    run = tuner("launch", "tiny.py", "--storage", "workers.sqlite", "--checkpoints", there, "--workers", 2)
    assert run.code == 0, run.err
    assert tuner("launch", "tiny.py", "--storage", "alone.sqlite", "--checkpoints", "folder").code == 0
    in_folder = kept(tmp_path / "alone.sqlite", tmp_path / "folder")
    assert kept(tmp_path / "workers.sqlite", parsed_root(there)) == in_folder


HOLDS = """calls.append(0)
        folder = Path(__file__).parent
        if len(calls) == 30 and not (folder / "away").exists():
            (folder / "holds").touch()
            while not (folder / "away").exists():
                time.sleep(0.01)
        {}"""
IMPATIENT = "\nfrom tuner.stores import buckets\n\nbuckets.RETRY_SECONDS = 0.5\n"


def held(folder, there, more=""):
    """A launch of two workers, one of which waits in the middle of a trial until there is a file `away`."""
    imports = ("import torch\n", f"import time\nimport torch\nfrom pathlib import Path\n{more}")
    counted = ("class Tiny(", "calls = []\n\n\nclass Tiny(")
    write_study(folder, trials=4, steps=60, replace=[(LOSS, HOLDS.format(LOSS)), imports, counted])
    launch = started(folder, *WORKERS, "--checkpoints", there)
    wait_for(lambda: (folder / "holds").exists(), alive=[launch])
    return launch


WORKERS = ("launch", "tiny.py", "--workers", 2, "--fuse", "off")


def same_as_in_a_folder(folder, tuner, there):
    """Whether everything is complete, whole, and as in a folder."""
    assert tuner("verify", "tiny.py").code == 0
    assert rows(folder, "select state, count(*), max(attempt) from trial group by state") == [("complete", 4, 1)]
    alone = ("--storage", "folder.sqlite", "--checkpoints", "folder", "--fuse", "off")
    assert tuner("launch", "tiny.py", *alone).code == 0
    assert kept(folder / "runs/tuner.sqlite", parsed_root(there)) == kept(folder / "folder.sqlite", folder / "folder")


@pytest.mark.slow
@pytest.mark.parametrize("way", ["refuses", "is gone"])
def test_a_store_that_stays_away_from_two_workers_is_a_pause(way, tuner, tmp_path, request, object_store, monkeypatch):
    port = int(object_store.url.rpartition(":")[2])
    doors = [Proxy(port)]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{doors[0].port}")
    there = address(request).replace("[", "-").replace("]", "").replace(" ", "-")
    launch = held(tmp_path, there, IMPATIENT)
    try:
        object_store.away.touch() if way == "refuses" else doors[0].close()
        (tmp_path / "away").touch()
        code, err = told(launch)
        assert (code, "Traceback" in err) == (75, False), err
        words = "503 Service Unavailable" if way == "refuses" else "does not answer as it should"
        assert f"s3://place/{there.rpartition('/')[2]}" in err, err
        assert words in err, err
        assert "run the same command again" in err, err
        assert rows(tmp_path, "select max(attempt) from trial where state = 'waiting'") == [(0,)]
        assert rows(tmp_path, "select count(*) from trial where state not in ('waiting', 'complete')") == [(0,)]
        code, err = told(started(tmp_path, *WORKERS))
        assert (code, "Traceback" in err, "run the same command again" in err) == (75, False, True), err
        object_store.away.unlink(missing_ok=True)
        doors += [Proxy(port, at=doors[0].port)] if way == "is gone" else []
        code, err = told(started(tmp_path, *WORKERS))
        assert code == 0, err
        same_as_in_a_folder(tmp_path, tuner, there)
    finally:
        object_store.away.unlink(missing_ok=True)
        for door in doors:
            door.close()


@pytest.mark.slow
def test_a_store_that_comes_back_is_waited_for_by_two_workers(tuner, tmp_path, request, object_store):
    there = address(request)
    launch = held(tmp_path, there)
    try:
        object_store.away.touch()
        (tmp_path / "away").touch()
        wait_for(lambda: object_store.away.stat().st_size > 2, alive=[launch])
    finally:
        object_store.away.unlink(missing_ok=True)
    code, err = told(launch)
    assert code == 0, err
    same_as_in_a_folder(tmp_path, tuner, there)
