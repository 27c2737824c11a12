"""A trial that starts from steps which another trial has trained ends as if it had trained all of them itself.

Each test trains both ways, and compares every value of the curves and every bit of weights and optimizer state.
"""

import logging
from dataclasses import replace

import pytest
import torch
from support.fusible import MlpWithDropout
from support.prefixes import Counting, bench, flip_a_bit, longer
from support.tiny import Tiny, tiny_study

from tuner import SearchSpace, constant, linear, log_uniform, uniform
from tuner.budget.step_budget import StepBudget
from tuner.records import Numerics
from tuner.rounds.plan import planned_trials
from tuner.training.logbook import Logbook

SHORT, LONG = 24, 60
DECAY = 6  # a quarter of the short budget
TRUNK = SHORT - DECAY
SPACES = {
    "adamw": SearchSpace(learning_rate=log_uniform(1e-3, 1e-1), weight_decay=0.1),
    "sgd": SearchSpace(learning_rate=log_uniform(1e-3, 1e-1), momentum=0.9, nesterov=True, clip_norm=0.5),
}


def short_study(**changes):
    return tiny_study(budget=StepBudget(SHORT, 5), **changes)


def long_study(short, steps=LONG):
    return replace(short, name="round-2", budget=short.budget.lengthened(steps, 8), round=2)


def pinned(study, *pins):
    """The trials of a study; each leaves a trunk just before its decay, or after the given steps."""
    return [replace(t, pins=pins or (t.schedule.decay_start,)) for t in planned_trials(study)]


def from_scratch(folder, study, trials, workload=None, **how):
    with bench(folder / "scratch", workload) as alone:
        row = alone.train(study, trials, **how)
        assert alone.inherited(row) == [0] * len(trials)
        return [alone.meaning(row, trial.number) for trial in trials]


@pytest.mark.parametrize("optimizer", SPACES)
def test_a_longer_trial_resumes_from_the_trunk_of_the_shorter_one_with_the_same_bits(optimizer, tmp_path):
    short = short_study(optimizer=optimizer, space=SPACES[optimizer])
    long, trials = long_study(short), pinned(short)
    after = [longer(trial, LONG) for trial in trials]
    with bench(tmp_path / "shared", Counting()) as shared:
        shared.train(short, trials)
        Counting.executed = 0
        row = shared.train(long, after)
        assert Counting.executed == len(trials) * (LONG - TRUNK)
        assert shared.inherited(row) == [TRUNK] * len(trials)
        found = [shared.meaning(row, trial.number) for trial in after]
    assert found == from_scratch(tmp_path, long, after, Counting())


@pytest.mark.parametrize("fuse", ["off", 3])
def test_a_trunk_holds_the_averages_of_the_weights(fuse, tmp_path):
    short = short_study(ema_steps=6)
    long, trials = long_study(short), pinned(short)
    after = [longer(trial, LONG) for trial in trials]
    with bench(tmp_path / "shared") as shared:
        shared.train(short, trials, fuse=fuse)
        row = shared.train(long, after, fuse=fuse)
        assert shared.inherited(row) == [TRUNK] * len(trials)
        found = [shared.meaning(row, trial.number) for trial in after]
        others = replace(long, name="round-3", ema_steps=7)
        assert shared.inherited(shared.train(others, after)) == [0] * len(trials), "of other averages nothing is shared"
    assert found == from_scratch(tmp_path, long, after)


@pytest.mark.parametrize("stops", [(1,), (30, 40), (5, 5, 5, 20, 20)])
def test_kills_in_between_change_nothing(stops, tmp_path):
    short = short_study()
    long, trials = long_study(short), pinned(short)
    after = [longer(trial, LONG) for trial in trials]
    with bench(tmp_path / "shared") as shared:
        shared.train(short, trials, stops=stops)
        row = shared.train(long, after, stops=stops, commit_seconds=0.0)
        assert shared.inherited(row) == [TRUNK] * len(trials)
        found = [shared.meaning(row, trial.number) for trial in after]
    assert found == from_scratch(tmp_path, long, after)


@pytest.mark.parametrize("fused_first", [True, False])
def test_a_trunk_of_a_fused_group_is_the_trunk_of_each_trial_and_a_group_may_start_from_trunks(fused_first, tmp_path):
    space = SearchSpace(
        learning_rate=log_uniform(1e-3, 1e-1), dropout=uniform(0.1, 0.5), label_smoothing=uniform(0.0, 0.2)
    )
    short = short_study(space=space, batch_size=32, num_trials=4)
    long, trials = long_study(short), pinned(short)
    after = [longer(trial, LONG) for trial in trials]
    first, second = (4, "off") if fused_first else ("off", 4)
    with bench(tmp_path / "shared", MlpWithDropout()) as shared:
        shared.train(short, trials, fuse=first)
        row = shared.train(long, after, fuse=second)
        assert shared.inherited(row) == [TRUNK] * len(trials)
        found = [shared.meaning(row, trial.number) for trial in after]
    assert found == from_scratch(tmp_path, long, after, MlpWithDropout())


