"""What is said of a learning rate schedule is what was trained, however the schedule came about.

A trial's schedule may be declared, searched (warmup, decay), or carried over from a shorter round. Frames, questions,
plots and the report read it from the record; the declaration alone would give another one.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
from analysis.handmade import METRIC, curve, planned, record, study

from tuner.analysis.frames import frames_of
from tuner.analysis.questions.best_steps import best_steps_finding
from tuner.analysis.questions.improvement import improvement_finding
from tuner.analysis.questions.regime import regime_finding
from tuner.analysis.questions.warmup import warmup_frame
from tuner.analysis.study_frames import TOP, StudyFrames
from tuner.budget.families import constant, constant_then_decay, cosine, inverse_sqrt, linear
from tuner.budget.schedules import Mode, Schedule, ScheduleFamily
from tuner.budget.transfer import lengthened
from tuner.design.hyperparameters import log_uniform
from tuner.design.space import SearchSpace, branches
from tuner.plots.schedules import SCHEDULES
from tuner.report.wording import schedule_words

FAMILIES = (
    constant(),
    linear(),
    cosine(0.1),
    constant_then_decay(0.2),
    constant_then_decay(20),
    constant_then_decay(0.3, 0.1, "one_minus_sqrt"),
    inverse_sqrt(30),
)
MODES: tuple[Mode | None, ...] = (None, "hold_then_decay", "rescale")
SHORT, LONG = 100, 1000


def frames_with(
    family: ScheduleFamily, schedules: Sequence[Schedule], values: Any, *, source: str | None = None
) -> StudyFrames:
    """One trial a schedule, all with the same curve on both splits."""
    steps = len(schedules[0])
    declared = replace(study(steps=steps, schedule=family), source=source)
    records = [planned(record(number), schedule=schedule) for number, schedule in enumerate(schedules)]
    at = declared.budget.evaluation_steps
    parts = [
        curve(n, at, list(values(np.array(at), n)), metric)
        for n in range(len(schedules))
        for metric in ("training/loss", METRIC)
    ]
    return frames_of(declared, records, pd.concat(parts, ignore_index=True))


def falling(at: Any, n: int) -> Any:
    return 2.0 - at / at[-1] + 0.001 * n + 0.002 * np.random.default_rng(n).standard_normal(len(at))


def carried_over() -> list[tuple[ScheduleFamily, list[Schedule]]]:
    """Every family in every mode, with the warmups and decays that a search tries."""
    found = []
    for family, mode in product(FAMILIES, MODES):
        made = []
        for warmup, share in product((0, 10), (0.1, 0.5)):
            searched = replace(family, decay=share) if family.name == "constant_then_decay" else family
            short = searched.schedule(SHORT, warmup)
            if family.name == "inverse_sqrt" and mode is None:
                made.append(searched.schedule(LONG, warmup))  # no rule carries it over: it is made for the length
            else:
                made.append(lengthened(short, LONG, mode))
        found.append((family, made))
    return found


@pytest.mark.parametrize(("family", "schedules"), carried_over())
def test_frames_and_plots_have_the_schedules_that_were_trained(
    family: ScheduleFamily, schedules: list[Schedule]
) -> None:
    frames = frames_with(family, schedules, falling)
    assert dict(frames.schedules) == dict(enumerate(schedules))
    _, table = SCHEDULES.draw([frames])
    assert table["schedule"].nunique() == TOP
    for name, line in table.groupby("schedule"):
        trained = schedules[int(str(name).split()[1].rstrip(":"))]
        expected = [1e-3 * trained.fraction(step) for step in line["step"]]
        assert line["learning_rate"].tolist() == expected
    warmups = warmup_frame(frames).set_index("trial")["warmup_steps"]
    assert all(warmups[trial] == schedules[trial].warmup_steps for trial in warmups.index)
    words = schedule_words(family, frames.schedules.values())
    decays = {len(one) - one.decay_start for one in schedules if one.decay_start is not None}
    if decays and len({len(one.pieces) for one in schedules}) == 1:
        assert f"{max(decays):,} step" in words


@pytest.mark.parametrize(("family", "schedules"), carried_over())
def test_the_judged_part_of_a_run_is_the_one_that_was_trained_at_a_constant_rate(
    family: ScheduleFamily, schedules: list[Schedule]
) -> None:
    ends = [LONG if one.decay_start is None else one.decay_start for one in schedules]
    expected = min(ends) if min(ends) >= LONG / 2 else LONG
    finding = regime_finding(frames_with(family, schedules, falling))
    assert finding.evidence["to_step"].unique().tolist() == [expected]


def test_a_loss_that_falls_with_a_rescaled_decay_is_no_evidence_of_a_compute_bound_training() -> None:
    """A decay declared as 200 steps was stretched to 2,000: the constant part ends at 8,000, not at 9,800."""
    family = constant_then_decay(200)
    trained = lengthened(family.schedule(1000), 10_000, "rescale")
    assert (trained.decay_start, family.schedule(10_000).decay_start) == (8000, 9800)

    def falls_with_the_rate(at: Any, n: int) -> Any:
        rate = np.array([trained.fraction(min(step, 9999)) for step in at])
        return 1.0 + 0.5 * rate + 0.002 * np.random.default_rng(n).standard_normal(len(at))

    finding = regime_finding(frames_with(family, [trained] * 5, falls_with_the_rate))
    assert (finding.verdict, finding.evidence["to_step"].unique().tolist()) == ("undecided", [8000])


@pytest.mark.parametrize("name", ["unknown", "decaying"])
def test_of_trials_from_elsewhere_nothing_is_said_that_is_not_known(name: Any) -> None:
    """An import plans its trials with some schedule; nobody knows that they were trained with it."""
    family = ScheduleFamily(name)
    frames = frames_with(family, [linear().schedule(LONG)] * 5, falling, source="a table")
    assert dict(frames.schedules) == {}
    findings = (regime_finding(frames), best_steps_finding(frames), improvement_finding(frames))
    assert [finding.strength for finding in findings] == ["weak"] * 3
    for finding in findings:
        (caveat,) = (one for one in finding.caveats if "rate" in one)
        assert ("not known" in caveat) == (name == "unknown")


def test_a_fraction_of_zero_is_told_from_a_rate_that_stays() -> None:
    frames = frames_with(linear(), [linear().schedule(LONG), constant().schedule(LONG)], falling)
    assert (frames.ends_at_zero([0]), frames.ends_at_zero([1]), frames.ends_at_zero([0, 1])) == (True, False, True)
    assert frames.ends_at_zero([7]) is None


def test_the_rate_that_is_drawn_is_that_of_the_branch_a_trial_is_in() -> None:
    space = SearchSpace(
        optimizer=branches(
            sgd={"learning_rate": log_uniform(1e-2, 1.0)}, adamw={"learning_rate": log_uniform(1e-4, 1e-2)}
        )
    )
    points = [{"optimizer": "sgd", "sgd.learning_rate": 0.5}, {"optimizer": "adamw", "adamw.learning_rate": 0.001}]
    declared = study(space)
    schedule = constant().schedule(1000)
    records = [planned(record(n, point), schedule=schedule) for n, point in enumerate(points)]
    parts = pd.concat([curve(n, [1000], [0.1 + n]) for n in range(2)], ignore_index=True)
    _, table = SCHEDULES.draw([frames_of(declared, records, parts)])
    assert table.groupby("schedule")["learning_rate"].first().to_dict() == {
        "trial 0: 0.5": 0.5,
        "trial 1: 0.001": 0.001,
    }
