"""How many updates were clipped, counted by hand, and from which share on that needs action (B38)."""

import pandas as pd
import pytest
from analysis.handmade import curve, frames_of_curves, record, study, trained

from tuner.analysis.checklist import advised, checklist_findings, known_verdicts
from tuner.analysis.frames import frames_of
from tuner.analysis.questions.clipping import clipping_findings, clipping_frame
from tuner.design.hyperparameters import log_uniform, uniform
from tuner.design.space import SearchSpace
from tuner.records import State

STEPS = (20, 40, 60, 80, 100)
SPACE = SearchSpace(learning_rate=log_uniform(1e-4, 1e-1), clip_norm=1.0)
FALL = [0.9, 0.7, 0.5, 0.4, 0.35]


def frames_with(shares, norms=None, space=SPACE, steps=STEPS):
    """One completed trial for each list of shares; all reach nearly the same loss."""
    declared = study(space, steps=100, evaluations=5)
    parts = [curve(0, [], [])]
    for number, each in enumerate(shares):
        parts.append(curve(number, steps, [value + 0.001 * number for value in FALL[: len(steps)]]))
        known = [(step, share) for step, share in zip(steps, each, strict=True) if share is not None]
        own = (norms or {}).get(number, [2.0] * len(known))
        for metric, values in (
            ("batch/clipped_share", [share for _, share in known]),
            ("batch/gradient_norm", own),
            ("batch/largest_gradient_norm", [2.0 * norm for norm in own]),
        ):
            parts.append(curve(number, [step for step, _ in known], values, metric))
    records = [trained(declared, record(number, {"learning_rate": 1e-3})) for number in range(len(shares))]
    return frames_of(declared, records, pd.concat(parts, ignore_index=True))


@pytest.mark.parametrize(("share", "verdict"), [(0.51, "mostly_clipped"), (0.5, "ok"), (0.49, "ok"), (0.0, "ok")])
def test_more_than_half_of_the_updates_clipped_needs_action(share, verdict):
    (finding,) = clipping_findings(frames_with([[share] * 5] * 6))
    assert (finding.verdict, finding.needs_action) == (verdict, verdict == "mostly_clipped")
    assert finding.strength == "strong"


def test_each_evaluation_counts_with_the_updates_before_it():
    """Of 90 updates 45 and of 10 updates 10: 55 of 100, and not the mean of 50 % and 100 %."""
    frames = frames_with([[0.5, 1.0]], steps=(90, 100))
    assert clipping_frame(frames)["clipped"].tolist() == pytest.approx([0.55])


def test_what_an_older_version_trained_is_not_counted():
    """Its 40 updates have no counts; of the other 60 the shares are 0, 1/2 and 1."""
    table = clipping_frame(frames_with([[None, None, 0.0, 0.5, 1.0]]))
    assert table["clipped"].tolist() == pytest.approx([0.5])
    assert clipping_frame(frames_with([[None] * 5, [0.25] * 5]))["trial"].tolist() == [1]


def test_the_proposed_limit_is_the_90th_percentile_of_the_norms():
    """Of 0, 1, ..., 10 the 90th percentile is 9."""
    steps = tuple(range(10, 120, 10))
    declared = study(SPACE, steps=110, evaluations=11)
    parts = [curve(0, steps, [1.0 / step for step in steps]), curve(0, steps, [0.9] * 11, "batch/clipped_share")]
    parts += [curve(0, steps, range(11), f"batch/{name}") for name in ("gradient_norm", "largest_gradient_norm")]
    made = frames_of(
        declared, [trained(declared, record(0, {"learning_rate": 1e-3}))], pd.concat(parts, ignore_index=True)
    )
    (row,) = clipping_frame(made).to_dict("records")
    assert (row["usual_norm"], row["largest_norm"], row["clip_norm"]) == (pytest.approx(9.0), 10.0, 1.0)
    (finding,) = clipping_findings(made)
    assert "raise clip_norm to about 9:" in finding.action
    assert finding.strength == "moderate"


def test_a_few_good_trials_of_many_that_clip_much_need_no_action():
    shares = [[0.9] * 5, [0.9] * 5, *[[0.1] * 5] * 4]
    (finding,) = clipping_findings(frames_with(shares))
    assert (finding.verdict, finding.evidence["clipped"].round(2).tolist()) == ("ok", [0.9, 0.9, 0.1, 0.1, 0.1, 0.1])
    assert "2 of them clipped more than 50% of their updates; trial 0 clipped 90%" in finding.summary


def test_the_searched_limit_of_each_trial_is_shown():
    space = SearchSpace(learning_rate=log_uniform(1e-4, 1e-1), clip_norm=uniform(0.1, 3.0))
    declared = study(space, steps=100, evaluations=5)
    points = [{"learning_rate": 1e-3, "clip_norm": limit} for limit in (0.5, 2.5)]
    parts = []
    for number in range(2):
        parts += [curve(number, STEPS, [value + 0.001 * number for value in FALL])]
        parts += [curve(number, STEPS, [0.2] * 5, "batch/clipped_share")]
    records = [trained(declared, record(number, point)) for number, point in enumerate(points)]
    table = clipping_frame(frames_of(declared, records, pd.concat(parts, ignore_index=True)))
    assert table["clip_norm"].tolist() == [0.5, 2.5]
    assert table["largest_norm"].isna().all(), "a study from elsewhere, which logged the share alone"


def test_a_study_that_counted_nothing_is_not_asked():
    frames = frames_of_curves(study(steps=100, evaluations=5), [FALL] * 6)
    assert clipping_findings(frames) == []
    assert not [one for one in advised(frames, checklist_findings(frames)) if one.question == "clipping"]
    assert "mostly_clipped" in known_verdicts()


def test_before_a_trial_has_completed_the_answer_is_open():
    frames = frames_with([[0.9] * 5])
    waiting = frames_of(frames.study, [record(0, {"learning_rate": 1e-3}, state=State.RUNNING)], frames.curves)
    (finding,) = clipping_findings(waiting)
    assert (finding.verdict, finding.strength) == ("inconclusive", "none")
