"""Every command of docs/how-to/import-tables.md runs as it stands, and its Python does what the page says."""

import re
import shlex
import sys
import types
from pathlib import Path

import pandas as pd
from support.shell import tuner

from tuner.interchange.table_space import read_space
from tuner.interchange.tables_in import TableTerms, imported_from_tables

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "import-tables.md").read_text(encoding="utf-8")
HISTORIES = ROOT / "tests" / "interchange" / "histories"
__all__ = ["tuner"]


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_every_command_of_the_page_runs(tuner, tmp_path):
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    commands = [line for block in blocks("console") for line in block.splitlines()]
    assert len(commands) >= 9
    for command in commands:
        name, *arguments = shlex.split(command)
        assert name == "tuner"
        done = tuner(*arguments)
        assert done.code == 0, (command, done.err)
        if arguments[:2] == ["import", "table"]:
            assert "imported 6 new of 6 trials" in done.err
    shown = tuner("trials", "wandb-history", "-f", "csv")
    assert "run 3fk2j9ab" in shown.out


def test_every_logger_of_the_test_files_has_a_command_on_the_page():
    folders = [path.name for path in HISTORIES.iterdir() if path.is_dir() and not path.name.startswith("_")]
    assert len(folders) == 5
    assert all(f"histories/{name}" in PAGE for name in folders)


def test_the_space_file_of_the_page_is_one(tmp_path):
    (tmp_path / "space.json").write_text(blocks("json")[0])
    names = [h.name for h in read_space(tmp_path / "space.json")]
    assert names == ["learning_rate", "num_layers", "optimizer", "momentum"]


class Run:
    """A run as W&B's public API gives it: sampled history with NaN where nothing was logged."""

    state = "finished"

    def __init__(self, name, rate):
        self.id, self.config = name, {"lr": rate, "layers": [8, 8]}

    def history(self, samples):
        rows = range(20)
        return pd.DataFrame({"_step": rows, "epoch": rows, "train_loss": [1 / (r + 1) if r % 2 else None for r in rows],
                             "val_loss": [None if r % 2 else 1 / (r + 1) for r in rows]})  # fmt: skip


def test_the_code_for_weights_and_biases_makes_tables_that_are_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("wandb")
    found = [Run("3fk2j9ab", 0.1), Run("9x1zq0c4", 0.2)]
    vars(module)["Api"] = lambda: types.SimpleNamespace(runs=lambda path: found)
    monkeypatch.setitem(sys.modules, "wandb", module)
    (code,) = (block for block in blocks("python") if "wandb" in block)
    exec(compile(code, "docs/how-to/import-tables.md", "exec"), {})
    (tmp_path / "space.json").write_text('{"lr": {"min": 0.0, "max": 1.0, "distribution": "uniform"}}')
    study = imported_from_tables(
        tmp_path / "history.csv", None, None, TableTerms("val_loss", "minimize", step_column="epoch")
    )
    assert [one.state.value for one in study.trials] == ["complete", "complete"]
    assert len(study.trials[0].measurements) == 20
    assert any("layers has one value in all trials" in note for note in study.notes)


def test_a_study_from_elsewhere_is_not_sent_to_sweep(tuner):
    done = tuner("import", "table", str(HISTORIES / "keras"), "--objective", "val_loss", "--direction", "minimize")
    assert done.code == 0, done.err
    done = tuner("plot", "sweep", "keras")
    assert (done.code, "tuner sweep" in done.err) == (2, False)
    assert "was trained elsewhere, so it has no sweep" in done.err
