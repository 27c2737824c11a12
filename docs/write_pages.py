"""Parts of pages that are generated from the program: help of the commands, exit codes, verdicts, plots.

`conf.py` calls `write_pages` before each build; the pages include what lies in `docs/generated`.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import typer
from typer.testing import CliRunner

from tuner.cli.app import app
from tuner.cli.exit_codes import Exit
from tuner.registry import register

FIELD = re.compile(r"([a-z_]\w*(?:, [a-z_]\w*)*): (\S.*)")  # how a docstring explains a field
NAME = re.compile(r"(`[^`]+`)(\w?)")  # a name in backticks, and the letter behind it
WIDTH = 100  # columns of the terminal that the help is shown in


def write_pages(docs: Path) -> None:
    """Write every generated part to `docs/generated`."""
    folder = docs / "generated"
    folder.mkdir(exist_ok=True)
    for name, text in (("commands.md", commands()), ("exit-codes.md", exit_codes())):
        (folder / name).write_text(text, encoding="utf-8")


def commands() -> str:
    """A section for each command with its help as a terminal shows it."""
    return "\n".join(f"## tuner {name}\n\n```text\n{help_of(name)}\n```\n" for name in command_names())


def command_names() -> Iterator[str]:
    """Every command as a person types it, in the order of the help page."""
    if not app.registered_commands:
        register(app)
    for name, command in typer.main.get_command(app).commands.items():
        parts = getattr(command, "commands", None)
        yield from (f"{name} {part}" for part in parts) if parts else (name,)


def help_of(name: str) -> str:
    """What `tuner NAME --help` prints on a terminal without colours."""
    environment = {"COLUMNS": str(WIDTH), "TERMINAL_WIDTH": str(WIDTH), "NO_COLOR": "1"}
    shown = CliRunner().invoke(app, [*name.split(), "--help"], prog_name="tuner", env=environment)
    if shown.exit_code:
        raise SystemExit(f"tuner {name} --help ends with {shown.exit_code}: {shown.output}")
    return "\n".join(line.rstrip() for line in shown.output.strip("\n").splitlines())


def exit_codes() -> str:
    """The table of exit codes."""
    rows = [f"| {code.value} | {code.meaning} | {code.then} |" for code in Exit]
    return "\n".join(["| code | meaning | what to do |", "|---|---|---|", *rows, ""])


def as_markup(lines: list[str]) -> None:
    """Change a docstring in place, so that reStructuredText reads it as people do.

    A line `name: meaning`, with the indented lines below it, is an entry of a list. A name may end: `Round`s.
    """
    inside = False
    marked: list[str | None] = []
    for line in (NAME.sub(_ended, line) for line in lines):
        field = FIELD.match(line)
        if field:
            marked += ["" if not inside else None, f"- **{field[1]}**: {field[2]}"]
        elif inside and line.startswith(" "):
            marked.append(f"  {line.strip()}")
        else:
            marked += ["" if inside and line.strip() else None, line]
        inside = bool(field) or (inside and line.startswith(" "))
    lines[:] = [line for line in marked if line is not None]


def _ended(name: re.Match[str]) -> str:
    return rf"{name[1]}\ {name[2]}" if name[2] else name[1]
