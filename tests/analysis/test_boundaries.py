import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from analysis.handmade import curve, frames_of_values, record, study, trained

from tuner.analysis.frames import frames_of
from tuner.analysis.judged_trials import judged_trials
from tuner.analysis.noise import granularity
from tuner.analysis.questions.boundary import boundaries_frame, boundary_findings
from tuner.analysis.ranges import axis_of, further, next_bound
from tuner.design.hyperparameters import Hyperparameter, choice, integers, log_uniform, uniform
from tuner.design.objective import maximize, minimize
from tuner.design.quasi_random import quasi_random_points
from tuner.design.space import SearchSpace, branches
from tuner.errors import DeclarationError
from tuner.records import State
from tuner.storage.codec import study_from, study_text


def frames_for(space, value, *, count=20, seed=0, direction="minimize"):
    """Quasi-random points of a space, each with `value(point)`; None is infeasible."""
    points = quasi_random_points(space, seed=seed, start=0, count=count)
    values = [value(point) for point in points]
    return frames_of_values(study(space, direction=direction), [dict(point.values_by_name) for point in points], values)


def verdicts(frames) -> dict[str, str]:
    return {finding.subject: finding.verdict for finding in boundary_findings(frames)}


LEARNING_RATE = SearchSpace(learning_rate=log_uniform(1e-5, 1e-1))


def decades_from(best: float):
    return lambda point: 0.2 + 0.1 * math.log10(point["learning_rate"] / best) ** 2


def test_figure_1_left_the_best_points_cluster_at_the_upper_edge():
    """B20: the top 3 at about 1.7e-4 to 1.9e-4 in a range that ends at about 2e-4."""
    space = SearchSpace(learning_rate=log_uniform(1e-6, 2e-4))
    rates = [*np.geomspace(1.2e-6, 1.5e-4, 17), 1.7e-4, 1.8e-4, 1.9e-4]
    values = [0.30 - 0.04 * math.log10(rate / 1e-6) for rate in rates]
    frames = frames_of_values(study(space), [{"learning_rate": rate} for rate in rates], values)
    (finding,) = boundary_findings(frames)
    assert (finding.verdict, finding.strength, finding.needs_action) == ("expand_high", "strong", True)
    assert finding.evidence.set_index("edge")["top_outer"].to_dict() == {"low": 0, "high": 3}
    # Half of the 2.3 decades is above one decade, so one: 2e-3.
    assert "from 1e-06 to 0.002 instead of 1e-06 to 0.0002" in finding.action


def test_figure_1_right_the_best_points_lie_well_inside():
    """B20: the top 3 at 1.4e-3 to 2.7e-3 in 1e-5..1e-1."""
    rates = [*np.geomspace(1.2e-5, 9e-2, 17), 1.4e-3, 2.0e-3, 2.7e-3]
    values = [0.2 + 0.1 * abs(math.log10(rate / 2e-3)) for rate in rates]
    frames = frames_of_values(study(LEARNING_RATE), [{"learning_rate": rate} for rate in rates], values)
    (finding,) = boundary_findings(frames)
    assert (finding.verdict, finding.strength, finding.needs_action) == ("ok", "strong", False)


@pytest.mark.parametrize(("best", "verdict"), [(1e-6, "expand_low"), (1e-3, "ok"), (1.0, "expand_high")])
def test_an_optimum_beyond_an_edge_is_seen_on_the_log_scale(best, verdict):
    """D38: in linear units every one of these would cluster at the lower edge."""
    assert verdicts(frames_for(LEARNING_RATE, decades_from(best))) == {"learning_rate": verdict}


def test_a_maximized_metric_gets_the_verdict_of_its_mirror_image():
    mirrored = frames_for(LEARNING_RATE, lambda p: -decades_from(1.0)(p), direction="maximize")
    assert verdicts(mirrored) == {"learning_rate": "expand_high"}


def test_a_hyperparameter_that_does_not_matter_is_ok_beside_one_that_does():
    """D39: four irrelevant ones, of which the best point would be near an edge in a third of studies."""
    space = SearchSpace(learning_rate=log_uniform(1e-5, 1e-1), **{f"other{i}": uniform(0, 1) for i in range(4)})
    found = verdicts(frames_for(space, decades_from(1.0), count=40))
    assert found == {"learning_rate": "expand_high", **{f"other{i}": "ok" for i in range(4)}}


