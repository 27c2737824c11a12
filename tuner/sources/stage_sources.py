"""What of a study file with several campaigns belongs to one of them: all but what only the other workloads use.

So an edit of the pretraining's workload leaves what was recorded of the fine-tuning valid, and a stage that is added to
a file changes nothing of those before. What both use is shared, and counts for both; so does whatever might do
something while the file is loaded, or be found without its name.
"""

import ast
from collections.abc import Iterator, Sequence

_CAMPAIGN = "Campaign"
# With these code finds definitions that it does not name.
_BY_TEXT = {
    "globals", "locals", "vars", "eval", "exec", "compile", "__import__", "import_module", "modules", "__subclasses__",
    "__globals__", "__dict__", "getmembers", "__main__",
}  # fmt: skip
_MADE_WITH_IT = ("__init__", "__new__", "__post_init__")  # methods that run while a file is loaded
_DECORATORS = {"property", "staticmethod", "classmethod", "cached_property", "override"}
_Function = ast.FunctionDef | ast.AsyncFunctionDef


def of_other_stages(statements: Sequence[ast.stmt], own: frozenset[str], known: frozenset[str]) -> set[int]:
    """Positions of the workload classes of other campaigns, and of the definitions that only these use.

    own: the names of the classes of the workload that is identified. known: names that only compute, which are those
    of tuner and of plain Python. A class counts as that of another campaign where a statement
    `Campaign(Class(...), ...)` says so, and as shared where anything else reads its name.
    """
    if any(_finds_by_text(one) for one in statements):
        return set()
    droppable = _droppable(statements, own, known)
    calls = {place: _workload_of(one) for place, one in enumerate(statements)}
    classes = {_defined_by(statements[place]) for place in droppable if isinstance(statements[place], ast.ClassDef)}
    others = {place for place, name in calls.items() if name in classes and name not in own}
    theirs = {calls[place] for place in others}
    reads = [names_read_in(one) for one in statements]
    dropped: set[int] = set()
    while True:
        served = theirs | {name for place in dropped for name in reads[place]}
        kept = [place for place in range(len(statements)) if place not in dropped | others]
        more = {
            place
            for place in droppable - dropped
            if (name := _defined_by(statements[place])) in served
            and name not in own
            and not any(name in reads[other] for other in kept if other != place)
        }
        if not more:
            return dropped
        dropped |= more


def _droppable(statements: Sequence[ast.stmt], own: frozenset[str], known: frozenset[str]) -> set[int]:
    """Positions of classes and functions that do nothing but bind their name, once, while the file is loaded."""
    names = [_defined_by(one) for one in statements]
    bound = [name for one in statements for name in _bound_in(one)]
    places = {place for place, name in enumerate(names) if name and bound.count(name) == 1}
    torchs, made = known | _from_torch(statements), _made(statements)
    while True:
        bases = torchs | own | {names[place] for place in places}
        found = {
            place
            for place in places
            if _is_quiet(statements[place], bases, known)
            and not (names[place] in made and _works(statements[place], known))
        }
        if found == places:
            return places
        places = found


def _made(statements: Sequence[ast.stmt]) -> set[str]:
    """The names of the workloads' classes and of their bases, which are made while the file is loaded."""
    bases = {one.name: one.bases for one in statements if isinstance(one, ast.ClassDef)}
    made, more = set[str](), {_workload_of(one) for one in statements}
    while more - made:
        made |= more
        more = {name for one in made for base in bases.get(one, ()) for name in names_read_in(base)}
    return made


def _works(statement: ast.stmt, known: frozenset[str]) -> bool:
    """Whether making one of a class calls anything that may change something elsewhere."""
    methods = [
        one for one in getattr(statement, "body", ()) if isinstance(one, _Function) and one.name in _MADE_WITH_IT
    ]
    return any(
        not _reads_only([node.func for node in ast.walk(one) if isinstance(node, ast.Call)], known | _locals(one))
        for one in methods
    )


