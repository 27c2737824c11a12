"""Imports run one way: the table of docs/architecture.md, held against every module of the package.

A part may import the parts and the third-party packages of its row and nothing else. Only
`registry`, `optimizers` and `tuner/__init__` may import inside functions.
"""

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

import tuner

PACKAGE = Path(tuner.__file__).parent

BASE = ("errors", "registry", "sources", "budget", "design", "records", "security", "shown", "stores", "system")
# part: (parts it knows, packages it imports)
TABLE: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "errors": ((), ()),
    "shown": ((), ()),
    "logs": (("shown",), ()),
    "system": (("errors",), ()),
    "registry": (("errors",), ()),
    "sources": (("errors",), ()),
    "budget": (("errors", "registry"), ()),
    "design": (("errors", "shown", "registry", "sources", "budget"), ("numpy", "scipy")),
    "optimizers": (("errors", "design"), ("torch",)),
    "adapters": (("errors", "shown", "design"), ("torch",)),
    "records": (("errors", "shown", "budget", "design"), ()),
    "testing": (("design", "records"), ()),
    "failpoints": ((), ()),
    "security": ((), ()),
    "signals": ((), ()),
    "time_limit": (("errors", "signals"), ()),
    "stores": (("errors", "security", "system", "failpoints"), ("obstore",)),
    "training": ((*BASE, "adapters", "failpoints", "signals"), ("torch", "numpy", "safetensors")),
    "delegated": (
        (*BASE, "failpoints", "signals", "training"),
        ("torch", "numpy", "lightning", "transformers", "safetensors"),
    ),
    "fused": ((*BASE, "failpoints", "signals", "training"), ("torch", "numpy")),
    "storage": ((*BASE, "failpoints"), ("sqlalchemy", "pydantic")),
    "execution": (
        (*BASE, "logs", "failpoints", "signals", "training", "delegated", "fused", "storage"),
        ("torch", "ray"),
    ),
    "progress": ((*BASE, "storage", "execution"), ("rich",)),
    "analysis": ((*BASE, "storage"), ("numpy", "scipy", "pandas")),
    "rounds": ((*BASE, "training", "storage", "execution", "analysis"), ("cmaes", "numpy", "optuna", "pandas")),
    "interchange": ((*BASE, "storage", "analysis"), ("numpy", "optuna", "pandas", "yaml")),
    "plots": ((*BASE, "analysis"), ("numpy", "pandas", "matplotlib")),
    "report": ((*BASE, "storage", "analysis", "plots"), ("pandas", "jinja2")),
    "reading": ((*BASE, "storage", "analysis", "plots", "report"), ("pandas", "matplotlib")),
    "api": (
        (
            *BASE,
            "storage",
            "training",
            "execution",
            "progress",
            "analysis",
            "rounds",
            "interchange",
            "plots",
            "report",
            "reading",
        ),
        ("matplotlib", "pandas", "rich", "torch"),
    ),
    "cli": (
        (
            *BASE,
            "logs",
            "signals",
            "time_limit",
            "training",
            "fused",
            "storage",
            "execution",
            "progress",
            "analysis",
            "rounds",
            "interchange",
            "plots",
            "report",
            "reading",
            "api",
        ),
        ("typer", "rich", "pandas"),
    ),
    "__main__": (("cli",), ()),
    "__init__": (("errors", "registry", "budget", "design", "adapters", "delegated", "reading", "api"), ()),
}
LATE_IMPORTS_ALLOWED = ("registry", "optimizers", "__init__")
MODULES = sorted(PACKAGE.rglob("*.py"))


