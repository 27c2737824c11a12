"""Studies with a frozen part, by the command line: every reader, room, damage, strays and copies."""

import json
import shutil
import sqlite3

import pytest
import safetensors.torch
from support.shell import run_in
from support.study_files import write_study

from tuner.storage.store import open_ledger
from tuner.storage.verify import study_problems

MODEL = 'return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(point["dropout"]), nn.Linear(16, 2))'
FROZEN = """net = nn.Sequential(nn.Linear(6, 3000), nn.Tanh(), nn.Dropout(point["dropout"]), nn.Linear(3000, 2))
        net[0].requires_grad_(False).weight.data.copy_(torch.linspace(-1, 1, 18000).sin().reshape(3000, 6))
        net[0].bias.data.zero_()
        return net"""
DATA = "validation=(x[50:], y[50:]))"
TESTED = "validation=(x[50:], y[50:]), test=(x[40:], y[40:]))"


def write(folder, trials=2, steps=20):
    return write_study(folder, trials=trials, steps=steps, replace=[(MODEL, FROZEN), (DATA, TESTED)])


def bases(folder):
    return sorted((folder / "runs" / "checkpoints" / "tiny").rglob("frozen/base-*.safetensors"))


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """Two trials, one after the other."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patched:
        assert run_in(folder, patched, "launch", write(folder), "--fuse", "off") == 0
    return folder


@pytest.fixture
def folder(launched, tmp_path):
    """The same for each test its own."""
    shutil.copytree(launched, tmp_path, dirs_exist_ok=True)
    owner = tmp_path / "runs" / "checkpoints" / ".tuner-storage.json"
    told = json.loads(owner.read_text())
    owner.write_text(json.dumps(told | {"address": str(tmp_path / "runs" / "tuner.sqlite"), "key": ""}))
    return tmp_path


@pytest.mark.slow
def test_every_reader_gets_a_whole_model(tuner, folder):
    (base,) = bases(folder)
    assert tuner("verify", "tiny").code == 0
    assert tuner("best", "tiny.py", "--export", "model.safetensors").code == 0
    exported = safetensors.torch.load_file(folder / "model.safetensors")
    assert exported.keys() == {"0.weight", "0.bias", "3.weight", "3.bias"}
    held = safetensors.torch.load_file(base)
    assert all((exported[name] == held[name]).all() for name in ("0.weight", "0.bias"))
    assert "0 differ" in tuner("replay", "tiny.py", "--trial", "0").out
    assert tuner("score-test", "tiny.py").code == 0
    assert tuner("launch", "tiny.py", "--round", "2", "--max-train-steps", "40").code == 0
    assert tuner("verify", "tiny").code == 0
    assert len(bases(folder)) == 2, "one for each study"


@pytest.mark.slow
def test_groups_and_workers_share_one_base(tuner, tmp_path):
    study = write(tmp_path, trials=4)
    assert tuner("launch", study, "--fuse", "2", "--workers", "2").code == 0
    assert len(bases(tmp_path)) == 1
    assert tuner("verify", study).code == 0
    assert list((tmp_path / "runs").rglob("*.tmp")) == []


def test_a_lost_base_is_named_once_and_comes_back_with_the_next_trial(tuner, folder):
    (base,) = bases(folder)
    content = base.read_bytes()
    for break_it, told in ((base.unlink, "is missing"), (lambda: base.write_bytes(content[:-1] + b"x"), "is damaged")):
        break_it()
        verified = tuner("verify", "tiny", "-f", "json")
        (problem,) = json.loads(verified.out)
        assert verified.code == 3
        assert (problem["trial"], problem["kind"]) == (None, "file")
        assert told in problem["problem"]
        assert "the checkpoints of 2 trials need it" in problem["problem"]
    assert tuner("best", "tiny.py", "--export", "model.safetensors").code != 0
    assert tuner("launch", write(folder, trials=3), "--fuse", "off").code == 0
    assert base.read_bytes() == content
    assert tuner("verify", "tiny").code == 0


def test_a_base_that_nothing_needs_is_a_stray(tuner, folder):
    (base,) = bases(folder)
    stray = base.with_name(f"base-{'0' * 32}.safetensors")
    shutil.copy(base, stray)
    verified = tuner("verify", "tiny")
    assert (verified.code, stray.name in verified.out) == (3, True)
    assert tuner("verify", "tiny", "--repair").code == 0
    assert not stray.exists()
    assert list((folder / "runs" / "checkpoints" / ".trash").rglob(stray.name)) != []
    shutil.copy(base, stray)
    assert tuner("launch", write(folder, trials=3), "--fuse", "off").code == 0
    assert bases(folder) == [base], "a worker that was killed may have left it"
    assert base.exists()


@pytest.mark.slow
def test_a_base_stays_while_one_checkpoint_needs_it_and_goes_with_the_last(tuner, folder):
    (base,) = bases(folder)
    assert tuner("launch", write(folder, trials=4), "--fuse", "off", "--keep-checkpoints", "1kB").code == 0
    assert bases(folder) == [base], "the winners need it"
    assert tuner("verify", "tiny").code == 0
    with open_ledger(str(folder / "runs" / "tuner.sqlite"), create=False) as ledger:
        row = ledger.study("tiny", "round-1")
        kept = {one.file: one.num_bytes for record in ledger.trials(row.study_id) for one in record.checkpoints}
        assert ledger.checkpoint_bytes(row.study_id) == sum(kept.values()) + base.stat().st_size


@pytest.mark.slow
def test_the_bases_of_trials_that_draw_their_own_go_with_their_checkpoints(tuner, tmp_path):
    own = FROZEN.replace(".weight.data.copy_(torch.linspace(-1, 1, 18000).sin().reshape(3000, 6))", "")
    study = write_study(tmp_path, trials=4, steps=20, replace=[(MODEL, own)])
    assert tuner("launch", study, "--fuse", "off", "--keep-checkpoints", "1kB").code == 0
    assert len(bases(tmp_path)) == 2, "those of the winners"
    assert tuner("verify", study).code == 0


def test_a_copy_takes_the_base_along(tuner, folder):
    assert tuner("backup", "copy.sqlite").code == 0
    adopted = tuner("adopt-storage", "--storage", "copy.sqlite", "--checkpoints", "own", "--from", "runs/checkpoints",
                    "--yes")  # fmt: skip
    assert adopted.code == 0, adopted.err
    assert tuner("verify", "tiny", "--storage", "copy.sqlite").code == 0
    assert [path.name for path in (folder / "own").rglob("base-*")] == [base.name for base in bases(folder)]
    shutil.rmtree(folder / "runs")
    exported = tuner("best", "tiny", "--storage", "copy.sqlite", "--export", "model.safetensors")
    assert exported.code == 0, exported.err


@pytest.mark.slow
def test_a_storage_of_before_opens_and_its_whole_checkpoints_are_read(tuner, tmp_path):
    study = write_study(tmp_path, trials=2, steps=20)
    assert tuner("launch", study, "--fuse", "off").code == 0
    with sqlite3.connect(tmp_path / "runs" / "tuner.sqlite") as connection:
        connection.execute("alter table checkpoint drop column base_id")
        connection.execute("delete from schema_version where version >= 5")
        connection.execute("insert or ignore into schema_version values (4, 0.0)")
    connection.close()
    assert tuner("verify", study).code == 0
    assert tuner("best", study, "--export", "model.safetensors").code == 0
    assert tuner("launch", write_study(tmp_path, trials=3, steps=20), "--fuse", "off").code == 0


def test_a_row_whose_base_is_gone_from_the_records_is_a_problem_and_no_crash(tuner, folder):
    with sqlite3.connect(folder / "runs" / "tuner.sqlite") as connection:
        connection.execute("delete from checkpoint_file where path like '%/frozen/%'")
    connection.close()
    with open_ledger(str(folder / "runs" / "tuner.sqlite"), create=False) as ledger:
        row = ledger.study("tiny", "round-1")
        texts = [one.text for one in study_problems(ledger, row, folder / "runs" / "checkpoints", "tiny/round-1")]
    assert any("is missing" in text for text in texts)
    refused = tuner("best", "tiny.py", "--export", "model.safetensors")
    assert (refused.code != 0, "recorded but missing" in refused.err) == (True, True)
