"""On macOS and Windows studies are trained in one process, imported, checked and reported; what they lack is said."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.platforms import OF_LINUX, OF_POSIX
from support.study_files import write_study

import tuner

PACKAGE = Path(tuner.__file__).parent
TESTS = Path(__file__).parents[1]
COMMANDS = (
    "launch tiny.py",
    "launch tiny.py",  # again: nothing is left to do
    "import table curves.csv --objective loss --direction minimize --study mine",
    "check mine --fail-on none",
    "verify tiny.py",
    "launch tiny.py --workers 2",
)


def write_history(folder):
    rows = [(trial, step, 1 / step + trial / 100, 0.1 * (trial + 1)) for trial in range(3) for step in range(1, 9)]
    lines = ["trial,step,loss,lr", *(",".join(map(str, row)) for row in rows), ""]
    (folder / "curves.csv").write_text("\n".join(lines))
    (folder / "space.json").write_text(json.dumps({"lr": {"kind": "real", "low": 0.01, "high": 1.0, "log": True}}))


def on(platform, folder):
    """What each command printed, with its exit code; and the words after the last one."""
    write_study(folder, trials=2, steps=20)
    write_history(folder)
    words = " -- ".join(COMMANDS).split()
    environment = os.environ | {"PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "support.platforms", platform, *words], cwd=folder, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    ended = re.findall(r"(.*?)\n=== exit code (\d+)\n", done.stdout, re.DOTALL)
    assert len(ended) == len(COMMANDS), done.stdout
    return [printed for printed, _ in ended], [int(code) for _, code in ended], done.stdout.rpartition("===")[2]


def names_in(path):
    """Modules that are imported, and names of the module `os`."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return {ast.unparse(node).removeprefix("os.") for node in nodes if isinstance(node, ast.Attribute | ast.alias)}


def test_what_other_systems_lack_is_used_in_one_module_alone():
    """And by what runs there only: the fork server, worker processes, failpoints, the guard of a command."""
    lacking = {"fcntl", "msvcrt", "pwd", "grp", "resource", "termios", *OF_LINUX, *OF_POSIX} - {"pread", "pwrite"}
    used = {str(path.relative_to(PACKAGE)): lacking & names_in(path) for path in PACKAGE.rglob("*.py")}
    only_there = (
        "system.py",
        "execution/fork_server.py",
        "execution/fork_server_process.py",
        "delegated/command_guard.py",
    )
    assert {name: found for name, found in used.items() if found and name not in only_there} == {}
    assert "fork" in used["execution/fork_server_process.py"], "the search finds what is there"


def test_windows_trains_in_one_process_and_says_in_one_line_what_it_cannot(tmp_path):
    printed, codes, end = on("win32", tmp_path)
    assert codes == [0, 0, 0, 0, 0, 2], printed
    assert printed[-1] == (
        "error: --workers needs Linux or macOS; on Windows a study is trained in one process: leave it out\n"
    )
    assert int(re.search(r"(\d+) locks", end)[1]) > 2, "a lock that somebody holds is waited for"


@pytest.mark.slow
def test_macos_trains_in_one_process_and_in_two(tmp_path):
    printed, codes, _ = on("darwin", tmp_path)
    assert codes == [0, 0, 0, 0, 0, 0], printed
