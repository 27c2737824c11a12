"""Opening a Ledger: by path or URL, by several at once, and never what is not one."""

import sqlite3
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from tuner.design.study import Study
from tuner.errors import Paused, StorageError
from tuner.records.conclusions import RegimeVerdict
from tuner.storage import filesystem, migrations, studies
from tuner.storage.engine import default_url, parsed_url
from tuner.storage.schema import metadata
from tuner.storage.store import Ledger, open_ledger


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "tuner.sqlite"


def test_a_path_and_a_url_are_the_same_place(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent.parent)
    urls = [str(file), f"sqlite:///{file}", "sqlite:///runs/tuner.sqlite", "runs/tuner.sqlite"]
    assert {parsed_url(url).database for url in urls} == {str(file)}


def test_the_default_is_a_file_under_runs_unless_the_environment_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TUNER_STORAGE", raising=False)
    assert default_url() == "sqlite:///runs/tuner.sqlite"
    monkeypatch.setenv("TUNER_STORAGE", "postgresql://host/tuner")
    assert default_url() == "postgresql://host/tuner"


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///:memory:", "", "mysql://host/x", "://", "nonsense://[", "a\0b"]
)
def test_what_is_no_place_for_a_ledger_is_refused(url: str) -> None:
    with pytest.raises(StorageError, match=r"write sqlite:///runs/tuner\.sqlite"):
        parsed_url(url)


def test_a_password_is_never_shown() -> None:
    with pytest.raises(StorageError) as raised:
        open_ledger("postgresql://user:se%7Bcret@127.0.0.1:1/tuner?connect_timeout=2")
    assert "secret" not in str(raised.value)
    assert "se{cret" not in str(raised.value)
    assert "user:***@127.0.0.1:1" in str(raised.value)


def test_folders_are_created_for_their_owner_only(file: Path) -> None:
    with open_ledger(str(file)) as ledger:
        assert ledger.folder == file.parent
        assert ledger.safe_url == f"sqlite:///{file}"
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_a_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(StorageError, match=r"cannot create the folder .*taken/runs: .*; give another place"):
        open_ledger(str(tmp_path / "taken" / "runs" / "tuner.sqlite"))


