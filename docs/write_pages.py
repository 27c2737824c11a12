"""Parts of pages that are generated from the program: help of the commands, exit codes, questions, plots, functions.

`conf.py` calls `write_pages` before each build; the pages include what lies in `docs/generated`.
"""

import io
import os
import re
from collections.abc import Iterable
from contextlib import redirect_stderr, redirect_stdout
from inspect import isclass
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import tuner
from tuner.analysis.finding import QUESTIONS, Question
from tuner.cli.commands import grouped
from tuner.cli.exit_codes import Exit
from tuner.cli.program import program
from tuner.design.optimizers import OPTIMIZERS, OptimizerSpec
from tuner.plots.catalog import PLOTS

FIELD = re.compile(r"([a-z_]\w*(?:, [a-z_]\w*)*): (\S.*)")  # how a docstring explains a field
NAME = re.compile(r"(`[^`]+`)(\w?)")  # a name in backticks, and the letter behind it
CITED = re.compile(r"\(([ABCDFIR][1-9]\d?(?:, [ABCDFIR][1-9]\d?)*)\)")  # rules and promises in brackets
WIDTH = 88  # columns of the terminal that the help is shown in


def write_pages(docs: Path) -> None:
    """Write every generated part to `docs/generated`."""
    folder = docs / "generated"
    folder.mkdir(exist_ok=True)
    functions = set(dir(tuner)) - set(tuner.__all__) - {"__version__"}
    parts = {
        "commands": commands(),
        "exit-codes": table(("code", "meaning", "what to do"), ((one.value, one.meaning, one.then) for one in Exit)),
        "questions": table(("question", "verdicts", "rules", "thresholds"), map(question_row, QUESTIONS)),
        "plots": table(
            ("kind", "title", "how to read it"), ((f"`{one.name}`", one.title, one.caption) for one in PLOTS)
        ),
        "optimizers": table(
            ("`optimizer=`", "reads, with ranges to begin with", "bytes of state a parameter", "in a group"),
            map(optimizer_row, sorted(OPTIMIZERS.own, key=lambda one: one.name)),
        ),
        "study-words": documented(tuner.__all__),
        "functions": documented(sorted(functions, key=lambda name: (isclass(getattr(tuner, name)), name))),
    }
    for name, text in parts.items():
        (folder / f"{name}.md").write_text(f"{text}\n", encoding="utf-8")
    write_example_report(folder / "extra" / "example-report.html")


def write_example_report(page: Path) -> None:
    """The report that `tuner demo` writes, beside the pages."""
    page.parent.mkdir(exist_ok=True)
    with TemporaryDirectory() as folder:
        printed(["demo", folder])
        page.write_bytes((Path(folder) / "demo.html").read_bytes())


def table(heads: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A table in Markdown."""
    heads = list(heads)
    lines = [heads, ["---"] * len(heads), *([str(cell).replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def question_row(question: Question) -> tuple[str, str, str, str]:
    """A question with its verdicts, the rules it rests on, and the numbers that its verdicts depend on."""
    verdicts = " ".join(f"[{one.name}](#{one.name})" for one in question.answers)
    rules = " ".join(f"[{rule}](../reference/rules.md#{rule.lower()})" for rule in question.rules)
    thresholds = ", ".join(f"`{name}` {value:g}" for name, value in question.thresholds.items())
    return f"{question.sentence} (`{question.name}`)", verdicts, rules, thresholds


def optimizer_row(optimizer: OptimizerSpec) -> tuple[str, str, str, str]:
    """What an optimizer reads, what it keeps, and how it makes the updates of stacked trials."""
    ranges = optimizer.ranges
    names = [name for name in ranges if name not in {one.name for one in optimizer.settings}]
    names += [one.name for one in optimizer.settings]
    reads = ", ".join(f"`{name}" + (f"={ranges[name].as_declared()}`" if name in ranges else "`") for name in names)
    steps = "kernel" if optimizer.row_update is not None else "own step"
    return f"`{optimizer.name}`" + (f": {optimizer.note}" if optimizer.note else ""), reads, optimizer.state, steps


def commands() -> str:
    """The commands under their headings, then the help of each as a terminal shows it."""
    parts = []
    for group, members in grouped():
        parts += [f"## {group}", table(("command", ""), ((f"`tuner {one.name}`", one.help) for one in members))]
        for one in members:
            parts.append(f"### tuner {one.name}\n\n{one.help}.\n\n```text\n{help_of(one.name)}\n```")
    return "\n\n".join(parts)


def help_of(name: str) -> str:
    """What `tuner NAME --help` prints on a terminal without colours."""
    return printed([*name.split(), "--help"])


def printed(arguments: list[str]) -> str:
    """What a command prints, without spaces at the ends of lines."""
    shown = io.StringIO()
    columns = patch.dict(os.environ, {"COLUMNS": str(WIDTH), "NO_COLOR": "1"})
    with redirect_stdout(shown), redirect_stderr(io.StringIO()), columns:
        program().main(arguments, prog_name="tuner", standalone_mode=False)
    return "\n".join(line.rstrip() for line in shown.getvalue().strip("\n").splitlines())


def documented(names: Iterable[str]) -> str:
    """Public names of `tuner` with their docstrings."""
    lines = ["```{eval-rst}"]
    for name in names:
        value = getattr(tuner, name)
        kind = (
            "autofunction" if not isclass(value) else "autoexception" if issubclass(value, Exception) else "autoclass"
        )
        lines += [f".. {kind}:: tuner.{name}", *(["   :members:"] if kind == "autoclass" else []), ""]
    return "\n".join([*lines, "```"])


def with_links(page: str, docname: str) -> str:
    """The Markdown of a page whose rules in brackets, like (A24, I5), lead to their anchors; code stays as it is."""
    up = "../" * docname.count("/")

    def link(code: str) -> str:
        return f"[{code}]({up}reference/{'promises' if code[0] in 'IR' else 'rules'}.md#{code.lower()})"

    parts = re.split(r"(```.*?```)", page, flags=re.DOTALL)
    for number in range(0, len(parts), 2):
        parts[number] = CITED.sub(lambda found: f"({', '.join(map(link, found[1].split(', ')))})", parts[number])
    return "".join(parts)


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
