"""What a stability study answers, and which of the remedies comes next (B36-B39)."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from analysis.handmade import study

from tuner.analysis.loss_rises import Yardstick
from tuner.analysis.questions.stability import stability_finding, stability_frame
from tuner.analysis.stability_records import StabilityRecords
from tuner.design.hyperparameters import log_uniform
from tuner.design.space import SearchSpace

SPACE = SearchSpace(learning_rate=log_uniform(1e-4, 1e-1))
AGAINST = Yardstick(1.0, 0.01, (1.0, 100.0), (0.0, 1.0))


def trial(multiple, onset=None, *, warmup=0, seed=0, sign="sudden", part="rate", state="complete"):
    return {
        "part": part, "study": "s", "trial": seed, "rate": 0.01 * multiple, "multiple": multiple,
        "warmup_steps": warmup, "seed": seed, "state": state, "sign": "" if onset is None else sign,
        "onset": np.nan if onset is None else float(onset), "height": 0.0 if onset is None else 2.0,
    }  # fmt: skip


def warm(steps, onset=None, **more):
    return trial(50.0, onset, warmup=steps, part="warmup", **more)


def norms_of(multiple, values, part="rate"):
    steps = np.arange(1, len(values) + 1)
    table = pd.DataFrame({"step": steps, "loss": 0.0, "norm": values})
    return table.assign(part=part, multiple=multiple, warmup_steps=0, seed=0, trial=0)


def records(*trials, steps=10_000, present=0, norms=(), against=AGAINST, space=SPACE):
    table = pd.DataFrame([dict(row, seed=row["seed"]) for row in trials])
    curves = pd.concat(norms or [norms_of(1.0, [np.nan] * 40)], ignore_index=True)
    return StabilityRecords(
        "round-1 trial 7", study(space, steps=steps), 0.01, present, table, curves, num_rates=2,
        num_seeds=int(table["seed"].max()) + 1, against=against,
    )  # fmt: skip


def of_seeds(make, *onsets, **more):
    return [make(onset=onset, seed=seed, **more) for seed, onset in enumerate(onsets)]


CALM = of_seeds(trial, None, None, None, multiple=1.0)
EARLY = [*CALM, *of_seeds(trial, 11, 21, 31, multiple=5.0)]
LATE = [*CALM, *of_seeds(trial, 3001, 3001, 4001, multiple=5.0)]
SMALL = norms_of(1.0, np.linspace(0.01, 1.0, 200))


def test_nothing_rises():
    found = stability_finding(records(*CALM, *of_seeds(trial, None, None, None, multiple=10.0)))
    assert (found.verdict, found.strength, found.needs_action) == ("stable", "strong", False)
    assert "up to 10 times the best learning rate (0.1)" in found.summary


def test_a_minority_of_seeds_is_a_note_and_no_verdict():
    found = stability_finding(records(*CALM, *of_seeds(trial, None, 40, None, multiple=10.0)))
    assert (found.verdict, found.strength) == ("stable", "moderate")
    assert "1 of 3 seeds showed a rise at 10 times it" in found.caveats


def test_an_early_rise_asks_for_the_warmups_first():
    found = stability_finding(records(*EARLY))
    assert (found.verdict, found.needs_action) == ("unstable", True)
    assert "At 5 times the best learning rate, 0.05, the training loss rises after it had fallen, from step 21 on" in (
        found.summary
    )
    assert found.action.startswith("First find the shortest warmup that is stable (B37)")


def test_the_shortest_warmup_without_a_rise_is_written_before_the_schedule():
    """10,000 steps with a warmup of 1,000 before them are 11,000 (B37)."""
    tried = [*of_seeds(warm, 5, 5, 5, steps=10), *of_seeds(warm, None, None, 90, steps=100)]
    found = stability_finding(records(*EARLY, *tried, *of_seeds(warm, None, None, None, steps=1000)))
    assert found.verdict == "warmup_helps"
    assert "A warmup of 1,000 steps to 0.5 is stable; 10, 100 are too short." in found.summary
    assert (
        "Write warmup_steps=fixed(1000) in the SearchSpace of a new Round whose learning rates reach 0.5, and "
        "max_train_steps=11000: the warmup stands before the present schedule" in (found.action)
    )
    assert "(10,000 + 1,000 = 11,000 steps)" in found.action
    assert any("10% of the 10,000 steps: above 5% the budget may have to grow" in note for note in found.caveats)
    shown = stability_frame(records(*EARLY, *tried))
    assert shown["part"].tolist() == ["rate", "rate", "warmup", "warmup"]
    assert shown["unstable"].tolist() == [0, 3, 3, 1]


def test_a_warmup_that_is_there_is_replaced_and_a_searched_one_is_fixed():
    space = SearchSpace(learning_rate=log_uniform(1e-4, 1e-1), warmup_steps=log_uniform(1, 50))
    some = [*EARLY, *of_seeds(warm, None, None, None, steps=400)]
    found = stability_finding(records(*some, present=50, space=space))
    assert "Write warmup_steps=fixed(400) in the SearchSpace of a new Round" in found.action
    assert "max_train_steps=10350" in found.action
    assert not any("may have to grow" in note for note in found.caveats), "4 % of the budget"


FAILED_WARMUPS = of_seeds(warm, 5, 5, 5, steps=1000)


@pytest.mark.parametrize("trials", [LATE, [*EARLY, *FAILED_WARMUPS]])
def test_where_no_warmup_mends_it_clipping_is_next_with_its_number(trials):
    """Norms from 0.01 to 1.00: the last half is 0.505 to 1, whose 90th percentile is 0.95."""
    found = stability_finding(records(*trials, norms=[SMALL]))
    assert found.verdict == "unstable"
    assert (
        "Write clip_norm=fixed(0.95), the 90th percentile of recent gradient norms, in the SearchSpace of a new Round"
        in found.action
    )
    assert "halve it where training is still unstable" in found.action
    assert ("where a warmup has ended" in found.action) == (trials is LATE)


@pytest.mark.parametrize(("share", "lever"), [(0.4, "clip_norm=fixed(0.95)"), (0.6, "the learning rate is the lever")])
def test_more_than_half_clipped_makes_the_learning_rate_the_lever(share, lever):
    high = norms_of(5.0, np.where(np.arange(100) < 100 * share, 2.0, 0.1))
    found = stability_finding(records(*LATE, norms=[SMALL, high]))
    assert f"at the unstable rate {share:.0%} are above it before the loss rises" in found.summary
    assert lever in found.action


def test_a_limit_that_is_there_is_halved_and_not_loosened():
    """The 90th percentile of the last half, 0.95, is above the limit 0.5 of the trial."""
    told = replace(records(*LATE, norms=[SMALL]), present_clip=0.5)
    action = stability_finding(told).action
    assert "Write clip_norm=fixed(0.25), half of the present 0.5, in the SearchSpace of a new Round" in action
    looser = replace(told, present_clip=2.0)
    assert "Write clip_norm=fixed(0.95), the 90th percentile" in stability_finding(looser).action


def test_norms_after_the_rise_do_not_count():
    late = [*CALM, *of_seeds(trial, 51, 51, 51, multiple=5.0)]
    high = norms_of(5.0, np.where(np.arange(100) < 50, 0.1, 1e6))
    assert records(*late, norms=[SMALL, high]).clipped_above == 0.0
    assert records(*late, norms=[SMALL, high.head(10)]).clipped_above is None, "too few to count"


def test_without_norms_the_advice_has_no_number():
    found = stability_finding(records(*LATE))
    assert "Gradient norms were not recorded." in found.summary
    assert "measured before clipping (B38)" in found.action
    assert "fixed(" not in found.action


def test_the_best_rate_itself_may_be_unstable_and_is_told():
    rows = of_seeds(trial, 4, 4, 4, multiple=1.0, sign="diverged", state="infeasible")
    found = stability_finding(records(*rows, against=None))
    assert found.verdict == "unstable"
    assert "At the best learning rate itself, 0.01, training diverges, from step 4 on (3 of 3 seeds)." in found.summary


def test_a_rise_at_the_best_rate_that_no_higher_one_makes_worse_is_told_as_one_of_the_data():
    risen = of_seeds(trial, 300, 300, 300, multiple=1.0)
    found = stability_finding(records(*risen, *of_seeds(trial, None, None, None, multiple=10.0)))
    assert found.verdict == "stable"
    assert any("its reason is in the data, or their order" in one for one in found.caveats)
    worse = stability_finding(records(*risen, *of_seeds(trial, 11, 11, 11, multiple=10.0)))
    assert worse.verdict == "unstable"
    assert "At the best learning rate itself" in worse.summary


@pytest.mark.parametrize(
    ("broken", "summary", "action"),
    [
        ([*CALM, trial(5.0, state="failed")], "1 trial FAILED", "with --retry-failed"),
        ([*CALM, trial(5.0, state="running")], "1 trial did not end", "tuner stability STUDY_FILE"),
    ],
)
def test_missing_trials_leave_it_open(broken, summary, action):
    found = stability_finding(records(*broken))
    assert (found.verdict, found.strength, found.needs_action) == ("inconclusive", "none", False)
    assert summary in found.summary
    assert action in found.action


def test_a_best_rate_that_does_not_train_measures_nothing():
    found = stability_finding(records(*CALM, against=replace(AGAINST, gain=0.01)))
    assert found.verdict == "inconclusive"
    assert "--steps 100%" in found.action


def test_one_seed_is_weak_evidence_and_a_short_budget_has_no_warmup():
    found = stability_finding(records(trial(1.0), trial(5.0, 2), steps=60, present=20))
    assert found.strength == "weak"
    assert any("no warmup was tried: a tenth of the 60 steps" in note for note in found.caveats)
    assert any("--seeds 3" in note for note in found.caveats)
