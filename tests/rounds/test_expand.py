"""Expand and relaunch: the widened study has points only where the space is new, and the check speaks of both."""

import math
import shutil
from dataclasses import replace

import pytest
from analysis.handmade import frames_of_values
from support.shell import tuner
from support.study_files import write_study

from tuner.analysis.questions.boundary import boundary_findings
from tuner.analysis.questions.isolation import role_warnings
from tuner.analysis.round_frames import round_frames, round_of, row_of_trial
from tuner.budget.families import constant
from tuner.budget.step_budget import StepBudget
from tuner.design.hyperparameters import choice, fixed, integers, log_uniform, uniform
from tuner.design.objective import minimize
from tuner.design.origin import promoted_from
from tuner.design.quasi_random import quasi_random_points
from tuner.design.round import Round
from tuner.design.space import SearchSpace
from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.errors import DeclarationError, StorageError
from tuner.reading import load
from tuner.records import FinishedTrial, Measurement, State, TrialUpdate
from tuner.rounds.expand import expand_round, expansion, inside, planned_expansion
from tuner.storage.store import open_ledger

__all__ = ["tuner"]
SPACE = SearchSpace(learning_rate=log_uniform(1e-5, 1e-3), dropout=uniform(0.0, 0.5, limits="low"))
OPTIMUM = 5e-3  # 0.7 decades beyond the upper edge


def study(space=SPACE, **changes):
    declared: dict[str, object] = dict(  # noqa: C408
        name="round-1", kind="round", goal="a test", hyperparameters=space.hyperparameters, fixed=space.fixed,
        budget=StepBudget(100, 5), num_trials=30, objective=minimize("validation/loss"), fitted_when=None,
        optimizer="adamw", schedule=constant(), warmup_steps=0, batch_size=8, seed=7, round=1,
    )  # fmt: skip
    return Study(**declared | changes)


def value_at(point):
    return 0.1 + math.log10(float(point["learning_rate"]) / OPTIMUM) ** 2 + 0.1 * float(point["dropout"])


@pytest.fixture
def ledger(tmp_path):
    """A round whose optimum lies beyond the upper edge of the learning rate."""
    with open_ledger(str(tmp_path / "tuner.sqlite")) as opened:
        declared = study()
        row = opened.start_study("tiny", declared, "fingerprint")
        points = quasi_random_points(SPACE, seed=7, start=0, count=30)
        schedule = constant().schedule(100)
        opened.record_finished(row.study_id, [
            FinishedTrial(Trial(n, point, 1, 2, schedule, f"quasi-random {n}"), State.COMPLETE, "", 100,
                          [Measurement(100, "validation/loss", value_at(point))])
            for n, point in enumerate(points)
        ])  # fmt: skip
        yield opened


def finish(ledger, row):
    claims = ledger.claim(row.study_id, worker="t", lease_seconds=1e6, max_trials=100)
    ledger.record([
        TrialUpdate(claim.trial_id, claim.fence, 100,
                    [Measurement(100, "validation/loss", value_at(claim.trial.point))], None, State.COMPLETE)
        for claim in claims
    ])  # fmt: skip


def verdict(frames, name="learning_rate"):
    return next(finding.verdict for finding in boundary_findings(frames) if finding.subject == name)


def test_the_widened_study_has_points_only_where_the_space_is_new(ledger):
    assert verdict(round_frames(ledger, "tiny", 1)) == "expand_high"
    made, row = expand_round(ledger, "tiny", 1)
    assert row.study.name == "round-1-wide-1"
    assert row.study.lineage == (("round-1", "all trials"),)
    assert row.study.space["learning_rate"].domain.high == 1e-2, "one decade further out"
    assert row.study.space["dropout"] == SPACE["dropout"]
    assert len(made.trials) == 15, "half as much space again, of the same density as 30 trials in the old one"
    for trial in made.trials:
        assert not inside(trial.point, study())
        assert 1e-3 < trial.point["learning_rate"] <= 1e-2
    assert [trial.number for trial in made.trials] == list(range(1000, 1015))


def test_the_check_after_it_speaks_about_both(ledger):
    _, row = expand_round(ledger, "tiny", 1)
    assert len(round_frames(ledger, "tiny", 1).trials) == 30, "nothing is counted before it is trained"
    finish(ledger, row)
    frames = round_frames(ledger, "tiny", 1)
    assert len(frames.trials) == 45
    assert frames.study.name == "round-1"
    assert verdict(frames) == "ok"
    best = int(frames.trials.loc[frames.trials["best_value"].idxmin(), "trial"])
    assert best >= 1000
    where, record = row_of_trial(ledger, "tiny", 1, best)
    assert (where.study.name, record.number) == ("round-1-wide-1", best)


