"""The source code that a study runs: its file, and every own module that the file reaches.

Imports are followed by name, also those that are never executed. Code that runs without an import statement is added
when it is seen (`running`). So a launcher, its workers and another machine compute the same digests, whatever else a
process has imported and wherever the files are.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType

from tuner.errors import DeclarationError
from tuner.sources.bytecode import code_digest, definitions_of_class
from tuner.sources.definitions import Definitions, definitions_of, main_block_of, short_digest
from tuner.sources.modules import Found, ModuleFinder, files_named_in, imports_of, is_stale, modules_by_file
from tuner.sources.places import distribution_of, kind_of, own_file
from tuner.sources.running import Seen

STUDY_FILE = "the study file"
FROM_TEXT = "code without a file"
_SEPARATELY = ("torch", "tuner")  # distributions whose versions are part of the Numerics or of every key


@dataclass(frozen=True, slots=True)
class OwnSource:
    """A file of own code with its definitions."""

    file: Path
    definitions: Definitions
    program: bool = False  # its main block runs, too
    own: frozenset[str] | None = None  # classes of the workload, where others' are left out


class Reached:
    """Own code by label ("pkg/net.py"), and the installed distributions it imports.

    own: the names of the workload's classes; what of the study file only the workloads of other campaigns use is left
    out then. Raises DeclarationError for a module whose file cannot be read.
    """

    def __init__(self, study_file: Path | None, own: frozenset[str] | None = None) -> None:
        self.sources: dict[str, OwnSource] = {}
        self.from_text: Definitions = {}
        self._versions: dict[str, str] = {}
        self._finder = ModuleFinder()
        self._asked: set[str] = set()
        self._labels: dict[Path, str] = {}
        self._study_file = study_file.resolve() if study_file else None
        self._own = own
        if self._study_file is not None:
            self.add_file(self._study_file)

    def apart(self) -> "Reached":
        """A copy; additions to the copy do not change this one."""
        other = Reached(None)
        other.sources, other.from_text, other._versions = dict(self.sources), dict(self.from_text), dict(self._versions)
        other._asked, other._labels = set(self._asked), dict(self._labels)
        other._finder, other._study_file, other._own = self._finder, self._study_file, self._own
        return other

    @property
    def code(self) -> dict[str, Definitions]:
        """Label to definition to digest, in order."""
        found = {label: source.definitions for label, source in sorted(self.sources.items())}
        return found | ({FROM_TEXT: dict(sorted(self.from_text.items()))} if self.from_text else {})

    @property
    def packages(self) -> dict[str, str]:
        """Installed distributions that own code imports, with their versions; torch and tuner stand elsewhere."""
        return dict(sorted(self._versions.items()))

    def add_module(self, name: str) -> None:
        """Add a module with everything it reaches. A missing module, or one of a distribution, adds nothing."""
        if name in self._asked:
            return
        self._asked.add(name)
        found = None if self._is_inside_others(name) else self._finder.find(name)
        if found is None or not found.file:
            return
        file = Path(found.file)
        kind = kind_of(file)
        if kind == "installed":
            self._note_version(file)
        elif kind == "own" and not (found.source is None and not file.is_file() and name not in sys.modules):
            self._add(file.resolve(), found)

    def _is_inside_others(self, name: str) -> bool:
        """Whether a module is part of a package that is not own code, of which the version counts."""
        parts = name.split(".")
        above = (self._finder.find(".".join(parts[:length])) for length in range(1, len(parts)))
        return any(found is not None and found.file and kind_of(Path(found.file)) != "own" for found in above)

    def add_file(self, file: Path, name: str = "") -> None:
        """Add a file of own code that was run or named; `name`: of its module, if it is one."""
        self._add(file.resolve(), Found(name, str(file)))

    def add_program(self, file: Path) -> None:
        """Add a file that runs as a program, its main block included."""
        self._labels.pop(file.resolve(), None)  # a study file that names it has added it as a module
        known = [label for label, source in self.sources.items() if source.file == file.resolve()]
        for label in known:
            del self.sources[label]
        self._add(file.resolve(), Found("", str(file)), program=True)

    def add_plugin(self, name: str, file: Path) -> None:
        """The module of a plugin that a study uses; of an installed one every file of its package.

        A plugin's code decides every update of a trial. So it counts as own code does, whether the study file imports
        it or only names what it registered.
        """
        files = [file]
        if kind_of(file) == "installed":
            depth = len(name.split(".")) - (file.stem != "__init__")
            files = sorted(file.parents[depth - 1].rglob("*.py")) if depth else files
        for each in files:
            self.add_file(each, name if each == file else "")

    def add_functions(self, functions: Sequence[FunctionType]) -> None:
        """Add functions typed into an interpreter or a notebook, and the classes there that they name."""
        for function in functions:
            self.from_text[f"function {function.__qualname__}"] = code_digest(function.__code__)
            for name in function.__code__.co_names:
                value = function.__globals__.get(name)
                if isinstance(value, type):
                    self.from_text |= definitions_of_class(value)

    def add_seen(self, seen: Seen) -> None:
        """Add the own code that ran."""
        for code, module in seen.codes:
            file = _counted_file(code, module)
            if file is not None:
                if file not in self._labels:
                    self.add_file(file, module if _file_of(module) == file else _module_of(file))
            elif self._is_own(module) and not _is_file(Path(code.co_filename)):
                self._add_from_text(code, module)
        for code, module in seen.texts:
            if (file := _counted_file(code, "")) is not None:
                self.add_file(file)
            elif self._is_own(module):
                name = f"text run by {self._labels.get(_file_of(module) or Path(), module)}"
                digest = code_digest(code)
                self.from_text[f"{name} ({digest[:4]})"] = digest

    def refuse_stale_modules(self) -> None:
        """Raise DeclarationError where a file was edited after this process imported it."""
        loaded = modules_by_file()
        for label, source in self.sources.items():
            module = loaded.get(str(source.file))
            if module is not None and is_stale(source.file, _read(source.file, label), module):
                raise DeclarationError(
                    f"{label} was edited after this process had imported it, so what would be trained is not what the "
                    "file says: start a new process (of a notebook: restart its kernel), then launch again"
                )

    def changed_since_read(self) -> str:
        """The label of a file whose definitions changed since it was read; empty if there is none."""
        for label, source in self.sources.items():
            content = _read(source.file, label)
            if _meaning(source.file, content, program=source.program, own=source.own) != source.definitions:
                return label
        return ""

    def _is_own(self, module: str) -> bool:
        name = getattr(sys.modules.get(module), "__file__", None)
        if module == "__main__" or not isinstance(name, str):
            return module == "__main__"
        return own_file(name) is not None or Path(name).resolve() == self._study_file

    def _add_from_text(self, code: CodeType, module: str) -> None:
        """Add code of an interpreter, a notebook or `exec`. Generated methods of a dataclass follow from the class."""
        if code.co_name.startswith("__") or code.co_name == "<module>":
            return
        file = _file_of(module)
        if file is not None and file.suffix == ".pyc":
            self.add_module(module)
            return
        name = f"function {code.co_qualname}"
        self.from_text[name] = code_digest(code)

    def _add(self, file: Path, found: Found, *, program: bool = False) -> None:
        if file in self._labels:
            if file == self._study_file and self._own is not None and _is_imported(found.name):
                self._count_whole()
            return
        label = self._labels[file] = self._label(file, found.name)
        content = _read(file, label) if found.source is None else found.source
        own = self._own if file == self._study_file else None
        self.sources[label] = OwnSource(file, _meaning(file, content, program=program, own=own), program, own)
        self._follow(file, found, content, program=program)

    def _count_whole(self) -> None:
        """Count all of the study file: a module that the study reaches imports it, and may read any definition."""
        self._own = None
        label = STUDY_FILE
        kept = self.sources[label]
        self.sources[label] = OwnSource(kept.file, _meaning(kept.file, _read(kept.file, label), program=kept.program))

    def _follow(self, file: Path, found: Found, content: bytes, *, program: bool) -> None:
        """Add the modules that a source imports, and the files that it names.

        A program finds first what lies beside it, which is added as a program, and not what this process would find.
        """
        package = found.name if file.stem == "__init__" else found.name.rpartition(".")[0]
        try:
            names, files = imports_of(content, package), files_named_in(content)
        except (SyntaxError, ValueError):
            return
        for name in names:
            if not (program and _lies_beside(file, name)):
                self.add_module(name)
        for named in files:
            near = file.parent / named
            if _is_file(near) and near.resolve() != self._study_file and kind_of(near) == "own":
                self.add_file(near)

    def _label(self, file: Path, name: str) -> str:
        """The name of a file in messages and digests, on every machine: its module's name, or its folder and name."""
        if file == self._study_file:
            return STUDY_FILE
        parts = name.split(".") if name else []
        inside = (*file.parent.parts, *([] if file.stem == "__init__" else [file.name.partition(".")[0]]))
        if not parts or inside[-len(parts) :] != tuple(parts):
            parts = list(self._place(file))
        elif file.stem == "__init__":
            parts.append("__init__")
        label = "/".join(parts) + file.suffix
        for parent in file.parents:  # two files of one name
            if label not in self.sources:
                break
            label = f"{parent.name}/{label}"
        return label

    def _place(self, file: Path) -> tuple[str, ...]:
        """The path of a file relative to the study's folder; elsewhere relative to its outermost package."""
        folder = self._study_file.parent if self._study_file else None
        if folder is not None and file.is_relative_to(folder):
            return file.relative_to(folder).with_suffix("").parts
        top = file.parent
        while (top / "__init__.py").is_file():
            top = top.parent
        return file.relative_to(top).with_suffix("").parts

    def _note_version(self, file: Path) -> None:
        distribution = distribution_of(file)
        if distribution is not None and distribution.name not in _SEPARATELY:
            self._versions[distribution.name] = distribution.version


