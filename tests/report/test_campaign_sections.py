"""The sections about a whole campaign: how its budget was found, its regime, its schedules, its final model."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from report.campaigns import FITTED, FITTING, fill_promoted, fill_stage, fill_sweep, plan_stage, sweep_stage

from tuner.analysis.finding import Finding
from tuner.design.study import Study
from tuner.records.budget_origin import ON_THE_COMMAND_LINE, BudgetOrigin
from tuner.records.conclusions import BudgetRecord, RegimeVerdict
from tuner.records.sweep_outcomes import Fitted, Invalid, NotFitted, Reason
from tuner.report.material import Material, read_material
from tuner.report.sections.budget import budget, rounds_table
from tuner.report.sections.final_model import final_model
from tuner.report.sections.schedules import schedules
from tuner.report.sections.short import regime
from tuner.report.sections.summary import masthead, summary
from tuner.storage.store import Ledger

OpenPage = Callable[[Ledger, str], Any]
Declare = Callable[..., Study]
Fill = Callable[[Ledger, str, Study], None]
HOSTILE = "<script>alert(1)</script> $x_{$ {{ 7*7 }} \" onload='x'"


def content_of(sections: list[Any]) -> Any:
    (section,) = sections
    return section.content


# How the budget was found


def test_the_way_from_the_sweep_to_round_1_is_told_number_by_number(whole_material: Material) -> None:
    page = content_of(budget(whole_material))
    assert [link.value for link in page.chain] == ["200–210", "270", "× 2", "540"]
    assert page.chain[1].label == "median of fresh seeds (200, 270, 320); 90% of further ones: 150 to 440"
    assert page.chain[3].label == "max_train_steps for round 1"
    assert page.card.verdict == "fitted"
    assert page.plot is not None


def test_every_rate_has_its_state_interval_and_final_value_and_the_fastest_is_marked(whole_material: Material) -> None:
    rates = content_of(budget(whole_material)).rates
    assert [column.title for column in rates.columns] == [
        "learning rate", "state", "steps to fit", "final training/error_rate",
    ]  # fmt: skip
    assert rates.rows == (
        ("0.001", "not fitted", "–", "0.5"),
        ("0.003", "fitted", "390–400", "0"),
        ("0.01", "fitted", "200–210", "0"),
        ("0.03", "fitted", "290–300", "0"),
        ("0.1", "not fitted", "–", "0.5"),
    )
    assert rates.marked == {2}


def test_the_rounds_budgets_stand_beside_each_other(whole_material: Material) -> None:
    rows = rounds_table(whole_material).rows
    assert [row[:4] for row in rows] == [("round-1", "540", "50%", "30"), ("round-2", "1,080", "100%", "3")]
    assert rows[0][4] == "2 times the 270 steps to fit that the sweep found (A18)"
    assert rows[1][4] == "not recorded when the study was started"


def test_the_sweep_is_counted_apart_from_the_rounds(whole_material: Material) -> None:
    content: Any = masthead(whole_material)[0].content
    facts = dict(content.facts)
    assert facts["Rounds"] == "33 trials in 2 rounds"
    assert facts["Sweep"] == "7 trials, 3,000 steps"
    assert facts["Steps of the rounds"].endswith(f" of {30 * 540 + 3 * 1080:,} planned")
    assert [name for name, _ in content.goals] == ["round-1", "round-2"]
    assert sum(share.count for share in content.shares) == 33


def test_the_stages_of_the_sweep_are_one_table(whole_material: Material) -> None:
    stages = content_of(budget(whole_material)).stages
    assert [row[1:] for row in stages.rows] == [
        ("sweep-1-probe-250", "250", "2", "500", "2 complete"),
        ("sweep-1-grid", "500", "5", "2,500", "5 complete"),
    ]


def test_a_round_1_that_was_given_another_budget_says_so(ledger: Ledger, declared: Declare, begin: Any) -> None:
    fill_sweep(ledger, "given", declared(), replace(FITTED, unfitted_seeds=1, seed_high=None))
    study_id = begin(ledger, "given", declared(trials=1, steps=1000))
    page = content_of(budget(read_material(ledger, "given")))
    assert page.chain[-1].label == "max_train_steps for round 1, which was started with 1,000"
    assert "1 without a fit" in page.chain[1].label
    assert page.chain[1].label.endswith("to no upper bound")
    assert page.rounds.rows[0][4] == "not recorded when the study was started"
    ledger.conclude("given", BudgetRecord(ON_THE_COMMAND_LINE), study_id)
    assert rounds_table(read_material(ledger, "given")).rows[0][4] == "given on the command line"


@pytest.mark.parametrize(
    ("seeds", "words"),
    [
        ({}, "the estimate: no other seed trained"),
        ({"unfitted_seeds": 3}, "the estimate: no fresh seed fitted"),
        ({"seed_steps": (220,)}, "median of fresh seeds (220)"),
    ],
)
def test_a_sweep_with_few_seeds_says_what_its_estimate_is(
    ledger: Ledger, declared: Declare, seeds: dict[str, Any], words: str
) -> None:
    fill_sweep(ledger, "few", declared(), Fitted(1e-2, 200, 210, 500, **seeds))
    assert content_of(budget(read_material(ledger, "few"))).chain[1].label == words


def test_an_invalid_grid_gives_no_number_but_a_direction_and_the_next_grid(
    ledger: Ledger, page: OpenPage, declared: Declare
) -> None:
    fitting = {1e-3: None, 3e-3: 400, 1e-2: 210}
    outcome = Invalid("upper", 1e-2, 210, (1e-3, 3e-3, 1e-2, 0.0333, 0.111, 0.37))
    fill_sweep(ledger, "short", declared(), outcome, fitting=fitting)
    shown = content_of(budget(read_material(ledger, "short")))
    assert shown.chain == ()
    assert shown.card.tone == "act"
    assert shown.rates.marked == {2}
    opened = page(ledger, "short")
    assert "only an upper bound" in opened.text
    assert "0.001,0.003,0.01,0.0333,0.111,0.37" in opened.text
    assert "max_train_steps for round 1" not in opened.text


def test_no_fit_gives_reasons_and_no_number(ledger: Ledger, page: OpenPage, declared: Declare) -> None:
    reasons = (
        Reason("label_noise_or_capacity", "likely", f"a plateau {HOSTILE}"),
        Reason("too_few_steps", "possible", "a plateau can end, though later"),
    )
    fill_sweep(ledger, "noisy", declared(), NotFitted(500, reasons, 1e-2, 0.5), fitting=dict.fromkeys(FITTING))
    ledger.conclude("noisy", RegimeVerdict("compute_bound", "undecided"))
    material = read_material(ledger, "noisy")
    shown = content_of(budget(material))
    assert shown.chain == ()
    assert shown.reasons[0] == ("likely", f"a plateau {HOSTILE}")
    opened = page(ledger, "noisy")
    assert "script" not in {tag for tag, _ in opened.elements}
    assert f"a plateau {HOSTILE}" in opened.text
    actions = [line.subject for line in summary(material)[0].content.actions]  # type: ignore[attr-defined]
    assert actions == ["sweep"]
    (told,) = content_of(regime(material)).leads
    assert "Taken as compute-bound because the training set was not fitted" in told


def test_an_unfinished_sweep_has_no_outcome_yet(ledger: Ledger, page: OpenPage, declared: Declare) -> None:
    stage = sweep_stage(declared(), "sweep-1-probe-250", [1e-3, 1e-2], 250)
    plan_stage(ledger, "going", stage, {1e-3: None, 1e-2: None})
    shown = content_of(budget(read_material(ledger, "going")))
    assert shown.lead == "The sweep has not finished (2 trials left), so it gives no budget yet."
    assert (shown.card, shown.plot, shown.chain, shown.rates.rows) == (None, None, (), ())
    opened = page(ledger, "going")
    assert "regime" not in opened.anchors
    assert "0 trials in 0 rounds" not in opened.text
    assert "2 waiting" in opened.text


def test_an_older_sweep_is_one_line(ledger: Ledger, declared: Declare) -> None:
    narrow: dict[float, int | None] = {1e-3: 480, 3e-3: 400, 9e-3: 220}
    fill_sweep(ledger, "again", declared(), None, name="sweep-1", fitting=narrow)
    unfit = sweep_stage(declared(), "sweep-2-probe-250", [1e-3], 250)
    fill_stage(ledger, "again", unfit, {1e-3: None})
    fill_sweep(ledger, "again", declared(), FITTED, name="sweep-3")
    shown = content_of(budget(read_material(ledger, "again")))
    assert shown.earlier == (
        "sweep-1: 3 rates, 0.001 to 0.009; its fastest rate was the highest, 0.009: invalid (4 trials, 1,750 steps).",
        "sweep-2: 1 rate, 0.001; no rate that was tried fitted in 250 steps (1 trial, 250 steps).",
    )
    assert {row[1].partition("-grid")[0] for row in shown.stages.rows} == {"sweep-3-probe-250", "sweep-3"}


def test_without_a_sweep_the_lengths_and_their_shares_stand_alone(grown: Material, grown_page: Any) -> None:
    shown = content_of(budget(grown))
    assert shown.lead.startswith("No sweep was run")
    assert (shown.card, shown.chain, shown.stages.rows) == (None, (), ())
    assert [row[1:3] for row in shown.rounds.rows] == [("1,000", "50%"), ("2,000", "100%")]
    assert "sweep-plot" not in grown_page.anchors
    assert not [name for name, _ in masthead(grown)[0].content.facts if name == "Sweep"]  # type: ignore[attr-defined]


# The regime


def test_the_regime_stands_with_its_evidence(whole_material: Material, whole_page: Any) -> None:
    shown = content_of(regime(whole_material))
    assert shown.leads == ("Rounds are planned as not compute bound. Found from the sweep's outcome and its curves.",)
    (card,) = shown.cards
    assert card.verdict == "not compute bound"
    assert card.evidence.rows
    assert "regime-finding" in whole_page.anchors


def test_a_declared_regime_against_the_evidence_is_a_contradiction(
    ledger: Ledger, page: OpenPage, declared: Declare
) -> None:
    fill_sweep(ledger, "stubborn", declared(), FITTED)
    ledger.conclude("stubborn", RegimeVerdict("compute_bound", "not_compute_bound"))
    material = read_material(ledger, "stubborn")
    shown = content_of(regime(material))
    assert shown.leads[0].endswith("Declared in the study file; the evidence showed not compute bound.")
    assert [card.verdict for card in shown.cards] == ["contradiction", "not compute bound"]
    opened = page(ledger, "stubborn")
    assert {"regime-contradiction", "regime-finding"} <= set(opened.anchors)
    assert "declared regime: contradiction" in opened.text


def test_without_a_sweep_the_newest_round_is_the_evidence(grown: Material) -> None:
    shown = content_of(regime(grown))
    assert shown.leads[0].startswith("No regime was concluded from a sweep.")
    assert grown.regime is not None
    assert grown.regime.finding is not None
    assert grown.regime.finding.subject == "round-2"


def test_an_undecided_regime_says_how_rounds_are_planned(ledger: Ledger, declared: Declare) -> None:
    fill_sweep(ledger, "open", declared(), FITTED)
    ledger.conclude("open", RegimeVerdict("undecided", "undecided"))
    assert "The evidence is not enough." in content_of(regime(read_material(ledger, "open"))).leads[0]


# Schedules


def test_the_schedules_of_the_rounds_are_compared_piece_by_piece(whole_material: Material) -> None:
    shown = content_of(schedules(whole_material))
    first, second = shown.tables[0].rows
    assert first[2:] == ("540", "20", "412", "108", "20%")
    assert second[2:] == ("1,080", "20", "952", "108", "10%")
    assert first[1] == second[1]
    (sentence,) = shown.leads
    assert "trains 540 steps more than round-1 trial" in sentence
    assert sentence.endswith("The decay keeps its 108 steps, and the constant part is longer (A41).")
    assert shown.cautions == ()


def test_a_decay_that_became_too_short_a_share_is_a_warning(
    ledger: Ledger, page: OpenPage, declared: Declare, fill: Fill
) -> None:
    """108 steps of 5,400 are 2 %: below the 10 % of D19."""
    first = declared(trials=12, steps=540)
    fill(ledger, "stretched", first)
    fill_promoted(ledger, "stretched", first, 5400, [5], 0.0)
    shown = content_of(schedules(read_material(ledger, "stretched")))
    assert len(shown.cautions) == 1
    assert "the decay is 2.0% of the longer run" in shown.cautions[0]
    assert shown.cautions[0] in page(ledger, "stretched").text


def test_without_a_complete_trial_there_are_no_schedules(ledger: Ledger, declared: Declare, begin: Any) -> None:
    begin(ledger, "waiting", declared(trials=2))
    material = read_material(ledger, "waiting")
    assert schedules(material) == []
    assert final_model(material) == []


# The final model


def test_the_final_model_has_its_checkpoint_and_says_where_its_point_came_from(
    whole_material: Material, whole_page: Any
) -> None:
    shown = content_of(final_model(whole_material))
    assert shown.title == "The final model"
    assert (shown.winner.value, shown.winner.step) == (pytest.approx(0.15, abs=1e-4), 861)
    best = whole_material.rounds[0].frames.complete.sort_values("best_value")["trial"].iloc[0]
    assert shown.winner.checkpoint is not None
    assert "round-2/best.safetensors" in whole_page.text
    assert "ab" * 32 in whole_page.text
    assert shown.origin == f"round-1 trial {best}, trained again"
    assert shown.export == "tuner best STUDY_FILE --round 2 --export model.safetensors"
    assert shown.export.replace("STUDY_FILE", "studies/digits.py") in whole_page.text, "the page knows the file"
    assert {row[0] for row in shown.metrics.rows} == {"training/error_rate", "validation/error_rate"}


def test_a_better_value_of_an_earlier_round_is_told_with_the_winners_curse(
    whole_material: Material, whole_page: Any
) -> None:
    shown = content_of(final_model(whole_material))
    complete = len(whole_material.rounds[0].frames.complete)
    (told,) = shown.better
    assert f"which is better, but as the best of {complete} trials of one seed each (winner's curse, B32)." in told
    assert told in whole_page.text
    assert told in shown.winner.doubts


def test_promoted_points_stand_beside_their_first_training(whole_material: Material) -> None:
    rows = content_of(final_model(whole_material)).promoted.rows
    first = whole_material.rounds[0].frames.complete.sort_values("best_value").head(3)
    assert [row[1] for row in rows] == [f"round-1 trial {trial}" for trial in first["trial"]]
    assert [float(row[2]) for row in rows] == pytest.approx(first["best_value"].tolist(), abs=1e-4)
    assert [float(row[3]) for row in rows] == pytest.approx([0.15, 0.16, 0.17], abs=1e-4)


def test_a_round_that_searched_has_a_best_model_and_no_promoted_points(digits: Material) -> None:
    shown = content_of(final_model(digits))
    assert shown.title == "The best model"
    assert shown.origin == f"point {shown.winner.record.number} of the quasi-random sequence"
    assert (shown.promoted.rows, shown.better) == ((), ())


def test_promoted_points_are_not_asked_about_a_search_space(whole_material: Material, whole_page: Any) -> None:
    asked = {finding.question for finding in whole_material.rounds[1].findings}
    assert "best_steps" in asked
    assert not {"boundary", "enough_points", "infeasible"} & asked
    assert "study-2-axes" not in whole_page.anchors
    assert "± inf" not in whole_page.text


def test_an_action_that_a_longer_round_took_is_not_asked_for_again(whole_material: Material) -> None:
    short = Finding("best_steps", "round-1", "maybe_too_short", "weak", "", pd.DataFrame(), {}, "Longer.", True)
    first, second = whole_material.rounds
    material = replace(whole_material, rounds=(replace(first, findings=(short,)), replace(second, findings=())))
    content: Any = summary(material)[0].content
    assert content.actions == ()
    assert [(line.action, words) for line, words in content.followed] == [("Longer.", "round-2 trained 1,080 steps")]
    before: Any = summary(replace(material, rounds=material.rounds[:1]))[0].content
    assert [line.action for line in before.actions] == ["Longer."]
    assert before.followed == ()


def test_names_of_a_sweep_and_origins_are_text_and_nothing_else(
    ledger: Ledger, page: OpenPage, declared: Declare, fill: Fill
) -> None:
    fill(ledger, HOSTILE, declared(trials=8))
    stage = sweep_stage(declared(), f"sweep-1-{HOSTILE}", [1e-3], 250)
    plan_stage(ledger, HOSTILE, stage, {1e-3: None})
    study = ledger.study(HOSTILE, "round-1")
    ledger.conclude(HOSTILE, BudgetRecord(BudgetOrigin("words", words=HOSTILE)), study.study_id)
    ledger.conclude(HOSTILE, RegimeVerdict(HOSTILE, HOSTILE))
    opened = page(ledger, HOSTILE)
    assert "script" not in {tag for tag, _ in opened.elements}
    assert not [name for _, values in opened.elements for name in values if name.startswith("on")]
    assert f"sweep-1-{HOSTILE}" in opened.text
