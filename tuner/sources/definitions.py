"""Digests of a Python source, one for each definition, so that a change can be named: "function net changed".

Comments, docstrings, formatting and the order of imports change nothing, nor does the number of loading processes. Nor
does the declaration of a campaign, with the helpers that only the declaration uses (`SPACE = SearchSpace(...)`): more
rounds or trials are the same workload, and a launch compares the declaration of a study key by key.
"""

import ast
import builtins
import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache

from tuner.sources.stage_sources import of_other_stages

Definitions = dict[str, str]  # "function net", "class Block", "method Block.forward", "value WIDTH" to its digest

# Attributes of a class that change how it is trained, and nothing that comes out.
DECIDES_NO_BITS = ("data_workers", "micro_batch_size")
_DECLARES = ("Campaign", "Round", "SearchSpace", "Sweep")  # what a declaration is made of
_LEFT_OUT = ("ctx", "kind", "type_comment")
_PURE_MODULES = ("math", "itertools")
_IMPURE = {"eval", "exec", "compile", "open", "input", "print", "globals", "locals", "vars", "setattr", "delattr",
           "__import__", "breakpoint"}  # fmt: skip
_PURE = frozenset(dir(builtins)) - _IMPURE
_Assignment = ast.Assign | ast.AnnAssign
_Function = ast.FunctionDef | ast.AsyncFunctionDef


@lru_cache(maxsize=4)
def parsed(source: bytes) -> ast.Module:
    """The syntax tree of a source, which must not be changed; cached, because several callers read it in a row."""
    return ast.parse(source)


@lru_cache(maxsize=512)
def _definitions_of(source: bytes, own: frozenset[str] | None) -> tuple[tuple[str, str], ...]:
    tree = parsed(source)
    statements = [node for node in tree.body if not (_is_main_block(node) or _sets_loading(node))]
    known = frozenset(_PURE | _names_of_tuner(statements))
    statements = _without_declaration(statements, set() if own is None else of_other_stages(statements, own, known))
    found: dict[str, list[str]] = defaultdict(list)
    order: list[str] = []
    for statement in statements:
        for name, text in _named(statement):
            found[name].append(text)
            if name.partition(" ")[0] in ("value", "other"):
                order.append(name)
    found["imports"].sort()
    found["order of values"] = order
    return tuple((name, short_digest("\n".join(texts))) for name, texts in sorted(found.items()) if texts)


def definitions_of(source: bytes, own: frozenset[str] | None = None) -> Definitions:
    """Digest by definition. Raises SyntaxError or ValueError for a text that is not Python.

    own: the names of a workload's classes, of whose stage the source is read: what only the workloads of other stages
    use is left out. None: of all.
    """
    return dict(_definitions_of(source, own))


def main_block_of(source: bytes) -> Definitions:
    """Digest of what runs only where the file is the program: `if __name__ == "__main__":`; none without."""
    blocks = [text_of(node) for node in parsed(source).body if _is_main_block(node)]
    return {"what runs as a program": short_digest("\n".join(blocks))} if blocks else {}


