"""Which files belong to a command: those beside the study that it names, and what its Python scripts import there."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from tuner.sources.modules import imports_of
from tuner.sources.places import kind_of

MOST_BYTES = 16 << 20  # [P] of one file; a larger one is data, and is not compared


def files_of_command(words: Sequence[str], folder: Path) -> list[Path]:
    """The files in `folder`, the study's, that the words name, with everything that the Python ones import."""
    found: dict[Path, None] = {}
    for word in _parts(words):
        for file, place in _files_named(word, folder):
            _add(file, place, found)
    return list(found)


def _parts(words: Sequence[str]) -> Iterator[str]:
    """The words, what follows an equals sign in one, and the words of a text for a shell."""
    for word in words:
        yield word
        if "=" in word:
            yield word.partition("=")[2]
        if " " in word:
            try:
                yield from shlex.split(word)
            except ValueError:
                yield from word.split()


def _files_named(word: str, folder: Path) -> list[tuple[Path, Path]]:
    """A file of this path, or of a module as after `python -m`; each with the folder where it finds its imports."""
    if not word or len(word) > 4096 or "\n" in word:
        return []
    module = folder.joinpath(*word.split(".")) if word.replace(".", "_").isidentifier() else None
    modules = [module.with_suffix(".py"), module / "__main__.py"] if module else []
    found = [(name, folder) for name in modules] + [(folder / word, (folder / word).parent)]
    return [(name.resolve(), place.resolve()) for name, place in found if _counts(name, folder)]


def _counts(file: Path, folder: Path) -> bool:
    try:
        inside = file.resolve().is_relative_to(folder.resolve())
        return inside and file.is_file() and file.stat().st_size <= MOST_BYTES and kind_of(file.resolve()) == "own"
    except OSError:
        return False


def _add(file: Path, place: Path, found: dict[Path, None]) -> None:
    """Add a file; of a Python script also the modules that it imports from `place`, where they are looked for."""
    if file in found:
        return
    found[file] = None
    if file.suffix != ".py":
        return
    try:
        names = imports_of(file.read_bytes(), ".".join(file.relative_to(place).parent.parts))
    except (SyntaxError, ValueError, RecursionError):
        return
    for name in names:
        module = place.joinpath(*name.split("."))
        for near in (module.with_suffix(".py"), module / "__init__.py"):
            if near.is_file() and kind_of(near.resolve()) == "own":
                _add(near.resolve(), place, found)
