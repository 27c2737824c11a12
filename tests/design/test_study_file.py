"""A study file is Python that declares exactly one campaign; anything else is one clear error."""

import sys

import pytest

from tuner.design.study_file import load_campaign
from tuner.errors import DeclarationError

IMPORTS = "from tuner import Campaign, Round, SearchSpace, Workload, log_uniform, minimize\n"
WORKLOAD = 'class Toy(Workload):\n    batch_size = 8\n    select_by = minimize("validation/loss")\n'
CAMPAIGN = 'Campaign(Toy(), [Round("Why?", trials=8, space=SearchSpace(learning_rate=log_uniform(1e-4, 1)))]{})\n'


@pytest.fixture
def study(tmp_path):
    """Writes a study file and returns its path; forgets the modules it made."""
    before = set(sys.modules)

    def write(text, name="digits.py"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    yield write
    for name in set(sys.modules) - before:
        if name.startswith("tuner_study_") or name == "beside_the_study":
            del sys.modules[name]


def test_a_campaign_is_named_after_its_file_unless_it_says_otherwise(study):
    name, campaign = load_campaign(study(IMPORTS + WORKLOAD + "campaign = " + CAMPAIGN.format("")))
    assert (name, campaign.rounds[0].trials) == ("digits", 8)
    name, _ = load_campaign(study(IMPORTS + WORKLOAD + "campaign = " + CAMPAIGN.format(", name='mine'")))
    assert name == "mine"


def test_a_study_imports_what_lies_beside_it_and_its_folder_is_on_the_path_once(study):
    study(IMPORTS + WORKLOAD, "beside_the_study.py")
    path = study(IMPORTS + "from beside_the_study import Toy\nany_name = " + CAMPAIGN.format(""))
    for _ in range(2):  # its methods may import, too, so the folder stays until another study is loaded
        assert type(load_campaign(path)[1].workload).__name__ == "Toy"
        assert sys.path.count(str(path.parent.resolve())) == 1


def test_one_campaign_under_two_names_is_one(study):
    text = IMPORTS + WORKLOAD + "campaign = " + CAMPAIGN.format("") + "same = campaign\n"
    assert load_campaign(study(text))[0] == "digits"


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DeclarationError, match=r"there is no study file .*nothing\.py; a study file is Python"):
        load_campaign(tmp_path / "nothing.py")


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("learning_rate: 0.1", "study.yaml", r"study\.yaml is not a Python file; a study file ends in \.py"),
        ("x = 1", "digits.py", r"digits\.py declares 0 campaigns and must declare at least one: campaign = "),
        (
            IMPORTS + WORKLOAD + "a = " + CAMPAIGN.format(", name='x'") + "b = " + CAMPAIGN.format(", name='x'"),
            "two.py",
            "two campaigns called 'x'; each stage needs a name of its own",
        ),
        ("1 / 0", "digits.py", r"digits\.py does not run: ZeroDivisionError: division by zero"),
        ("def f(:", "digits.py", r"digits\.py does not run: SyntaxError"),
        ("import nothing_like_it", "digits.py", r"does not run: ModuleNotFoundError: No module named"),
        (IMPORTS + WORKLOAD + CAMPAIGN.format(", optimizer='lamb'"), "digits.py", "^optimizer is one of .* got 'lamb'"),
    ],
)  # fmt: skip
def test_what_declares_no_campaign_is_one_clear_error(study, text, name, message):
    with pytest.raises(DeclarationError, match=message):
        load_campaign(study(text, name))


@pytest.mark.parametrize(
    ("line", "advice"),
    [("from . import blocks", "by its own name, without the dot"), ("import package_here.blocks", "set PYTHONPATH={}")],
)
def test_a_study_inside_a_package_says_how_to_import_it(tmp_path, line, advice):
    study = tmp_path / "package_here" / "study.py"
    study.parent.mkdir()
    study.write_text(line)
    with pytest.raises(DeclarationError, match="does not run") as told:
        load_campaign(study)
    assert advice.format(tmp_path.resolve()) in str(told.value)


@pytest.mark.parametrize("package", ["lightning", "transformers", "accelerate"])
def test_a_study_that_imports_a_framework_which_is_not_installed_names_the_extra(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)  # as Python says that it is not to be found
    study = tmp_path / "study.py"
    study.write_text(f"import {package}.inner")
    with pytest.raises(DeclarationError, match=rf"ModuleNotFoundError.*: pip install 'tuner\[{package}\]'$"):
        load_campaign(study)