parsed = cache(ast.parse)


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> list[tuple[ast.stmt, str]]:
    """Every import of a module, those inside functions too, with the dotted name it asks for."""
    found: list[tuple[ast.stmt, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            name = "." * node.level + (node.module or "")
            if name == "tuner":  # from tuner import errors
                found += [(node, f"tuner.{alias.name}") for alias in node.names]
            else:
                found.append((node, name))
    return found


def violations(source: str, part: str) -> list[str]:
    """What a module of `part` imports against the table, as lines to read."""
    parts, packages = TABLE[part]
    tree = parsed(source)
    wrong = []
    for node, name in imports(tree):
        top, _, rest = name.partition(".")
        if name.startswith("."):
            wrong.append(f"line {node.lineno}: relative import of {name}")
        elif top == "tuner":
            known = rest.split(".")[0]
            if known not in (*parts, part, "__version__"):
                wrong.append(f"line {node.lineno}: {part} does not know {known or 'tuner itself'}")
        elif top not in sys.stdlib_module_names and top not in packages:
            wrong.append(f"line {node.lineno}: {part} does not use {top}")
        if part not in LATE_IMPORTS_ALLOWED and node not in tree.body:
            wrong.append(f"line {node.lineno}: {name} is not imported at the top of the module")
    return wrong


def forbidden(source: str, part: str) -> list[str]:
    """Calls and names no module may have: printing, and reading data that can run code."""
    wrong = []
    for node in ast.walk(parsed(source)):
        line = f"line {getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Name | ast.Attribute):
            name = node.id if isinstance(node, ast.Name) else node.attr
            if name == "TYPE_CHECKING" and part != "__init__":  # there it shows editors the lazy names
                wrong.append(f"{line}: TYPE_CHECKING means a wrong layer")
        if isinstance(node, ast.Call):
            wrong += [f"{line}: {reason}" for reason in _forbidden_call(node, part)]
    for statement, name in imports(parsed(source)):
        if name.split(".")[0] in ("pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"):
            wrong.append(f"line {statement.lineno}: {name} runs code when it reads")
        if (
            isinstance(statement, ast.ImportFrom)
            and name == "torch"
            and "load" in {one.name for one in statement.names}
        ):
            wrong.append(f"line {statement.lineno}: torch.load is called by its whole name, so that this check sees it")
    return wrong


def _forbidden_call(call: ast.Call, part: str) -> list[str]:
    name = ast.unparse(call.func)
    keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    found = []
    if name == "print" and part != "cli":
        found.append("only cli prints")
    if name in ("eval", "exec", "__import__"):
        found.append(f"{name} runs text")
    if name == "torch.load" and keywords.get("weights_only") != "True":
        found.append("torch.load without weights_only=True")
    if keywords.get("weights_only", "True") != "True":
        found.append("weights_only must be True")
    if keywords.get("allow_pickle", "False") != "False":
        found.append("allow_pickle must be False")
    return found


def test_every_part_has_a_row_in_the_table():
    assert {part_of(path) for path in MODULES} <= set(TABLE)


def test_a_part_knows_only_parts_named_before_it():
    order = list(TABLE)
    for part, (known, _) in TABLE.items():
        if part != "__init__":
            assert all(order.index(other) < order.index(part) for other in known), part


def offenders(check) -> list[str]:
    """What `check` finds in each module, one line each: all that has to be mended, in one list."""
    assert len(MODULES) > 100
    return [
        f"{path.relative_to(PACKAGE)}: {found}"
        for path in MODULES
        for found in check(path.read_text(encoding="utf-8"), part_of(path))
    ]


def test_a_module_imports_only_what_its_row_allows():
    assert offenders(violations) == []


def test_a_module_neither_prints_nor_runs_what_it_reads():
    assert offenders(forbidden) == []


@pytest.mark.parametrize(
    ("part", "source"),
    [
        ("budget", "import numpy"),
        ("budget", "from tuner.design.space import SearchSpace"),
        ("analysis", "import torch"),
        ("analysis", "from tuner import training"),
        ("design", "import tuner"),
        ("plots", "from tuner.storage.ledger import Ledger"),
        ("design", "from .space import SearchSpace"),
        ("training", "def f():\n    import torch"),
        ("training", "try:\n    import torch\nexcept ImportError:\n    pass"),
        ("design", "import numpy, pandas"),
    ],
)
def test_the_check_sees_a_wrong_import(part, source):
    assert len(violations(source, part)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "print('done')",
        "import pickle",
        "from pickle import loads",
        "eval('1')",
        "torch.load(path)",
        "torch.load(path, weights_only=flag)",
        "from torch import load",
        "load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "if typing.TYPE_CHECKING:\n    pass",
    ],
)
def test_the_check_sees_a_wrong_call(source):
    assert forbidden(source, "training") != []


def test_right_imports_and_calls_pass_the_check():
    assert violations("import json\nimport torch\nfrom tuner.records import State", "training") == []
    assert violations("def f():\n    from tuner.design import campaign", "__init__") == []
    assert forbidden("torch.load(path, weights_only=True)\nmodel.eval()\nlogger.info('x')", "training") == []
    assert forbidden("print('x')", "cli") == []
