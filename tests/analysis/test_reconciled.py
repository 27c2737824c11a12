"""Advice of two questions about one thing: one of them keeps its action, the other one refers to it."""

from dataclasses import replace
from itertools import product

import pandas as pd
from analysis.handmade import frames_of_values, study
from analysis.test_infeasible import HELD, SPACE, WIDE, diverged, frames_with_threshold
from analysis.test_stale import changed

from tuner.analysis.checklist import advised
from tuner.analysis.finding import NOTHING_TO_DO, Finding, Strength
from tuner.analysis.questions.infeasible import infeasible_finding
from tuner.analysis.reconciled import reconciled

_TWICE = "Train trial 3 again for 800 steps with its schedule lengthened."


def found(
    question: str, verdict: str, action: str = NOTHING_TO_DO, *, subject: str = "round-1", urgent: bool = False,
    strength: Strength = "moderate", summary: str = "",
) -> Finding:  # fmt: skip
    return Finding(question, subject, verdict, strength, summary, pd.DataFrame(), {}, action, needs_action=urgent)


def told(*findings: Finding) -> dict[str, Finding]:
    return {finding.question: finding for finding in reconciled(findings)}


def widen(side: str = "high", name: str = "learning_rate") -> Finding:
    action = f"Search {name} from 0.001 to 10 instead of 0.001 to 1."
    return found("boundary", f"expand_{side}", action, subject=name, urgent=True)


def test_only_the_best_steps_propose_a_number_of_steps() -> None:
    best = {"too_long": "Train 100 steps instead of 400.", "ok": "Keep 400 steps.", "maybe_too_short": _TWICE}
    improving = {"saturated": "The budget may shrink.", "still_improving": "Train longer."}
    regimes = {"compute_bound": "Train as long as you can afford.", "undecided": "train trial 3 for 800 steps."}
    for (verdict, action), (late, wish), (regime, wanted) in product(best.items(), improving.items(), regimes.items()):
        agreed = told(
            found("improvement", late, wish), found("best_steps", verdict, action), found("regime", regime, wanted)
        )
        assert agreed["best_steps"].action == action
        assert agreed["improvement"].action not in improving.values()
        if verdict != "ok" or regime == "compute_bound":
            assert agreed["regime"].action not in regimes.values()


def test_where_validation_got_worse_the_checkpoint_to_use_is_said_beside_any_number_of_steps() -> None:
    checkpoint = "Use the best checkpoint of each trial, not the last."
    for verdict in ("too_long", "mixed", "maybe_too_short", "ok"):
        agreed = told(found("improvement", "got_worse", checkpoint), found("best_steps", verdict, "Train 100 steps."))
        assert agreed["improvement"].action == checkpoint


def test_a_page_of_findings_that_do_not_touch_one_another_stays_as_it_is() -> None:
    findings = [
        found("boundary", "ok", subject="learning_rate"), found("enough_points", "enough"),
        found("best_steps", "ok", "Keep 400 steps."), found("overfitting", "ok"), found("isolation", "leads", "Train."),
    ]  # fmt: skip
    assert reconciled(findings) == findings


def test_a_range_is_widened_before_points_are_added_or_a_part_is_fixed() -> None:
    agreed = told(
        widen(),
        found("enough_points", "sparse", "Train more points, or narrow the space.", urgent=True),
        found("insensitivity", "insensitive", "Fix it at the simplest values.", urgent=True),
    )
    assert agreed["enough_points"].action.startswith("First widen learning_rate")
    assert "narrow" not in agreed["enough_points"].action
    assert agreed["insensitivity"].action.startswith("First widen learning_rate")
    assert not agreed["insensitivity"].needs_action


def test_a_part_of_the_space_is_not_given_up_where_its_range_is_to_grow() -> None:
    shrink = "Shrink or reparameterize the space, mostly at learning_rate above about 0.3 (B22)."
    where = "9 of 30 finished trials are infeasible (30%), mostly at learning_rate above about 0.3."
    share = found("infeasible", "many_infeasible", shrink, urgent=True, summary=where)
    assert "keep the range" in told(widen("high"), share)["infeasible"].action
    assert told(widen("low"), share)["infeasible"].action == shrink
    assert told(widen("high", "weight_decay"), share)["infeasible"].action == shrink


def test_values_are_compared_after_they_had_as_many_trials() -> None:
    leads = found("isolation", "leads", "Before adopting relu: train its best trial again.")
    agreed = told(leads, found("effort", "unequal", "Complete more trials.", urgent=True))
    assert agreed["isolation"].action.startswith("First give each value as many trials")
    assert "wider first" in told(leads, widen())["isolation"].caveats[0]


def test_a_longer_run_comes_after_regularization_and_after_a_stale_budget() -> None:
    longer = found("best_steps", "maybe_too_short", _TWICE, urgent=True)
    overfit = found("overfitting", "overfitting", "Add regularization.", urgent=True)
    agreed = told(longer, overfit)["best_steps"]
    assert agreed.action == f"First regularize, as the overfitting finding proposes. Then: {_TWICE}"
    stale = found("stale_budget", "stale", "To be sure: sweep again (`tuner sweep STUDY_FILE --again`).", urgent=True)
    agreed = told(longer, stale)["best_steps"]
    assert "stale budget" in agreed.action
    assert not agreed.needs_action


def test_a_lengthening_that_gained_nothing_weakens_the_call_for_another() -> None:
    longer = found("best_steps", "maybe_too_short", _TWICE, urgent=True, strength="strong")
    agreed = told(longer, found("longer_training", "no_gain", "Train more of the points."))["best_steps"]
    assert agreed.strength == "weak"
    assert "gained nothing" in agreed.caveats[0]


