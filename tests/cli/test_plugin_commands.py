"""A package outside adds a command: it names a module, and that module registers one record."""

import os
import subprocess
import sys

import pytest

from tuner.registry import is_any_installed

PLUGIN = """
from dataclasses import dataclass

from tuner.cli.commands import CliCommand, CommandGroup
from tuner.cli.options import Study
from tuner.registry import register


@dataclass(frozen=True, kw_only=True)
class Greet:
    \"\"\"Greet a study.\"\"\"

    study: Study
    loudly: bool = False


def greet(options):
    print("HELLO" if options.loudly else "hello", options.study)
    return 3


where = ("greeting:Greet", "greeting:greet")
register(CliCommand({name!r}, "Greet a study", CommandGroup.READ, *where, "tuner greet digits"))
"""


@pytest.fixture
def installed(tmp_path):
    def install(name="greet"):
        (tmp_path / "greeting.py").write_text(PLUGIN.format(name=name))
        about = tmp_path / "greeting-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text("[tuner.plugins]\ngreeting = greeting\n")

        def tuner(*arguments):
            environment = os.environ | {"PYTHONPATH": str(tmp_path)}
            return subprocess.run(
                [sys.executable, "-m", "tuner", *arguments],
                capture_output=True,
                text=True,
                env=environment,
                check=False,
            )

        return tuner

    return install


def test_the_command_of_a_plugin_is_in_the_help_and_runs(installed):
    tuner = installed()
    page = tuner("--help").stdout
    read = page[page.index("Read:") : page.index("Decide:")]
    assert "greet" in read
    assert "Greet a study" in read
    ran = tuner("greet", "digits", "--loudly")
    assert (ran.returncode, ran.stdout, ran.stderr) == (3, "HELLO digits\n", "")
    assert "Example: tuner greet digits" in tuner("greet").stderr


def test_the_name_of_another_command_is_refused(installed):
    refused = installed("launch")("status")
    assert refused.returncode == 2
    assert "'launch' is registered twice" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_plugin_is_looked_for_in_the_files_of_packages(tmp_path, installed):
    (tmp_path / "other-1.0.dist-info").mkdir()
    (tmp_path / "other-1.0.dist-info" / "entry_points.txt").write_text("[console_scripts]\nother = other:main\n")
    assert not is_any_installed([str(tmp_path), str(tmp_path / "missing")])
    installed()
    assert is_any_installed([str(tmp_path)])
    (tmp_path / "packed.zip").touch()
    assert is_any_installed([str(tmp_path / "packed.zip")]), "what cannot be read is not passed over"
