"""What the text of a study file tells of its campaigns, without running it: for completion, and for quick reading."""

import ast
from collections.abc import Iterator
from pathlib import Path

_CAMPAIGN, _SOURCE = "Campaign", "best_of"


def name_of(file: Path, variable: str, count: int) -> str:
    """The name of a campaign that says none: that of the file where it is the only one, or its main one."""
    return file.stem if count == 1 or variable == "campaign" else f"{file.stem}-{variable}"


def campaigns_named_in(file: Path) -> list[tuple[str, str]]:
    """The variables and names of the campaigns that a file declares by plain statements, in their order.

    What is made in other ways is left out; nothing of a file that is no Python.
    """
    tree = _tree(file)
    found = [(variable, call) for variable, call in _declared(tree)] if tree else []
    named = [(variable, _said_name(call)) for variable, call in found]
    return [
        (variable, name_of(file, variable, len(found)) if said is None else said)
        for variable, said in named
        if said != ""
    ]


def declares_one(file: Path) -> bool:
    """Whether a file declares one campaign and no other, as far as its text tells; also of a file that is gone."""
    tree = _tree(file)
    if tree is None:
        return True
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    sources = [
        one for one in calls if _called(one) == _SOURCE and one.args and not isinstance(one.args[0], ast.Constant)
    ]
    return sum(_called(one) == _CAMPAIGN for one in calls) == len(list(_declared(tree))) == 1 and not sources


def _tree(file: Path) -> ast.Module | None:
    try:
        return ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None


def _declared(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    """`campaign = Campaign(...)`: the variable and the call."""
    for node in tree.body:
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(value, ast.Call) and _called(value) == _CAMPAIGN and isinstance(target, ast.Name):
            yield target.id, value


def _called(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else str(getattr(call.func, "attr", ""))


def _said_name(call: ast.Call) -> str | None:
    """The name that a call gives; None where it gives none, "" where its value is not known before it runs."""
    given = next((one.value for one in call.keywords if one.arg == "name"), None)
    if given is None or (isinstance(given, ast.Constant) and given.value is None):
        return None
    return given.value if isinstance(given, ast.Constant) and isinstance(given.value, str) else ""