def _is_imported(module: str) -> bool:
    """Whether a study file is meant under its own name, and not as it was loaded by us."""
    return bool(module) and not module.startswith("tuner_study_")


def _lies_beside(file: Path, name: str) -> bool:
    """Whether a module of this name, or the package around it, is found in the folder of a program."""
    top = file.parent / name.partition(".")[0]
    return _is_file(top.with_suffix(".py")) or _is_file(top / "__init__.py")


def same_code(label: str, file: str, definitions: Mapping[str, str]) -> bool:
    """Whether the definitions of a file are unchanged. Raises DeclarationError where the file cannot be read."""
    path = Path(file)
    return _meaning(path, _read(path, label)) == dict(definitions)


def _read(file: Path, label: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DeclarationError(
            f"{label} belongs to the code of the study and cannot be read back from {file} "
            f"({error.strerror or error}); whether it changed would not be known: put the file back, then launch again"
        ) from error


def _meaning(file: Path, content: bytes, *, program: bool = False, own: frozenset[str] | None = None) -> Definitions:
    """Digests of its definitions if the file is Python; else one digest of its bytes."""
    if file.suffix == ".py":
        try:
            return definitions_of(content, own) | (main_block_of(content) if program else {})
        except (SyntaxError, ValueError, RecursionError):
            pass
    return {"the whole file": short_digest(content.hex())}


def _file_of(module: str) -> Path | None:
    file = getattr(sys.modules.get(module), "__file__", None)
    return Path(file).resolve() if isinstance(file, str) else None


def _counted_file(code: CodeType, module: str) -> Path | None:
    """The file of own code, unless a package generated it; `module`: its name, "" where that is not known."""
    file = own_file(code.co_filename)
    return None if file is not None and _is_generated(file, module or _module_of(file)) else file


def _is_generated(file: Path, module: str) -> bool:
    """Whether an installed package wrote a module of its own to a file of any name, as PyTorch Geometric does.

    Such code follows from the package's version and from the classes it is made for, and its file is new each time.
    """
    top, _, rest = module.partition(".")
    package = _file_of(top)
    other = bool(rest) and file.stem != module.rpartition(".")[2]
    return other and package is not None and kind_of(package) == "installed"


def _module_of(file: Path) -> str:
    """The name under which a file was imported; empty where it was run otherwise."""
    return next((name for name in list(sys.modules) if name != "__main__" and _file_of(name) == file), "")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
