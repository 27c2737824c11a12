"""The pages tell the truth about what exists: verdicts, plots, commands, files, and links between pages."""

import re
from inspect import signature
from pathlib import Path

import yaml

import tuner
from tuner.analysis.finding import QUESTIONS
from tuner.cli.commands import commands
from tuner.cli.exit_codes import Exit
from tuner.cli.program import parser_of
from tuner.design.workload import Workload, words_of

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if not {"_build", "generated"} & set(path.parts))
OTHERS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def text(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def slug(heading: str) -> str:
    """The anchor that GitHub and MyST make of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {slug(found) for found in re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)}


def test_every_verdict_has_an_anchor_and_every_anchor_is_a_verdict():
    headings = re.findall(r"^### (\w+)$", text("concepts/verdicts.md"), re.MULTILINE)
    verdicts = {verdict.name for question in QUESTIONS for verdict in question.answers}
    assert len(headings) == len(set(headings))
    assert len(verdicts) > 30
    assert set(headings) == verdicts


def test_every_question_has_a_section_that_ends_with_its_name():
    sections = re.findall(r"^## (.+\?) \((\w+)\)$", text("concepts/verdicts.md"), re.MULTILINE)
    assert sorted(sections) == sorted((question.sentence, question.name) for question in QUESTIONS)


def test_the_study_file_page_has_every_attribute_and_hook_of_a_workload_in_their_order():
    table = text("reference/study-file.md").split("## The workload")[1].split("###")[0]
    named = re.findall(r"^\| `(\w+)", table, re.MULTILINE)
    attributes, hooks = words_of(Workload)
    assert sorted(named) == sorted([*attributes, *hooks])
    for name in hooks:
        _, *arguments = signature(getattr(Workload, name)).parameters
        assert f"| `{name}({', '.join(arguments)})` |" in table


def test_every_link_leads_to_a_file_and_a_heading():
    wrong = []
    found = 0
    for page in [*PAGES, *OTHERS]:
        for link in LINK.findall(FENCED.sub("", page.read_text(encoding="utf-8"))):
            if re.match(r"\w+:", link):
                continue
            found += 1
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            if not target.exists() or (anchor and anchor not in anchors(target)):
                wrong.append(f"{page.relative_to(ROOT)}: {link}")
    assert wrong == []
    assert found > 50


def test_every_page_is_reached_from_the_first_one():
    listed = {line.strip() for line in text("index.md").splitlines() if re.fullmatch(r"[\w/-]+", line.strip())}
    written = {str(page.relative_to(DOCS).with_suffix("")) for page in PAGES} - {"index"}
    assert written <= listed
    assert len(written) > 25


def test_every_file_that_a_page_names_exists():
    named = {
        (page.name, name)
        for page in [*PAGES, *OTHERS]
        for name in re.findall(
            r"\b(?:tuner|studies|tests|notebooks|benchmarks)/[\w/.-]+\.(?:py|ipynb|png|json)\b", page.read_text()
        )
    }
    assert len(named) > 20
    assert [one for one in sorted(named) if not (ROOT / one[1]).exists()] == []


def test_every_exit_code_that_a_page_names_exists():
    written = [page.read_text(encoding="utf-8") for page in PAGES]
    named = {int(code) for page in written for code in re.findall(r"exit code (\d+)", page)}
    assert len(named) >= 4
    assert named <= {code.value for code in Exit}


def test_the_citation_knows_the_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(cited["version"]) == tuner.__version__


def test_the_forms_for_github_and_the_hooks_can_be_read():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert {repository["repo"] for repository in hooks["repos"]} == {"local"}
    assert {hook["id"] for hook in hooks["repos"][0]["hooks"]} == {"ruff", "ruff-format", "mypy"}
    forms = list((ROOT / ".github/ISSUE_TEMPLATE").glob("*.md"))
    assert len(forms) >= 2
    for form in forms:
        head = yaml.safe_load(form.read_text(encoding="utf-8").split("---")[1])
        assert set(head) == {"name", "about"}


def test_every_target_of_make_that_a_page_names_exists():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {
        name for page in [*PAGES, *OTHERS] for name in re.findall(r"`make (\w+)", page.read_text(encoding="utf-8"))
    }
    assert named >= {"test", "check", "docs"}
    assert named - targets == set()


def typed_commands(page: str) -> list[list[str]]:
    """The words of every command of `tuner` in a page: in its blocks of shell, and between backticks."""
    blocks = re.findall(r"```(?:sh|bash|console)\n(.*?)```", page, re.DOTALL)
    lines = [line.split("#")[0] for block in blocks for line in block.splitlines()]
    inline = re.findall(r"`(tuner [^`]+)`", page)
    begun = [re.match(r"(?:exec |srun )?tuner (.+)", line) for line in [*lines, *inline]]
    words = [re.sub(r"[\[\];|]", " ", match[1]).split() for match in begun if match]
    return [one for one in words if not one[0].startswith("-")]


def test_every_command_that_a_page_types_exists_with_its_options():
    known = commands()
    wrong, found = [], 0
    for page in [*PAGES, *OTHERS]:
        for words in typed_commands(page.read_text(encoding="utf-8")):
            name = next((name for name in (" ".join(words[:2]), words[0]) if name in known), "")
            if words[0] == "greet":  # of the plugin that a page adds
                continue
            if not name:
                wrong.append(f"{page.name}: tuner {' '.join(words)}")
                continue
            found += 1
            flags = {flag for parameter in parser_of(known[name], name).params for flag in parameter.opts} | {"--help"}
            wrong += [
                f"{page.name}: tuner {name} {word}"
                for word in words
                if re.match(r"--?[a-z]", word) and word not in flags
            ]
    assert wrong == []
    assert found > 60


def test_the_commands_of_a_page_are_found():
    page = "```sh\ntuner check mine -v  # more\nexec tuner run x.py\n```\nor `tuner plot axes mine`, not `tuner.load()`"
    assert typed_commands(page) == [["check", "mine", "-v"], ["run", "x.py"], ["plot", "axes", "mine"]]