def test_every_connection_is_safe(file: Path) -> None:
    with open_ledger(str(file)) as ledger, ledger._database.reading() as connection:
        answers = [
            connection.scalar(text(f"PRAGMA {name}")) for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
        assert answers == ["wal", 2, 1]
        assert connection.scalar(text("PRAGMA busy_timeout")) == 60_000


def test_nothing_is_created_for_who_only_wants_to_read(file: Path) -> None:
    with pytest.raises(StorageError, match=r"there is no storage at .*tuner.sqlite; `tuner launch` creates it"):
        open_ledger(str(file), create=False)
    assert not file.parent.exists()
    file.parent.mkdir()
    file.touch()
    with pytest.raises(StorageError, match="has no records of tuner yet"):
        open_ledger(str(file), create=False)


def test_what_was_written_is_there_when_opened_again(url: str, study: Study) -> None:
    with open_ledger(url) as ledger:
        ledger.start_study("digits", study, "f")
    with open_ledger(url, create=False) as ledger:
        assert ledger.campaigns() == ["digits"]


def test_a_transaction_that_reads_sees_one_state_while_others_write(url: str, study: Study) -> None:
    with open_ledger(url) as reader, open_ledger(url) as writer:
        row = writer.start_study("digits", study, "f")
        with reader._database.reading() as connection:
            before = studies.newest_conclusion(connection, "digits", RegimeVerdict, row.study_id)
            writer.conclude("digits", RegimeVerdict("one", ""), row.study_id)
            assert studies.newest_conclusion(connection, "digits", RegimeVerdict, row.study_id) == before
        assert before is None
        assert reader.conclusion("digits", RegimeVerdict, row.study_id) == RegimeVerdict("one", "")


def test_a_file_that_is_no_database_is_left_alone(file: Path) -> None:
    file.parent.mkdir()
    file.write_text("step,loss\n" * 100)
    with pytest.raises(StorageError, match="file is not a database: it is not an SQLite database"):
        open_ledger(str(file))
    assert file.read_text() == "step,loss\n" * 100


def test_a_database_of_something_else_is_left_alone(file: Path) -> None:
    file.parent.mkdir()
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE trials (number INTEGER)")
    connection.close()
    with pytest.raises(StorageError, match=r"holds the tables of something else \(trials\) and no Ledger"):
        open_ledger(str(file))


def test_a_newer_schema_is_refused(url: str, ledger: Ledger) -> None:
    with ledger._database.writing() as connection:
        connection.execute(text("INSERT INTO schema_version VALUES (99, 0.0)"))
    with pytest.raises(
        StorageError, match=r"has schema version 99, and this tuner knows versions up to \d+.*pip install"
    ):
        open_ledger(url)


def test_an_older_schema_is_backed_up_and_migrated_in_one_piece(
    file: Path, monkeypatch: pytest.MonkeyPatch, study: Study
) -> None:
    def widen(connection: Connection) -> None:
        connection.execute(text("ALTER TABLE campaign ADD COLUMN colour TEXT"))

    def fail(connection: Connection) -> None:
        widen(connection)
        raise RuntimeError("killed in the middle")

    known, old = migrations.MIGRATIONS, migrations.newest()
    with open_ledger(str(file)) as ledger:
        ledger.start_study("digits", study, "f")
    monkeypatch.setattr(migrations, "MIGRATIONS", (*known, fail))
    with pytest.raises(RuntimeError):
        open_ledger(str(file))
    monkeypatch.setattr(migrations, "MIGRATIONS", (*known, widen))
    for _ in range(2):
        with open_ledger(str(file)) as ledger, ledger._database.reading() as connection:
            assert connection.execute(text("SELECT name, colour FROM campaign")).all() == [("digits", None)]
            assert connection.scalar(text("SELECT max(version) FROM schema_version")) == old + 1
    backup = sqlite3.connect(file.with_name(f"tuner.sqlite.version-{old}"))
    assert backup.execute("SELECT max(version) FROM schema_version").fetchall() == [(old,)]
    backup.close()


def test_four_launchers_may_create_one_ledger_at_the_same_moment(
    tmp_path: Path, process: Callable[..., subprocess.Popen[str]]
) -> None:
    launchers = [process("launch", "", 0) for _ in range(4)]
    for launcher in launchers:
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == "ready\n"
    for turn in range(12):
        for launcher in launchers:
            assert launcher.stdin is not None
            launcher.stdin.write(f"{tmp_path}/turn-{turn}/tuner.sqlite\n")
            launcher.stdin.flush()
        for launcher in launchers:
            assert launcher.stdout is not None
            assert launcher.stdout.readline() == "0\n"


@pytest.mark.parametrize("kind", ["nfs4", "lustre", "fuse.sshfs"])
def test_a_network_filesystem_is_refused_unless_forced(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/vda / ext4 rw 0 0\nserver:/export {tmp_path} {kind} rw 0 0\nproc /proc proc rw 0 0\n")
    monkeypatch.setattr(filesystem, "_MOUNTS", mounts)
    with pytest.raises(StorageError, match=rf"lies on a network filesystem \({kind}\).*postgresql://"):
        open_ledger(str(file))
    monkeypatch.setenv(filesystem.ALLOW_NETWORK, "1")
    open_ledger(str(file)).close()


def conclude_until_full(ledger: Ledger, written: list[int]) -> None:
    for number in range(1000):
        ledger.conclude("digits", RegimeVerdict(str(number), "x" * 1000))
        written.append(number)


def test_a_full_disk_pauses_and_loses_nothing(file: Path, study: Study) -> None:
    with open_ledger(str(file)) as ledger:
        ledger.start_study("digits", study, "f")
        with ledger._database.reading() as connection:
            pages = connection.scalar(text("PRAGMA page_count"))
            connection.execute(text(f"PRAGMA max_page_count = {pages + 16}"))  # of the one pooled connection
        written: list[int] = []
        with pytest.raises(Paused, match="the disk is full; make room, then run again to continue"):
            conclude_until_full(ledger, written)
        with ledger._database.reading() as connection:
            connection.execute(text("PRAGMA max_page_count = 1000000"))
            assert connection.scalar(text("PRAGMA integrity_check")) == "ok"
        kept = ledger.conclusion("digits", RegimeVerdict)
        assert kept is not None
        assert kept.verdict == str(written[-1])
        ledger.conclude("digits", RegimeVerdict("-1", ""))
        assert ledger.conclusion("digits", RegimeVerdict) == RegimeVerdict("-1", "")


def test_a_database_that_may_not_be_written_pauses(file: Path, study: Study) -> None:
    with open_ledger(str(file)) as ledger:
        with ledger._database.reading() as connection:
            connection.execute(text("PRAGMA query_only = ON"))
        with pytest.raises(Paused, match="readonly database: it cannot be written to"):
            ledger.start_study("digits", study, "f")


def test_a_backup_is_whole_while_others_write(file: Path, tmp_path: Path, study: Study) -> None:
    with open_ledger(str(file)) as ledger:
        ledger.start_study("digits", study, "f")
        ledger.backup(tmp_path / "copy.sqlite")
        with pytest.raises(StorageError, match="exists; give the backup a name of its own"):
            ledger.backup(tmp_path / "copy.sqlite")
    with open_ledger(str(tmp_path / "copy.sqlite"), create=False) as copy:
        assert copy.study("digits", "round-1").study == study


def test_every_table_says_what_it_is_for() -> None:
    assert [table.name for table in metadata.sorted_tables if not table.comment] == []
