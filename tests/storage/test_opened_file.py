"""An SQLite file that is deleted, replaced or moved while it is open: noticed at once, and nothing recorded is lost."""

import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing

import pytest

from tuner.errors import RecordsGone, StorageError
from tuner.records.conclusions import RegimeVerdict, StudyProfile
from tuner.storage.opened_file import saved_copies
from tuner.storage.store import open_ledger

FIRST = RegimeVerdict("is", "recorded")
SECOND = StudyProfile("comes later")
STRANGER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("create table strange (x)")
connection.commit()
print("written", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def file(tmp_path):
    return tmp_path / "runs" / "tuner.sqlite"


@pytest.fixture
def begun(file, study):
    """A Ledger in which something is recorded."""
    with open_ledger(str(file)) as ledger:
        ledger.start_study("tiny", study, "code and data")
        ledger.conclude("tiny", FIRST)
        yield ledger


def rest(file):
    """The file with its log, and where the saved copy belongs."""
    return [file.with_name(f"{file.name}{end}") for end in ("", "-wal", "-shm")]


def delete(file):
    for one in rest(file):
        one.unlink()


def delete_file_alone(file):
    file.unlink()


def delete_folder(file):
    shutil.rmtree(file.parent)


def replace_by_backup(file):
    """A backup is moved into place while something runs."""
    backup = file.with_name("backup")
    with open_ledger(str(file), create=False) as ledger:
        ledger.backup(backup)
    with sqlite3.connect(backup) as connection:
        connection.execute("delete from conclusion")
    connection.close()
    backup.replace(file)


def replace_by_copy(file):
    """As an editor or a synchronizing folder does it: the same bytes under the same name."""
    copy = shutil.copy(file, file.with_name("copy"))
    copy.replace(file)


def replace_by_folder(file):
    file.unlink()
    file.mkdir()


def replace_by_link(file):
    other = file.with_name("other.sqlite")
    with open_ledger(str(other)):
        pass
    file.unlink()
    file.symlink_to(other)


@pytest.mark.parametrize(
    ("happen", "told"),
    [
        (delete, "was deleted while it was open"),
        (delete_file_alone, "was deleted while it was open"),
        (delete_folder, "was deleted while it was open"),
        (replace_by_backup, "another file was put in the place of"),
        (replace_by_copy, "another file was put in the place of"),
        (replace_by_folder, "a folder was put in the place of"),
        (replace_by_link, "another file was put in the place of"),
    ],
)
def test_what_was_recorded_is_saved_under_a_name_of_its_own(happen, told, begun, file):
    happen(file)
    with pytest.raises(RecordsGone, match=told) as error:
        begun.conclude("tiny", SECOND)
    copy = file.with_name("tuner.sqlite.saved")
    assert f"mv {copy} {file}" in str(error.value)
    with open_ledger(str(copy), create=False) as saved:
        assert saved.conclusion("tiny", RegimeVerdict) == FIRST
        assert saved.conclusion("tiny", StudyProfile) is None
        assert saved.damage() == []
    with pytest.raises(RecordsGone, match=told):
        begun.campaigns()
    assert len(saved_copies(file)) == 1, "it is saved once"


def test_put_back_it_goes_on_and_nothing_is_begun_beside_it(begun, file):
    delete(file)
    with pytest.raises(RecordsGone):
        begun.campaigns()
    begun.close()
    for create in (True, False):
        with pytest.raises(StorageError, match=r"no storage at .*and .*saved holds what was recorded.*mv "):
            open_ledger(str(file), create=create)
    assert not file.exists()
    file.with_name("tuner.sqlite.saved").rename(file)
    with open_ledger(str(file)) as ledger:
        assert ledger.conclusion("tiny", RegimeVerdict) == FIRST


def test_what_was_put_in_its_place_is_not_touched_by_the_old_log(begun, file):
    """SQLite would take the log that lies at the name of the new file's for its own."""
    replace_by_backup(file)
    with pytest.raises(RecordsGone):
        begun.campaigns()
    begun.close()
    with open_ledger(str(file), create=False) as other:
        assert other.damage() == []
        assert other.conclusion("tiny", RegimeVerdict) is None


@pytest.mark.parametrize("folder", [True, False])
def test_what_was_moved_is_told_and_whole(folder, begun, file):
    """Moved alone its log stays behind, and holds what was committed last."""
    source, target = (file.parent, file.parent.with_name("runs2")) if folder else (file, file.with_name("moved"))
    source.rename(target)
    moved = target / file.name if folder else target
    with pytest.raises(RecordsGone, match=f"was moved to {moved} while it was open. All that was recorded"):
        begun.campaigns()
    begun.close()
    assert not file.exists()
    with open_ledger(str(moved), create=False) as ledger:
        assert ledger.conclusion("tiny", RegimeVerdict) == FIRST
        assert ledger.damage() == []


@pytest.mark.parametrize("chosen", [[1], [2], [1, 2]])
def test_a_log_that_was_deleted_alone_is_written_into_the_file(chosen, begun, file):
    for place in chosen:
        rest(file)[place].unlink()
    with pytest.raises(RecordsGone, match=r"the log of .* was deleted while it was open.*in the file itself now"):
        begun.conclude("tiny", SECOND)
    begun.close()
    with open_ledger(str(file)) as ledger:
        assert ledger.conclusion("tiny", RegimeVerdict) == FIRST
        assert ledger.damage() == []


@pytest.mark.parametrize("log_is_whole", [True, False])
def test_a_file_that_was_cut_to_nothing_is_filled_again_from_its_log(log_is_whole, begun, file):
    """SQLite deletes the log of an empty file at the next opening. A log that began later does not hold everything."""
    if not log_is_whole:
        with closing(sqlite3.connect(file)) as connection:
            assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    file.write_bytes(b"")
    told = "All that was recorded is in it again" if log_is_whole else "its log does not hold all that was recorded"
    with pytest.raises(RecordsGone, match=f"was cut to 0 bytes while it was open.*{told}"):
        begun.conclude("tiny", SECOND)
    begun.close()
    assert not saved_copies(file)
    if log_is_whole:
        with open_ledger(str(file), create=False) as ledger:
            assert ledger.conclusion("tiny", RegimeVerdict) == FIRST
            assert ledger.conclusion("tiny", StudyProfile) is None
            assert ledger.damage() == []


def test_beside_a_log_that_somebody_began_anew_both_are_kept(begun, file):
    """Whoever opens the file after its log was deleted sees other records: neither may overwrite the other."""
    rest(file)[1].unlink()
    rest(file)[2].unlink()
    with subprocess.Popen([sys.executable, "-c", STRANGER, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as one:
        assert one.stdout.readline() == b"written\n"
        with pytest.raises(RecordsGone, match="or of its log, while it was open"):
            begun.campaigns()
        one.stdin.close()
    with open_ledger(str(file.with_name("tuner.sqlite.saved")), create=False) as saved:
        assert saved.conclusion("tiny", RegimeVerdict) == FIRST


def test_deleted_between_the_look_and_the_commit_the_commit_is_saved_too(begun, file):
    def write(connection):
        connection.exec_driver_sql("update campaign set name = 'late'")
        delete(file)

    with pytest.raises(RecordsGone):
        begun._database.write(write)
    with open_ledger(str(file.with_name("tuner.sqlite.saved")), create=False) as saved:
        assert saved.campaigns() == ["late"]


def test_a_new_connection_of_the_pool_never_opens_or_creates_another_file(begun, file):
    database = begun._database
    with database.reading():  # holds the only connection that there is
        delete(file)
        found = []

        def read():
            with pytest.raises(RecordsGone):
                begun.campaigns()
            found.append(file.exists())

        other = threading.Thread(target=read)
        other.start()
        other.join()
    assert found == [False]


def test_all_processes_save_one_copy(begun, file):
    with open_ledger(str(file), create=False) as other:
        assert other.campaigns() == ["tiny"]
        delete(file)
        for ledger in (begun, other):
            with pytest.raises(RecordsGone, match=r"tuner\.sqlite\.saved\. "):
                ledger.campaigns()
    assert len(saved_copies(file)) == 1


def test_where_the_folder_takes_no_copy_it_is_saved_elsewhere(begun, file, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    shutil.rmtree(file.parent)
    file.parent.write_text("a file where the folder was")
    with pytest.raises(RecordsGone, match=f"it is in {tmp_path}/temporary/tuner.sqlite.saved"):
        begun.campaigns()


def test_a_path_that_is_a_symbolic_link_is_fine_until_it_leads_elsewhere(tmp_path, study):
    real, link = tmp_path / "disk" / "real.sqlite", tmp_path / "link.sqlite"
    with open_ledger(str(real)):
        pass
    link.symlink_to(real)
    with open_ledger(str(link)) as ledger:
        ledger.start_study("tiny", study, "code and data")
        assert ledger.campaigns() == ["tiny"]
        link.unlink()
        with pytest.raises(RecordsGone, match=f"All that was recorded is in {real}"):
            ledger.campaigns()


def test_a_file_that_grows_is_still_itself(begun, file):
    """Renamed there and back, touched, its mode changed: the inode decides."""
    moved = file.rename(file.with_name("moved"))
    moved.rename(file)
    file.chmod(0o600)
    file.touch()
    assert begun.campaigns() == ["tiny"]