def test_expanding_again_waits_for_the_trials_and_then_finds_nothing_to_widen(ledger):
    made, row = expand_round(ledger, "tiny", 1)
    assert expand_round(ledger, "tiny", 1) == (made, row), "nothing was begun: it is the same"
    claims = ledger.claim(row.study_id, worker="t", lease_seconds=1e6)
    with pytest.raises(StorageError, match="15 trials that have not ended"):
        expand_round(ledger, "tiny", 1)
    ledger.release(claims)
    assert len(planned_expansion(ledger, "tiny", 1)[1]) == 15
    finish(ledger, row)
    with pytest.raises(DeclarationError, match=r"no range of round-1 is to be widened"):
        expand_round(ledger, "tiny", 1)


def test_a_round_that_was_not_expanded_has_nothing_to_launch(ledger):
    with pytest.raises(StorageError, match=r"round-1 of 'tiny' was not expanded.*--expand"):
        planned_expansion(ledger, "tiny", 1)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("round-1", (1, 0)),
        ("round-12-wide-3", (12, 3)),
        ("sweep-grid", None),
        ("round-1-wide", None),
        ("round-x", None),
    ],
)
def test_names_of_rounds(name, place):
    assert round_of(name) == place


def test_expand_and_relaunch_by_the_command_line(tuner, tmp_path):
    seeded = ("        return nn.Sequential(", "        torch.manual_seed(0)\n        return nn.Sequential(")
    path = write_study(tmp_path, trials=24, low=1e-4, high=3e-3, replace=[seeded])  # no luck of initialization
    assert tuner("launch", path, "--round", 1, "-q").code == 0
    assert tuner("launch", path, "--round", 1, "--expanded", "-q").code == 2
    asked = tuner("boundaries", "tiny", "--round", 1)
    assert (asked.code, "--expand" in asked.err) == (3, True)
    wrote = tuner("boundaries", "tiny", "--round", 1, "--expand")
    assert wrote.code == 0, wrote.err
    assert "wrote round-1-wide-1: learning_rate: high 0.003" in wrote.err
    assert tuner("launch", path, "--round", 1, "--expanded", "-q").code == 0
    assert tuner("launch", path, "--round", 1, "-q").code == 0, "the round itself is as it was declared"
    trials = tuner("trials", "tiny", "-f", "csv").out
    assert "1000,complete" in trials
    assert tuner("check", "tiny", "--fail-on", "none").code == 0
    assert tuner("verify", "tiny").code == 0, "points of the wider space are as declared"
    best = tuner("best", "tiny").out
    assert "trial 10" in best
    number = best.split("trial ")[1].split()[0]
    assert tuner("replay", path, "--round", 1, "--trial", number).code == 0, "the same bits"
    assert tuner("report", "tiny").code == 0


@pytest.mark.slow
def test_the_whole_playbook_asks_first_and_widens_as_often_as_it_may(tuner, tmp_path):
    seeded = ("        return nn.Sequential(", "        torch.manual_seed(0)\n        return nn.Sequential(")
    unswept = ("sweep=Sweep(learning_rate=log_grid(1e-3, 1.0), start_steps=100, max_steps=800, seeds=2),", "")
    path = write_study(tmp_path, trials=24, low=1e-4, high=3e-3, replace=[seeded, unswept])
    asked = tuner("run", path)
    assert (asked.code, f"tuner run {path} --expand 1" in asked.err) == (3, True), asked.err
    other = shutil.copytree(tmp_path / "runs", tmp_path / "other") / "tuner.sqlite"
    widened = tuner("run", path, "--expand", 1, "--yes")
    assert widened.code == 0, widened.err
    assert "round 1 is widened" in widened.err
    with open_ledger(str(tmp_path / "runs" / "tuner.sqlite"), create=False) as ledger:
        assert [row.study.name for row in ledger.studies("tiny")] == ["round-1", "round-1-wide-1", "round-2"]
        promoted = ledger.trials(ledger.study("tiny", "round-2").study_id)[0]
    assert promoted_from(promoted.origin).trial >= 1000, "the best point lies where the space is new"
    assert tuner("run", path, "--yes", "--storage", other).code == 0
    again = tuner("run", path, "--yes", "--expand", 1, "--storage", other)
    assert (again.code, "is widened" in again.err) == (0, False), "round 2 rests on what round 1 was"


def test_without_a_round_the_last_one_that_searched_is_spoken_of(ledger, tuner, tmp_path):
    """Round 2 trains two chosen points: of its ranges there is nothing to say."""
    chosen = study(name="round-2", round=2, num_trials=2, lineage=(("round-1", "trial 0"), ("round-1", "trial 1")))
    row = ledger.start_study("tiny", chosen, "fingerprint")
    points = quasi_random_points(SPACE, seed=7, start=0, count=2)
    ledger.record_finished(row.study_id, [
        FinishedTrial(Trial(n, point, 3, 4, constant().schedule(100), f"round-1 trial {n}, fresh seeds"),
                      State.COMPLETE, "", 100, [Measurement(100, "validation/loss", value_at(point))])
        for n, point in enumerate(points)
    ])  # fmt: skip
    storage = tmp_path / "tuner.sqlite"
    asked = tuner("boundaries", "tiny", "--storage", storage)
    assert (asked.code, "expand_high" in asked.out) == (3, True), asked.out
    assert "round-1: the last round that searched" in asked.err
    assert "next: tuner boundaries tiny --round 1 --expand" in asked.err
    found = {finding.subject: finding.verdict for finding in load("tiny", str(storage)).boundaries()}
    assert found["learning_rate"] == "expand_high"
    second = tuner("boundaries", "tiny", "--round", 2, "--storage", storage)
    assert "Not enough evidence to tell whether the best learning_rate lies outside the range" in second.out


