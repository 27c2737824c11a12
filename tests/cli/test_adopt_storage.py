"""Two storages in one folder, and copies of a storage: each command says what to do, and no checkpoint is lost."""

import json
import re
import shlex
import shutil
import sqlite3
from pathlib import Path

import pytest
from support.shell import run_in
from support.study_files import write_study

STORED = Path(__file__).parents[1] / "storage" / "databases" / "version_2"


def files(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.suffix in (".pt", ".safetensors")}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One folder for all tests: a storage of two trials, its backup, and then a third trial."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patched:
        assert run_in(folder, patched, "launch", write_study(folder, trials=2, steps=20), "--fuse", "off") == 0
        assert run_in(folder, patched, "backup", "runs/old.sqlite") == 0
        assert run_in(folder, patched, "launch", write_study(folder, trials=3, steps=20), "--fuse", "off") == 0
    return folder


@pytest.fixture
def runs(made, tmp_path):
    """The same, for each test its own; a copy beside the original would know that it is one."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    owner = tmp_path / "runs" / "checkpoints" / ".tuner-storage.json"
    told = json.loads(owner.read_text())
    owner.write_text(json.dumps(told | {"address": str(tmp_path / "runs" / "tuner.sqlite"), "key": ""}))
    return tmp_path / "runs"


def test_a_second_storage_in_the_folder_leaves_the_first_whole(tuner, runs, tmp_path):
    (tmp_path / "other").mkdir()
    other = write_study(tmp_path / "other", trials=1, steps=20)
    before = files(runs / "checkpoints")
    assert tuner("launch", other, "--storage", "runs/two.sqlite").code == 0
    assert files(runs / "checkpoints") == before
    assert files(runs / "checkpoints-two")
    for name in ("two", "tuner"):
        assert tuner("verify", "tiny", "--storage", f"runs/{name}.sqlite").code == 0
    assert tuner("best", "tiny", "--export", "model.safetensors").code == 0


@pytest.mark.parametrize(
    "command",
    [
        ("launch", "tiny.py"),
        ("run", "tiny.py", "--yes"),
        ("sweep", "tiny.py"),
        ("worker", "tiny.py"),
        ("budget-curve", "tiny.py"),
        ("stability", "tiny.py"),
        ("adopt", "tiny.py"),
        ("exploit", "tiny.py"),
        ("verify", "tiny", "--repair"),
    ],
    ids=lambda command: command[0],
)
def test_no_command_trains_or_deletes_with_a_copy(command, tuner, runs):
    before = files(runs)
    run = tuner(*command, "--storage", "runs/old.sqlite")
    assert run.code == 2, run.err
    assert "old.sqlite is a copy of another storage; the checkpoint folder" in run.err
    assert re.search(r"`tuner adopt-storage --storage \S+old.sqlite` says what will happen", run.err)
    with sqlite3.connect(runs / "old.sqlite") as connection:
        assert connection.execute("select (select count(*) from study), (select count(*) from launch)").fetchone() == (
            1,
            1,
        )
    connection.close()
    assert files(runs) == before


@pytest.mark.parametrize("in_its_place", [False, True])
def test_the_command_that_a_refusal_names_can_be_run_as_it_is_printed(in_its_place, tuner, runs):
    """Without --storage it would be about another storage, and say that there is nothing to adopt."""
    given = () if in_its_place else ("--storage", "runs/old.sqlite")
    if in_its_place:
        (runs / "old.sqlite").replace(runs / "tuner.sqlite")
    refused = tuner("launch", "tiny.py", *given)
    assert ("belongs to one that was in its place before" in refused.err) == in_its_place, refused.err
    printed = shlex.split(refused.err.split("`")[1])
    assert printed[0] == "tuner"
    told = tuner(*printed[1:])
    assert told.code == 3, told.err
    assert "gets the checkpoint folder" in told.err


def test_reading_a_copy_works_and_says_whose_the_folder_is(tuner, runs):
    run = tuner("verify", "tiny", "--storage", "runs/old.sqlite")
    assert run.code == 0, "files of the original are no strays of the copy"
    assert "note: " in run.err
    assert "tuner.sqlite" in run.err
    assert tuner("best", "tiny", "--storage", "runs/old.sqlite", "--export", "model.safetensors").code == 0
    assert tuner("launch", "tiny.py", "--storage", "runs/old.sqlite", "--dry-run").code == 0


def test_adopting_takes_the_folder_over_and_moves_what_is_unknown(tuner, runs):
    before = files(runs / "checkpoints")
    asked = tuner("adopt-storage", "--storage", "runs/old.sqlite")
    assert asked.code == 3
    assert files(runs / "checkpoints") == before
    unknown = sorted(name for name in before if "trial-00002" in name)
    assert f"- {len(unknown)} checkpoint files" in asked.err
    assert all(name in asked.err for name in unknown)
    assert tuner("launch", "tiny.py", "--storage", "runs/old.sqlite").code == 2, "nothing was done"

    done = tuner("adopt-storage", "--storage", "runs/old.sqlite", "--yes")
    assert done.code == 0, done.err
    left = files(runs / "checkpoints")
    assert {Path(name).name: content for name, content in left.items() if ".trash/" in name} == {
        Path(name).name: before[name] for name in unknown
    }
    refused = tuner("verify", "tiny", "--repair")
    assert refused.code == 2
    assert "belongs to the storage" in refused.err
    assert tuner("launch", "tiny.py", "--storage", "runs/old.sqlite").code == 0, "it goes on: the third trial again"
    assert tuner("verify", "tiny", "--storage", "runs/old.sqlite", "--repair").code == 0
    assert tuner("adopt-storage", "--storage", "runs/old.sqlite").code == 0, "nothing to adopt"


def test_adopting_into_a_folder_of_its_own_leaves_the_original_as_it_is(tuner, runs):
    before = files(runs / "checkpoints")
    words = ("adopt-storage", "--storage", "runs/old.sqlite", "--checkpoints", "runs/mine")
    assert tuner(*words).code == 3
    assert not (runs / "mine").exists()
    assert tuner(*words, "--yes").code == 0
    assert files(runs / "mine") == {name: content for name, content in before.items() if "trial-00002" not in name}
    assert tuner("launch", "tiny.py", "--storage", "runs/old.sqlite").code == 0, "the new folder is the default"
    for name in ("old", "tuner"):
        assert tuner("verify", "tiny", "--storage", f"runs/{name}.sqlite", "--repair").code == 0
    assert files(runs / "checkpoints") == before


def test_a_stranger_cannot_have_a_folder(tuner, runs, tmp_path):
    (tmp_path / "other").mkdir()
    assert (
        tuner("launch", write_study(tmp_path / "other", "else.py", trials=1, steps=20), "--storage", "x.sqlite").code
        == 0
    )
    before = files(runs)
    for words in (("verify", "else", "--repair"), ("adopt-storage", "--yes")):
        run = tuner(*words, "--storage", "x.sqlite", "--checkpoints", "runs/checkpoints")
        assert run.code == 2, run.err
        assert "tuner.sqlite" in run.err
    assert files(runs) == before


def test_a_study_of_the_version_before_keeps_its_folder(tuner, tmp_path):
    (tmp_path / "runs").mkdir()
    connection = sqlite3.connect(tmp_path / "runs" / "tuner.sqlite")
    connection.executescript((STORED / "version_2.sql").read_text(encoding="utf-8"))
    connection.close()
    shutil.copytree(STORED / "checkpoints", tmp_path / "runs" / "checkpoints")
    before = files(tmp_path / "runs")
    assert tuner("verify", "old_study").code == 0
    assert not (tmp_path / "runs" / "checkpoints" / ".tuner-storage.json").exists(), "who reads claims nothing"
    assert tuner("verify", "old_study", "--repair").code == 0
    assert files(tmp_path / "runs") == before
    run = tuner("verify", "old_study", "--repair", "--storage", "runs/tuner.sqlite.version-2")
    assert run.code == 2
    assert "belongs to the storage" in run.err
