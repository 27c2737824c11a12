"""The table of schedules in docs/reference/study-file.md says what the records say, and its examples work."""

import re
from pathlib import Path

import tuner
from tuner.budget.families import constant_then_decay
from tuner.budget.schedules import SCHEDULES
from tuner.budget.transfer import lengthened
from tuner.errors import TransferError

PAGE = (Path(__file__).parents[2] / "docs/reference/study-file.md").read_text(encoding="utf-8")
PART = PAGE.split("## Schedules")[1].split("\n## ")[0]
ROWS = re.findall(r"^\| `((\w+)\(.*)` \| (.+) \| (.+) \|$", PART, re.MULTILINE)
WORDS = {name: getattr(tuner, name) for name in tuner.__all__}


def rule(family):
    """How a schedule of 100 steps is carried to 400."""
    try:
        longer = lengthened(family.schedule(100), 400)
    except TransferError:
        return "asks"
    return "stretched" if longer == family.schedule(400) and family != constant_then_decay(0.2) else "keeps its decay"


def test_every_schedule_that_can_be_trained_is_in_the_table_with_its_words():
    trained = {one.name: one.words for one in SCHEDULES.own if not one.unknown}
    assert {name: words for _, name, words, _ in ROWS} == trained
    assert len(trained) == 10


def test_the_examples_of_the_table_are_schedules_with_the_rule_that_it_says():
    for example, name, _, carried in ROWS:
        family = eval(example, dict(WORDS))
        assert family.name == name
        assert rule(family) == carried, example
