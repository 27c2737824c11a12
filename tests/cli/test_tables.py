"""What people read on a terminal: whole numbers and names, whatever its width."""

import io
import os
import pty
import subprocess
import sys
from types import SimpleNamespace

import pandas as pd
import pytest
from rich.console import Console
from support.study_files import write_study

from tuner.cli.launch import _table_of_plans
from tuner.cli.tables import fitting, natural_width, table_of

FRAME = pd.DataFrame({
    "trial": [0, 1],  # 5 wide, and 2 between columns
    "state": ["complete", "infeasible"],  # 10
    "learning_rate": [0.0123, 0.5],  # 13
    "seed": [5937078713313267817, 7],  # 19
    "reason": ["", "diverged at step 15: the norm of the weights became inf"],  # 55, folded to 32
})  # fmt: skip


@pytest.mark.parametrize(
    ("room", "left_out"),
    [
        (5 + 10 + 13 + 19 + 32 + 4 * 2, []),
        (5 + 10 + 13 + 19 + 32 + 4 * 2 - 1, ["seed"]),
        (5 + 10 + 13 + 32 + 3 * 2 - 1, ["seed", "reason"]),
        (3, ["learning_rate", "seed", "reason"]),
    ],
)
def test_what_has_no_room_is_left_out_and_what_is_spare_goes_first(room, left_out):
    shown, missing = fitting(FRAME, room, spare=("seed",))
    assert missing == left_out
    assert list(shown.columns) == [name for name in FRAME.columns if name not in left_out]


def test_only_long_texts_are_folded():
    console = Console(width=5 + 10 + 13 + 19 + 32 + 4 * 2, record=True, file=io.StringIO())
    console.print(table_of(FRAME, folded=True))
    text = console.export_text()
    assert "5937078713313267817" in text
    assert "learning_rate" in text
    assert len(text.splitlines()) == 4, "a header, two trials, and the reason takes a second line"


def test_a_table_that_nobody_folds_has_a_line_for_each_row():
    console = Console(width=natural_width(FRAME), record=True, file=io.StringIO())
    console.print(table_of(FRAME))
    lines = console.export_text().splitlines()
    assert len(lines) == 3
    assert lines[2].rstrip().endswith("the norm of the weights became inf")


def on_a_terminal(*arguments, columns=80):
    """What a command prints on a terminal of 80 columns."""
    parent, child = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "NO_COLOR": "1", "TERM": "dumb"}
    run = subprocess.Popen(
        [sys.executable, "-m", "tuner", *arguments], stdout=child, stderr=child, stdin=child, env=environment
    )
    os.close(child)
    read = b""
    try:
        while chunk := os.read(parent, 4096):
            read += chunk
    except OSError:  # Linux: the other side was closed
        pass
    assert run.wait() == 0, read.decode()
    return read.decode().replace("\r", "")


def test_a_terminal_of_eighty_columns_shows_a_line_for_each_trial(tuner, tmp_path):
    assert tuner("launch", write_study(tmp_path, trials=3)).code == 0
    text = on_a_terminal("trials", "tiny", "--storage", str(tmp_path / "runs" / "tuner.sqlite"))
    assert all(len(line) <= 80 for line in text.splitlines()), text
    assert [line.split()[:2] for line in text.splitlines()[1:4]] == [[str(n), "complete"] for n in range(3)], text
    assert "best_value" in text
    assert "no room for " in text


@pytest.mark.parametrize(
    ("width", "left_out"),
    [(160, []), (100, ["ms/step", "ms/evaluation"]), (85, ["ms/step", "ms/evaluation", "epochs"])],
)
def test_a_plan_leaves_out_columns_before_it_cuts_names_and_numbers(monkeypatch, width, left_out):
    name = "stability-round-2-trial-2-warmup-56-to-20x"
    study = SimpleNamespace(
        name=name, budget=SimpleNamespace(max_train_steps=12_345), steps_per_epoch=15, in_epochs=lambda steps: "823"
    )
    plan = SimpleNamespace(
        study=study, trials=range(12), steps=148_140, saved_steps=0, seconds=3.0, checkpoint_bytes=408_600,
        price=SimpleNamespace(step_ms=0.77, evaluation_ms=8.21),
    )  # fmt: skip
    monkeypatch.setattr("tuner.cli.launch.console", lambda: Console(width=width))
    table = _table_of_plans([plan])
    out = io.StringIO()
    Console(file=out, width=width).print(table)
    head, row, *rest = out.getvalue().splitlines()
    assert rest == []
    assert name in row
    assert "12,345" in row
    assert [one for one in ("ms/step", "ms/evaluation", "epochs") if one not in head] == left_out
