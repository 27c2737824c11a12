"""What of a study file with several campaigns belongs to one of them: all but what only the other workloads use.

So an edit of the pretraining's workload leaves what was recorded of the fine-tuning valid, and a stage that is added to
a file changes nothing of those before. What both use is shared, and counts for both.
"""

import ast
from collections.abc import Sequence

_CAMPAIGN = "Campaign"
# With these code finds definitions that it does not name.
_BY_TEXT = {"globals", "eval", "exec"}


def of_other_stages(statements: Sequence[ast.stmt], own: frozenset[str]) -> set[int]:
    """Positions of the workload classes of other campaigns, and of the definitions that only these use.

    own: the names of the classes of the workload that is identified. A class counts as that of another campaign where
    a statement `Campaign(Class(...), ...)` says so, and as shared where anything else reads its name.
    """
    calls = {place: _workload_of(one) for place, one in enumerate(statements)}
    others = {place for place, name in calls.items() if name and name not in own}
    theirs = {calls[place] for place in others}
    reads = [names_read_in(one) for one in statements]
    dropped: set[int] = set()
    while True:
        served = theirs | {name for place in dropped for name in reads[place]}
        kept = [place for place in range(len(statements)) if place not in dropped | others]
        more = {
            place
            for place in kept
            if (name := _defined_by(statements[place])) in served
            and name not in own
            and not any(name in reads[other] for other in kept if other != place)
        }
        if not more:
            return set() if any(reads[place] & _BY_TEXT for place in kept) else dropped
        dropped |= more


def _workload_of(statement: ast.stmt) -> str:
    """The class that a statement `campaign = Campaign(Class(...), ...)` makes a workload of; "" of any other."""
    value = statement.value if isinstance(statement, ast.Assign | ast.AnnAssign) else None
    if not isinstance(value, ast.Call) or _called(value) != _CAMPAIGN:
        return ""
    named = [one.value for one in value.keywords if one.arg == "workload"]
    return next((_called(one) for one in (*value.args[:1], *named) if isinstance(one, ast.Call)), "")


def _called(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _defined_by(statement: ast.stmt) -> str:
    """The name of a class or a function that nothing but its name is bound by; "" of another statement."""
    if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not statement.decorator_list:
        return statement.name
    return ""


def names_read_in(statement: ast.AST) -> frozenset[str]:
    """The names that a statement reads."""
    return frozenset(
        node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    )
