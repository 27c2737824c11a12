"""A widened round, exploitation, the budget curve and importances in the page."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from report.conftest import fill_round, finish, start, study_of

from tuner.analysis.finding import Finding
from tuner.analysis.questions.budget_curve import KIND, curve_name
from tuner.analysis.round_frames import WIDENING_NUMBERS
from tuner.analysis.study_frames import StudyFrames
from tuner.budget.step_budget import StepBudget
from tuner.design.hyperparameters import log_uniform
from tuner.design.quasi_random import quasi_random_points
from tuner.design.space import SearchSpace
from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.records.conclusions import CurveStudies
from tuner.registry import register
from tuner.report.material import Material, read_material
from tuner.report.page import report_html
from tuner.report.section import SECTIONS, Block, Blocks, Part, Section
from tuner.report.sections.rounds import studies
from tuner.report.sections.short import exploitations
from tuner.report.sections.summary import findings
from tuner.report.tables import Column, Table
from tuner.storage.store import Ledger

OpenPage = Callable[[Ledger, str], Any]
SMALL = SearchSpace(learning_rate=log_uniform(1e-4, 1e-1), momentum=0.9)  # drawn quickly


def images_of(part: Any) -> list[str]:
    """The headings of the plots of a section."""
    return [block.heading for block in part.content.blocks if block.image is not None]


def widened(study: Study) -> Study:
    """round-1 with learning rates up to 0.5, six more points."""
    space = study.space.widened("learning_rate", 1e-4, 0.5)
    return replace(study, name="round-1-wide-1", hyperparameters=space.hyperparameters, num_trials=6)


def plan(ledger: Ledger, campaign: str, study: Study) -> int:
    row = ledger.start_study(campaign, study, "fingerprint")
    points = quasi_random_points(study.space, seed=99, start=0, count=study.num_trials)
    schedule = study.schedule.schedule(study.budget.max_train_steps, study.warmup_steps)
    first = WIDENING_NUMBERS
    ledger.plan_trials(
        row.study_id, [Trial(first + n, point, n, 17, schedule, "quasi-random") for n, point in enumerate(points)]
    )
    return row.study_id


def test_a_widened_round_is_one_section_judged_over_the_wider_space(ledger: Ledger, page: OpenPage) -> None:
    """B20: the union of old and new points, drawn on the new range; 30 trials before and 6 where it is new."""
    first = study_of(SMALL)
    fill_round(ledger, "digits", first)
    study_id = plan(ledger, "digits", widened(first))
    material = read_material(ledger, "digits")
    told = "learning_rate from 0.0001 to 0.1 to 0.0001 to 0.5"
    (section,) = studies(material)
    assert ("Widened", f"{told}: planned, not trained yet (round-1-wide-1)") in section.content.facts  # type: ignore[attr-defined]
    assert len(material.rounds[0].frames.trials) == 30
    assert material.rounds[0].study.hyperparameters[0].domain == first.hyperparameters[0].domain, "not searched yet"
    finish(ledger, ledger.claim(study_id, worker="test", lease_seconds=1e6, max_trials=6), first)
    opened = page(ledger, "digits")
    assert opened.anchors.count("study-1") == 1
    assert "study-2" not in opened.anchors
    assert f"{told}: 6 trials in the new region (round-1-wide-1)" in opened.text
    (study,) = read_material(ledger, "digits").rounds
    assert len(study.frames.trials) == 36
    (rate,) = [one for one in study.findings if one.question == "boundary" and one.subject == "learning_rate"]
    assert rate.evidence.set_index("edge")["bound"].to_dict() == {"low": 1e-4, "high": 0.5}


def test_every_finding_about_a_round_has_a_plot_or_is_about_none(ledger: Ledger) -> None:
    fill_round(ledger, "digits", study_of())
    (study,) = read_material(ledger, "digits").rounds
    assert {one.finding.question for one in study.placed if not one.plot_anchor} == set()


def test_what_needs_action_comes_first_and_what_is_open_is_not_called_fine(grown: Material) -> None:
    for group in findings(grown)[0].content:  # type: ignore[attr-defined]
        tones = [card.tone for card in group.cards]
        assert tones == sorted(tones, key=lambda tone: tone != "act")
        assert {card.tone for card in group.cards if card.evidence_words == "not enough data"} <= {"open", "act"}
    assert {"act", "open", "fine"} <= {card.tone for group in findings(grown)[0].content for card in group.cards}  # type: ignore[attr-defined]


def test_an_exploited_round_is_compared_with_what_was_proposed(ledger: Ledger, page: OpenPage) -> None:
    first = replace(study_of(SMALL), num_trials=12)
    fill_round(ledger, "digits", first)
    assert exploitations(read_material(ledger, "digits")) == []
    study = replace(
        first, name="round-1-exploit-tpe", kind="exploitation", num_trials=8, round=None, sampler="tpe", batch=4,
        lineage=(("round-1", "12 trials"),),
    )  # fmt: skip
    study_id = start(ledger, "digits", study)
    (waiting,) = exploitations(read_material(ledger, "digits"))
    assert images_of(waiting) == []
    finish(ledger, ledger.claim(study_id, worker="test", lease_seconds=1e6, max_trials=5), study)
    material = read_material(ledger, "digits")
    (section,) = exploitations(material)
    proposed, before = material.others[0].frames.complete, material.rounds[0].frames.complete
    bests = [f"{frame['best_value'].min():.4g}" for frame in (before, proposed)]
    (row,) = section.content.tables[0].rows  # type: ignore[attr-defined]
    assert row == ("round-1-exploit-tpe", first.goal, "round-1", "tpe", "5", "8", *bests, "validation/error_rate")
    assert images_of(section) == ["round-1-exploit-tpe"]
    assert "exploitation" in page(ledger, "digits").anchors


def test_a_budget_curve_is_drawn_with_its_finding(ledger: Ledger, page: OpenPage) -> None:
    first = replace(study_of(), num_trials=1)
    fill = [curve_name("round-1", 0, length) for length in (250, 500, 1000)]
    for name, length in zip(fill, (250, 500, 1000), strict=True):
        study = replace(
            first, name=name, kind=KIND, round=None, budget=StepBudget.with_evaluations(length, 50),
            lineage=(("round-1", "trial 0"),),
        )  # fmt: skip
        study_id = start(ledger, "digits", study)
        if length == 250:
            ledger.conclude("digits", CurveStudies(tuple(fill[:1])))
            assert "Gain from longer training" not in page(ledger, "digits").text, "no length is trained yet"
        finish(ledger, ledger.claim(study_id, worker="test", lease_seconds=1e6, max_trials=1), study)
    ledger.conclude("digits", CurveStudies(tuple(fill)))
    opened = page(ledger, "digits")
    assert "What would a longer run gain?" in opened.text
    assert "round-1 trial 0" in opened.text
    assert "budget-curve-plot" in opened.anchors
    assert "#budget-curve-plot" in opened.attributes("a", "href")


@pytest.mark.usefixtures("undrawn")
def test_what_else_is_asked_of_a_round_stands_among_its_findings(filled: Ledger) -> None:
    """The page itself knows no Optuna; whoever writes it may ask for importances."""

    def importances(frames: StudyFrames) -> list[Finding]:
        return [Finding("importance", frames.study.name, "known", "weak", "dropout 0.7", pd.DataFrame(), {}, "")]

    html = report_html(filled, "digits", importances)
    assert "Which hyperparameters matter most?" in html
    assert "dropout 0.7" in html


@pytest.mark.usefixtures("undrawn")
def test_a_registered_section_stands_at_its_place_without_a_template(
    filled: Ledger, page: OpenPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plugin adds a section of sentences, tables and plots with one record."""

    def counts(material: Material) -> list[Part]:
        table = Table(
            (Column("round"), Column("trials", True)), tuple((one.study.name, "30") for one in material.rounds)
        )
        return [Part("counts", Blocks(("How many <b>trials</b>?",), blocks=(Block("Counts", table=table),)), "Trials")]

    assert "counts" not in SECTIONS
    monkeypatch.setattr(SECTIONS, "_records", dict(SECTIONS._records))
    register(Section(name="counts", place=55, make=counts))
    opened = page(filled, "digits")
    order = [opened.anchors.index(name) for name in ("findings", "counts", "budget")]
    assert order == sorted(order)
    assert "How many <b>trials</b>?" in opened.text, "the section's text is no markup"
    assert "#counts" in opened.attributes("a", "href"), "the contents list it"


def test_sections_are_records_in_the_order_of_the_page() -> None:
    assert SECTIONS.names == (
        "masthead", "summary", "final_model", "adoptions", "stages", "findings", "conclusions", "budget", "regime",
        "rounds", "exploitation", "budget_curve", "stability", "schedules", "costs", "provenance",
    )  # fmt: skip
