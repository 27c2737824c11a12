"""The records of the questions: one file each, and everything that shows a question reads its record."""

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from analysis.handmade import frames_of_curves, record, study

from tuner.analysis import questions
from tuner.analysis.checklist import checklist_findings, failing, known_verdicts, round_findings
from tuner.analysis.finding import NOTHING_TO_DO, QUESTIONS, Finding, Question, Verdict
from tuner.analysis.frames import frames_of
from tuner.errors import DeclarationError
from tuner.records import State
from tuner.registry import Registry, Source
from tuner.report.cards import asked

MODULES = sorted(path for path in Path(questions.__path__[0]).glob("*.py") if path.stem != "__init__")
FALLING = [1.0 - 0.01 * step for step in range(50)]


def weekday_finding(frames):
    table = pd.DataFrame({"trial": frames.complete["trial"]})
    verdict = "monday" if len(table) > 3 else "inconclusive"
    return WEEKDAY.answer(frames.study.name, verdict, f"{len(table)} trials completed on a Monday.", table)


WEEKDAY = Question(
    name="weekday",
    sentence="Was it trained on a Monday?",
    order=105,
    verdicts=(Verdict("monday", "act", "Train on a Tuesday."), Verdict("inconclusive", "open", "Wait a week.")),
    thresholds={"mondays": 1.0},
    needs=("search",),
    ask=weekday_finding,
    plot="curves",
)


@pytest.fixture
def with_weekday(monkeypatch):
    """The registry with one question more, as a plugin's module adds it."""
    len(QUESTIONS)  # those of the package come first
    monkeypatch.setattr(QUESTIONS, "_records", dict(QUESTIONS._records))
    QUESTIONS.add(WEEKDAY, Source(__name__, __file__))


def frames_with(count):
    return frames_of_curves(study(), [FALLING] * count)


@pytest.mark.parametrize("path", MODULES, ids=[path.stem for path in MODULES])
def test_each_file_has_the_record_of_its_name(path):
    assert path.stem in QUESTIONS
    assert QUESTIONS.source_of(path.stem).file == str(path)


def test_a_question_of_one_file_is_asked_shown_and_can_fail_a_check(with_weekday):
    findings = checklist_findings(frames_with(4))
    names = [finding.question for finding in findings]
    assert names[: names.index("enough_points") + 1] == ["boundary", "weekday", "enough_points"]
    (found,) = [finding for finding in findings if finding.question == "weekday"]
    assert (found.verdict, found.strength, found.action) == ("monday", "moderate", "Train on a Tuesday.")
    assert found.needs_action
    assert found.tone == "act"
    assert repr(found).startswith("⚠ weekday of round-1: monday (moderate evidence)")
    assert found.thresholds == {"mondays": 1.0}
    assert asked(found) == "Was it trained on a Monday?"
    assert found.asked.plot == "curves"
    assert "monday" in known_verdicts()
    assert failing(findings, ["monday"]) == [found]


def test_what_a_new_question_cannot_decide_has_no_strength(with_weekday):
    (found,) = [finding for finding in checklist_findings(frames_with(2)) if finding.question == "weekday"]
    assert (found.verdict, found.strength, found.tone, found.action) == ("inconclusive", "none", "open", "Wait a week.")


def test_a_new_question_about_the_space_is_not_asked_where_points_were_chosen(with_weekday):
    declared = replace(study(), lineage=(("round-1", "trial 0"),))
    frames = frames_of_curves(declared, [FALLING] * 4)
    promoted = replace(frames, trials=frames.trials.assign(origin="round-1 trial 0"))
    assert "weekday" in {finding.question for finding in checklist_findings(frames)}
    assert "weekday" not in {finding.question for finding in checklist_findings(promoted)}


def test_a_name_is_given_once(with_weekday):
    with pytest.raises(Exception, match=r"question 'boundary' is registered twice: by tuner\.analysis\.questions"):
        QUESTIONS.add(replace(WEEKDAY, name="boundary"), Source("mine", "mine.py"))