def short_digest(text: str) -> str:
    """16 hex digits that stand for a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _named(statement: ast.stmt) -> Iterator[tuple[str, str]]:
    """The parts of a statement of a module, each with the name it has in a message."""
    if isinstance(statement, ast.Import | ast.ImportFrom):
        yield from (("imports", text) for text in _imported(statement))
    elif isinstance(statement, _Function):
        yield f"function {statement.name}", text_of(statement)
    elif isinstance(statement, ast.ClassDef):
        yield from _class(statement)
    elif not _is_text(statement):
        names = sorted(_bound_by(statement)) if isinstance(statement, _Assignment | ast.AugAssign) else []
        yield (f"value {', '.join(names)}" if names else "other statements"), text_of(statement)


def _class(statement: ast.ClassDef) -> Iterator[tuple[str, str]]:
    rest = [
        node for node in statement.body if not (isinstance(node, _Function) or _is_text(node) or sets_no_bits(node))
    ]
    head = [*statement.decorator_list, *statement.bases, *statement.keywords, *rest]
    yield f"class {statement.name}", " ".join(map(text_of, head))
    for node in statement.body:
        if isinstance(node, _Function):
            yield f"method {statement.name}.{node.name}", text_of(node)


def _imported(statement: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """Imported names without those from tuner, which change with the declaration."""
    if isinstance(statement, ast.Import):
        yield from (f"{alias.name} as {alias.asname}" for alias in statement.names)
    elif (statement.module or "").partition(".")[0] != "tuner" or statement.level:
        place = "." * statement.level + (statement.module or "")
        yield from (f"{place} {alias.name} as {alias.asname}" for alias in statement.names)


def text_of(node: object) -> str:
    """A text for a piece of syntax without docstrings, equal in all versions of Python that parse it equally."""
    if isinstance(node, ast.AST):
        parts = []
        for name, value in ast.iter_fields(node):
            if name == "body" and isinstance(value, list):
                value = value[1:] if value and _is_text(value[0]) else value
                value = [one for one in value if not (isinstance(one, ast.Pass) or _sets_loading(one))]
            if name not in _LEFT_OUT and value is not None and value != []:
                parts.append(f"{name}={text_of(value)}")
        return f"{type(node).__name__}({','.join(parts)})"
    if isinstance(node, list):
        return f"[{','.join(map(text_of, node))}]"
    return repr(node)


def _is_text(statement: ast.AST) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def sets_no_bits(statement: ast.stmt) -> bool:
    """`data_workers = 4` in a class: one number of processes trains what another does."""
    bound = _bound_by(statement) if isinstance(statement, _Assignment) else set()
    return bool(bound) and bound <= {*DECIDES_NO_BITS}


def _sets_loading(statement: ast.AST) -> bool:
    """`self.data_workers = 4`, in a method or behind a class."""
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    return isinstance(statement, _Assignment) and all(
        isinstance(one, ast.Attribute) and one.attr in DECIDES_NO_BITS for one in targets
    )


def _is_main_block(statement: ast.stmt) -> bool:
    """`if __name__ == "__main__":`, which never runs in a study."""
    return isinstance(statement, ast.If) and ast.unparse(statement.test) in (
        "__name__ == '__main__'", "'__main__' == __name__",
    )  # fmt: skip


def _without_declaration(statements: list[ast.stmt], others: set[int]) -> list[ast.stmt]:
    """The statements without the declaration of a campaign, and without the helpers of what decides no bits alone.

    others: positions of what belongs to the workloads of other campaigns, which is left out with its helpers.
    """
    made_of = {place for place, statement in enumerate(statements) if _declares(statement)}
    dropped = {place for place in made_of if _calls(statements[place], ("Campaign",))} | others
    idle = {name for statement in statements for name in _names_read_in(_idle_parts(statement))}
    if not (made_of or idle):
        return statements
    harmless = _harmless(statements)
    while True:
        kept = [(place, _read_by(one)) for place, one in enumerate(statements) if place not in dropped]
        served = idle | {name for place in dropped for name in _read_by(statements[place])}
        more = set()
        for place in (harmless | made_of) - dropped:
            bound = _bound_by(statements[place])
            read_elsewhere = any(bound & names for other, names in kept if other != place)
            if not read_elsewhere and (place in made_of or bound & served):
                more.add(place)
        if not more:
            return [one for place, one in enumerate(statements) if place not in dropped]
        dropped |= more


def _declares(statement: ast.stmt) -> bool:
    """`campaign = Campaign(...)`, `SPACE = SearchSpace(...)`, `ROUNDS = [Round(...)]`."""
    return _calls(statement, _DECLARES)


def _calls(statement: ast.stmt, names: tuple[str, ...]) -> bool:
    """Whether a statement names the result of one of these calls, or a list of such results."""
    value = statement.value if isinstance(statement, _Assignment) else None
    if value is None or not _bound_by(statement):
        return False
    items = value.elts if isinstance(value, ast.List | ast.Tuple) else [value]
    return bool(items) and all(_called(item) in names for item in items)


def _called(value: ast.expr) -> str:
    if not isinstance(value, ast.Call):
        return ""
    return value.func.id if isinstance(value.func, ast.Name) else str(getattr(value.func, "attr", ""))


def _harmless(statements: list[ast.stmt]) -> set[int]:
    """Positions of statements that only compute: they use tuner, plain Python and each other."""
    known = _PURE | _names_of_tuner(statements)
    places = {
        place
        for place, one in enumerate(statements)
        if isinstance(one, _Assignment | _Function) and _bound_by(one) and not _changes_something(one)
    }
    while True:
        helpers = {name for place in places for name in _bound_by(statements[place])}
        fewer = {
            place
            for place in places
            if _read_by(statements[place]) - _locals(statements[place]) <= known | helpers
        }  # fmt: skip
        if fewer == places:
            return places
        places = fewer


def _names_of_tuner(statements: list[ast.stmt]) -> set[str]:
    names: set[str] = set()
    for one in statements:
        if isinstance(one, ast.ImportFrom) and (one.module or "").partition(".")[0] in ("tuner", *_PURE_MODULES):
            names |= {alias.asname or alias.name for alias in one.names} - {"*"}
            if any(alias.name == "*" for alias in one.names):
                names |= set(_EVERYTHING)
        elif isinstance(one, ast.Import):
            names |= {alias.asname or alias.name for alias in one.names if alias.name in ("tuner", *_PURE_MODULES)}
    return names


# What `from tuner import *` brings that a declaration is made of.
_EVERYTHING = (
    *_DECLARES, "uniform", "log_uniform", "integers", "choice", "branches", "log_grid", "constant", "linear", "cosine",
    "constant_then_decay", "inverse_sqrt", "fixed", "minimize", "maximize", "at_most", "at_least", "best_of",
    "weights_from",
)  # fmt: skip


def _changes_something(statement: ast.stmt) -> bool:
    """Whether a statement may have effects: it assigns attributes or items, has decorators, or declares globals."""
    if isinstance(statement, _Function) and statement.decorator_list:
        return True
    return any(
        isinstance(node, ast.Global | ast.Nonlocal | ast.Import | ast.ImportFrom | ast.Delete | ast.Await)
        or (isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del))
        for node in ast.walk(statement)
    )


def _bound_by(statement: ast.stmt) -> set[str]:
    """The names that a statement binds; none where it also assigns to something else."""
    if isinstance(statement, _Function | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Assign):
        targets: list[ast.expr] = statement.targets
    elif isinstance(statement, ast.AnnAssign | ast.AugAssign):
        targets = [statement.target]
    else:
        return set()
    return {one.id for one in targets if isinstance(one, ast.Name)} if _are_names(targets) else set()


def _are_names(targets: list[ast.expr]) -> bool:
    return all(isinstance(target, ast.Name) for target in targets)


def _read_by(statement: ast.stmt) -> set[str]:
    """The names that a statement reads, besides for what decides no bits."""
    idle = _idle_parts(statement)
    if not idle or not isinstance(statement, ast.ClassDef):
        return _names_read_in([statement])
    whole = [*statement.decorator_list, *statement.bases, *statement.keywords, *statement.body]
    return _names_read_in([part for part in whole if part not in idle])


def _idle_parts(statement: ast.stmt) -> list[ast.stmt]:
    """`data_workers = WORKERS` in a class."""
    return [one for one in statement.body if sets_no_bits(one)] if isinstance(statement, ast.ClassDef) else []


def _names_read_in(parts: Sequence[ast.AST]) -> set[str]:
    nodes = (node for part in parts for node in ast.walk(part))
    return {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}


def _locals(statement: ast.stmt) -> set[str]:
    """Names that a function, a lambda or a comprehension binds inside itself."""
    stored = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return stored | {node.arg for node in ast.walk(statement) if isinstance(node, ast.arg)}