def test_too_few_trials_for_the_dimensions_are_inconclusive():
    """At least 10, and 2 for each dimension."""
    space = SearchSpace(learning_rate=log_uniform(1e-5, 1e-1), **{f"other{i}": uniform(0, 1) for i in range(5)})
    assert set(verdicts(frames_for(space, decades_from(1.0), count=11)).values()) == {"inconclusive"}
    few = frames_for(LEARNING_RATE, decades_from(1.0), count=9)
    assert verdicts(few) == {"learning_rate": "inconclusive"}
    told = boundary_findings(few)[0].action
    assert told == "Train more configurations in the same space; 9 completed trials are not enough.", (
        "each edge has the same 9"
    )
    assert verdicts(frames_for(LEARNING_RATE, decades_from(1.0), count=10)) == {"learning_rate": "expand_high"}


@pytest.mark.parametrize("differences", [0.0, 4e-6])
def test_values_that_do_not_differ_worth_anything_hold_back_no_gain(differences):
    frames = frames_for(LEARNING_RATE, lambda p: 0.7 + differences * math.log10(p["learning_rate"]))
    (finding,) = boundary_findings(frames)
    assert (finding.verdict, finding.needs_action) == ("ok", False)
    assert "The results of all 20 trials differ by at most" in finding.summary
    assert "less than 0.0007, 0.1% of the best value" in finding.summary
    assert "level of guessing" in finding.summary
    few = frames_for(LEARNING_RATE, lambda p: 0.5, count=9)
    assert verdicts(few) == {"learning_rate": "inconclusive"}, "too few to say even that"


def test_pure_noise_is_never_a_reason_to_expand():
    rng = np.random.default_rng(0)
    space = SearchSpace(**{f"h{i}": uniform(1, 2) for i in range(3)})
    found = [verdicts(frames_for(space, lambda p: rng.standard_normal(), count=30, seed=s)).values() for s in range(10)]
    assert sum(verdict.startswith("expand") for each in found for verdict in each) <= 1


def test_a_physical_limit_is_no_edge():
    limited = SearchSpace(dropout=uniform(0.0, 0.5, limits="low"))
    found = boundary_findings(frames_for(limited, lambda p: p["dropout"] ** 2))
    assert [finding.verdict for finding in found] == ["ok"]
    open_space = SearchSpace(slope=uniform(0.0, 0.5))
    (finding,) = boundary_findings(frames_for(open_space, lambda p: p["slope"]))
    assert finding.verdict == "expand_low"
    assert 'limits="low"' in finding.action


def test_a_gain_towards_a_closed_edge_stands_beside_the_reason_why_it_is_closed():
    """ "Nothing is gained towards a limit" would contradict the gain in the next sentence."""
    limited = SearchSpace(dropout=uniform(0.0, 0.5, limits="low"))
    (finding,) = boundary_findings(frames_for(limited, lambda p: p["dropout"]))
    assert finding.evidence.set_index("edge")["gain"]["low"] > 0.1
    assert "worse at the upper limit. The low edge is a declared limit." in finding.summary
    assert "near the lower limit improves by" in finding.summary
    (finding,) = boundary_findings(frames_for(LEARNING_RATE, decades_from(1e-3)))
    assert finding.summary.startswith(
        "The best lies inside: validation/loss is surely worse at the lower and the upper"
    )


def test_an_edge_that_gains_over_its_neighbours_but_not_over_the_best_is_said_to_be_worse():
    """Two valleys: the deep one inside, a shallow one at the high edge."""
    space = SearchSpace(h=uniform(0.0, 1.0))
    frames = frames_for(space, lambda p: min((p["h"] - 0.3) ** 2, 0.05 + (p["h"] - 1.0) ** 2), count=60)
    (finding,) = boundary_findings(frames)
    assert finding.verdict == "ok"
    assert finding.summary.startswith(
        "The best lies inside: validation/loss is surely worse at the lower and the upper"
    )
    assert "improves" not in finding.summary, "what is worse at a limit does not improve towards it on the same page"
    assert "near the upper limit is worse than at the best point" in finding.summary


