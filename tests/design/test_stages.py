"""Campaigns of one file that start from each other: their names, their order, and what is refused."""

from pathlib import Path

import pytest

from tuner import Campaign, Round, SearchSpace, Workload, best_of, log_uniform, minimize, weights_from
from tuner.design.file_names import campaigns_named_in, declares_one
from tuner.design.stages import chain_to, is_study_file, split_stage, staged, with_sources
from tuner.design.study_file import declared_stage, load_campaign, load_stages
from tuner.errors import DeclarationError

STAGES = """
from tuner import *

class Any(Workload):
    batch_size = 8
    select_by = minimize("validation/loss")

SEARCH = [Round("Which rate?", trials=4, space=SearchSpace(learning_rate=log_uniform(1e-3, 1e-1)), max_train_steps=40)]
head = Campaign(Any(), name="head", start_from=best_of("pre"), rounds=SEARCH)
pretraining = Campaign(Any(), name="pre", rounds=SEARCH)
other = Campaign(Any(), start_from=best_of(pretraining, "body.*"), rounds=SEARCH)
campaign = Campaign(Any(), start_from=best_of(head), rounds=SEARCH)
"""
SPACE = SearchSpace(learning_rate=log_uniform(1e-3, 1e-1))


class Nothing(Workload):
    batch_size = 8
    select_by = minimize("validation/loss")


def campaign(*rounds, **more):
    first = Round("Which rate?", trials=4, space=SPACE, max_train_steps=40)
    return Campaign(Nothing(), rounds=[first, *rounds], **more)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "digits.py"
    path.write_text(STAGES)
    return path


def test_each_stage_comes_after_what_it_starts_from_and_has_a_name(file):
    assert [stage.name for stage in load_stages(file)] == ["pre", "head", "digits-other", "digits"]


def test_a_stage_is_named_by_its_campaign_or_its_variable_and_the_last_one_is_meant_without(file):
    assert load_campaign(file)[0] == "digits"
    assert load_campaign(f"{file}:head")[0] == "head"
    assert load_campaign(f"{file}:pretraining")[0] == "pre"
    assert load_campaign(f"{file}:other")[1].start_from.source == "pre"
    with pytest.raises(DeclarationError, match=r"declares no campaign 'haed'; it has pre, head, .*did you mean head\?"):
        load_campaign(f"{file}:haed")


def test_the_chain_of_a_stage_leaves_out_other_branches(file):
    assert [stage.name for stage in chain_to(load_stages(file), "digits")] == ["pre", "head", "digits"]


def test_campaigns_that_are_objects_bring_what_they_start_from():
    first = campaign(name="first")
    second = campaign(name="second", start_from=best_of(first))
    assert list(with_sources(second)) == ["first", "second"]
    assert declared_stage(second).campaign.start_from.source == "first"
    with pytest.raises(DeclarationError, match="starts from a campaign without a name"):
        declared_stage(campaign(name="second", start_from=best_of(campaign())))


def test_a_circle_is_refused_with_its_names():
    found = {"a": campaign(start_from=best_of("b")), "b": campaign(start_from=best_of("a"))}
    with pytest.raises(DeclarationError, match="start from each other, and none can be the first: a -> b -> a"):
        staged(found)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: best_of(3), "best_of takes a Campaign of this file, or the name of a recorded one, got 3"),
        (lambda: best_of("bert.safetensors"), r'a file of weights is weights_from\("file.safetensors"\)'),
        (lambda: best_of("a", candidates=0), "candidates is a whole number from 1 to 8, got 0"),
        (lambda: best_of("a", parameters="x||y"), r"parameters is a pattern of names.*got 'x\|\|y'"),
        (lambda: best_of("a", renamed="x"), "renamed maps the beginning of a name here"),
        (lambda: weights_from("a.pt", sha256="12"), "sha256 of weights_from is text of 64 hex digits, got '12'"),
        (lambda: campaign(start_from="pre"), r"got 'pre': write start_from=best_of\(\"pre\"\)"),
        (lambda: campaign(start_from="pre.pt"), r"got 'pre.pt': write start_from=weights_from\(\"pre.pt\"\)"),
        (lambda: campaign(start_from=campaign()), r"got a campaign: write start_from=best_of\(...\) of it"),
        (lambda: campaign(Round("?", trials=4, space=SPACE, start="scratch")), "starts from nothing else"),
        (lambda: Round("?", trials=4, space=SPACE, start="zero"), 'start of round \'\\?\' is "scratch"'),
        (lambda: Round("?", trials=4, space=SPACE, total="equal"), 'give start="scratch" with it'),
        (lambda: Round("?", promote=2, start="scratch"), "would not be a fair comparison"),
        (
            lambda: Round("?", trials=4, space=SPACE, start="scratch", total="equal", max_train_steps=3),
            "both say how long it trains",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_a_start_is_refused(make, message):
    with pytest.raises(DeclarationError, match=message):
        make()


@pytest.mark.parametrize(
    ("given", "file", "name"),
    [
        ("digits.py", "digits.py", ""),
        ("studies/digits.py:pre", "studies/digits.py", "pre"),
        ("digits.py:run:2", "digits.py", "run:2"),
        (r"C:\studies\digits.py", r"C:\studies\digits.py", ""),
        (r"C:\studies\digits.py:pre", r"C:\studies\digits.py", "pre"),
        ("a name: with a colon", "a name: with a colon", ""),
    ],
)
def test_a_colon_behind_a_study_file_is_followed_by_a_name(given, file, name):
    assert split_stage(given) == (Path(file), name)
    assert is_study_file(given) == file.endswith(".py")


def test_a_file_that_is_there_under_the_whole_text_is_that_file(tmp_path):
    odd = tmp_path / "digits.py:2.py"
    odd.write_text("")
    assert split_stage(odd) == (odd, "")
    assert split_stage(f"{odd}:pre") == (odd, "pre")


def test_the_names_of_a_file_are_read_without_running_it(file):
    assert campaigns_named_in(file) == [
        ("head", "head"), ("pretraining", "pre"), ("other", "digits-other"), ("campaign", "digits"),
    ]  # fmt: skip
    assert [name for _, name in campaigns_named_in(file)] == [
        next(one.name for one in load_stages(file) if one.variable == variable)
        for variable, _ in campaigns_named_in(file)
    ]


@pytest.mark.parametrize(
    ("text", "one"),
    [
        ("campaign = Campaign(Any(), rounds=[])", True),
        ("campaign = Campaign(Any(), start_from=best_of('pre'), rounds=[])", True),
        ("a = Campaign(Any(), rounds=[])\nb = Campaign(Any(), rounds=[])", False),
        ("from others import pre\ncampaign = Campaign(Any(), start_from=best_of(pre), rounds=[])", False),
        ("for name in 'ab':\n    globals()[name] = Campaign(Any(), name=name, rounds=[])", False),
        ("campaign = made()", False),
        ("no Python", True),
    ],
)
def test_whether_a_file_has_one_campaign_is_read_from_its_text(text, one, tmp_path):
    (tmp_path / "digits.py").write_text(text)
    assert declares_one(tmp_path / "digits.py") == one
