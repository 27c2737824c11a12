"""Every command that trains takes the same options for study, storage and machine, and hands them on unchanged."""

from dataclasses import fields
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from tuner.cli import commands
from tuner.cli.options import Profile
from tuner.cli.where import Where, trains

program = typer.Typer()
commands.register(program)


@pytest.mark.parametrize("name", ["run", "sweep", "launch", "worker", "exploit", "adopt", "budget-curve"])
def test_commands_that_train_have_the_same_options(name):
    offered = {parameter.name for parameter in get_command(program).commands[name].params}
    assert {field.name for field in fields(Where)} - {"fork_server"} <= offered
    assert not {"where", "fork_server"} & offered


def test_what_is_typed_arrives_and_what_is_not_keeps_its_default():
    heard = []

    @trains
    def train(where: Where, rounds: int = 2) -> None:
        """Train."""
        heard.append((where, rounds))

    small = typer.Typer()
    small.command()(train)
    typed = ["some.py", "--rounds", "5", "-w", "auto", "--profile", "fast", "--storage", "x.sqlite", "-q"]
    get_command(small)(typed, standalone_mode=False)
    get_command(small)(["some.py"], standalone_mode=False)
    plain = Where(Path("some.py"))
    assert heard == [
        (Where(Path("some.py"), storage="x.sqlite", workers="auto", profile=Profile.fast, quiet=True), 5),
        (plain, 2),
    ]
