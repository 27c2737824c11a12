"""A budget that was chosen under other conditions is named, with what changed and what to redo."""

import pytest

from tuner.analysis.questions.stale_budget import changed_parts, stale_finding

BASIS = {
    "batch_size": "64",
    "optimizer": "adamw",
    "architecture": "0123456789abcdef",
    "training data": "00000000000000aa",
    "regularization dropout": "0 to 0.5",
}


def changed(**parts):
    return stale_finding(BASIS, BASIS | parts, "sweep-1-grid", "round-1")


def test_nothing_is_said_where_nothing_changed_or_nothing_was_kept():
    assert stale_finding(BASIS, dict(BASIS), "round-1", "round-2") is None
    assert stale_finding({}, BASIS, "round-1", "round-2") is None


@pytest.mark.parametrize(
    ("parts", "told", "rules"),
    [
        ({"batch_size": "32"}, "batch_size was 64, now 32", ("A7", "B7")),
        ({"optimizer": "sgd"}, "optimizer was adamw, now sgd", ("A17", "best steps")),
        ({"architecture": "fedcba9876543210"}, "architecture changed", ("A16",)),
        ({"training data": "00000000000000bb"}, "training data changed", ("A16",)),
        ({"regularization dropout": "0 to 0.9"}, "regularization dropout was 0 to 0.5, now 0 to 0.9", ("A7",)),
        ({"augmentation noise": "0.1"}, "augmentation noise was not declared, now 0.1", ("A7", "A16")),
    ],
)
def test_each_change_is_named_with_its_rule(parts, told, rules):
    finding = changed(**parts)
    assert (finding.verdict, finding.needs_action) == ("stale", True)
    assert told in finding.summary
    assert "chosen from sweep-1-grid" in finding.summary
    for rule in rules:
        assert rule in finding.action


def test_what_to_redo_depends_on_where_the_budget_came_from():
    assert "tuner sweep STUDY_FILE --again" in changed(batch_size="32").action
    later = stale_finding(BASIS, BASIS | {"batch_size": "32"}, "round-1", "round-2")
    assert "tuner best-steps" in later.action
    assert "sweep" not in later.action


def test_several_changes_stand_in_one_sentence():
    now = BASIS | {"batch_size": "32", "architecture": "fedcba9876543210"}
    assert changed_parts(BASIS, now) == "batch_size was 64, now 32; architecture changed"
