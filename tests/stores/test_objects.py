"""Objects in a bucket: there whole or not at all, never overwritten, and what is wrong with a store is said at once."""

import errno
import hashlib
import importlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
import torch
from support.object_store import SECRET

from tuner import system
from tuner.errors import CorruptCheckpoint, Paused, StorageError
from tuner.records.conclusions import Selected, StageStart
from tuner.stores import buckets, contact, tidying, uploads
from tuner.stores.buckets import Bucket, StoreFault
from tuner.stores.contact import check_writable, ensure_reachable
from tuner.stores.places import OWNER_FILE, files_below, files_in, parsed_root, sha256_of
from tuner.stores.writing import write_durably
from tuner.training.checkpoints import CheckpointFolder, read_state
from tuner.training.inherited import StartWeights

pytestmark = pytest.mark.usefixtures("object_store")


@pytest.fixture
def root(request):
    return parsed_root(f"s3://place/{request.node.name[:40].replace('[', '-').replace(']', '')}")


def content(text):
    return lambda file: file.write(text)


def test_what_is_written_is_read_and_digested(root):
    written = write_durably(root / "a/b.pt", content(b"some bytes"))
    assert written.digest == hashlib.sha256(b"some bytes").hexdigest() == sha256_of(root / "a/b.pt")
    assert written.num_bytes == (root / "a/b.pt").stat().st_size == 10
    assert (root / "a/b.pt").read_bytes() == b"some bytes"
    assert files_below(root) == [root / "a/b.pt"]
    assert not list(uploads.spool_folder().glob("*.part"))


def test_an_object_is_never_overwritten_and_the_same_content_twice_is_one(root):
    write_durably(root / "x", content(b"first"))
    write_durably(root / "x", content(b"first"))  # an answer that was lost: the client asks again
    with pytest.raises(Paused, match=r"s3://place/\S+/x is there already"):
        write_durably(root / "x", content(b"other"))
    assert (root / "x").read_bytes() == b"first"
    write_durably(root / "x", content(b"other"), replace=True)
    assert (root / "x").read_bytes() == b"other"


def test_a_lost_answer_is_no_error():
    root = parsed_root("s3://lossy/answers")
    write_durably(root / "x", content(b"first"))
    assert (root / "x").read_bytes() == b"first"


def test_large_objects_go_in_parts_and_are_not_overwritten_either(root, monkeypatch, object_store):
    monkeypatch.setattr(buckets, "AT_ONCE", 1 << 20)
    monkeypatch.setattr(buckets, "PART", 5 << 20)
    large = os.urandom(11 << 20)
    written = write_durably(root / "large", content(large))
    assert (written.num_bytes, written.digest) == (len(large), sha256_of(root / "large"))
    assert (root / "large").read_bytes() == large  # by several requests: none may last longer than its limit
    with pytest.raises(Paused, match="is there already"):
        write_durably(root / "large", content(large[1:]))
    assert sha256_of(root / "large") == written.digest
    write_durably(root / "large", content(large[1:]), replace=True)
    assert (root / "large").stat().st_size == len(large) - 1
    assert b"<UploadId>" not in object_store.request("GET", "place?uploads")


def test_a_serializer_that_fails_leaves_nothing(root):
    def fails(file):
        file.write(b"half of")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        write_durably(root / "x", fails)
    assert files_below(root) == []
    assert not list(uploads.spool_folder().glob("*.part"))


def test_lists_of_several_pages_are_whole_and_many_are_removed_at_once(root):
    for number in range(23):  # the server gives ten at a time
        write_durably(root / f"deep/{number:05d}", content(b"x"))
    write_durably(root / "top", content(b"x"))
    assert [path.name for path in files_below(root)] == [*(f"{number:05d}" for number in range(23)), "top"]
    assert list(files_in(root)) == [root / "top"]
    root.store.remove([f"{root.key}/deep/{number:05d}" for number in range(1200)])
    assert files_below(root) == [root / "top"]
    (root / "top").rename(root / "aside/top")
    assert files_below(root) == [root / "aside/top"]


def test_what_is_missing_is_missing_as_a_file_is(root):
    assert not (root / "x").is_file()
    assert not root.is_dir()
    assert not root.exists()
    for ask in ((root / "x").read_bytes, (root / "x").stat, (root / "x").unlink):
        with pytest.raises(FileNotFoundError, match=r"s3://place/\S+/x"):
            ask()
    (root / "x").unlink(missing_ok=True)


def test_a_checkpoint_that_somebody_changed_or_deleted_is_found(root):
    folder = CheckpointFolder(root, "study/trial-00000", 1)
    kept = folder.write_state("latest", 7, {"weights": torch.arange(3.0)}, None)
    assert torch.equal(read_state(root, kept)["weights"], torch.arange(3.0))
    whole = (root / kept.file).read_bytes()
    root.store.replace(f"{root.key}/{kept.file}", whole[:-1] + b"!")
    with pytest.raises(CorruptCheckpoint, match="is damaged: sha256"):
        read_state(root, kept)
    (root / kept.file).unlink()
    with pytest.raises(CorruptCheckpoint, match="recorded but missing"):
        read_state(root, kept)


