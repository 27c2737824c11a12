"""What README and docs show is run as it stands there, on the shipped studies, and ends in an answer."""

import json
import re
import shutil

import optuna
import pytest
import torch
from support.shown import PAGES, ROOT, commands_of_tables, shown_commands, shown_study
from typer.core import TyperGroup

from tuner.cli.program import program
from tuner.design.study_file import load_stages

STUDY = "studies/digits.py"
# They run each command on the data that the page speaks of.
WITH_TESTS_OF_THEIR_OWN = (
    "importing.md", "optuna.md", "quickstart-optuna.md", "extend.md", "own-loop.md", "command.md", "accelerate.md",
)  # fmt: skip
# Their commands want what is not here: a long training before them, a bucket, a cluster, a study of the reader's own.
ONLY_LOOKED_AT = (
    "averages.md", "few_labels.md", "stdlib_staged.md", "lora.md", "object-storage.md", "ray.md",
    "training-stability.md", "widen-and-rerun.md",
)  # fmt: skip
FINE = (0, 3)  # done; a finding that somebody should act on
NO_ANSWER = re.compile(r"too few|Traceback|unexpected \w+Error|nan\b")
DECIDED = {
    "sweep": ("fitted",),
    "boundary": ("ok", "expand_low", "expand_high"),
    "isolation": ("leads",),
}


def every_command(leaving_out=()):
    """Of all pages, in their order, and then the rows of tables; each once."""
    out = (*WITH_TESTS_OF_THEIR_OWN, *leaving_out)
    texts = [page.read_text(encoding="utf-8") for page in PAGES if page.name not in out]
    found = [command for text in texts for command in shown_commands(text)]
    found += [command for text in texts for command in commands_of_tables(text, STUDY)]
    return [command for place, command in enumerate(found) if command not in found[:place]]


def test_the_pages_show_commands_that_exist_with_options_that_exist():
    known = program().commands
    shown = every_command()
    assert len(shown) > 15
    for name, *words in shown:
        if name.startswith("-"):  # of `tuner` itself
            assert name in ("--help", "-h", "--version")
            continue
        told = known[name]
        if isinstance(told, TyperGroup):
            told = told.commands[words[0]]
        flags = {"--help", "-h", *(flag for parameter in told.params for flag in parameter.opts)}
        assert {word for word in words if word.startswith("-")} <= flags, (name, words)


def test_commands_are_found_as_a_reader_types_them():
    page = """
Before:

    tuner sweep a.py --extend    # a comment

```bash
.venv/bin/tuner run a.py \\
    --yes
$ tuner best 'a b'
  output of it
$ tuner worker a.py &
```
```python
tuner = 1
```
| `tuner plan STUDY [--total-steps N] [--rounds 3]` | which rounds |
"""
    expected = [["sweep", "a.py", "--extend"], ["run", "a.py", "--yes"], ["best", "a b"], ["worker", "a.py"]]
    assert shown_commands(page) == expected
    assert commands_of_tables(page, "s.py") == [["plan", "s.py", "--rounds", "3"]]


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_a_study_file_on_a_page_is_the_shipped_one_of_its_name(page):
    shown = shown_study(page.read_text(encoding="utf-8"))
    if shown is not None and (ROOT / "studies" / shown[0]).exists():
        assert shown[1] == (ROOT / "studies" / shown[0]).read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path):
    """The shipped studies, and what the pages call by names of their own: an Optuna study, tables, a study file."""
    for place in ("studies", "tests/interchange/histories"):
        shutil.copytree(ROOT / place, tmp_path / place, ignore=shutil.ignore_patterns("__pycache__"))
    for page in PAGES:
        shown = shown_study(page.read_text(encoding="utf-8"))
        if shown is not None and page.name not in WITH_TESTS_OF_THEIR_OWN:
            (tmp_path / shown[0]).write_text(shown[1])
    return tmp_path


def optuna_study(folder):
    """30 trials of 25 values, which fall for the whole run; the learning rate has its best value inside."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(storage=f"sqlite:///{folder}/optuna.db", study_name="mine")

    def objective(trial):
        rate = trial.suggest_float("lr", 1e-4, 1.0, log=True)
        for step in range(1, 26):
            trial.report(1 / step + abs(rate - 0.01), step)
        return 1 / 25 + abs(rate - 0.01)

    study.optimize(objective, n_trials=30)


def test_the_study_of_the_readme_and_the_demo_can_be_priced_and_planned(tuner, folder):
    for file in sorted({STUDY, *[path.name for path in folder.glob("*.py")]}):
        priced = tuner("run", file, "--dry-run")
        assert priced.code == 0, priced.err
        most = max(len(stage.campaign.rounds) for stage in load_stages(folder / file))
        assert [f"round-{number}" in priced.out for number in range(1, most + 1)] == [True] * most
    planned = tuner("plan", STUDY, "--total-steps", 100_000, "--rounds", 3)
    assert planned.code == 0, planned.err
    assert "to take this plan, write in the study file:" in planned.err


@pytest.mark.slow
@pytest.mark.timeout(18000)
@pytest.mark.filterwarnings("default")
def test_every_command_that_is_shown_ends_in_an_answer(tuner, folder):
    optuna_study(folder)
    ran = []
    for command in every_command(ONLY_LOOKED_AT):
        if "cuda" in command and not torch.cuda.is_available():
            continue
        if command[:2] == ["import", "table"]:
            tuner("export", "digits", "--round", 1, "--to", "csv", folder)
            table = re.sub(r"^validation/loss$", "val_loss", (folder / "points.csv").read_text(), flags=re.MULTILINE)
            (folder / "points.csv").write_text(table)
            command = [word if word != "mine" else "mine-as-a-table" for word in command]
        words = ["runs/tuner.sqlite" if word == "URL" else word for word in command]
        run = tuner(*words)
        ran.append(words)
        told = run.out + run.err
        assert run.code in FINE, (words, run.code, told[-3000:])
        assert not NO_ANSWER.search(told), (words, NO_ANSWER.search(told), told[-3000:])
    assert len(ran) > 15


@pytest.mark.slow
@pytest.mark.timeout(18000)
def test_the_demo_ends_in_decisions(tuner, folder):
    """A budget, a verdict on each range of round 1, an answer to its question, and the winner against its rival."""
    ended = tuner("run", STUDY, "--yes")
    assert ended.code in FINE, ended.err
    assert "Result: take network" in ended.out
    found = []
    for place in (1, 2):
        found += json.loads(tuner("check", "digits", "--round", place, "-f", "json").out)["findings"]
    for question, verdicts in DECIDED.items():
        mine = [one["verdict"] for one in found if one["question"] == question and one["subject"] != "round-2"]
        assert question == "sweep" or mine, question
        assert set(mine) <= set(verdicts), (question, mine)
    (winner,) = [one for one in found if (one["question"], one["subject"]) == ("transfer", "winner")]
    assert winner["verdict"] in ("confirmed", "rejected"), winner["summary"]
    assert "learning_rate: fitted" in ended.err
