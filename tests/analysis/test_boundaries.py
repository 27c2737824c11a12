import math

import numpy as np
import pytest
from analysis.handmade import frames_of_values, study

from tuner.analysis.boundaries import boundaries_frame, boundary_findings
from tuner.analysis.widening import next_bound
from tuner.design.hyperparameters import choice, integers, log_uniform, uniform
from tuner.design.quasi_random import quasi_random_points
from tuner.design.space import SearchSpace, branches


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
    assert verdicts(frames_for(LEARNING_RATE, decades_from(1.0), count=9)) == {"learning_rate": "inconclusive"}
    assert verdicts(frames_for(LEARNING_RATE, decades_from(1.0), count=10)) == {"learning_rate": "expand_high"}


@pytest.mark.parametrize("differences", [0.0, 4e-6])
def test_values_that_do_not_differ_worth_anything_hold_back_no_gain(differences):
    frames = frames_for(LEARNING_RATE, lambda p: 0.7 + differences * math.log10(p["learning_rate"]))
    (finding,) = boundary_findings(frames)
    assert (finding.verdict, finding.needs_action) == ("ok", False)
    assert "All 20 trials lie within" in finding.summary
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


def test_a_choice_has_no_edge():
    space = SearchSpace(activation=choice("relu", "tanh"), learning_rate=log_uniform(1e-5, 1e-1))
    found = verdicts(frames_for(space, lambda p: decades_from(1e-3)(p) + (p["activation"] == "tanh"), count=30))
    assert found == {"learning_rate": "ok"}


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
