"""A checkpoint folder belongs to one storage: claimed once, refused to others, and nothing of others is deleted."""

import errno
import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from storage.conftest import empty_database

from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.errors import Paused, StorageError
from tuner.failpoints import arm, disarm
from tuner.records import Checkpoint, State, TrialUpdate
from tuner.storage.copies import begin_adoption, bring_files, end_adoption, planned_adoption
from tuner.storage.engine import parsed_url
from tuner.storage.folder_files import TRASH, checkpoint_names, move_to_trash
from tuner.storage.owner_file import read_owner
from tuner.storage.ownership import allowed_folder, claimed_folder, folder_to_read, refuse_if_lost, whose_folder
from tuner.storage.store import Ledger, open_ledger
from tuner.storage.verify import clear_strays, stray_files
from tuner.stores.places import OWNER_FILE

PLACE = "digits/round-1"
STORED = Path(__file__).with_name("databases") / "version_2"
MakeTrial = Callable[..., Trial]


@dataclass(frozen=True)
class Lab:
    """Storages with a study each, and what a worker would do to their checkpoint folders."""

    study: Study
    make_trial: MakeTrial

    def train(self, ledger: Ledger, root: Path, count: int, content: str = "weights") -> None:
        """Train so many trials more: claim them, write a file for each, record it."""
        claimed_folder(ledger, root)
        row = ledger.start_study("digits", self.study, "f")
        known = len(ledger.trials(row.study_id))
        ledger.plan_trials(row.study_id, [self.make_trial(known + number) for number in range(count)])
        for claim in ledger.claim(row.study_id, worker="host:1:a", lease_seconds=60.0, max_trials=count):
            name = f"{PLACE}/trial-{claim.trial.number:05d}/latest-000000100-{claim.fence}.pt"
            data = f"{content} of {claim.trial.number}".encode()
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)
            kept = Checkpoint("latest", 100, name, hashlib.sha256(data).hexdigest(), len(data))
            ledger.record([TrialUpdate(claim.trial_id, claim.fence, 100, checkpoints=[kept], state=State.COMPLETE)])

    def study_id(self, ledger: Ledger) -> int:
        return ledger.study("digits", "round-1").study_id


@pytest.fixture
def lab(study: Study, make_trial: MakeTrial) -> Lab:
    return Lab(study, make_trial)


@pytest.fixture
def other_url(url: str, tmp_path: Path) -> Iterator[str]:
    """A second storage of the same kind: another file, or another database of the same server."""
    if url.startswith("sqlite"):
        yield f"sqlite:///{tmp_path}/runs/other.sqlite"
        return
    yield from _database(url, "another")


def _database(url: str, name: str, template: str = "template1") -> Iterator[str]:
    engine = create_engine(parsed_url(url), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template}"))
    yield parsed_url(url).set(database=name).render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
    engine.dispose()


def everything(root: Path) -> dict[str, bytes]:
    """All files of a folder but the owner file, with what is in them."""
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file() and p.name != OWNER_FILE}


def adopt(ledger: Ledger, root: Path, source: Path | None = None) -> None:
    plan = planned_adoption(ledger, root, source)
    begin_adoption(ledger, plan)
    bring_files(plan)
    move_to_trash(root, plan.unknown, root / TRASH / "now")
    end_adoption(ledger, plan)


# Two storages


def test_a_folder_of_another_storage_is_refused_by_name_and_stays_whole(
    url: str, other_url: str, lab: Lab, tmp_path: Path
) -> None:
    root = tmp_path / "shared"
    with open_ledger(url) as ledger, open_ledger(other_url) as other:
        lab.train(ledger, root, 4)
        before, owner = everything(root), (root / OWNER_FILE).read_bytes()
        here = ledger.identity()
        for ask in (allowed_folder, claimed_folder):
            with pytest.raises(StorageError, match=r"belongs to the storage .* name another folder with --checkpoints"):
                ask(other, root)
        assert here is not None
        assert here.identity[:8] in whose_folder(other, root)
        assert everything(root) == before
        assert (root / OWNER_FILE).read_bytes() == owner
        lab.train(ledger, root, 2)
        lab.train(other, tmp_path / "of the other", 2)
        assert {name: before[name] for name in before} == {name: everything(root)[name] for name in before}


