"""What a Python source imports, wherever the import stands, and which files it names."""

import ast
from collections.abc import Iterator
from functools import lru_cache

from tuner.sources.definitions import parsed


@lru_cache(maxsize=512)
def imports_of(source: bytes, package: str) -> tuple[str, ...]:
    """Dotted names that a module of this package may import, those inside functions too, in their order.

    Of `from x import y` both `x` and `x.y`, which may be a module. Raises SyntaxError or ValueError.
    """
    return tuple(dict.fromkeys(_imports(parsed(source), package)))


@lru_cache(maxsize=512)
def files_named_in(source: bytes) -> tuple[str, ...]:
    """Texts in a source that look like the name of a Python file: `exec(open("layers.py").read())`."""
    texts = (node.value for node in ast.walk(parsed(source)) if isinstance(node, ast.Constant))
    return tuple(dict.fromkeys(text for text in texts if isinstance(text, str) and _is_file_name(text)))


def _is_file_name(text: str) -> bool:
    return text.endswith(".py") and len(text) < 200 and "\n" not in text and "\0" not in text


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _with_parents(alias.name)
        elif isinstance(node, ast.ImportFrom):
            place = _absolute("." * node.level + (node.module or ""), package)
            if place:
                yield from _with_parents(place)
                yield from (f"{place}.{alias.name}" for alias in node.names if alias.name != "*")
        elif isinstance(node, ast.Call) and node.args and _imports_by_name(node.func):
            named = node.args[0]
            if isinstance(named, ast.Constant) and isinstance(named.value, str):
                yield from _with_parents(_absolute(named.value, package))


def _imports_by_name(called: ast.expr) -> bool:
    name = called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")
    return name in ("import_module", "__import__", "reload", "find_spec")


def _absolute(name: str, package: str) -> str:
    """The name of a relative import in full; empty where the package does not reach so far up."""
    level = len(name) - len(name.lstrip("."))
    if not level:
        return name
    parts = package.split(".") if package else []
    if level > len(parts):
        return ""
    return ".".join(part for part in (*parts[: len(parts) - level + 1], name.lstrip(".")) if part)


def _with_parents(name: str) -> Iterator[str]:
    parts = name.split(".")
    if all(part.isidentifier() for part in parts):
        yield from (".".join(parts[:length]) for length in range(1, len(parts) + 1))
