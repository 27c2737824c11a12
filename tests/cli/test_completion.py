"""What a shell offers: the protocol of typer, asked as bash, zsh and fish ask it, in a process of its own."""

import os
import subprocess
import sys

import pytest
from support.shell import run_in
from support.stage_files import write_stages
from support.study_files import write_study

from tuner.cli import completion
from tuner.cli.commands import commands


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a study file, of which round 1 was launched."""
    made = tmp_path_factory.mktemp("completed")
    write_study(made, trials=1, steps=20)
    (made / "notes.txt").touch()
    (made / "studies").mkdir()
    (made / "studies" / "other.py").touch()
    with pytest.MonkeyPatch.context() as patched:
        assert run_in(made, patched, "launch", "tiny.py", "-q", "--fuse", "off") == 0
    return made


def asked(folder, shell, words):
    """What a shell is offered for the last word of a line."""
    place = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    if shell != "bash":
        place = {"_TYPER_COMPLETE_ARGS": words, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    environment = os.environ | {"_TUNER_COMPLETE": f"complete_{shell}"} | place
    done = subprocess.run(
        [sys.executable, "-m", "tuner"], capture_output=True, text=True, cwd=folder, env=environment, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_bash_is_offered_commands_and_names(folder):
    assert asked(folder, "bash", "tuner la").split() == ["launch"]
    assert asked(folder, "bash", "tuner trials ti").split() == ["tiny", "tiny.py"]


def test_zsh_and_fish_are_offered_commands_with_their_help(folder):
    assert f'"launch":"{commands()["launch"].help}"' in asked(folder, "zsh", "tuner la")
    assert asked(folder, "fish", "tuner la") == f"launch\t{commands()['launch'].help}\n"


@pytest.mark.parametrize(
    ("values", "typed", "found"),
    [
        (completion.study_files, "", ["studies/", "tiny.py"]),
        (completion.study_files, "studies/o", ["studies/other.py"]),
        (completion.studies, "t", ["tiny", "tiny.py"]),
        (completion.rounds, "", ["1"]),
        (completion.declared_rounds, "", ["1", "2"]),
        (completion.studies_of_campaign, "ro", ["round-1"]),
        (completion.trial_numbers, "", ["0"]),
        (completion.verdicts, "too", ["too_long"]),
        (completion.verdicts, "expand_high,too", ["expand_high,too_long"]),
        (completion.plots, "best", ["best-steps", "best-of-n"]),
    ],
)
def test_values_are_offered(values, typed, found, folder, monkeypatch):
    monkeypatch.chdir(folder)
    offers = [one for one in values({"study": "tiny"}, typed) if not one.startswith("runs")]
    assert sorted(offers) == sorted(found)


def test_nothing_is_offered_where_there_is_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.sqlite").write_text("no database" * 100)
    for given in ({}, {"study": "tiny"}, {"study": "tiny", "storage": "broken.sqlite"}):
        assert completion.rounds(given, "") == completion.studies(given, "") == []
        assert completion.declared_rounds(given, "") == ["1"]
    assert not (tmp_path / "runs").exists(), "no storage is made"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_asks_tuner(shell, tuner):
    script = tuner("completion", shell)
    assert script.code == 0
    assert f"_TUNER_COMPLETE=complete_{shell}" in script.out


@pytest.mark.parametrize(
    ("line", "place", "found"),
    [
        ("tuner exp", 1, ["exploit", "export"]),
        ("tuner trials staged.py : p", 4, ["pre"]),  # as bash breaks words at colons
        ("tuner trials staged.py :", 3, ["pre", "head:1", "staged-branch", "staged"]),
        ("tuner trials staged.py : head : ", 5, ["1"]),
    ],
)
def test_bash_reads_the_script_and_completes(line, place, found, folder, tuner):
    """The whole way: bash evaluates the script and calls its function, which calls tuner."""
    write_stages(folder)
    (folder / "bin").mkdir(exist_ok=True)
    program = folder / "bin" / "tuner"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m tuner "$@"\n')
    program.chmod(0o755)
    asked = f"COMP_WORDS=({line}); COMP_CWORD={place}; _tuner_completion tuner; echo ${{COMPREPLY[@]}}"
    script = f"{tuner('completion', 'bash').out}\nCOMP_WORDBREAKS=' :'\n{asked}"
    environment = os.environ | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env=environment, check=False, cwd=folder
    )
    assert done.stdout.split() == found, done.stderr
    (folder / "staged.py").unlink()