def test_two_storages_in_one_folder_have_folders_of_their_own_by_default(tmp_path: Path, lab: Lab) -> None:
    with open_ledger(str(tmp_path / "one.sqlite")) as one, open_ledger(str(tmp_path / "two.sqlite")) as two:
        roots = [claimed_folder(one, None), claimed_folder(two, None)]
        assert [root.name for root in roots] == ["checkpoints", "checkpoints-two"]
        assert [folder_to_read(one, None), folder_to_read(two, None)] == roots
    (tmp_path / "two.sqlite").rename(tmp_path / "three.sqlite")
    with open_ledger(str(tmp_path / "three.sqlite")) as three:
        assert claimed_folder(three, None) == roots[1], "the choice is kept"


def test_of_two_first_launches_at_one_moment_each_gets_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_ledger(str(tmp_path / "one.sqlite")) as one, open_ledger(str(tmp_path / "two.sqlite")) as two:
        link, second = os.link, []

        def late(source: Path, target: Path) -> None:
            monkeypatch.setattr(os, "link", link)
            second.append(claimed_folder(two, None))  # between our look and our claim
            link(source, target)

        monkeypatch.setattr(os, "link", late)
        assert claimed_folder(one, None).name == "checkpoints-one"
        assert [root.name for root in second] == ["checkpoints"]


def test_the_same_storage_is_welcome_under_any_path(tmp_path: Path, lab: Lab) -> None:
    root = tmp_path / "runs" / "checkpoints"
    with open_ledger(str(tmp_path / "runs" / "tuner.sqlite")) as ledger:
        lab.train(ledger, root, 2)
    (tmp_path / "link").symlink_to(tmp_path / "runs")
    with open_ledger(str(tmp_path / "link" / "tuner.sqlite")) as ledger:
        claimed_folder(ledger, tmp_path / "link" / "checkpoints")
    (tmp_path / "runs").rename(tmp_path / "moved")
    with open_ledger(str(tmp_path / "moved" / "tuner.sqlite")) as ledger:
        assert claimed_folder(ledger, None) == tmp_path / "moved" / "checkpoints"
        assert read_owner(tmp_path / "moved" / "checkpoints").site == ledger.site()


def test_an_owner_file_that_cannot_be_read_is_named(tmp_path: Path, lab: Lab) -> None:
    root = tmp_path / "checkpoints"
    with open_ledger(str(tmp_path / "tuner.sqlite")) as ledger:
        lab.train(ledger, root, 1)
        (root / OWNER_FILE).write_text("{")
        with pytest.raises(StorageError, match=r"storage\.json, which says whose .* cannot be read"):
            claimed_folder(ledger, root)
        adopt(ledger, root)
        claimed_folder(ledger, root)


def test_a_worker_stops_when_its_folder_was_given_to_another_storage(tmp_path: Path) -> None:
    with open_ledger(str(tmp_path / "tuner.sqlite")) as ledger:
        root = claimed_folder(ledger, None)
        here = ledger.identity()
        assert here is not None
        refuse_if_lost(root, here.identity)
        told = json.loads((root / OWNER_FILE).read_text())
        (root / OWNER_FILE).write_text(json.dumps(told | {"storage": "f" * 32}))
        with pytest.raises(StorageError, match="was given to the storage"):
            refuse_if_lost(root, here.identity)