def test_ordered_choices_get_the_next_one_and_points_only_there():
    space = SearchSpace(batch_size=choice(32, 64, 128), learning_rate=log_uniform(1e-5, 1e-3))
    declared = study(space)
    points = quasi_random_points(space, seed=7, start=0, count=30)
    values = [0.1 + 0.2 * abs(math.log2(int(point["batch_size"]) / 512)) for point in points]
    frames = frames_of_values(declared, [dict(point.values_by_name) for point in points], values)
    (finding,) = (one for one in boundary_findings(frames) if one.subject == "batch_size")
    assert finding.verdict == "expand_high"
    made = expansion(declared, declared, [finding])
    assert made.study.space["batch_size"].domain.choices == (32, 64, 128, 256)
    assert made.widened == ("batch_size: also 256",)
    assert len(made.trials) == 10
    assert {trial.point["batch_size"] for trial in made.trials} == {256}


# Roles


def test_a_round_names_what_it_is_about():
    space = SearchSpace(learning_rate=log_uniform(1e-4, 1e-1), act=choice("relu", "tanh", family="architecture"))
    assert Round("Which?", trials=9, space=space, scientific=["act"]).scientific == ("act",)
    with pytest.raises(DeclarationError, match=r"scientific names depth in round 'Which\?'.*learning_rate, act"):
        Round("Which?", trials=9, space=space, scientific=("depth",))
    with pytest.raises(DeclarationError, match=r"scientific is a tuple of names, got 'act'"):
        Round("Which?", trials=9, space=space, scientific="act")


@pytest.mark.parametrize(
    ("space", "scientific", "told"),
    [
        ({"learning_rate": 0.1, "act": choice("relu", "tanh", family="architecture")}, ("act",), "favours what suits"),
        ({"learning_rate": log_uniform(1e-4, 1e-1), "width": integers(8, 64, family="architecture"),
          "weight_decay": fixed(0.1)}, ("width",), "weight_decay is fixed"),
        ({"learning_rate": log_uniform(1e-4, 1e-1), "batch_size": integers(8, 64)}, (), r"batch_size sets the speed"),
        ({"learning_rate": log_uniform(1e-4, 1e-1), "depth": integers(1, 4, family="architecture"),
          "act": choice("a", "b", family="architecture")}, ("act",), "depth is usually scientific or fixed"),
        ({"learning_rate": log_uniform(1e-4, 1e-1)}, ("learning_rate",), "usually a nuisance"),
        ({"learning_rate": log_uniform(1e-4, 1e-1), "act": choice("a", "b", family="architecture")}, ("act",), ""),
    ],
)  # fmt: skip
def test_rules_of_thumb_about_roles(space, scientific, told):
    """B3, B12; the last one breaks none."""
    warnings = role_warnings(study(SearchSpace(**space), scientific=scientific))
    assert [told in warning for warning in warnings] == ([True] if told else [])


# A study that was found without its trials


def test_a_widened_study_without_its_trials_is_completed_by_each_of_its_commands(ledger):
    """What a version that wrote both in two transactions left where it was killed between them."""
    made, _ = expand_round(ledger, "tiny", 1)
    with ledger._database.writing() as connection:
        connection.exec_driver_sql("delete from trial where number >= 1000")
    assert planned_expansion(ledger, "tiny", 1) == (made.study, made.trials)
    with ledger._database.writing() as connection:
        connection.exec_driver_sql("delete from trial where number >= 1000")
    again, row = expand_round(ledger, "tiny", 1)
    assert again == made
    assert [record.number for record in ledger.trials(row.study_id)] == list(range(1000, 1015))
    with ledger._database.writing() as connection:
        connection.exec_driver_sql("delete from trial where number = 1003")
    assert planned_expansion(ledger, "tiny", 1) == (made.study, made.trials)


def test_a_range_whose_next_bound_is_its_bound_is_not_widened(ledger):
    """The study would have no new point, and who looked for one looked at 100,000."""
    (finding,) = (one for one in boundary_findings(round_frames(ledger, "tiny", 1)) if one.subject == "learning_rate")
    closed = replace(finding, evidence=finding.evidence.assign(next_bound=finding.evidence["bound"]))
    with pytest.raises(DeclarationError, match=r"no range of round-1 is to be widened"):
        expansion(study(), study(), [closed])
