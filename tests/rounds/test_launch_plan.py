"""What a plan costs, worked out by hand, and what a launch notes about where it came from."""

import subprocess
import sys
from dataclasses import replace

import pytest
from support.tiny import tiny_study

from tuner.budget.step_budget import StepBudget
from tuner.design.points import Point
from tuner.records import Price
from tuner.rounds.launch import Plan, command_line, environment, revision
from tuner.rounds.plan import pins_of, planned_trials, schedule_of

STUDY = replace(tiny_study(), budget=StepBudget(100, 25), num_trials=3, keep_best=2)  # evaluated at 25, 50, 75, 100
PRICE = Price(step_ms=2.0, evaluation_ms=10.0, latest_bytes=1000, best_bytes=100)


def test_a_plan_costs_its_steps_and_its_evaluations():
    plan = Plan(STUDY, planned_trials(STUDY), PRICE)
    assert plan.steps == 300
    assert plan.evaluation_seconds == pytest.approx(3 * 4 * 0.010)
    assert plan.seconds == pytest.approx(0.6 + 0.12)


def test_inherited_steps_and_their_evaluations_cost_nothing():
    plan = Plan(STUDY, planned_trials(STUDY), PRICE, saved=(75, 30))
    assert (plan.saved_steps, plan.steps) == (105, 195)
    # 75 steps save the evaluations at 25, 50 and 75; 30 steps save the one at 25.
    assert plan.evaluation_seconds == pytest.approx((12 - 3 - 1) * 0.010)


def test_checkpoints_need_room_for_latest_best_and_trunks():
    trials = planned_trials(STUDY)
    assert [trial.pins for trial in trials] == [(75,)] * 3
    one = 1000 + 2 * 100  # the latest state with the two best weights that are kept
    assert Plan(STUDY, trials, PRICE).checkpoint_bytes == 3 * one + 3 * one
    without = tuple(replace(trial, pins=()) for trial in trials)
    assert Plan(STUDY, without, PRICE).checkpoint_bytes == 3 * one


@pytest.mark.parametrize(
    ("point", "start", "warmup"),
    [({}, 75, 3), ({"decay_fraction": 0.5}, 50, 3), ({"warmup_steps": 10}, 75, 10),
     ({"decay_fraction": 0.1, "warmup_steps": 0}, 90, 0)],
)  # fmt: skip
def test_a_point_may_choose_its_warmup_and_its_decay(point, start, warmup):
    schedule = schedule_of(STUDY, Point.of({"learning_rate": 0.1, **point}))
    assert (schedule.decay_start, schedule.warmup_steps, len(schedule)) == (start, warmup, 100)
    assert pins_of(schedule) == (start,)


def test_a_decay_that_begins_in_the_warmup_leaves_no_shared_checkpoint():
    schedule = schedule_of(STUDY, Point.of({"learning_rate": 0.1, "warmup_steps": 75}))
    assert schedule.decay_start == schedule.warmup_steps == 75
    assert pins_of(schedule) == ()


def test_more_trials_are_the_same_points_and_further_ones():
    few, more = planned_trials(STUDY), planned_trials(replace(STUDY, num_trials=5))
    assert more[:3] == few
    assert planned_trials(replace(STUDY, num_trials=5), start=3) == more[3:]
    assert len({trial.seed for trial in more}) == 5
    assert {trial.data_seed for trial in more} == {few[0].data_seed}, "all see the batches in one order"


def git(folder, *arguments):
    settings = ("-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false")
    subprocess.run(["git", "-C", str(folder), *settings, *arguments], check=True, capture_output=True)


@pytest.mark.needs("git")
def test_a_revision_is_the_commit_and_a_digest_of_what_is_not_committed(tmp_path):
    assert revision(tmp_path) == {}
    git(tmp_path, "init", "-q")
    (tmp_path / "study.py").write_text("x = 1\n")
    git(tmp_path, "add", "study.py")
    git(tmp_path, "commit", "-qm", "first")
    clean = revision(tmp_path)
    assert (len(clean["commit"]), clean["uncommitted"]) == (40, False)
    (tmp_path / "note.txt").write_text("of no study")
    assert revision(tmp_path) == clean, "files that git does not follow are no change"
    (tmp_path / "study.py").write_text("x = 2\n")
    changed = revision(tmp_path)
    assert (changed["commit"], changed["uncommitted"], len(changed["difference"])) == (clean["commit"], True, 16)
    assert any("study.py" in file for file in changed["files"])
    (tmp_path / "study.py").write_text("x = 3\n")
    assert revision(tmp_path)["difference"] != changed["difference"]


def test_without_git_there_is_no_revision(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert revision(tmp_path) == {}


def test_a_command_is_noted_without_its_password(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/tuner", "run", "--storage", "postgresql://me:geheim@host/db"])
    noted = command_line()
    assert noted.startswith("tuner run --storage postgresql://")
    assert "geheim" not in noted


def test_an_environment_has_versions_and_no_variable(monkeypatch):
    monkeypatch.setenv("TOKEN_OF_SOMEBODY", "geheim")
    noted = environment()
    assert noted["python"] == ".".join(map(str, sys.version_info[:3]))
    assert noted["versions"]["torch"]
    assert "geheim" not in str(noted)
