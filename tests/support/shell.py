"""`tuner` as a function: arguments in, exit code and what was printed out."""

import sys
from dataclasses import dataclass

import pytest

from tuner.cli.app import main


@dataclass
class Run:
    code: int
    out: str
    err: str


@pytest.fixture
def tuner(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TUNER_STORAGE", raising=False)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["tuner", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return Run(ended.value.code or 0, printed.out, printed.err)

    return run
