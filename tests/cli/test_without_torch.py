"""What only reads runs where torch is not installed; what trains says what to install, and nothing else."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.shell import run_in
from support.study_files import write_study

from tuner.cli.commands import COMMANDS

ROOT = Path(__file__).parents[2]
TRAIN = {
    "run", "plan", "sweep", "launch", "worker", "exploit", "budget-curve", "stability", "adopt", "score-test", "replay",
}  # fmt: skip
WITHOUT_TORCH = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "safetensors"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
from tuner.cli.app import run

for line in sys.argv[1:]:
    sys.argv = ["tuner", *line.split()]
    print("code", run(), line, flush=True)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a study that was trained where torch is installed, and a copy of its tables."""
    made = tmp_path_factory.mktemp("without_torch")
    write_study(made, trials=4, steps=40)
    with pytest.MonkeyPatch.context() as patched:
        assert run_in(made, patched, "launch", "tiny.py", "-q") == 0
        assert run_in(made, patched, "export", "tiny", "--to", "csv", "tables") == 0
    return made


def codes(folder, *lines):
    """The exit code of each command in one process without torch, and what was said."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *lines], capture_output=True, text=True, cwd=folder, check=False
    )
    found = re.findall(r"^code (\d+) (.*)$", done.stdout, re.MULTILINE)
    assert [line for _, line in found] == list(lines), done.stderr
    return [int(code) for code, _ in found], done.stderr


def test_every_reading_command_runs_without_torch(folder):
    lines = (
        "status", "trials tiny.py", "check tiny.py --fail-on none", "best-steps tiny", "boundaries tiny",
        "conclusions tiny", "adoptions tiny", "best tiny", "plot axes tiny", "report tiny", "verify tiny",
        "export tiny --to csv again", "export tiny --to optuna optuna.db",
        "import optuna optuna.db --study back", "backup copy.sqlite", "adopt-storage --storage copy.sqlite --yes",
        "import table tables/curves.csv --objective validation/loss --direction minimize --study again",
        "check again --fail-on none", "demo shown", "check demo --storage shown/tuner.sqlite", "completion bash",
    )  # fmt: skip
    found, said = codes(folder, *lines)
    assert [line for line, code in zip(lines, found, strict=True) if code not in (0, 3)] == [], said
    shown = "check demo --storage shown/tuner.sqlite"
    assert f"next: tuner {shown}\n" in said
    assert found[lines.index(shown)] == 3, "the example has something to do"
    assert "Widen" in (page := (folder / "shown" / "demo.html").read_text()) or "expand" in page
    tried = {" ".join(line.split()[: 2 if line.startswith("import") else 1]) for line in lines}
    assert tried == {command.name for command in COMMANDS} - TRAIN, "every command is either in the list or trains"


def test_a_command_that_needs_torch_says_what_to_install(folder):
    lines = ("run tiny.py", "launch tiny.py", "replay tiny.py --trial 0", "score-test tiny.py", "plan tiny.py")
    found, said = codes(folder, *lines, "best tiny --export model.safetensors")
    assert found == [2] * 6
    assert said.count("needs torch, which is not installed") == 6
    assert said.count("pip install 'torch>=2.10,<2.14'") == 6
    assert "Traceback" not in said
    assert not (folder / "model.safetensors").exists()


def test_the_requirements_of_reading_are_the_package_s_own_without_what_trains():
    whole = re.search(r"^dependencies = \[\n(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL | re.MULTILINE)
    needed = set(re.findall(r'^  "([^"]+)"', whole[1], re.MULTILINE))
    lines = (ROOT / "requirements-reader.txt").read_text().splitlines()
    reading = {line for line in lines if line and not line.startswith("#")}
    assert reading < needed
    assert {re.split(r"[<>=]", one)[0] for one in needed - reading} == {"torch", "safetensors"}
    (torch,) = (one for one in needed if one.startswith("torch"))
    from tuner.cli.exit_codes import NO_TORCH

    assert f"pip install '{torch}'" in NO_TORCH
