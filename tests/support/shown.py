"""The commands that the pages show, as a reader would type them."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_PROMPT = re.compile(r"^(\$ )?(\.venv/bin/)?tuner ")
_ROW = re.compile(r"^\| `(tuner [a-z-]+) (STUDY(?:_FILE)?)([^`]*)`", re.MULTILINE)
_VALUE = re.compile(r"\[(--[\w-]+) ([^\s\]]*\d[^\s\]]*)\]")


def shown_commands(text: str) -> list[list[str]]:
    """The words of every `tuner ...` line in a code block that is no Python, in order, without comments and `&`."""
    found = []
    for block in _blocks(text):
        for line in block.replace("\\\n", " ").splitlines():
            if _PROMPT.match(line.strip()):
                words = shlex.split(_PROMPT.sub("", line.strip()), comments=True)
                found.append(words[:-1] if words[-1] == "&" else words)
    return found


def _blocks(text: str) -> Iterator[str]:
    """Fenced blocks that are no Python, and indented ones, in order."""
    indented: list[str] = []
    language: str | None = None
    for line in text.splitlines():
        if line.startswith("```"):
            if language is None:
                language, indented = line.strip("`").strip() or "text", []
                continue
            if not language.startswith("py"):
                yield "\n".join(indented)
            language, indented = None, []
        elif language is not None or line.startswith("    "):
            indented.append(line)
        elif indented:
            yield "\n".join(indented)
            indented = []


def commands_of_tables(text: str, study_file: str) -> list[list[str]]:
    """Every row of a table of commands whose options show values, with exactly these values."""
    return [
        [row[1].split()[1], study_file, *(word for option in values for word in option)]
        for row in _ROW.finditer(text)
        if (values := _VALUE.findall(row[3]))
    ]


def shown_study(text: str) -> tuple[str, str] | None:
    """The study file that a page shows, by the name under which its next command runs it; None where it shows none."""
    for block in re.finditer(r"```python\n(.*?)```", text, re.DOTALL):
        if "campaign = Campaign(" in block[1]:
            run = re.search(r"tuner run (?:studies/)?(\w+\.py)", text[block.end() :])
            return (run[1], block[1]) if run else None
    return None
