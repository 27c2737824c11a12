"""The house numbers that a file can be held to: short files, short functions, no promises."""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

import tuner

PACKAGE = Path(tuner.__file__).parent
STUDIES = PACKAGE.parent / "studies"
FILES = sorted([*PACKAGE.rglob("*.py"), *STUDIES.rglob("*.py")])
NAMES = [str(path.relative_to(PACKAGE.parent)) for path in FILES]

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 40


def long_functions(source: str) -> list[str]:
    """Functions of more than 40 lines, their docstrings and those of functions inside them not counted."""
    return [
        f"{node.name}: {_lines(node)} lines"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _lines(node) > MAX_FUNCTION_LINES
    ]


def _lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    docstrings = 0
    for node in ast.walk(function):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and ast.get_docstring(node):
            docstring = node.body[0]
            docstrings += (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
    return (function.end_lineno or function.lineno) - function.lineno + 1 - docstrings


def promises(source: str) -> list[str]:
    """Comments and docstrings that say what is not done."""
    word = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return [token.string for token in tokens if token.type in _TEXT and word.search(token.string)]


_TEXT = (tokenize.COMMENT, tokenize.STRING)


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_a_file_has_at_most_500_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_FILE_LINES


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_a_function_has_at_most_40_lines(path):
    assert long_functions(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_a_module_begins_by_saying_what_it_is(path):
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring
    assert docstring.splitlines()[0].rstrip().endswith((".", ":", "?", ",")) or len(docstring.splitlines()) > 1


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_what_is_not_done_is_an_issue_and_no_comment(path):
    assert promises(path.read_text(encoding="utf-8")) == []


def test_the_checks_see_what_they_look_for():
    body = "\n".join("    x = 1" for _ in range(40))
    assert long_functions(f"def f():\n{body}") == ["f: 41 lines"]
    assert long_functions(f'def f():\n    """Says\n\n    much.\n    """\n{body[10:]}') == []
    assert promises("x = 1  # TODO: more") == ["# TODO: more"]
    assert promises("todo = [1]") == []