def test_a_choice_has_no_edge():
    space = SearchSpace(activation=choice("relu", "tanh"), learning_rate=log_uniform(1e-5, 1e-1))
    found = verdicts(frames_for(space, lambda p: decades_from(1e-3)(p) + (p["activation"] == "tanh"), count=30))
    assert found == {"learning_rate": "ok"}


def test_candidates_of_an_earlier_stage_are_no_range_and_a_rank_is():
    space = SearchSpace(learning_rate=log_uniform(1e-4, 1.0), start_from=choice(1, 2, 3), rank=choice(1, 2, 3))
    frames = frames_for(space, lambda point: 1.0 - 0.1 * point["start_from"] - 0.1 * point["rank"])
    assert sorted(verdicts(frames)) == ["learning_rate", "rank"]
    assert "start_from" not in set(boundaries_frame(frames)["hyperparameter"])


def test_the_edges_of_integers_are_their_first_and_last_level():
    space = SearchSpace(layers=integers(1, 6))
    (finding,) = boundary_findings(frames_for(space, lambda p: -0.1 * p["layers"]))
    assert finding.verdict == "expand_high"
    assert "from 1 to 9 instead of 1 to 6" in finding.action
    assert verdicts(frames_for(space, lambda p: 0.1 * (p["layers"] - 3) ** 2)) == {"layers": "ok"}


def test_conditional_hyperparameters_are_judged_in_their_branch_alone():
    """B13: SGD wants a larger rate than its range has, AdamW a smaller one; pooled they would look fine."""
    space = SearchSpace(
        optimizer=branches(
            sgd={"learning_rate": log_uniform(1e-3, 1e-1)}, adamw={"learning_rate": log_uniform(1e-3, 1e-1)}
        )
    )

    def value(point):
        return decades_from(1.0 if point["optimizer"] == "sgd" else 1e-4)(point)

    frames = frames_for(space, value, count=40)
    assert verdicts(frames) == {"sgd.learning_rate": "expand_high", "adamw.learning_rate": "expand_low"}
    counts = boundaries_frame(frames).groupby("hyperparameter")["trials"].first()
    assert counts.sum() == 40


def test_a_branch_with_few_trials_is_inconclusive_whatever_the_other_has():
    space = SearchSpace(
        optimizer=branches(
            sgd={"learning_rate": log_uniform(1e-3, 1e-1)}, adamw={"learning_rate": log_uniform(1e-3, 1e-1)}
        )
    )
    frames = frames_for(space, decades_from(1.0), count=40)
    kept = frames.trials[(frames.trials["optimizer"] == "sgd") | (frames.trials.index < 8)]
    few = type(frames)(frames.study, kept, frames.curves)
    assert verdicts(few) == {"sgd.learning_rate": "expand_high", "adamw.learning_rate": "inconclusive"}


def test_an_edge_that_is_bounded_by_instability_is_not_expanded():
    """D4: the best rate is next to the divergent ones, not next to the end of the range."""

    def value(point):
        return None if point["learning_rate"] > 2e-2 else decades_from(1.0)(point)

    (finding,) = boundary_findings(frames_for(LEARNING_RATE, value, count=30))
    assert finding.verdict == "ok"
    assert any("instability" in caveat for caveat in finding.caveats)
    assert finding.evidence.set_index("edge")["unstable"].to_dict() == {"low": False, "high": True}


def test_infeasible_trials_that_lie_elsewhere_do_not_bound_an_edge():
    space = SearchSpace(learning_rate=log_uniform(1e-5, 1e-1), depth=uniform(0.0, 1.0))

    def value(point):
        return None if point["depth"] > 0.5 else decades_from(1.0)(point)

    assert verdicts(frames_for(space, value, count=60))["learning_rate"] == "expand_high"


def test_one_terrible_trial_does_not_hide_an_edge():
    frames = frames_for(LEARNING_RATE, lambda p: 1e6 if p["learning_rate"] < 3e-5 else decades_from(1.0)(p), count=30)
    assert verdicts(frames) == {"learning_rate": "expand_high"}