def test_where_the_data_spoil_every_trial_nobody_asks_for_more_of_them() -> None:
    spoiled = found("infeasible", "many_infeasible", "Correct the data or the loss, then launch again.", urgent=True)
    agreed = told(spoiled, found("boundary", "inconclusive", "Train more points.", strength="none"))
    assert agreed["boundary"].action.startswith("First correct the data")


def test_only_the_best_steps_say_how_long_to_train_where_longer_training_was_tried() -> None:
    keep = "Keep to 15 steps unless fresh seeds at both lengths show a gain: tuner budget-curve STUDY_FILE --seeds 3."
    bests = {"too_long": "Train 30 steps instead of 150.", "ok": "Keep 150 steps.", "maybe_too_short": _TWICE,
             "inconclusive": "Keep 150 steps for now."}  # fmt: skip
    for (verdict, action), longer in product(bests.items(), ("no_gain", "inconclusive")):
        agreed = told(found("best_steps", verdict, action), found("longer_training", longer, keep))
        assert "15 steps" not in agreed["longer_training"].action
        assert "tuner budget-curve" in agreed["longer_training"].action
        assert agreed["best_steps"].action == action
    gained = found("longer_training", "gained", "Keep the 150 steps.")
    assert told(found("best_steps", "ok", "Keep 150 steps."), gained)["longer_training"] == gained
    assert "150" not in told(found("best_steps", "too_long", "Train 30 steps."), gained)["longer_training"].action
    assert told(gained)["longer_training"] == gained


def test_top_trials_are_no_longer_tied_once_fresh_seeds_tell_the_winner_from_its_rival() -> None:
    noisy = found("late_variance", "noisy", "Treat the top trials as tied: train them again with fresh seeds.")
    said = {
        "confirmed": "confirm the winner",
        "rejected": "prefer the rival",
        "unconfirmed": "until fresh seeds decide",
    }
    for verdict, words in said.items():
        action = told(noisy, found("transfer", verdict, subject="winner"))["late_variance"].action
        assert words in action
        assert "train them again" not in action
    assert told(noisy, found("transfer", "confirmed", subject="network"))["late_variance"] == noisy
    assert told(noisy)["late_variance"] == noisy


def test_more_points_for_one_range_agree_with_what_is_said_of_all_points() -> None:
    action = "Train more points in the same space; 24 completed trials are not enough."
    undecided = found("boundary", "inconclusive", action, subject="dropout", strength="none")
    for other, words in [
        (widen(), "First widen learning_rate"),
        (found("insensitivity", "insensitive", "Fix it.", urgent=True), "more configurations help little"),
        (found("enough_points", "enough"), "Only if it matters where the range of dropout ends: train more points"),
    ]:
        agreed = [one for one in reconciled([undecided, other]) if one.subject == "dropout"]
        assert agreed[0].action.startswith(words) or words in agreed[0].action
    assert reconciled([undecided, found("enough_points", "sparse", "Train more.")])[0] == undecided


def test_the_rules_know_the_findings_as_they_are_written() -> None:
    """What a rule reads in another finding's words is there: data that spoil, where trials fail, a sweep to redo."""
    spoiled = infeasible_finding(diverged(WIDE, [24] * 6, held=HELD))
    open_range = found("boundary", "inconclusive", "Train more points.", strength="none")
    assert told(spoiled, open_range)["boundary"].action.startswith("First correct the data")
    failing_above = infeasible_finding(frames_with_threshold(1e-3))
    assert "keep the range" in told(widen("high"), failing_above)["infeasible"].action
    stale = changed(optimizer="sgd")
    assert stale is not None
    agreed = told(found("best_steps", "maybe_too_short", _TWICE, urgent=True), stale)
    assert "stale budget" in agreed["best_steps"].action


def test_advice_for_an_imported_study_agrees_too() -> None:
    """What its owner can do is said first, and then made to agree: the other way round it was lost."""
    points = [{"learning_rate": 10.0**-i, "dropout": 0.1 * i} for i in range(1, 5)]
    declared = replace(study(SPACE), source="Optuna study mine")
    frames = frames_of_values(declared, points, [0.1, 0.2, 0.3, 0.4])
    dropout = found("boundary", "inconclusive", "Train more points.", subject="dropout", strength="none")
    sparse = found("enough_points", "sparse", "Train more points.", urgent=True)
    edges = pd.DataFrame({"edge": ["low", "high"], "expand": [False, True], "next_bound": [1e-5, 10.0]})
    agreed = advised(frames, [replace(widen(), evidence=edges), dropout, sparse])
    assert agreed[0].action.startswith("Search learning_rate from")
    assert agreed[1].action.startswith("First widen learning_rate")
    assert agreed[2].action.startswith("First widen learning_rate")


def test_where_most_updates_are_clipped_the_advice_follows_what_the_trials_improve_with() -> None:
    clipped = found("clipping", "mostly_clipped", "Search lower learning rates, or raise clip_norm.", urgent=True)
    unstable = found("instability", "likely_instability", "Try warmup, gradient clipping.", urgent=True)
    agreed = told(clipped, unstable, widen())
    assert "raise clip_norm first" in agreed["clipping"].caveats[0]
    assert "clipped already" in agreed["instability"].caveats[0]
    assert "lower learning rates first" in told(clipped, widen("low", "adam.clip_norm"))["clipping"].caveats[0]
    for calm in (widen("low"), widen("high", "clip_norm"), found("instability", "ok")):
        assert told(clipped, calm)["clipping"] == clipped
    assert told(found("clipping", "ok"), unstable, widen())["instability"] == unstable