def test_a_decay_that_is_longer_or_of_another_shape_branches_from_the_same_trunk(tmp_path):
    short = short_study()
    trials = pinned(short, 12, TRUNK)[:1]
    other = replace(short, name="round-2", num_trials=2)
    half = replace(trials[0], number=0, schedule=replace(short.schedule, decay=0.5).schedule(SHORT, 3), pins=())
    root = replace(
        trials[0], number=1, schedule=replace(short.schedule, decay_shape="one_minus_sqrt").schedule(SHORT, 3), pins=()
    )
    with bench(tmp_path / "shared") as shared:
        shared.train(replace(short, num_trials=1), trials)
        row = shared.train(other, [half, root])
        assert shared.inherited(row) == [12, TRUNK]
        found = [shared.meaning(row, number) for number in (0, 1)]
    assert found == from_scratch(tmp_path, other, [half, root])


def test_a_linear_schedule_shares_its_warmup(tmp_path):
    short = short_study(schedule=linear(), warmup_steps=9)
    long, trials = long_study(short), pinned(short)
    after = [longer(trial, LONG) for trial in trials]
    with bench(tmp_path / "shared") as shared:
        shared.train(short, trials)
        row = shared.train(long, after)
        assert shared.inherited(row) == [9] * len(trials)
        found = [shared.meaning(row, trial.number) for trial in after]
    assert found == from_scratch(tmp_path, long, after)


def test_constant_trials_of_doubled_length_execute_no_step_twice(tmp_path):
    study = short_study(schedule=constant(), warmup_steps=0, num_trials=2)
    budgets = [StepBudget(10, 2)]
    for steps in (20, 40, 80):
        budgets.append(budgets[-1].lengthened(steps, 5))
    with bench(tmp_path / "shared", Counting()) as shared:
        Counting.executed = 0
        for budget in budgets:
            stage = replace(study, name=f"round-{budget.max_train_steps}", budget=budget)
            trials = planned_trials(stage)
            row = shared.train(stage, trials)
        assert Counting.executed == 2 * 80
        again = replace(stage, name="round-again")
        row = shared.train(again, trials)
        assert Counting.executed == 2 * 80, "the same trial once more is all taken over"
        assert shared.inherited(row) == [80, 80]
        found = [shared.meaning(row, trial.number) for trial in trials]
    assert found == from_scratch(tmp_path, stage, trials, Counting())


@pytest.mark.parametrize("lost", ["damaged", "missing"])
def test_when_the_longest_trunk_is_lost_the_next_shorter_one_is_taken_and_it_says_so(lost, tmp_path, caplog):
    short = short_study()
    long, trials = long_study(short), pinned(short, 9, TRUNK)[:1]
    after = [longer(trials[0], LONG)]
    with bench(tmp_path / "shared") as shared:
        row = shared.train(replace(short, num_trials=1), trials)
        (trunk,) = (kept for kept in shared.ledger.trial(row.study_id, 0).checkpoints if kept.step == TRUNK)
        path = shared.root / trunk.file
        if lost == "damaged":
            flip_a_bit(path)
        else:
            path.unlink()
        with caplog.at_level(logging.WARNING):
            row = shared.train(replace(long, num_trials=1), after)
        assert f"trial 0 cannot go on from {trunk.file}" in caplog.text
        assert lost in caplog.text
        assert shared.inherited(row) == [9]
        found = [shared.meaning(row, 0)]
    assert found == from_scratch(tmp_path, replace(long, num_trials=1), after)


def test_when_every_trunk_is_lost_the_trial_starts_from_scratch(tmp_path, caplog):
    short = replace(short_study(), num_trials=1)
    long, trials = long_study(short), pinned(short)[:1]
    after = [longer(trials[0], LONG)]
    with bench(tmp_path / "shared") as shared:
        shared.train(short, trials)
        for path in shared.root.rglob("trunk-*"):
            path.unlink()
        with caplog.at_level(logging.WARNING):
            row = shared.train(long, after)
        assert "starts from its first step" in caplog.text
        assert shared.inherited(row) == [0]
        found = [shared.meaning(row, 0)]
    assert found == from_scratch(tmp_path, long, after)