def test_more_trials_than_are_fitted_are_thinned_not_refused():
    assert verdicts(frames_for(LEARNING_RATE, decades_from(1.0), count=500)) == {"learning_rate": "expand_high"}
    assert verdicts(frames_for(LEARNING_RATE, decades_from(1e-3), count=500)) == {"learning_rate": "ok"}


@pytest.mark.parametrize(
    ("domain", "edge", "expected"),
    [
        (log_uniform(1e-4, 1e-1), "high", 1.0),  # half of 3 decades, but at most one
        (log_uniform(1e-4, 1e-1), "low", 1e-5),
        (log_uniform(1e-3, 1e-2), "high", 0.032),  # half a decade
        (log_uniform(1e-3, 2e-3), "low", 0.00032),  # at least half a decade
        (uniform(1.0, 3.0), "high", 4.0),  # half the width
        (uniform(1.0, 3.0), "low", 0.0),  # not below 0
        (uniform(0.5, 0.9), "high", 0.95),  # not past halfway to 1
        (uniform(0.0, 0.5), "high", 0.75),
        (uniform(-1.0, 1.0), "low", -2.0),
        (integers(4, 8), "high", 10),
        (integers(2, 8), "low", 1),
        (integers(16, 256, log=True), "high", 1000),  # 256 * 4 = 1024, to two digits
    ],
)
def test_a_wider_bound_is_half_a_range_further_and_stays_possible(domain, edge, expected):
    assert next_bound(domain, edge) == pytest.approx(expected)


# Ends beyond which there is nothing


@pytest.mark.parametrize(
    ("name", "domain", "best", "told"),
    [
        ("n_layers", integers(1, 6), 1, "1 is the smallest n_layers possible"),
        ("units", uniform(1.0, 9.0), 1, "1 is the smallest units possible"),
        ("extra_blocks", integers(0, 6), 0, "0 is the smallest extra_blocks possible"),
        ("whatever", integers(1, 6), 1, "1 is the smallest whatever possible"),
        ("hidden_dropout_prob", uniform(0.0, 0.5), 0.0, "0 is the smallest hidden_dropout_prob possible"),
        ("drop", uniform(0.0, 0.5), 0.0, "0 is the smallest drop possible"),
        ("label_smoothing", uniform(0.0, 0.2, off=0.0), 0.0, "0 switches label_smoothing off"),
        ("adamBeta1", uniform(0.5, 1.0), 1.0, "1 is the largest adamBeta1 possible"),
        ("one_minus_momentum", log_uniform(1e-3, 1.0), 1.0, "1 is the largest one_minus_momentum possible"),
        ("wd", uniform(0.0, 0.1), 0.0, "0 is the smallest wd possible"),
        ("noise", uniform(0.0, 0.3, off=0.0), 0.0, "0 switches noise off"),
        ("mine", uniform(0.0, 0.3, off=0.3), 0.3, "0.3 switches mine off"),
        ("layers", choice(1, 2, 3, 4), 1, "1 is the smallest layers possible"),
    ],
)
def test_the_best_at_an_end_beyond_which_there_is_nothing_is_ok(name, domain, best, told):
    space = SearchSpace.of((Hyperparameter(name, domain),))
    frames = frames_for(space, lambda p: 0.5 + abs(float(p[name]) - best))
    (finding,) = boundary_findings(frames)
    assert (finding.verdict, finding.needs_action) == ("ok", False)
    assert told in finding.summary


@pytest.mark.parametrize("name", ["log10_lr", "mlp_ratio", "gamma", "h"])
def test_a_name_that_shows_no_end_has_none(name):
    space = SearchSpace.of((Hyperparameter(name, uniform(0.0, 0.5)),))
    assert verdicts(frames_for(space, lambda p: 0.5 + p[name])) == {name: "expand_low"}


