"""One word, one thing: the glossary's retired words occur nowhere, and no public class has the name of another."""

import ast
import re
from pathlib import Path

import tuner

PACKAGE = Path(tuner.__file__).parent
DOCS = PACKAGE.parent / "docs"
GLOSSARY = (DOCS / "concepts/glossary.md").read_text(encoding="utf-8")
FILES = sorted(path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".jinja"))


def retired() -> list[str]:
    """The words on the left of the glossary's last table."""
    table = GLOSSARY.split("## Words that are not used")[1]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| ")]
    return [word.strip() for row in rows[1:] for word in row.split(",")]


def plain_words(source: str) -> str:
    """A source as words in lower case: identifiers taken apart, comment marks and line ends gone."""
    source = re.sub(r"\w+_in_(noises|spreads)\b", "", source)  # names of thresholds, which programs read
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", source)
    return re.sub(r"[\s_#]+", " ", apart).lower()


def used(source: str, words: list[str]) -> list[str]:
    text = plain_words(source)
    return [word for word in words if re.search(rf"\b{word}\b", text)]


def classes_twice(sources: dict[str, str]) -> dict[str, list[str]]:
    """Names of public classes that more than one module defines at its top."""
    places: dict[str, list[str]] = {}
    for path, source in sources.items():
        for node in ast.parse(source).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(path)
    return {name: found for name, found in places.items() if len(found) > 1}


def test_no_retired_word_is_used():
    words = retired()
    assert len(words) > 15
    found = {str(path.relative_to(PACKAGE)): used(path.read_text(encoding="utf-8"), words) for path in FILES}
    assert {path: words for path, words in found.items() if words} == {}


def test_no_page_uses_a_retired_word():
    pages = [*sorted(DOCS.rglob("*.md")), DOCS.parent / "CONTRIBUTING.md"]
    pages = [page for page in pages if page != DOCS / "concepts/glossary.md" and "generated" not in page.parts]
    assert len(pages) > 25
    assert {page.name: words for page in pages if (words := used(page.read_text(encoding="utf-8"), retired()))} == {}


def test_no_public_class_name_is_defined_twice():
    sources = {str(path.relative_to(PACKAGE)): path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    assert classes_twice(sources) == {}


def test_a_retired_word_is_not_defined_as_a_word():
    defined = {
        line.split("|")[1].strip()
        for line in GLOSSARY.split("## Words that are not used")[0].splitlines()
        if "|" in line
    }
    assert len(defined) > 40
    assert defined & set(retired()) == set()


def test_each_word_is_defined_once():
    rows = re.findall(r"^\| ([^|]+) \|", GLOSSARY.split("## Words that are not used")[0], re.MULTILINE)
    words = [word.strip() for row in rows if set(row) != {"-"} and row != "word" for word in row.split(",")]
    assert sorted(word for word in set(words) if words.count(word) > 1) == []
    stages = {"stage", "start", "control", "carried parameter", "fresh parameter", "fresh seed", "inherited steps"}
    assert stages | {"adapter", "rank", "alpha", "caption"} <= set(words)


def test_the_classes_that_the_glossary_names_are_defined():
    named = set(re.findall(r"\| `([A-Z]\w+)` \|$", GLOSSARY.split("## Training")[1], re.MULTILINE))
    sources = [path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")]
    defined = {name for source in sources for name in re.findall(r"^class (\w+)", source, re.MULTILINE)}
    assert len(named) > 15
    assert named - defined == set()


def test_the_checks_see_what_they_look_for():
    assert used("def die_with(crew): ...", ["crew", "desk"]) == ["crew"]
    assert used("class OpenDesk: ...", ["crew", "desk"]) == ["desk"]
    assert used('"""Saved beside\n    the training."""', ["beside the training"]) == ["beside the training"]
    assert used("# asked\n# of it", ["asked of"]) == ["asked of"]
    assert used("bearing", ["bear"]) == []
    assert used("{'rise_in_noises': 3.0}", ["noises"]) == []
    assert used("noises = 3.0", ["noises"]) == ["noises"]
    assert classes_twice({"a": "class One: ...", "b": "class One: ...\nclass _Two: ...", "c": "class _Two: ..."}) == {
        "One": ["a", "b"]
    }
