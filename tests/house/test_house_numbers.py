"""The house numbers that a file can be held to: short files, short functions, no promises."""

import ast
import io
import re
import tokenize
from functools import cache
from importlib import import_module
from pathlib import Path

import tuner
from tuner.registry import Registry

PACKAGE = Path(tuner.__file__).parent
STUDIES = PACKAGE.parent / "studies"
FILES = sorted([*PACKAGE.rglob("*.py"), *STUDIES.rglob("*.py")])
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name != "__init__.py"
}

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60
MIN_MODULE_LINES = 60  # of code: without docstrings, comments and empty lines
# What Python or pip starts and no module imports.
ENTRY_POINTS = ("tuner.__main__", "tuner.cli.__main__")
# A module under the minimum that one other imports, and why it is a room of its own all the same.
STANDS_ALONE: dict[str, str] = {
    "tuner.fused.averages": "a group is long without it, and averages of trials alone are a module of their own, too",
    "tuner.training.mean_weights": "execution reads checkpoints; what computes stands in training",
    "tuner.testing": "tests of users import it, and nothing heavy with it",
    "tuner.delegated.command_sources": "`import tuner` declares a Command, and needs no search for files",
    "tuner.cli.importing": "the table of commands names it; `tuner import` starts in half the time of other commands",
    "tuner.rounds.leaks": "what the launch of a stage compares besides the study is one step of it, with its own words",
    "tuner.training.adapter_export": "`tuner best` imports it by name: all else that it does needs no torch",
}


parsed = cache(ast.parse)


def name(path: Path) -> str:
    return str(path.relative_to(PACKAGE.parent))


def too_long(source: str) -> list[str]:
    lines = len(source.splitlines())
    return [f"{lines} lines"] if lines > MAX_FILE_LINES else []


def wordless(source: str) -> list[str]:
    """A module whose docstring is missing, or whose first line is no sentence."""
    docstring = ast.get_docstring(parsed(source)) or ""
    first = docstring.split("\n\n")[0].rstrip()
    return [] if first.endswith((".", ":", "?", ")")) and len(first.split()) > 2 else [f"begins with {first[:40]!r}"]


def code_lines(source: str) -> int:
    """Lines that hold code, without those of docstrings and comments."""
    docstrings: set[int] = set()
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            docstrings |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    code = {line for token in tokens if token.type not in _NO_CODE for line in range(token.start[0], token.end[0] + 1)}
    return len(code - docstrings)


_NO_CODE = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


def importers_of_modules() -> dict[str, set[str]]:
    """By module, the modules of the package that import it or a name of it, inside functions too."""
    found: dict[str, set[str]] = {module: set() for module in MODULES}
    for path in sorted(PACKAGE.rglob("*.py")):
        importer = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for node in ast.walk(parsed(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            for one in names:
                if one in found and one != importer:
                    found[one].add(importer)
    return found


def modules_of_records() -> set[str]:
    """The modules that a registry finds by itself: a record each, and no other file names them."""
    registries = [
        value
        for module, path in MODULES.items()
        if re.search(r"^\w[^=]* = Registry\(", path.read_text(encoding="utf-8"), re.MULTILINE)
        for value in vars(import_module(module)).values()
        if isinstance(value, Registry)
    ]
    return {str(registry.source_of(record.name).module) for registry in registries for record in registry.own}


def long_functions(source: str) -> list[str]:
    """Functions of more than 60 lines, their docstrings and those of functions inside them not counted."""
    return [
        f"{node.name}: {_lines(node)} lines"
        for node in ast.walk(parsed(source))
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


def offenders(check) -> list[str]:
    """What `check` finds in the text of each file, one line each: all that has to be mended, in one list."""
    return [f"{name(path)}: {found}" for path in FILES for found in check(path.read_text(encoding="utf-8"))]


def test_a_file_has_at_most_500_lines():
    assert offenders(too_long) == []


def test_a_function_has_at_most_60_lines():
    assert offenders(long_functions) == []


def test_a_module_begins_by_saying_what_it_is():
    assert offenders(wordless) == []


def test_what_is_not_done_is_an_issue_and_no_comment():
    assert offenders(promises) == []


def test_a_small_module_is_used_in_two_places_or_says_why_it_stands_alone():
    importers = importers_of_modules()
    small = {one for one, path in MODULES.items() if code_lines(path.read_text(encoding="utf-8")) < MIN_MODULE_LINES}
    crumbs = {one for one in small if len(importers[one]) < 2} - set(ENTRY_POINTS) - modules_of_records()
    assert crumbs - set(STANDS_ALONE) == set(), "merge these into the module that uses them, or say why not"
    assert set(STANDS_ALONE) - crumbs == set(), "these have grown, found users or gone: take them off the list"


def test_the_registries_find_the_modules_of_their_records():
    found = modules_of_records()
    places = ("optimizers", "budget", "analysis.questions", "plots", "report.sections", "cli")
    assert {place for place in places if any(one.startswith(f"tuner.{place}.") for one in found)} == set(places)
    assert found <= set(MODULES)


def test_the_checks_see_what_they_look_for():
    body = "\n".join("    x = 1" for _ in range(60))
    assert long_functions(f"def f():\n{body}") == ["f: 61 lines"]
    assert too_long("x = 1\n" * 501) == ["501 lines"]
    assert wordless('"""What it is."""\nx = 1') == []
    assert wordless('"""Two words."""') != []
    assert wordless("x = 1") != []
    assert code_lines('"""Says\nmuch."""\n\n# why\nx = (\n    1\n)\n') == 3
    assert long_functions(f'def f():\n    """Says\n\n    much.\n    """\n{body[10:]}') == []
    assert promises("x = 1  # TODO: more") == ["# TODO: more"]
    assert promises("todo = [1]") == []