@pytest.mark.parametrize(
    ("name", "domain", "edge", "expected"),
    [
        ("dropout", log_uniform(1e-3, 0.5), "high", 1.0),  # ten times as much would be 5
        ("momentum", uniform(0.5, 0.9), "high", 0.95),
        ("optimizer.momentum", uniform(0.5, 0.9999999), "high", 1.0),
        ("dropout_rate", uniform(0.2, 0.5), "low", 0.05),
        ("learning_rate", uniform(0.0, 0.5), "low", 0.0),
        ("steps_ahead", integers(0, 8), "low", 0),
        ("batch", choice(32, 64, 128), "high", 256),
        ("batch", choice(512, 128, 32), "low", 8),
        ("share", choice(0.1, 0.2, 0.3), "high", 0.4),
        ("keep_prob", choice(0.6, 0.8, 1.0), "high", 1.0),
        ("layers", choice(1, 2, 3), "low", 1),
        ("depths", choice(2, 4, 8), "low", 1),
    ],
)
def test_the_next_value_further_out_stays_possible(name, domain, edge, expected):
    axis = axis_of(Hyperparameter(name, domain))
    assert axis is not None
    assert further(axis, edge) == pytest.approx(expected)


# Choices of numbers, in order


@pytest.mark.parametrize("batches", [(32, 64, 128, 256, 512), (512, 64, 256, 128, 32)])
def test_ordered_choices_have_edges(batches):
    space = SearchSpace(batch=choice(*batches), learning_rate=log_uniform(1e-5, 1e-1))
    frames = frames_for(space, lambda p: decades_from(1e-3)(p) + 0.1 * abs(math.log2(p["batch"] / 1024)), count=30)
    found = {finding.subject: finding for finding in boundary_findings(frames)}
    assert {name: finding.verdict for name, finding in found.items()} == {"batch": "expand_high", "learning_rate": "ok"}
    assert "Add 1024 to the choices of batch" in found["batch"].action
    inside = frames_for(space, lambda p: decades_from(1e-3)(p) + 0.1 * abs(math.log2(p["batch"] / 128)), count=30)
    assert verdicts(inside) == {"batch": "ok", "learning_rate": "ok"}


@pytest.mark.parametrize("values", [("relu", "tanh", "gelu"), (True, False), (1, 2), (1, 2, "auto"), (None, 1, 2)])
def test_choices_without_an_order_have_no_edges(values):
    space = SearchSpace(which=choice(*values), learning_rate=log_uniform(1e-5, 1e-1))
    assert verdicts(frames_for(space, decades_from(1e-3))) == {"learning_rate": "ok"}


# Ridges


def along_and_across(point):
    rate = SearchSpace(h=log_uniform(1e-4, 1e-1))["h"].domain.unit_of(point["learning_rate"])
    batch = SearchSpace(h=integers(16, 1024, log=True))["h"].domain.unit_of(point["batch_size"])
    return rate + batch - 1.0, rate - batch


RIDGE = SearchSpace(learning_rate=log_uniform(1e-4, 1e-1), batch_size=integers(16, 1024, log=True))


@pytest.mark.parametrize(
    ("floor", "expected"),
    [
        (lambda along: 0.0, {"learning_rate": "ok", "batch_size": "ok"}),
        (lambda along: 0.05 * along**2, {"learning_rate": "ok", "batch_size": "ok"}),
        (lambda along: 0.1 * (along - 1.6) ** 2, {"learning_rate": "expand_high", "batch_size": "expand_high"}),
    ],
)
def test_a_ridge_is_named_and_its_edges_move_only_where_it_leads_out(floor, expected):
    """Two hyperparameters that have to grow together: a valley from one corner to the other."""
    rng = np.random.default_rng(3)

    def value(point):
        along, across = along_and_across(point)
        return 0.3 + across**2 + floor(along) + 0.002 * rng.standard_normal()

    findings = boundary_findings(frames_for(RIDGE, value, count=40))
    assert {finding.subject: finding.verdict for finding in findings} == expected
    assert any("learning_rate and batch_size trade off along a ridge: move both or fix one." in finding.caveats
               for finding in findings)  # fmt: skip


# Luck, pruned trials, replicates, granularity


def test_trials_that_failed_by_luck_are_set_aside_and_named():
    """Every sixth trial collapses, wherever it lies; without them the answer is plain."""
    numbers = iter(range(100))
    space = SearchSpace(learning_rate=log_uniform(1e-5, 1e-1), slope=uniform(1.0, 2.0))

    def value(point):
        collapsed = next(numbers) % 6 == 2
        return decades_from(1.0)(point) + (2.0 + point["slope"] if collapsed else 0.0)

    findings = {f.subject: f for f in boundary_findings(frames_for(space, value, count=30))}
    assert {name: f.verdict for name, f in findings.items()} == {"learning_rate": "expand_high", "slope": "ok"}
    said = "5 of 30 trials are far worse than their neighbours; they were set aside (trials 2, 8, 14, 20, 26)."
    assert said in findings["learning_rate"].caveats


