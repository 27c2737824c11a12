"""Imports made before they are needed: what a study imports from installed packages, once for all its workers.

Only packages are imported, as torch's own data loaders fork after their import; the study itself, and all own code
that it imports, runs in each worker, which sees what it loads.
"""

import ast
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tuner.sources.places import kind_of

_TASKS = Path("/proc/self/task")  # a folder for each thread


def import_ahead(study_file: str) -> bool:
    """Import what the first level of a study file imports; whether this process still has the threads it had.

    Whatever cannot be read or imported is left to the worker, which can say so. What stands beside the study is not
    imported: there it hides an installed package of the same name.
    """
    before = _threads()
    path = Path(study_file)
    for name in imported_names(path):
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names or (path.parent / top).exists() or (path.parent / f"{top}.py").exists():
            continue
        with suppress(Exception, SystemExit):
            if _is_installed(top):
                importlib.import_module(name)
    return _threads() == before


def _is_installed(top: str) -> bool:
    spec = importlib.util.find_spec(top)
    return spec is not None and spec.origin is not None and kind_of(Path(spec.origin)) != "own"


def imported_names(path: Path) -> Iterator[str]:
    """Modules that the first level of a Python file imports, in its order; none of a file that is none."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            yield node.module


def _threads() -> int:
    return len(os.listdir(_TASKS)) if _TASKS.exists() else 0
