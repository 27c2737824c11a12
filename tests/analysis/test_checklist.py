import json
from dataclasses import replace

import numpy as np
import pytest
from analysis.handmade import frames_of_curves, study

from tuner.analysis.checklist import checklist_findings, only_promoted
from tuner.analysis.finding import QUESTIONS


def test_the_questions_come_in_the_playbooks_order_and_as_plain_data():
    rng = np.random.default_rng(0)
    frames = frames_of_curves(study(), rng.random((12, 50)).tolist())
    found = checklist_findings(frames)
    # Nothing failed, was pruned, was clipped, or is compared.
    silent = ("failed_trials", "pruned", "clipping", "effort", "isolation")
    expected = [asked.name for asked in QUESTIONS if asked.ask and asked.name not in silent]
    assert [finding.question for finding in found] == expected
    for finding in found:
        json.dumps(finding.to_json(), allow_nan=False)
        assert finding.thresholds
        assert finding.action


def promoted_frames(count: int, origins: list[str]):
    declared = replace(study(), lineage=(("round-1", "trial 23"), ("round-1", "trial 1")))
    frames = frames_of_curves(declared, np.linspace(1.0, 0.1, count * 50).reshape(count, 50).tolist())
    return replace(frames, trials=frames.trials.assign(origin=origins))


def test_a_round_of_promoted_points_is_asked_about_its_budget_and_not_about_a_search_space():
    frames = promoted_frames(2, ["round-1 trial 23, same seed", "round-1 trial 1"])
    asked = [finding.question for finding in checklist_findings(frames)]
    silent = ("failed_trials", "pruned", "clipping")
    assert asked == [one.name for one in QUESTIONS if one.ask and "search" not in one.needs and one.name not in silent]
    assert {"best_steps", "overfitting"} <= set(asked)
    assert not {"boundary", "enough_points", "infeasible"} & set(asked)


@pytest.mark.parametrize(
    "frames",
    [
        frames_of_curves(study(), [[0.5] * 50]),
        promoted_frames(2, ["round-1 trial 23", "quasi-random 0"]),
        replace(promoted_frames(1, ["grid"]), study=replace(study(), kind="sweep", lineage=(("sweep", "digest"),))),
    ],
    ids=["no lineage", "new points too", "a sweep"],
)
def test_what_searched_anything_is_asked_about_its_space(frames):
    assert not only_promoted(frames)
    assert "boundary" in [finding.question for finding in checklist_findings(frames)]