@pytest.mark.parametrize(
    ("number", "error", "words"),
    [
        (errno.ENOSPC, Paused, "make room or mend the disk, then run the same command again"),
        (errno.EACCES, StorageError, "name another folder with --checkpoints"),
    ],
)
def test_a_folder_that_cannot_be_written_is_named_and_left_as_it_was(
    number: int, error: type[Exception], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    with open_ledger(str(tmp_path / "tuner.sqlite")) as ledger:
        monkeypatch.setattr("tuner.storage.owner_file.os.fsync", refuse)
        with pytest.raises(error, match=f"cannot write to the checkpoint folder .*{words}"):
            claimed_folder(ledger, None)
        monkeypatch.undo()
        assert list((tmp_path / "checkpoints").iterdir()) == []
        (tmp_path / "file").touch()
        with pytest.raises(StorageError, match=r"cannot write to the checkpoint folder .*/file: Not a directory"):
            claimed_folder(ledger, tmp_path / "file")


# Copies


@pytest.mark.parametrize(
    ("told", "is_ours"),
    [
        ({"host": "another"}, True),  # the same file in a container with another name
        ({"key": "1", "address": "/gone/tuner.sqlite"}, True),  # moved
        ({"key": "1", "host": "another", "folder_key": "1:1"}, True),  # folder and file copied to another machine
        ({"key": "1", "host": "another"}, False),  # a shared folder, and a file copied to another machine
    ],
)
def test_a_file_that_is_elsewhere_now_is_ours_unless_its_original_may_still_be_there(
    told: dict[str, str], is_ours: bool, tmp_path: Path, lab: Lab
) -> None:
    with open_ledger(str(tmp_path / "tuner.sqlite")) as ledger:
        root = claimed_folder(ledger, None)
        lab.train(ledger, root, 1)
        owner = json.loads((root / OWNER_FILE).read_text())
        (root / OWNER_FILE).write_text(json.dumps(owner | told))  # in place: the inode stays
        if is_ours:
            assert claimed_folder(ledger, None) == root
            assert read_owner(root).site == ledger.site()
        else:
            with pytest.raises(StorageError, match="is taken for a copy"):
                claimed_folder(ledger, None)


def test_a_backup_of_a_file_is_a_copy_and_claims_nothing(tmp_path: Path, lab: Lab) -> None:
    with open_ledger(str(tmp_path / "tuner.sqlite")) as ledger:
        lab.train(ledger, tmp_path / "checkpoints", 2)
        ledger.backup(tmp_path / "old.sqlite")
        lab.train(ledger, tmp_path / "checkpoints", 2)
        before, here = everything(tmp_path / "checkpoints"), ledger.identity()
    with open_ledger(str(tmp_path / "old.sqlite"), create=False) as copy:
        mine = copy.identity()
        assert mine is not None
        assert here is not None
        assert (mine.copy_of, mine.identity == here.identity) == (here.identity, False)
        for root in (None, tmp_path / "checkpoints", tmp_path / "new"):
            with pytest.raises(
                StorageError, match=r"old.sqlite is a copy of another storage.*adopt-storage --storage "
            ):
                claimed_folder(copy, root)
        copy.backup(tmp_path / "older.sqlite")
    assert everything(tmp_path / "checkpoints") == before
    assert not (tmp_path / "new").exists()
    with open_ledger(str(tmp_path / "older.sqlite"), create=False) as copy:
        older = copy.identity()
        assert older is not None
        assert older.copy_of == mine.identity


def copied_file(folder: Path) -> None:
    shutil.copy(folder / "tuner.sqlite", folder / "copy.sqlite")


def renamed_original(folder: Path) -> None:
    copied_file(folder)
    (folder / "tuner.sqlite").rename(folder / "main.sqlite")


@pytest.mark.parametrize("copied", [copied_file, renamed_original])
def test_a_copied_file_beside_its_original_is_taken_for_a_copy(
    copied: Callable[[Path], None], tmp_path: Path, lab: Lab
) -> None:
    with open_ledger(str(tmp_path / "tuner.sqlite")) as ledger:
        lab.train(ledger, claimed_folder(ledger, None), 2)
    copied(tmp_path)
    with open_ledger(str(tmp_path / "copy.sqlite")) as copy:
        with pytest.raises(StorageError, match=r"is taken for a copy of .*tuner.sqlite, whose identity it has"):
            claimed_folder(copy, None)
        assert "taken for a copy" in whose_folder(copy, tmp_path / "checkpoints")
    assert not list(tmp_path.glob("*-wal")), "looking at the original leaves nothing beside it"


def test_a_file_copied_together_with_its_folder_becomes_a_storage_of_its_own(tmp_path: Path, lab: Lab) -> None:
    with open_ledger(str(tmp_path / "runs" / "tuner.sqlite")) as ledger:
        lab.train(ledger, claimed_folder(ledger, None), 2)
    shutil.copytree(tmp_path / "runs", tmp_path / "again")
    with open_ledger(str(tmp_path / "again" / "tuner.sqlite")) as copy:
        lab.train(copy, claimed_folder(copy, None), 1)
        with pytest.raises(StorageError, match="belongs to the storage"):
            claimed_folder(copy, tmp_path / "runs" / "checkpoints")
    with open_ledger(str(tmp_path / "runs" / "tuner.sqlite")) as ledger:
        lab.train(ledger, claimed_folder(ledger, None), 1)
        assert stray_files(ledger, lab.study_id(ledger), tmp_path / "runs" / "checkpoints", PLACE) == []


@pytest.mark.parametrize("commit", [1, 2, 3])
def test_a_copied_pair_that_was_killed_on_its_way_apart_goes_on_by_itself(
    commit: int, tmp_path: Path, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commits of a separation: a copy, a storage of its own, one command more; then comes the owner file."""
    with open_ledger(str(tmp_path / "runs" / "tuner.sqlite")) as ledger:
        lab.train(ledger, claimed_folder(ledger, None), 2)
    shutil.copytree(tmp_path / "runs", tmp_path / "again")
    with open_ledger(str(tmp_path / "again" / "tuner.sqlite")) as copy:
        monkeypatch.setattr("tuner.storage.ownership.write_owner", killed)
        for name in ("become_copy", "end_copy", "next_generation")[commit:]:
            monkeypatch.setattr(Ledger, name, killed)
        with pytest.raises(Killed):
            claimed_folder(copy, None)
    monkeypatch.undo()
    with open_ledger(str(tmp_path / "again" / "tuner.sqlite")) as copy:
        lab.train(copy, claimed_folder(copy, None), 1)
        mine = copy.identity()
        assert mine is not None
        assert mine.copy_of is None
    with open_ledger(str(tmp_path / "runs" / "tuner.sqlite")) as ledger:
        lab.train(ledger, claimed_folder(ledger, None), 1)
        theirs = ledger.identity()
        assert theirs is not None
        assert theirs.identity != mine.identity


class Killed(BaseException):
    """What a kill is to code that goes on."""


def killed(*_: object, **__: object) -> None:
    raise Killed


@pytest.mark.parametrize("counted", [True, False])
def test_an_older_file_put_back_is_noticed(counted: bool, tmp_path: Path, lab: Lab) -> None:
    root = tmp_path / "checkpoints"
    with open_ledger(str(tmp_path / "tuner.sqlite")) as ledger:
        lab.train(ledger, root, 2)
    shutil.copy(tmp_path / "tuner.sqlite", tmp_path / "kept")
    with open_ledger(str(tmp_path / "tuner.sqlite")) as ledger:
        lab.train(ledger, root, 2)
    if not counted:  # copied in the midst of the second launch: then the fences of its files tell
        told = json.loads((root / OWNER_FILE).read_text())
        (root / OWNER_FILE).write_text(json.dumps(told | {"generation": 1}))
    before = everything(root)
    shutil.copy(tmp_path / "kept", tmp_path / "tuner.sqlite")
    with open_ledger(str(tmp_path / "tuner.sqlite")) as ledger:
        why = "commands wrote to the folder" if counted else "2 of its files were never written by this storage"
        with pytest.raises(StorageError, match=rf"older than its checkpoint folder .*{why}"):
            claimed_folder(ledger, root)
        assert everything(root) == before
        adopt(ledger, root)
        assert [name for name in everything(root) if not name.startswith(TRASH)] == sorted(before)[:2]
        lab.train(ledger, root, 2)
    assert everything(root)[f"{TRASH}/now/{max(before)}"] == before[max(before)]


def test_a_database_made_from_another_as_template_is_taken_for_a_copy(
    request: pytest.FixtureRequest, lab: Lab, tmp_path: Path
) -> None:
    url = empty_database(request.getfixturevalue("server").url)
    for origin in _database(url, "origin"):
        with open_ledger(origin) as ledger:
            lab.train(ledger, tmp_path / "shared", 2)
        for made in _database(url, "twin", template="origin"):
            with open_ledger(made) as twin:
                with pytest.raises(StorageError, match=r"is taken for a copy of .*/origin, whose identity it has"):
                    claimed_folder(twin, tmp_path / "shared")
                adopt(twin, tmp_path / "own", tmp_path / "shared")
                lab.train(twin, tmp_path / "own", 1)
        with open_ledger(origin) as ledger:
            lab.train(ledger, tmp_path / "shared", 1)


def test_a_restored_dump_is_a_copy_also_in_the_same_database(
    request: pytest.FixtureRequest, lab: Lab, tmp_path: Path
) -> None:
    url = empty_database(request.getfixturevalue("server").url)
    root, dump = tmp_path / "shared", tmp_path / "dump"
    with open_ledger(url) as ledger:
        lab.train(ledger, root, 2)
        with ledger._database.writing() as connection:
            connection.execute(text("CREATE SCHEMA IF NOT EXISTS theirs"))
            connection.execute(text("CREATE TABLE IF NOT EXISTS theirs.storage AS SELECT 7 AS rows"))
        ledger.backup(dump)
        lab.train(ledger, root, 2)
        claimed_folder(ledger, root)
    before = everything(root)
    subprocess.run(["pg_restore", "--clean", "-d", url, str(dump)], check=True, capture_output=True)
    with open_ledger(url, create=False) as restored:
        assert restored.identity() is None
        with restored._database.writing() as connection:
            assert connection.scalar(text("SELECT rows FROM theirs.storage")) == 7, "only our table is left out"
            connection.execute(text("DROP SCHEMA theirs CASCADE"))
        assert [trial.state for trial in restored.trials(lab.study_id(restored))] == [State.COMPLETE] * 2
        with pytest.raises(StorageError, match=r"was restored from a dump.*`tuner adopt-storage"):
            claimed_folder(restored, root)
        assert everything(root) == before
        adopt(restored, root)
        assert sorted(checkpoint_names(root)) == sorted(before)[:2]
        lab.train(restored, root, 2, "other weights")
    assert everything(root)[f"{TRASH}/now/{max(before)}"] == before[max(before)]


# Adopting


def test_an_adopted_copy_gets_its_files_in_a_folder_of_its_own(
    url: str, other_url: str, lab: Lab, tmp_path: Path
) -> None:
    root, own = tmp_path / "shared", tmp_path / "own"
    with open_ledger(url) as ledger, open_ledger(other_url) as other:
        lab.train(ledger, root, 2)
        lab.train(other, own, 1, "other weights")
        with pytest.raises(StorageError, match=r"no record of .* names a whole file"):
            planned_adoption(ledger, own, None)
        before = everything(root)
        plan = planned_adoption(ledger, tmp_path / "new", root)
        assert not (tmp_path / "new").exists()
        assert (len(plan.there), len(plan.elsewhere), plan.lost, plan.unknown) == (0, 2, {}, ())
        adopt(ledger, tmp_path / "new", root)
        assert everything(tmp_path / "new") == before == everything(root)
        lab.train(ledger, tmp_path / "new", 1)


def test_what_is_lost_is_told_before(tmp_path: Path, lab: Lab) -> None:
    root = tmp_path / "checkpoints"
    with open_ledger(str(tmp_path / "tuner.sqlite")) as ledger:
        lab.train(ledger, root, 3)
        ledger.backup(tmp_path / "old.sqlite")
        first, second, third = sorted(everything(root))
        (root / first).unlink()
        (root / second).write_text("weights of X")
    with open_ledger(str(tmp_path / "old.sqlite")) as copy:
        plan = planned_adoption(copy, root, None)
        assert plan.lost == {first: "is missing", second: "has another sha256"}
        assert [file.path for file in plan.there] == [third]


@pytest.mark.parametrize("way", ["take over", "own folder"])
def test_an_adoption_that_is_killed_anywhere_goes_on(way: str, tmp_path: Path, lab: Lab) -> None:
    with open_ledger(str(tmp_path / "runs" / "tuner.sqlite")) as ledger:
        lab.train(ledger, claimed_folder(ledger, None), 2)
        ledger.backup(tmp_path / "runs" / "old.sqlite")
        lab.train(ledger, tmp_path / "runs" / "checkpoints", 1)
    armed = arm("never@1=eio")
    shutil.copytree(tmp_path / "runs", tmp_path / "whole")

    def adopted(runs: Path) -> None:
        root = runs / "checkpoints"
        with open_ledger(str(runs / "old.sqlite"), create=False) as copy:
            adopt(copy, *((runs / "own", root) if way == "own folder" else (root,)))

    try:
        adopted(tmp_path / "whole")
        places = [name for name in armed.trace if name.startswith("adopt-")]
        assert len(places) == 5 if way == "own folder" else 3
        for number, name in enumerate(places, start=1):
            runs = tmp_path / f"killed-{number}"
            shutil.copytree(tmp_path / "runs", runs)
            arm(f"{name}@{places[:number].count(name)}=eio")
            with pytest.raises(OSError, match="Input/output error"):
                adopted(runs)
            with open_ledger(str(runs / "old.sqlite"), create=False) as copy, pytest.raises(StorageError, match="copy"):
                claimed_folder(copy, None)
            adopted(runs)
            root = runs / ("own" if way == "own folder" else "checkpoints")
            with open_ledger(str(runs / "old.sqlite"), create=False) as copy:
                assert claimed_folder(copy, None) == root
                assert len(checkpoint_names(root)) == 2
            assert len([name for name in everything(runs) if "trial-00002" in name]) == 1, "nothing is deleted"
    finally:
        disarm()


# Folders from before


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder as version 2 left it: a database, and checkpoints that nobody owns."""
    connection = sqlite3.connect(tmp_path / "tuner.sqlite")
    connection.executescript((STORED / "version_2.sql").read_text(encoding="utf-8"))
    connection.close()
    shutil.copytree(STORED / "checkpoints", tmp_path / "checkpoints")
    return tmp_path


def test_a_folder_from_before_is_taken_over_once(old: Path) -> None:
    before = everything(old / "checkpoints")
    with open_ledger(str(old / "tuner.sqlite")) as ledger:
        assert (old / "tuner.sqlite.version-2").exists(), "a copy that names the same files, and does not count"
        assert claimed_folder(ledger, None) == old / "checkpoints"
    with open_ledger(str(old / "tuner.sqlite.version-2")) as kept, pytest.raises(StorageError, match="belongs to the"):
        claimed_folder(kept, None)
    assert everything(old / "checkpoints") == before


def test_a_folder_from_before_whose_files_two_storages_name_is_refused_to_both(old: Path) -> None:
    shutil.copy(old / "tuner.sqlite", old / "two.sqlite")
    before = everything(old / "checkpoints")
    for name in ("tuner.sqlite", "two.sqlite"):
        refused = pytest.raises(StorageError, match=r"records of .*(tuner|two).sqlite and of .*(tuner|two).sqlite name")
        with open_ledger(str(old / name)) as ledger, refused:
            claimed_folder(ledger, None)
    assert everything(old / "checkpoints") == before
    with open_ledger(str(old / "two.sqlite")) as two, open_ledger(str(old / "tuner.sqlite")) as one:
        adopt(two, old / "of-two", old / "checkpoints")
        assert everything(old / "of-two") == before
        assert claimed_folder(two, None) == old / "of-two"
        assert claimed_folder(one, None) == old / "checkpoints"
    assert everything(old / "checkpoints") == before


def test_a_folder_from_before_with_files_of_another_is_refused(old: Path, lab: Lab) -> None:
    refused = pytest.raises(StorageError, match=r"records of .*tuner\.sqlite name files in it, and those of .* none")
    with open_ledger(str(old / "runs" / "new.sqlite")) as new, refused:
        claimed_folder(new, old / "checkpoints")
    (old / "checkpoints").rename(old / "elsewhere")
    refused = pytest.raises(StorageError, match=r"6 of its files, .* were never written by .*new\.sqlite")
    with open_ledger(str(old / "runs" / "new.sqlite")) as new, refused:
        (old / "tuner.sqlite").unlink()
        claimed_folder(new, old / "elsewhere")
    (old / "elsewhere").rename(old / "checkpoints")
    with open_ledger(str(old / "new.sqlite")) as new:
        assert claimed_folder(new, None).name == "checkpoints-new"


# Strays


def test_a_launch_deletes_what_its_workers_left_and_moves_all_else(
    url: str, lab: Lab, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "shared"
    with open_ledger(url) as ledger:
        lab.train(ledger, root, 2)
        folder = root / PLACE / "trial-00001"
        for name in ("latest-000000090-1.pt", ".best-000000090-1.safetensors.77.tmp", "latest-000000090-2.pt", "notes"):
            (folder / name).write_text(name)
        (root / PLACE / "group-of-trial-00001").mkdir()
        (root / PLACE / "group-of-trial-00001" / "latest-000000001-1.pt").write_text("ours")
        assert clear_strays(ledger, lab.study_id(ledger), root, PLACE) == 5
        assert clear_strays(ledger, lab.study_id(ledger), root, PLACE) == 0
    (trash,) = (root / TRASH).iterdir()
    assert sorted(path.name for path in trash.rglob("*") if path.is_file()) == ["latest-000000090-2.pt", "notes"]
    assert str(trash) in caplog.text
    assert [path.name for path in folder.iterdir()] == ["latest-000000100-1.pt"]


def test_the_first_folder_that_is_given_is_kept(tmp_path: Path, lab: Lab) -> None:
    """The same command without its --checkpoints must not begin again in another folder."""
    with open_ledger(str(tmp_path / "runs" / "tuner.sqlite")) as ledger:
        lab.train(ledger, claimed_folder(ledger, tmp_path / "elsewhere"), 1)
        assert claimed_folder(ledger, None) == tmp_path / "elsewhere"
        assert folder_to_read(ledger, None) == tmp_path / "elsewhere"
    with open_ledger(str(tmp_path / "two" / "tuner.sqlite")) as ledger:
        claimed_folder(ledger, tmp_path / "two" / "below")
        kept = ledger.identity()
        assert kept is not None
        assert kept.checkpoints == "below", "so that both can be moved"


def test_a_file_that_lies_without_its_checkpoints_says_so(
    tmp_path: Path, lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    with open_ledger(str(tmp_path / "runs" / "tuner.sqlite")) as ledger:
        root = claimed_folder(ledger, None)
        assert "checkpoint files" not in caplog.text
        lab.train(ledger, root, 2)
    shutil.move(tmp_path / "runs" / "tuner.sqlite", tmp_path / "tuner.sqlite")
    with open_ledger(str(tmp_path / "tuner.sqlite")) as ledger:
        claimed_folder(ledger, None)
    assert "checkpoints has none of the 2 checkpoint files that" in caplog.text