def test_other_numerics_are_no_prefix_unless_asked_for_and_then_marked(tmp_path, monkeypatch):
    short = replace(short_study(), num_trials=1)
    long, trials = long_study(short), pinned(short)[:1]
    after = [longer(trials[0], LONG)]
    with bench(tmp_path / "shared") as shared:
        shared.train(short, trials)
        for name in ("training.setup", "execution.loaded_workload"):
            monkeypatch.setattr(f"tuner.{name}.numerics", lambda *rest, **named: Numerics.of({"engine": "another"}))
        row = shared.train(long, after, allow_inexact=True)
        record = shared.ledger.trial(row.study_id, 0)
        assert (record.inherited.steps, record.exact) == (TRUNK, False)
        assert record.numerics.text == '{"engine": "another", "exact": false}'
        row = shared.train(replace(long, name="round-3"), after)
        record = shared.ledger.trial(row.study_id, 0)
        assert (record.inherited.steps, record.exact) == (0, True), "neither round 1 nor what came of it will do"
        assert shared.inherited(shared.train(replace(long, name="round-4"), after)) == [LONG]


def test_a_longer_prefix_is_not_taken_where_a_trunk_would_be_missing(tmp_path):
    short = replace(short_study(), num_trials=1)
    trials = pinned(short)[:1]
    with bench(tmp_path / "shared") as shared:
        shared.train(short, trials)
        wanted = replace(longer(trials[0], LONG), pins=(9, 30))
        row = shared.train(long_study(short), [wanted])
        assert shared.inherited(row) == [0], "the trunk at 18 would leave none at 9"
        again = replace(long_study(short), name="round-3")
        row = shared.train(again, [replace(wanted, number=0, pins=(9, 30, 40))])
        assert shared.inherited(row) == [30], "at 9 and 30 are trunks now, and 40 is to come"


def test_another_seed_point_or_grid_of_evaluations_shares_nothing(tmp_path):
    short = replace(short_study(), num_trials=1)
    long, (trial,) = long_study(short), pinned(short)[:1]
    after = longer(trial, LONG)
    strangers = {
        "seed": (long, replace(after, seed=after.seed + 1)),
        "data seed": (long, replace(after, data_seed=after.data_seed + 1)),
        "point": (long, replace(after, point=after.point.with_values(weight_decay=1e-3))),
        "evaluations": (replace(long, budget=StepBudget(LONG, 4)), after),
        "augmentation": (replace(long, augment=False), after),
        "batch size": (replace(long, batch_size=9), after),
        "kept checkpoints": (replace(long, keep_best=1), after),
        "optimizer": (replace(long, optimizer="adam"), after),
    }
    with bench(tmp_path / "shared") as shared:
        shared.train(short, [trial])
        for place, (study, stranger) in enumerate(strangers.values(), 2):
            row = shared.train(replace(study, name=f"round-{place}"), [stranger])
            assert shared.inherited(row) == [0], list(strangers)[place - 2]
        shared.workload = Tiny()
        assert shared.inherited(shared.train(replace(long, name="round-99"), [after])) == [TRUNK]


@pytest.mark.parametrize(("fuse", "questions"), [("off", range(46, 55, 2)), (3, range(46, 80, 3))])
def test_a_trial_that_was_stopped_anywhere_hands_on_what_one_that_ran_through_hands_on(fuse, questions, tmp_path):
    """Within its last evaluation, too: the state that was saved there has losses that no evaluation has counted."""
    short = short_study(schedule=constant(), num_trials=3)
    long, trials = long_study(short), planned_trials(short)
    after = [longer(trial, LONG) for trial in trials]
    expected, longer_ones = from_scratch(tmp_path / "a", short, trials), from_scratch(tmp_path / "b", long, after)
    for stop in questions:  # at the last steps, and within the last evaluation
        with bench(tmp_path / str(stop)) as stopped:
            row = stopped.train(short, trials, stops=(stop,), fuse=fuse)
            assert [stopped.meaning(row, trial.number) for trial in trials] == expected, stop
            row = stopped.train(long, after, fuse=fuse)
            assert stopped.inherited(row) == [SHORT] * len(trials)
            assert [stopped.meaning(row, trial.number) for trial in after] == longer_ones, stop


def test_a_state_that_was_saved_before_its_evaluation_is_not_inherited(tmp_path, monkeypatch):
    """Older versions kept such a state of a trial that was stopped within its last evaluation."""
    short = short_study(schedule=constant())
    long, trials = long_study(short), planned_trials(short)
    after = [longer(trial, LONG) for trial in trials]
    with bench(tmp_path / "shared") as shared:
        with monkeypatch.context() as old:
            old.setattr(Logbook, "state", with_losses)
            shared.train(short, trials)
        row = shared.train(long, after)
        assert shared.inherited(row) == [0] * len(trials)
        assert [shared.meaning(row, trial.number) for trial in after] == from_scratch(tmp_path, long, after)


def with_losses(book):
    best = [(kept.step, kept.value) for kept in book.best.kept]
    return {**book.trainee.state(), "losses": torch.ones(4), "best": best}