def test_a_sweep_takes_what_older_fences_left_and_nothing_else(root):
    mine, successor = (CheckpointFolder(root, "study/trial-00000", fence) for fence in (2, 3))
    old = CheckpointFolder(root, "study/trial-00000", 1).write_state("latest", 1, {}, None)
    kept, later = mine.write_state("latest", 2, {}, None), successor.write_state("latest", 2, {}, None)
    write_durably(root / "study/trial-00000/notes.txt", content(b"mine"))
    mine.sweep({kept.file})
    left = {path.name for path in files_below(root)}
    assert left == {Path(kept.file).name, Path(later.file).name, "notes.txt"}
    assert Path(old.file).name not in left


@pytest.mark.parametrize(
    ("address", "error", "words"),
    [
        ("s3://nobody-made-it/place", StorageError, r"404 Not Found: NoSuchBucket.*AWS_ACCESS_KEY_ID"),
        ("s3://down/place", Paused, r"503 Service Unavailable.* run the same command again"),
    ],
)
def test_a_store_that_cannot_be_read_is_one_error_before_anything(address, error, words):
    with pytest.raises(error, match=words) as refused:
        ensure_reachable(parsed_root(address))
    assert isinstance(refused.value, StorageError) == (error is StorageError)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("s3://readonly/place", r"AccessDenied.* may be written"),
        ("s3://forgetful/place", "overwrites objects .* newer version of the server"),
    ],
)
def test_a_bucket_that_cannot_be_written_as_it_must_be_is_refused(address, words):
    ensure_reachable(parsed_root(address))
    with pytest.raises(StorageError, match=words):
        check_writable(parsed_root(address))


def test_a_bucket_that_can_be_written_has_nothing_new_after_the_probe(root, monkeypatch):
    check_writable(root)
    assert files_below(root) == []
    left = root / contact.PROBE / "of-a-killed-command"
    left.store.create_from(left.key, b"tuner")
    check_writable(root)
    assert files_below(root) == [left]  # its command may still be at work
    monkeypatch.setattr(contact, "STALE_SECONDS", -1)
    check_writable(root)
    assert files_below(root) == []