def test_where_trials_collapse_beside_an_edge_instability_bounds_it():
    """A cliff is no bad luck: the trials beyond it are set aside, and the edge that lies there does not move."""

    def value(point):
        return decades_from(1.0)(point) + (1e3 if point["learning_rate"] > 1e-2 else 0.0)

    (finding,) = boundary_findings(frames_for(LEARNING_RATE, value, count=30))
    assert finding.verdict == "ok"
    assert "of the trials next to the upper limit are infeasible or far worse than their neighbours" in str(finding), (
        "no trial was infeasible"
    )


def test_pruned_trials_count_by_the_rank_they_had():
    """The best 10 of 30 are complete; the others were stopped at half of their steps, all at the low end."""
    space = LEARNING_RATE
    points = quasi_random_points(space, seed=1, start=0, count=30)
    order = sorted(range(30), key=lambda i: -points[i]["learning_rate"])
    whole = set(order[:10])
    declared = study(space)
    records = [
        trained(declared, record(i, dict(point.values_by_name), State.COMPLETE if i in whole else State.CANCELLED))
        for i, point in enumerate(points)
    ]
    records = [one if one.number in whole else replace(one, reason="pruned at step 500") for one in records]
    parts = []
    for i, point in enumerate(points):
        value, evaluations = decades_from(1.0)(point), 2 if i in whole else 1
        parts.append(curve(i, [500, 1000][:evaluations], [value + 1.0, value][:evaluations]))
    frames = frames_of(declared, records, pd.concat(parts, ignore_index=True))
    (finding,) = boundary_findings(frames)
    assert finding.verdict == "expand_high"
    assert any("20 pruned trials count as at least this bad" in caveat for caveat in finding.caveats)
    judged = judged_trials(frames).set_index("trial")["minimized"]
    exact = {i: decades_from(1.0)(point) for i, point in enumerate(points)}
    assert [judged[i] for i in range(30)] == pytest.approx([exact[i] for i in range(30)], abs=0.1)


def test_replicates_bound_the_noise_of_the_fit_from_below():
    """Four seeds of a point that differ by 0.3: a trend of 0.05 that the other trials happen to show is nothing."""
    rates = [*np.geomspace(1.2e-5, 9e-2, 12), *[1e-3] * 4]
    values = [0.5 - 0.01 * math.log10(rate / 1e-5) for rate in rates[:12]] + [0.2, 0.8, 0.5, 0.5]
    with_replicates = frames_of_values(study(LEARNING_RATE), [{"learning_rate": rate} for rate in rates], values)
    assert verdicts(with_replicates) == {"learning_rate": "inconclusive"}
    alone = frames_of_values(study(LEARNING_RATE), [{"learning_rate": rate} for rate in rates[:12]], values[:12])
    assert verdicts(alone) == {"learning_rate": "expand_high"}


def test_the_step_of_an_accuracy_is_the_least_that_a_gain_can_be():
    assert granularity(np.array([0.905, 0.91, 0.91, 0.925, 0.8])) == pytest.approx(0.005)
    assert granularity(np.array([90.5, 91.0, 91.0, 92.5, 80.0])) == pytest.approx(0.5), "percent"
    assert granularity(np.array([-0.905, -0.91, -0.91, -0.925, -0.8])) == pytest.approx(0.005), "maximized"
    for none in ([0.1, 0.2, 0.3, 0.3], [0.9051, 0.913, 0.913, 0.925, 0.8], [0.905, 0.91, 0.92, 0.8]):
        assert granularity(np.array(none)) == 0.0


# What a gain is worth