def test_without_the_record_nothing_of_it_is_left():
    assert "weekday" not in QUESTIONS
    with pytest.raises(DeclarationError, match="there is no verdict monday"):
        failing([], ["monday"])


def test_a_verdict_that_a_question_does_not_have_is_refused():
    with pytest.raises(ValueError, match="weekday has no verdict 'sunday'; it has monday, inconclusive"):
        WEEKDAY.answer("study", "sunday", "", pd.DataFrame())


def test_an_action_of_the_evidence_comes_before_that_of_the_verdict(with_weekday):
    assert WEEKDAY.answer("study", "monday", "", pd.DataFrame(), action="Rest.").action == "Rest."
    plain = replace(WEEKDAY, verdicts=(Verdict("monday"),)).answer("study", "monday", "", pd.DataFrame())
    assert (plain.action, plain.needs_action, plain.tone) == (NOTHING_TO_DO, False, "told")


def test_a_question_about_curves_can_answer_that_there_are_none():
    assert "no_curves" not in {one.name for one in WEEKDAY.answers}
    assert "no_curves" in {one.name for one in replace(WEEKDAY, needs=("curves",)).answers}


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.name)
def test_every_record_says_what_a_reader_needs(question):
    assert question.sentence.endswith("?")
    assert question.verdicts
    assert len({one.name for one in question.answers}) == len(question.answers)
    for verdict in question.answers:
        assert re.fullmatch(r"[a-z_]+", verdict.name)
        assert verdict.action.endswith(".")
    assert all(re.fullmatch(r"[ABCD]\d+", rule) for rule in question.rules)
    assert question.title.format(question="a", subject="b")


def test_places_on_a_page_are_given_once():
    orders = [question.order for question in QUESTIONS]
    assert orders == sorted(set(orders))


def test_what_undecided_findings_are_called():
    """A question that decides nothing has a verdict of its own for that; none of them counts as fine."""
    open_ones = {one.name for question in QUESTIONS for one in question.answers if one.tone == "open"}
    assert open_ones == {"inconclusive", "no_curves", "undecided", "unconfirmed"}


def test_plots_that_records_name_exist():
    from tuner.plots import catalog

    named = {question.plot for question in QUESTIONS if question.plot}
    assert len(named) > 4
    assert named <= set(catalog.PLOTS.names)


def test_headings_name_a_hyperparameter_or_the_question():
    def heading(question, subject):
        return Finding(question, subject, "", "none", "", pd.DataFrame(), {}, "").heading

    assert heading("boundary", "dropout") == "dropout:"
    assert heading("best_steps", "round-1") == "best steps of round-1:"
    assert heading("isolation", "activation") == "Which activation is best?"
    assert heading("transfer", "winner") == "Is the winner still better than its rival?"
    assert heading("transfer", "dropout") == "transfer of dropout:"


def test_verdicts_of_the_campaign_are_no_gates_of_a_round():
    assert not {"fitted", "adopt", "longer_pays", "contradiction"} & set(known_verdicts())
    assert {"too_long", "stale", "rejected", "some_failed", "no_curves", "inconclusive"} <= set(known_verdicts())


class NoConclusions:
    """A Ledger that knows one study, and nothing that was concluded about it."""

    def studies(self, campaign):
        declared = replace(study(), name="mine")
        return [type("Row", (), {"study": declared, "study_id": 1})()]

    def conclusion(self, campaign, kind, study_id=None):
        return None


def test_findings_about_a_round_come_in_the_order_of_the_records():
    records = [record(0), record(1, state=State.FAILED), record(2)]
    declared = replace(study(), name="mine")
    frames = frames_of(declared, records, pd.DataFrame(columns=["trial", "step", "metric", "value"]))
    found = round_findings(NoConclusions(), "mine", frames)
    orders = [QUESTIONS.get(finding.question).order for finding in found]
    assert found[0].question == "failed_trials"
    assert orders == sorted(orders)


def test_a_registry_of_questions_can_stand_alone():
    alone = Registry("question", Question)
    alone.add(WEEKDAY, Source("mine"))
    assert alone.names == ("weekday",)
    assert list(alone) == [WEEKDAY]
