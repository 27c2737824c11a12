"""Every command that trains takes the same options for study, storage and machine, and hands them on unchanged."""

from dataclasses import dataclass, fields
from pathlib import Path

import pytest

from tuner.cli import given
from tuner.cli.commands import CliCommand, CommandGroup
from tuner.cli.options import Profile
from tuner.cli.program import parser_of, program
from tuner.cli.training_options import TrainingOptions

TRAIN = ["run", "sweep", "launch", "worker", "exploit", "adopt", "budget-curve", "stability"]
heard = []


@dataclass(frozen=True, kw_only=True)
class Example(TrainingOptions):
    """Train."""

    rounds: int = 2


def train(options):
    heard.append(options)


@pytest.mark.parametrize("name", TRAIN)
def test_commands_that_train_have_the_same_options(name):
    offered = [parameter.name for parameter in program().commands[name].params]
    shared = [field.name for field in fields(TrainingOptions) if field.metadata.get("option", True)]
    assert set(shared) <= set(offered)
    assert not {"fork_server", "time_limit"} & set(offered)
    own = [one for one in offered if one not in shared]
    assert offered[: len(own)] == own, "on the help page the command's own options come first"


def test_what_is_typed_arrives_and_what_is_not_keeps_its_default():
    record = CliCommand("train", "Train", CommandGroup.TRAIN, f"{__name__}:Example", f"{__name__}:train")
    small = parser_of(record, "train")
    typed = ["some.py", "--rounds", "5", "-w", "auto", "--profile", "fast", "--storage", "x.sqlite", "-q"]
    small(typed, standalone_mode=False)
    small(["some.py"], standalone_mode=False)
    plain = Example(study=Path("some.py"))
    assert heard == [
        Example(study=Path("some.py"), storage="x.sqlite", workers="auto", profile=Profile.fast, quiet=True, rounds=5),
        plain,
    ]


def test_a_printed_command_names_the_checkpoints_where_it_has_the_option(monkeypatch):
    monkeypatch.setattr(given.GIVEN, "checkpoints", Path("kept"))
    monkeypatch.setattr(given.GIVEN, "storage", None)
    printed = {
        verb
        for verb in ("launch", "verify", "best", "adopt-storage", "plan", "check", "import", "nothing")
        if given.command(verb, "a").endswith("--checkpoints kept")
    }
    assert printed == {"launch", "verify", "best", "adopt-storage"}
