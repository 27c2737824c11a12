"""Scripts of peers in their public form, and what it takes to make studies of them: studies/examples/own_training.

How changed lines are counted: `difflib.unified_diff` of `before/NAME.py` and `NAME.py`; each line that it marks with a
plus counts, so a line that was changed or moved counts once. Blank lines and comments do not count, and lines that go
do not. What stands from `campaign = Campaign(` on is the question, the same for every way of training; it is counted by
itself, but for the lines of the workload in it.
"""

import difflib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "studies" / "examples" / "own_training"
PAGE = (ROOT / "docs" / "examples" / "own_training.md").read_text(encoding="utf-8")
NEEDED = {
    "accelerate_cv": ("accelerate",),
    "glue_no_trainer": ("accelerate", "transformers", "datasets"),
    "glue_trainer": ("accelerate", "transformers", "datasets"),
    "lightning_autoencoder": ("lightning",),
}
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))
SCRIPTS = [
    pytest.param(
        name, marks=[pytest.mark.needs(*NEEDED.get(name, ("sklearn",))), pytest.mark.filterwarnings("default")]
    )
    for name in NAMES
]  # warnings are those of other packages
MOST = 15  # changed lines of an adopted script


def added(before: str, after: str) -> list[str]:
    """The lines that a unified diff marks with a plus, without blank lines and comments."""
    marked = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
    lines = [line[1:].strip() for line in marked if line.startswith("+") and not line.startswith("+++")]
    return [line for line in lines if line and not line.startswith("#")]


def counted(before: str, after: str) -> tuple[int, int]:
    """How many lines of a script were changed, and how many ask the question."""
    lines = added(before, after)
    begin = lines.index("campaign = Campaign(")
    asked = lines[begin:]
    opened = next((number for number, line in enumerate(asked) if re.fullmatch(r"\w+Workload\(", line)), None)
    workload = 0 if opened is None else asked[opened:].index("),") + 1
    return begin + workload, len(asked) - workload


def texts(name: str) -> tuple[str, str]:
    return tuple((FOLDER / place / f"{name}.py").read_text(encoding="utf-8") for place in ("before", "."))


@pytest.mark.parametrize("name", NAMES)
def test_a_script_is_adopted_in_few_changed_lines(name):
    changed, asked = counted(*texts(name))
    assert 0 < changed <= MOST
    assert f"| `{name}` |" in PAGE
    assert re.search(rf"^\| `{name}` \| .+ \| {changed} \| {asked} \|$", PAGE, re.MULTILINE), (changed, asked)


def test_every_script_has_a_study_and_its_diff_on_the_page():
    assert sorted(path.stem for path in (FOLDER / "before").glob("*.py")) == NAMES
    shown = re.findall(r"\{literalinclude\} \S+/own_training/(\w+)\.py\n:diff: \S+/own_training/before/(\w+)\.py", PAGE)
    assert sorted(shown) == [(name, name) for name in NAMES]


def test_a_changed_line_counts_once_and_a_comment_does_not():
    before = "one\ntwo\nthree\n"
    assert added(before, "one\n\n# why\n2\nthree\n") == ["2"]
    assert added(before, "two\nthree\none\n") == ["one"]
    assert added(before, "two\n") == []
    after = "one\nmore\ncampaign = Campaign(\n    OneWorkload(\n        a=1,\n    ),\n    rounds=[],\n)\n"
    assert counted(before, after) == (4, 3)


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HOME": str(folder / "hugging")}
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("name", SCRIPTS)
def test_two_trials_train_a_few_steps(name, tmp_path):
    options = ["--round", "1", "--trials", "2", "--max-train-steps", "6", "--storage", "few.sqlite"]
    done = run(["-m", "tuner", "launch", str(FOLDER / f"{name}.py"), *options], tmp_path)
    assert done.returncode in (0, 3), done.stderr[-4000:]
    assert "Traceback" not in done.stderr
    assert "promises less" not in done.stderr, "resumed and repeated exactly, at the rates of the study"
    assert len(re.findall(r"trial \d: complete, best validation/loss [\d.]+ at step \d", done.stderr)) == 2, done.stderr


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_runs_by_itself_and_its_study_ends_in_a_decision(name, tmp_path):
    shutil.copytree(FOLDER, tmp_path / "own", ignore=shutil.ignore_patterns("__pycache__"))
    alone = run([f"own/before/{name}.py"], tmp_path)
    assert alone.returncode == 0, alone.stderr[-4000:]
    command = ["-m", "tuner", "run", f"own/{name}.py", "--yes"]
    done = run(command, tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Traceback" not in done.stderr
    assert "promises less" not in done.stderr, "resumed and repeated exactly, at the rates of the study"
    assert re.search(r"^Result: take .*learning_rate [\d.]+", done.stdout, re.MULTILINE)
    assert (tmp_path / "runs" / f"{name}.html").exists()
    again = run(command, tmp_path)
    assert again.returncode == 0, again.stderr[-4000:]
    assert again.stdout == done.stdout, "nothing is trained again"
    files = "keep_files" in (FOLDER / f"{name}.py").read_text(encoding="utf-8")  # then a folder is exported
    exported = run(["-m", "tuner", "best", name, "--export", "kept" if files else "model.safetensors"], tmp_path)
    assert exported.returncode == 0, exported.stderr[-4000:]
    assert (tmp_path / ("kept/model.safetensors" if files else "model.safetensors")).stat().st_size > 1000
