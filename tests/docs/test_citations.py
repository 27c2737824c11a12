"""Every rule and promise that the sources cite has its anchor, and no page outside the repository is cited."""

import re
from pathlib import Path

from tuner.analysis.finding import QUESTIONS

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "docs/reference/rules.md", ROOT / "docs/reference/promises.md")
PLACES = (
    "tuner",
    "studies",
    "tests",
    "benchmarks",
    "notebooks",
    "docs",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
)
KINDS = (".py", ".md", ".jinja", ".ipynb", ".toml")
NOT_LOOKED_AT = ("_build", "generated", "__pycache__", "data")

CITATION = re.compile(r"(?<![\w`/.#])([ABCDF][1-9]\d?|[IR][1-9]\d?)(?![\w\"'`=]|\.\d)")
MARK = re.compile(r"\[([PSM])\]")
OUTSIDE = re.compile(r"\b(DESIGN|PLAYBOOK|RELIABILITY|STYLE|HOUSE|VOICE|FAULTS|FUSION|SCALE|SEARCH)(\.md\b| [A-Z]?\d)")


def texts() -> dict[str, str]:
    """Every text file that people read here, by its path from the root."""
    found = {}
    for place in PLACES:
        path = ROOT / place
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            parts = file.relative_to(ROOT).parts
            if file.suffix in KINDS and file != Path(__file__) and not set(parts) & set(NOT_LOOKED_AT):
                found["/".join(parts)] = file.read_text(encoding="utf-8")
    return found


def anchors() -> set[str]:
    """The headings of the two pages that are a rule or a promise."""
    return {
        name for page in PAGES for name in re.findall(r"^### (\w+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    }


def cited(text: str) -> list[str]:
    return CITATION.findall(text)


def test_every_rule_and_promise_that_is_cited_has_an_anchor():
    known, found = anchors(), 0
    missing = []
    for path, text in texts().items():
        names = cited(text)
        found += len(names) * path.startswith(("tuner", "tests", "studies"))
        missing += [f"{path}: {name}" for name in names if name not in known]
    assert missing == []
    assert found > 300, "the pattern finds what is cited"


def test_the_rules_of_every_question_have_an_anchor():
    rules = {rule for question in QUESTIONS for rule in question.rules}
    assert len(rules) > 30
    assert rules - anchors() == set()


def test_an_anchor_stands_once_and_says_something():
    for page in PAGES:
        parts = re.split(r"^### (\w+)\n", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
        names, bodies = parts[1::2], parts[2::2]
        assert len(names) > 70
        assert len(names) == len(set(names))
        assert [name for name, body in zip(names, bodies, strict=True) if len(body.split()) < 4] == []


def test_the_marks_of_constants_are_explained():
    rules = PAGES[0].read_text(encoding="utf-8")
    marks = {mark for path, text in texts().items() if path.startswith("tuner") for mark in MARK.findall(text)}
    assert marks == {"P", "S"}
    assert [mark for mark in marks if f"- `[{mark}]`: " not in rules] == []


def test_no_document_outside_the_repository_is_cited():
    assert [f"{path}: {match.group()}" for path, text in texts().items() for match in OUTSIDE.finditer(text)] == []


def test_the_patterns_see_what_they_look_for():
    assert cited("Ranks are luck (A24, D47), see B35; I11 holds.") == ["A24", "D47", "B35", "I11"]
    assert cited("x = A1_b; `A1`; 'B2'; H200; v1.B3.2; [A24](../reference/rules.md#a24)") == ["A24"]
    assert OUTSIDE.search("as RELIABILITY 21 says")
    assert OUTSIDE.search("see STYLE.md")
    assert not OUTSIDE.search("SCALE = 2")
