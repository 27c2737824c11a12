"""The records are deleted, replaced or moved while a command runs: it pauses, and goes on when they are back."""

import pytest
from support.records import CURVES, rows
from support.study_files import write_study

# A study that deletes or moves the records in the middle of its training, once, when a file asks for it.
TROUBLE = [
    (
        "from tuner import *",
        "from tuner import *\nimport os\nfrom pathlib import Path\n\n\ndef trouble():\n"
        '    if not Path("asked").exists():\n        return\n'
        '    what = Path("asked").read_text()\n    Path("asked").unlink()\n'
        '    for end in ("", "-wal", "-shm"):\n'
        '        file = Path("runs/tuner.sqlite" + end)\n'
        '        file.unlink() if what == "delete" else file.rename("moved.sqlite" + end)\n',
    ),
    (
        "        logits = model(batch[0])\n        wrong",
        "        trouble()\n        logits = model(batch[0])\n        wrong",
    ),
]


@pytest.fixture
def study(tmp_path):
    return write_study(tmp_path, trials=3, steps=60, replace=TROUBLE)


ALONE, TWO = ("--fuse", "off"), ("--fuse", "off", "--workers", "2")
DELETED = ("delete", "was deleted while it was open. Nothing that was recorded is lost", "runs/tuner.sqlite.saved")
MOVED = ("move", "moved.sqlite while it was open. All that was recorded is in", "moved.sqlite")


@pytest.mark.parametrize(("options", "asked", "told", "left"), [(ALONE, *DELETED), (TWO, *DELETED), (ALONE, *MOVED)])
def test_a_launch_whose_records_vanish_pauses_and_goes_on_from_them(
    options, asked, told, left, tuner, study, tmp_path, monkeypatch
):
    (tmp_path / "asked").write_text(asked)
    paused = tuner("launch", study, *options)
    assert paused.code == 75, paused.err
    assert "paused: " in paused.err
    assert told in " ".join(paused.err.split())
    assert "records in" not in paused.err
    assert "Traceback" not in paused.err
    assert not (tmp_path / "runs" / "tuner.sqlite").exists()
    (tmp_path / left).rename(tmp_path / "runs" / "tuner.sqlite")
    again = tuner("launch", study, *options)
    assert (again.code, "3 complete; records in" in again.err) == (0, True), again.err
    (tmp_path / "calm").mkdir()
    monkeypatch.chdir(tmp_path / "calm")
    assert tuner("launch", study, "--fuse", "off", "--storage", tmp_path / "calm" / "runs" / "tuner.sqlite").code == 0
    assert rows(tmp_path, CURVES) == rows(tmp_path / "calm", CURVES)


def test_nothing_new_is_begun_beside_a_saved_copy(tuner, study, tmp_path):
    (tmp_path / "asked").write_text("delete")
    assert tuner("launch", study, "--fuse", "off").code == 75
    again = tuner("launch", study, "--fuse", "off")
    assert (again.code, "tuner.sqlite.saved holds what was recorded there" in again.err) == (2, True), again.err
    assert not (tmp_path / "runs" / "tuner.sqlite").exists()