def test_a_server_that_goes_away_is_a_pause_and_no_fault_of_a_trial(root, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(buckets, "_opened", {root.bucket: Bucket(root.bucket, 0.3)})
    with pytest.raises(Paused, match=r"does not answer as it should.* run the same command again") as paused:
        write_durably(root / "x", content(b"some"))
    assert isinstance(paused.value, StoreFault)
    assert paused.value.errno == errno.EIO
    with pytest.raises(Paused, match="cannot be read"):
        ensure_reachable(root)


@pytest.mark.slow
def test_a_server_that_is_away_for_half_a_minute_is_waited_for(root, object_store):
    object_store.away.touch()
    back = threading.Timer(30.0, object_store.away.unlink)
    back.start()
    try:
        Bucket(root.bucket, 600.0).create_from(f"{root.key}/x", b"some")
        assert not object_store.away.exists()
    finally:
        back.join()
    assert (root / "x").read_bytes() == b"some"


def test_the_time_to_wait_for_a_server_is_all_used(root, monkeypatch):
    monkeypatch.setattr(buckets, "LONGEST_PAUSE", 0.101)  # the first is 0.1 s
    bucket, began = Bucket("s3://down", 5.0), time.monotonic()
    with pytest.raises(StoreFault):
        bucket.read("x")
    assert time.monotonic() - began > 4.5, "it is asked more than thirty times"


def test_an_endpoint_without_encryption_has_to_be_allowed(root, monkeypatch):
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    with pytest.raises(StoreFault, match="AWS_ALLOW_HTTP=true"):
        (root / "x").read_bytes()


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT"])
@pytest.mark.parametrize("endpoint", ["127.0.0.1:9000", "", "localhost", "https://", f"key:{SECRET}@host"])
def test_an_endpoint_that_is_no_url_is_said(variable, endpoint, root, monkeypatch):
    monkeypatch.setenv(variable, endpoint)
    with pytest.raises(StorageError, match=rf"{variable} must begin with https://") as refused:
        ensure_reachable(root)
    assert SECRET not in str(refused.value)


def test_a_panic_of_the_client_is_a_fault_of_the_store_and_a_password_is_not_shown(root, monkeypatch):
    class PanicException(BaseException):  # as pyo3 has it
        pass

    def panic(*_, **__):
        raise PanicException(f"called unwrap on https://somebody:{SECRET}@host/place?X-Amz-Signature=1")

    monkeypatch.setattr("obstore.head", panic)
    with pytest.raises(StoreFault, match="called unwrap on https://") as fault:
        (root / "x").stat()
    assert fault.value.errno == errno.EINVAL
    assert SECRET not in str(fault.value)
    monkeypatch.setattr("obstore.head", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        (root / "x").stat()


def test_without_the_package_the_error_says_how_to_install_it(root, monkeypatch):
    def missing(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    monkeypatch.setattr(buckets, "_opened", {})
    with pytest.raises(StorageError, match=r"pip install 'tuner\[objects\]'"):
        (root / "x").read_bytes()


FORKED = """
import os, signal
from tuner.stores.places import parsed_root

root = parsed_root("s3://place/forked")
(root / "x").is_file()
child = os.fork()
if child == 0:
    signal.alarm(60)  # where it hangs after all
    try:
        (root / "x").is_file()
    except Exception as error:
        print(type(error).__name__, error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


def test_a_forked_process_is_refused_where_it_would_hang():
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, check=True)
    assert "StorageError" in done.stdout
    assert "hangs in a forked process" in done.stdout


def test_the_client_is_imported_only_where_a_bucket_is_used():
    code = "import sys; import tuner.training.checkpoints, tuner.cli.app; print('obstore' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_nothing_secret_is_logged(root, caplog):
    caplog.set_level(logging.DEBUG)
    with pytest.raises(FileNotFoundError):
        (root / "x").read_bytes()
    assert SECRET not in caplog.text


LEFT = """
import os, sys
from tuner.stores.uploads import spool_file

with spool_file() as path:
    path.write_bytes(b"half")
    print(path, flush=True)
    sys.stdin.read()
"""


def test_weights_that_a_store_does_not_give_are_no_missing_file(monkeypatch):
    monkeypatch.setattr(buckets, "_opened", {"s3://down": Bucket("s3://down", 0.3)})
    chosen = Selected("0" * 64, 1, "starts/x.safetensors")
    start = StartWeights(StageStart((chosen,)), (parsed_root("s3://down/starts/x.safetensors"),))
    with pytest.raises(StoreFault, match="503"):
        start.checked()


def test_a_full_spool_is_named_and_not_the_store(root):
    def fill_up(file):
        file.fault = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match=r"No space left on device .*TMPDIR") as full:
        write_durably(root / "x", fill_up)
    assert (full.value.errno, full.value.filename) == (errno.ENOSPC, str(uploads.spool_folder()))


def test_a_spool_file_that_is_swept_before_it_is_locked_is_made_again(monkeypatch):
    lock, swept = system.lock, []

    def after_a_sweep(descriptor):
        if not swept:
            swept.append(uploads.clear_spool(uploads.spool_folder()))
        lock(descriptor)

    uploads.clear_spool(uploads.spool_folder())
    monkeypatch.setattr(system, "lock", after_a_sweep)
    with uploads.spool_file() as spool:
        assert swept == [1]
        assert spool.exists()
        assert uploads.clear_spool(spool.parent) == 0


def test_spool_files_of_killed_processes_are_deleted_and_those_in_use_are_not(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", LEFT], **pipes)
    path = Path(process.stdout.readline().strip())
    assert path.is_relative_to(tmp_path)
    assert uploads.clear_spool(path.parent) == 0
    assert path.exists()
    process.kill()
    process.communicate()
    with uploads.spool_file() as other:
        assert not path.exists()
        assert other.exists()
    assert list(path.parent.iterdir()) == []


def test_a_spool_folder_that_is_a_link_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"tuner-spool-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError, match="set TMPDIR"):
        uploads.spool_folder()


def test_objects_are_deleted_while_training_goes_on_and_what_cannot_be_is_said(root, monkeypatch, caplog):
    write_durably(root / "a", content(b"x"))
    write_durably(root / "b", content(b"x"))
    tidying.remove(root, ["a", "gone"])
    tidying.wait()
    assert files_below(root) == [root / "b"]
    tidying.remove(parsed_root("s3://readonly/place"), ["a"])
    tidying.wait()
    assert "cannot delete 1 objects of s3://readonly" in caplog.text


def test_the_first_contact_is_once_in_a_process(root, monkeypatch):
    ensure_reachable(root)
    monkeypatch.setattr(contact, "Bucket", None)
    ensure_reachable(root)


def test_another_storage_finds_no_files_that_loops_of_an_earlier_one_left_on_this_machine(root, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)

    def of(identity):
        write_durably(root / OWNER_FILE, content(json.dumps({"storage": identity}).encode()), replace=True)
        return uploads.local_folder(root, "digits/round-1/trial-00000")

    assert uploads.local_folder(root, "digits/round-1/trial-00000").name == "trial-00000"
    first, again, other = of("a"), of("a"), of("b")
    assert first == again != other
    assert uploads.local_folder(tmp_path, "digits/round-1/trial-00000") == tmp_path / "digits/round-1/trial-00000"
