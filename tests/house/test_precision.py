"""Whoever calls a user's loss or metrics says in which precision: nobody can forget it."""

import ast
from pathlib import Path

import tuner

PACKAGE = Path(tuner.__file__).parent
# In float32 on purpose, or around the call of the caller: `evaluation` and `first_loss` are called within `computing`.
ELSEWHERE = {
    "training/evaluation.py": 1,
    "training/first_loss.py": 1,
    "training/models.py": 1,
    "training/caption_look.py": 1,
}
CONTEXTS = ("computing", "computing_so", "_computing", "in_precision")


def bare_calls(source):
    """Lines that call `workload.loss` or `workload.metrics` outside of a `with` that says the precision."""
    return [
        call.lineno
        for call in outside(source)
        if isinstance(call.func, ast.Attribute)
        and call.func.attr in ("loss", "metrics")
        and "workload" in names_in(call.func.value)
    ]


def called_bare(source, names):
    """Names of these functions that are called outside of such a `with`."""
    return [call.func.id for call in outside(source) if isinstance(call.func, ast.Name) and call.func.id in names]


def outside(source):
    """All calls that no `with` around them says the precision of."""
    found = []

    def visit(node, within):
        if isinstance(node, ast.With):
            within = within or any(names_in(item.context_expr) & set(CONTEXTS) for item in node.items)
        if isinstance(node, ast.Call) and not within:
            found.append(node)
        for child in ast.iter_child_nodes(node):
            visit(child, within)

    visit(ast.parse(source), False)
    return found


def names_in(node):
    return {getattr(one, "attr", getattr(one, "id", "")) for one in ast.walk(node)}


def test_every_call_of_a_loss_or_of_metrics_says_the_precision():
    found = {
        str(path.relative_to(PACKAGE)): len(lines)
        for path in sorted(PACKAGE.rglob("*.py"))
        if (lines := bare_calls(path.read_text()))
    }
    assert found == ELSEWHERE


def test_every_evaluation_says_it_too():
    names = ("tallied", "checked_metrics", "first_loss", "evaluate")
    found = {
        str(path.relative_to(PACKAGE)): called
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.name != "evaluation.py" and (called := called_bare(path.read_text(), names))
    }
    within = ("training/finite.py", "training/fsdp_run.py", "training/gang_evaluation.py")
    assert found == {name: ["checked_metrics"] for name in within}, "which their callers call within computing"


def test_a_call_that_says_none_is_found():
    assert bare_calls("loss = setup.workload.loss(model, batch)") == [1]
    assert bare_calls("with computing(p, d):\n    loss = workload.loss(model)\nworkload.metrics(model)") == [3]
    assert called_bare("with torch.no_grad():\n    tallied(a)", ["tallied"]) == ["tallied"]
    assert not called_bare("with no_grad(), computing(p, d):\n    tallied(a)", ["tallied"])