def _is_quiet(statement: ast.stmt, bases: frozenset[str], known: frozenset[str]) -> bool:
    if isinstance(statement, ast.ClassDef):
        return not statement.keywords and _reads_only(statement.bases, bases) and _is_quiet_body(statement, known)
    return isinstance(statement, _Function) and _is_quiet_function(statement)


def _is_quiet_body(statement: ast.ClassDef, known: frozenset[str]) -> bool:
    """Whether the body of a class only binds names, and makes nothing that it could change elsewhere."""
    for one in statement.body:
        if isinstance(one, _Function):
            if not _is_quiet_function(one):
                return False
        elif isinstance(one, ast.Assign | ast.AnnAssign):
            calls = [node for node in ast.walk(one) if isinstance(node, ast.Call)]
            if len(_bound_in(one)) != 1 or not _reads_only([call.func for call in calls], known):
                return False
        elif not (isinstance(one, ast.Pass) or (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))):
            return False
    return True


def _is_quiet_function(function: _Function) -> bool:
    """Whether a definition runs nothing, and its function changes nothing of the module's."""
    said = [*function.args.defaults, *(one for one in function.args.kw_defaults if one is not None)]
    if function.name == "__init_subclass__" or not {_root(one) for one in function.decorator_list} <= _DECORATORS:
        return False
    if any(isinstance(node, ast.Call) for one in said for node in ast.walk(one)):
        return False
    own = _locals(function)
    return not any(
        isinstance(node, ast.Global | ast.Nonlocal)
        or (
            isinstance(node, ast.Attribute | ast.Subscript)
            and not isinstance(node.ctx, ast.Load)
            and _root(node) not in own
        )
        for node in ast.walk(function)
    )


def _locals(function: _Function) -> frozenset[str]:
    nodes = list(ast.walk(function))
    stored = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return frozenset(stored | {node.arg for node in nodes if isinstance(node, ast.arg)})


def _reads_only(parts: Sequence[ast.AST], names: frozenset[str] | set[str]) -> bool:
    return all(names_read_in(part) <= names for part in parts)


def _root(node: ast.AST) -> str:
    """The name that an expression like `a.b[0].c` begins with; "" of another."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def _from_torch(statements: Sequence[ast.stmt]) -> frozenset[str]:
    """Names of torch and its parts, whose classes do nothing when they are derived from."""
    found: set[str] = set()
    for one in statements:
        if isinstance(one, ast.Import):
            found |= {(alias.asname or alias.name).partition(".")[0] for alias in one.names if _is_torch(alias.name)}
        elif isinstance(one, ast.ImportFrom) and not one.level and _is_torch(one.module or ""):
            found |= {alias.asname or alias.name for alias in one.names}
    return frozenset(found)


def _is_torch(module: str) -> bool:
    return module.partition(".")[0] in ("torch", "abc", "typing", "dataclasses")


def _finds_by_text(statement: ast.stmt) -> bool:
    """Whether code may find a definition of its module without its name."""
    return any(not _BY_TEXT.isdisjoint(_names_of(node)) for node in ast.walk(statement))


def _names_of(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Name):
        yield node.id
    elif isinstance(node, ast.Attribute):
        yield node.attr
    elif isinstance(node, ast.alias):
        yield from node.name.split(".")
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in _BY_TEXT:
        yield node.value


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
    if isinstance(statement, ast.ClassDef | _Function) and not statement.decorator_list:
        return statement.name
    return ""


def _bound_in(statement: ast.stmt) -> set[str]:
    """The names that a statement binds anywhere in it, at the level of the module."""
    if isinstance(statement, ast.ClassDef | _Function):
        return {statement.name}
    nodes = list(ast.walk(statement))
    imported = {(node.asname or node.name).partition(".")[0] for node in nodes if isinstance(node, ast.alias)}
    defined = {node.name for node in nodes if isinstance(node, ast.ClassDef | _Function)}
    return (
        imported
        | defined
        | {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    )


def names_read_in(statement: ast.AST) -> frozenset[str]:
    """The names that a statement reads."""
    return frozenset(
        node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    )