def test_the_gain_is_said_in_the_unit_of_the_metric():
    """0.2 + (log10(rate) - 1)^2 / 10 falls by 0.0624 over the last tenth of 1e-5 to 1e-1, from 2.4 to 2.0 decades."""
    (finding,) = boundary_findings(frames_for(LEARNING_RATE, decades_from(10.0), count=40))
    assert finding.verdict == "expand_high"
    gain = float(finding.evidence.set_index("edge")["value_gain"]["high"])
    assert gain == pytest.approx(0.1 * (2.4**2 - 2.0**2), rel=0.1)
    said = f"validation/loss still improves near the upper limit, 0.1: by {gain:.2g} ±"
    assert finding.summary.startswith(said)
    assert "All of the top 3 trials are there" in finding.summary


@pytest.mark.parametrize(("worth", "expected"), [(None, "expand_high"), (0.01, "expand_high"), (5.0, "ok")])
def test_a_gain_below_what_is_declared_as_worth_anything_is_none(worth, expected):
    frames = frames_for(LEARNING_RATE, decades_from(10.0), count=40)
    declared = replace(frames.study, objective=minimize("validation/loss", worth=worth))
    (finding,) = boundary_findings(replace(frames, study=declared))
    assert finding.verdict == expected
    if expected == "ok":
        assert "that was declared to matter" in finding.summary


@pytest.mark.parametrize("worth", [0, -1.0, math.nan, math.inf, True, "0.1"])
def test_what_is_worth_anything_is_a_number_above_0(worth):
    with pytest.raises(DeclarationError, match=r"worth is the smallest change of validation/accuracy .* got"):
        maximize("validation/accuracy", worth=worth)


def test_a_record_without_worth_opens():
    old = json.loads(study_text(study()))
    assert old["objective"].pop("worth", "absent") is None
    assert study_from(json.dumps(old)) == study()
    declared = replace(study(), objective=minimize("validation/loss", worth=0.01))
    assert study_from(study_text(declared)).objective.worth == 0.01


# The best of each value


def test_each_value_of_a_scientific_choice_is_asked_for_its_own_best():
    """relu has its best inside, and is better; tanh wants a larger rate than the range has."""
    space = SearchSpace(learning_rate=log_uniform(1e-5, 1e-1), act=choice("relu", "tanh"))

    def value(point):
        return decades_from(1e-3)(point) if point["act"] == "relu" else 0.5 + decades_from(3.0)(point)

    frames = frames_for(space, value, count=40)
    assert verdicts(frames) == {"learning_rate": "ok"}, "not scientific: the best is relu's"
    (finding,) = boundary_findings(replace(frames, study=replace(frames.study, scientific=("act",))))
    assert finding.verdict == "expand_high"
    assert finding.summary.startswith("With act = tanh, validation/loss still improves near the upper limit")
    assert sorted(finding.evidence["where"].unique()) == ["act = relu", "act = tanh"]


def test_two_values_whose_best_lie_beyond_opposite_edges_move_both():
    space = SearchSpace(learning_rate=log_uniform(1e-3, 1e-1), optimizer=choice("sgd", "adam"))
    frames = frames_for(space, lambda p: decades_from(1.0 if p["optimizer"] == "sgd" else 1e-4)(p), count=40)
    (finding,) = boundary_findings(frames)
    assert finding.verdict.startswith("expand_")
    assert "from 0.0001 to 1 instead of 0.001 to 0.1" in finding.action


def test_values_of_too_few_trials_are_said_of_what_can_exist_beside_them():
    """Of eight optimizers none has trials enough: the best of all is asked. A momentum has nothing to do with adam."""
    space = SearchSpace(learning_rate=log_uniform(1e-5, 1e-1), optimizer=choice(*"abcdefgh"))
    (finding,) = boundary_findings(frames_for(space, decades_from(1e-3), count=32))
    assert finding.verdict == "ok"
    assert any("Too few trials to tell what is best for optimizer = a" in caveat for caveat in finding.caveats)
    momentum = Hyperparameter("momentum", uniform(0.5, 0.9), condition=("optimizer", ("sgd", "nag")))
    several = (*SearchSpace(optimizer=choice("sgd", "nag", "adam")).hyperparameters, momentum)
    frames = frames_for(SearchSpace.of(several), lambda p: 0.5 + abs(p.get("momentum", 0.7) - 0.7), count=60)
    (finding,) = boundary_findings(frames)
    assert len(finding.evidence["where"].unique()) == 2
    assert not any("adam" in caveat for caveat in finding.caveats)
