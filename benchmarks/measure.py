"""Measure how the package is cut: modules, lines, importers, cycles, and the frames of one training step.

    python benchmarks/measure.py                          # the package of this checkout
    python benchmarks/measure.py --package ../old/tuner   # another checkout, for a comparison
    python benchmarks/measure.py --compare ../old/tuner   # both, side by side
    python benchmarks/measure.py --list                   # also names the modules behind the figures

Everything but the frames is read from the syntax trees; the frames come from a tiny study that the measured package
trains in a process of its own.
"""

import argparse
import ast
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

SHORT = 60  # code lines; a module below needs a second importer or a reason
ROOT = Path(__file__).resolve().parents[1]

STUDY = """
import sys
import torch
import torch.nn.functional as F
from torch import nn
from tuner import *

class Tiny(Workload):
    batch_size = 8
    select_by = minimize("validation/loss")

    def data(self):
        x = torch.randn(48, 4, generator=torch.Generator().manual_seed(0))
        y = (x[:, 0] > 0).long()
        return Splits(training=(x[:32], y[:32]), validation=(x[32:], y[32:]))

    def model(self, point):
        return nn.Linear(4, 2)

    def loss(self, model, batch, point):
        frame, names = sys._getframe(), []
        while frame is not None:
            names.append(f"{frame.f_code.co_filename}:{frame.f_code.co_qualname}")
            frame = frame.f_back
        with open("stacks.txt", "a") as file:
            print("\\t".join(names), file=file)
        return F.cross_entropy(model(batch[0]), batch[1])

    def metrics(self, model, batch):
        return {"loss": F.cross_entropy(model(batch[0]), batch[1], reduction="none")}

campaign = Campaign(Tiny(), evaluations=2, rounds=[
    Round("frames", trials=1, max_train_steps=200, space=SearchSpace(learning_rate=log_uniform(1e-3, 1e-1))),
])
"""


@dataclass(frozen=True)
class Module:
    """One module of the package as its syntax tree shows it."""

    name: str
    lines: int
    code_lines: int
    tree: ast.Module = field(repr=False)

    @property
    def is_room(self) -> bool:
        """Whether it counts as a module: `__init__` and `__main__` do not."""
        return self.name.rpartition(".")[2] not in ("__init__", "__main__")


def code_lines(source: str, tree: ast.Module) -> int:
    """Lines that hold code: no blank lines, comments or docstrings."""
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in silent:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = node.body[0] if node.body and ast.get_docstring(node, clean=False) is not None else None
            if docstring is not None:
                lines.difference_update(range(docstring.lineno, (docstring.end_lineno or docstring.lineno) + 1))
    return len(lines)


def read_package(package: Path) -> dict[str, Module]:
    """Every module of a package by its dotted name; packages are named `PACKAGE.__init__`."""
    modules = {}
    for path in sorted(package.rglob("*.py")):
        name = ".".join([package.name, *path.relative_to(package).with_suffix("").parts])
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source)
        modules[name] = Module(name, len(source.splitlines()), code_lines(source, tree), tree)
    return modules


def imported(module: Module, modules: dict[str, Module], *, inside: bool = True, named: bool = False) -> set[str]:
    """Names of the modules of the package that a module imports.

    inside: also inside functions; what stands under `if TYPE_CHECKING` is never run and does not count. named: also
    modules that a text names, like "tuner.cli.run:run" in the table of commands. `from package.part import module`
    imports the part too, because Python runs it; the package itself is left out.
    """
    found: set[str] = set()
    for node in _run(module.tree) if inside else module.tree.body:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            members = [f"{node.module}.{alias.name}" for alias in node.names]
            members = [name for name in members if _module_of(name, modules)]
            names = members + [str(node.module)] * (not members or "." in str(node.module))
        elif named and isinstance(node, ast.Constant) and isinstance(node.value, str) and "." in node.value:
            names = [node.value.partition(":")[0]]
        else:
            continue
        found |= {target for name in names if (target := _module_of(name, modules))}
    return found - {module.name}


