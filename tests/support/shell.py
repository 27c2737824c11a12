"""`tuner` as a function: arguments in, exit code and what was printed out."""

import sys
from dataclasses import dataclass

import pytest

from tuner.cli.app import run as run_command


@dataclass
class Run:
    code: int
    out: str
    err: str


def run_in(folder, patched, *arguments):
    """The exit code of a command in a folder, for fixtures that several tests share; `patched`: a MonkeyPatch."""
    patched.chdir(folder)
    patched.delenv("TUNER_STORAGE", raising=False)
    patched.setattr(sys, "argv", ["tuner", *map(str, arguments)])
    return run_command()


@pytest.fixture
def tuner(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TUNER_STORAGE", raising=False)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["tuner", *map(str, arguments)])
        capsys.readouterr()
        code = run_command()
        printed = capsys.readouterr()
        return Run(code, printed.out, printed.err)

    return run
