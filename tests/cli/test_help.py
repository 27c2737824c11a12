"""The help pages are made from the table of commands: complete, in groups, quick, and without types behind flags."""

import subprocess
import sys
from dataclasses import is_dataclass

import pytest

from tuner.analysis.checklist import known_verdicts
from tuner.cli.commands import COMMANDS, CommandGroup, commands
from tuner.cli.options import loaded
from tuner.cli.output import wrapped

NAMES = list(commands())
HEAVY = {"torch", "pandas", "numpy", "scipy", "matplotlib", "sqlalchemy", "optuna", "pydantic"}


def imported_by(arguments, tmp_path):
    """Which heavy packages a command imports, and what it prints."""
    script = (
        "import sys\n"
        f"sys.argv = ['tuner', *{arguments!r}]\n"
        "from tuner.cli.app import run\n"
        "code = run()\n"
        f"print('heavy', *sorted({HEAVY!r} & set(sys.modules)))\n"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    page, _, heavy = done.stdout.rpartition("heavy")
    return heavy.split(), page


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_the_first_pages_import_nothing_heavy(arguments, tmp_path):
    assert imported_by(arguments, tmp_path)[0] == []


@pytest.mark.parametrize("name", ["launch", "import optuna", "check"])
def test_the_page_of_a_command_does_not_import_what_the_command_needs(name, tmp_path):
    heavy, page = imported_by([*name.split(), "--help"], tmp_path)
    assert set(heavy) <= {"pydantic"}, "of typer"
    assert commands()[name].example in page


def test_the_page_has_every_command_under_its_heading(tuner):
    page = tuner("--help").out
    part = None
    found = {}
    for line in page.splitlines():
        if line and not line.startswith(" "):
            part = line.rstrip(":")
        elif line and part in set(CommandGroup) and line[:3] != "   ":
            found[next(name for name in sorted(NAMES, key=len, reverse=True) if line.startswith(f"  {name} "))] = part
    assert found == {command.name: command.group for command in COMMANDS}
    assert len(found) > 25
    assert "  75  the machine gave way" in page


@pytest.mark.parametrize("name", NAMES)
def test_a_command_is_one_record_whose_options_are_a_frozen_value(name, tuner):
    record = commands()[name]
    options = loaded(record.options)
    assert is_dataclass(options)
    assert options.__dataclass_params__.frozen
    assert record.example.removeprefix('eval "$(').startswith(f"tuner {name}")
    page = tuner(*name.split(), "--help").out
    flags = [line for line in page.splitlines() if line.startswith("  -")]
    assert any(line.split()[0] == "-h," for line in flags)
    assert "<" not in "".join(line[:30] for line in flags), "no <bool> behind a flag, no <int> behind a number"
    assert "bool" not in page


@pytest.mark.parametrize(
    "name", [name for name in NAMES if "study" in loaded(commands()[name].options).__dataclass_fields__]
)
def test_a_function_of_the_table_exists(name):
    assert callable(loaded(commands()[name].run))


def test_tuner_alone_shows_three_ways_to_begin(tuner):
    alone = tuner()
    assert (alone.code, alone.err) == (0, "")
    assert [line for line in alone.out.splitlines() if line.endswith(":") and not line.startswith(" ")] == [
        "I have an Optuna study:", "I have a torch model:", "Show me an example report:",
    ]  # fmt: skip
    shown = [line.split()[:2] for line in alone.out.splitlines() if line.startswith("  tuner ")]
    assert {verb for _, verb in shown} == {"import", "check", "report", "run", "demo"}
    assert len(alone.out.splitlines()) <= 24, "one screen"


@pytest.mark.parametrize("arguments", [["check"], ["launch"], ["plot"], ["import", "optuna"]])
def test_a_missing_argument_is_answered_with_a_whole_command(arguments, tuner):
    missing = tuner(*arguments)
    assert missing.code == 2
    assert "Missing argument" in missing.err
    assert missing.err.endswith(f"Example: {commands()[' '.join(arguments)].example}\n")


def test_a_typo_is_answered_with_the_command_that_was_meant(tuner):
    assert "Did you mean 'check'" in tuner("chek").err
    assert "Did you mean 'optuna'" in tuner("import", "optna").err
    assert "Example" not in tuner("check", "digits", "--no-such-option").err


@pytest.mark.parametrize("name", NAMES)
def test_an_error_shows_the_usage_line_of_the_help_page(name, tuner):
    first = tuner(*name.split(), "--help").out.splitlines()[0]
    wrong = tuner(*name.split(), "--no-such-option")
    assert wrong.code == 2
    assert wrong.err.splitlines()[0] == first.replace("\033[1m", "").replace("\033[0m", "")


@pytest.mark.parametrize("group", [[], ["import"]])
def test_an_error_of_a_group_shows_the_usage_line_of_its_page(group, tuner):
    first = tuner(*group, "--help").out.splitlines()[0]
    assert first == f"Usage: {' '.join(['tuner', *group])} COMMAND ..."
    assert tuner(*group, "no-such-command").err.splitlines()[0] == first


def test_messages_break_between_words_and_never_inside_a_command():
    text = "  one two three: tuner launch a.py --round 1; four `tuner best a` five"
    lines = wrapped(text, 22).split("\n")
    assert lines == ["  one two three:", "  tuner launch a.py --round 1;", "  four `tuner best a`", "  five"]
    assert wrapped("a\n\nb", 20) == "a\n\nb"
    assert wrapped("x" * 50, 20) == "x" * 50, "a path stays whole"


def test_a_question_mark_lists_the_verdicts_that_fail_on_may_name(tuner):
    run = tuner("check", "digits", "--fail-on", "?")
    assert run.code == 2
    assert ", ".join(known_verdicts()) in run.err
    assert "did you mean" not in run.err


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("overfiting", "overfitting"),
        ("Too-Long", "too_long"),
        ("expand", "expand_low"),
        ("nosy,tolong", "noisy, too_long"),
    ],
)
def test_the_verdict_that_was_meant_is_named_before_the_list_of_all(given, meant, tuner):
    run = tuner("check", "digits", "--fail-on", given)
    assert run.code == 2
    told = " ".join(run.err.split())
    assert f"did you mean {meant}? There are: {known_verdicts()[0]}, " in told