def _run(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node of a syntax tree but those under `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            yield from (inner for other in node.orelse for inner in (other, *_run(other)))
        else:
            yield node
            yield from _run(node)


def _module_of(name: str, modules: dict[str, Module]) -> str | None:
    return next((candidate for candidate in (name, f"{name}.__init__") if candidate in modules), None)


def cycles(imports: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other in a circle (strongly connected components of two or more)."""
    reach = {name: _reachable(name, imports) for name in imports}
    groups = {frozenset({name} | {other for other in reach[name] if name in reach[other]}) for name in imports}
    return sorted(sorted(group) for group in groups if len(group) > 1)


def _reachable(start: str, imports: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    todo = list(imports[start])
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += imports[name]
    return seen


def helpers(module: Module) -> Iterator[tuple[str, int]]:
    """Each private function of a module, with how often the module names it besides its definition."""
    private = [
        node.name
        for node in module.tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("_")
    ]
    uses = Counter(node.id for node in ast.walk(module.tree) if isinstance(node, ast.Name))
    yield from ((name, uses[name]) for name in private if not name.startswith("__"))


def imports_inside_functions(module: Module) -> int:
    """Import statements that stand inside a function."""
    return sum(
        isinstance(inner, ast.Import | ast.ImportFrom)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for statement in node.body
        for inner in ast.walk(statement)
        if not isinstance(node, ast.Lambda)
    )


def function_lengths(modules: dict[str, Module]) -> list[int]:
    """Lines of every function, docstrings included."""
    return [
        (node.end_lineno or node.lineno) - node.lineno + 1
        for module in modules.values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def repeated_classes(modules: dict[str, Module]) -> dict[str, list[str]]:
    """Public class names that the package defines more than once, with their modules."""
    places: dict[str, list[str]] = {}
    for module in modules.values():
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(module.name)
    return {name: found for name, found in sorted(places.items()) if len(found) > 1}


def frames_of_a_step(package: Path, command: list[str]) -> list[str]:
    """The functions of the package on the stack inside `loss` of one training step, outermost first.

    A study of 200 steps is trained by `tuner COMMAND` in a folder of its own. The stack that most calls of `loss`
    share is that of training; inspection before training calls `loss` a few times only.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "frames.py").write_text(STUDY, encoding="utf-8")
        environment = os.environ | {"PYTHONPATH": str(package.parent), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        program = f"from {package.name}.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", program, command[0], "frames.py", *command[1:]],
            cwd=folder, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        stacks = Path(folder) / "stacks.txt"
        if not stacks.exists():
            raise SystemExit(f"the study that counts frames was not trained: {done.stderr[-800:]}")
        (stack, _), *_ = Counter(stacks.read_text().splitlines()).most_common(1)
    inside = [entry for entry in stack.split("\t") if entry.startswith(f"{package}{os.sep}")]
    return [entry.removeprefix(f"{package}{os.sep}") for entry in reversed(inside)]


def measure(package: Path, *, with_frames: bool = True) -> tuple[dict[str, str], dict[str, list[str]]]:
    """All figures of a package as text, and the names behind some of them."""
    modules = read_package(package)
    rooms = {name: module for name, module in modules.items() if module.is_room}
    at_top = {name: imported(module, modules, inside=False) for name, module in modules.items()}
    anywhere = {name: imported(module, modules) for name, module in modules.items()}
    named_too = {name: imported(module, modules, named=True) for name, module in modules.items()}
    importers = Counter(target for targets in named_too.values() for target in targets)
    short = [name for name, module in rooms.items() if module.code_lines < SHORT]
    single = [name for name in rooms if importers[name] == 1]
    uses = [times for module in modules.values() for _, times in helpers(module)]
    once = sum(times == 1 for times in uses)
    circles = cycles(anywhere)
    repeated = repeated_classes(modules)
    inside = {name: count for name, module in modules.items() if (count := imports_inside_functions(module))}
    figures = {
        "modules": f"{len(rooms)}",
        "lines of code": f"{sum(module.code_lines for module in modules.values()):,}",
        "lines of a module, median and longest": _spread([module.lines for module in rooms.values()]),
        f"modules under {SHORT} lines of code": _share(len(short), len(rooms)),
        "of these with fewer than two importers": f"{sum(importers[name] < 2 for name in short)}",
        "modules with exactly one importer": _share(len(single), len(rooms)),
        "lines of a function, median and longest": _spread(function_lengths(modules)),
        "private functions named once in their module": _share(once, len(uses)),
        "import cycles, imports at the top only": f"{len(cycles(at_top))}",
        "import cycles, imports in functions included": _circles(circles),
        "imports inside functions": f"{sum(inside.values())}",
        "public class names defined twice": f"{len(repeated)}",
    }
    listed = {
        f"under {SHORT} lines of code": [
            f"{name} {rooms[name].code_lines}, {importers[name]} importers" for name in short
        ],
        "exactly one importer": single,
        "cycles": [" ".join(circle) for circle in circles],
        "imports inside functions": [f"{name} {count}" for name, count in inside.items()],
        "classes defined twice": [f"{name}: {', '.join(places)}" for name, places in repeated.items()],
    }
    if with_frames:
        for title, command in STEPS.items():
            stack = frames_of_a_step(package, command)
            training = sum(frame.startswith("training/") for frame in stack)
            figures[f"frames of one step, {title}"] = f"{len(stack)} ({training} in training)"
            listed[f"frames of one step, {title}"] = stack
    return figures, listed


STEPS = {
    "`tuner run`": ["run", "--yes", "--fuse", "off", "--device", "cpu"],
    "`tuner launch`": ["launch", "--round", "1", "--fuse", "off", "--device", "cpu"],
}


def _spread(lengths: list[int]) -> str:
    return f"{statistics.median(lengths):.0f}, {max(lengths)}"


def _share(part: int, whole: int) -> str:
    return f"{part} ({part / whole:.0%})" if whole else "0"


def _circles(circles: list[list[str]]) -> str:
    return f"{len(circles)} ({sum(map(len, circles))} modules)" if circles else "0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", type=Path, default=ROOT / "tuner", help="the folder of the package")
    parser.add_argument("--compare", type=Path, help="the folder of an older package, shown in the first column")
    parser.add_argument("--no-frames", action="store_true", help="train nothing")
    parser.add_argument("--list", action="store_true", help="name the modules behind the figures")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    given = parser.parse_args()
    packages = [path.resolve() for path in (given.compare, given.package) if path is not None]
    measured = [measure(package, with_frames=not given.no_frames) for package in packages]
    width = max(map(len, measured[-1][0]))
    for name in measured[-1][0]:
        print(f"{name:<{width}}", *(f"{figures.get(name, ''):>20}" for figures, _ in measured))
    if given.list:
        for title, lines in measured[-1][1].items():
            print(f"\n{title}", *lines, sep="\n  ")
    if given.json:
        given.json.write_text(json.dumps([figures for figures, _ in measured], indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
