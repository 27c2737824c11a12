"""`tuner plan`: the rounds before anything runs."""

from support.study_files import write_study

COMPUTE_BOUND = [
    ("max_train_steps=60, ", ""),
    ("sweep=Sweep(learning_rate=log_grid(1e-3, 1.0), start_steps=100, max_steps=800, seeds=2),", ""),
]


def test_trials_steps_cost_and_relevance_are_shown_and_nothing_is_written(tuner, tmp_path):
    study = write_study(tmp_path, trials=12, more="production_steps=400,", replace=COMPUTE_BOUND)
    run = tuner("plan", study)
    assert run.code == 0, run.err
    first, final = (line.split() for line in run.out.splitlines()[1:3])
    assert first[:8] == ["1", "12", "searched", "12", "40", "6.7", "10%", "480"], "6.7 epochs of 6 steps"
    assert final[-8:-2] == ["4", "400", "66.7", "100%", "1,600", "77%"]
    assert not (tmp_path / "runs").exists()
    bought = tuner("plan", study, "--total-steps", 4000)
    assert "round 1: trials=60, max_train_steps=40" in bought.err, "half of 4,000 buys 5 long trials, 4 are declared"
    four = tuner("plan", study, "--total-steps", 8000, "--rounds", 4)
    assert "very mature" in four.err, "A44"
    assert tuner("plan", study, "--total-steps", 100).code == 2
    middle = ('Round("the best", promote=2),', 'Round("longer", promote=3), Round("the best", promote=2),')
    study = write_study(tmp_path, trials=12, more="production_steps=4000,", replace=[*COMPUTE_BOUND, middle])
    priced = tuner("run", study, "--dry-run")
    assert [line.split()[2] for line in priced.out.splitlines()[1:4]] == ["400", "1,265", "4,000"], "the root of 10"


def test_where_the_sweep_finds_the_budget_a_total_buys_trials_of_one_length(tuner, tmp_path):
    """60 steps each; the last round trains 2 promoted points, both twice: 4 x 60 of 3,000 steps; 46 x 60 are left."""
    study = write_study(tmp_path)
    run = tuner("plan", study, "--total-steps", 3000)
    assert run.code == 0, run.err
    first, final = (line.split() for line in run.out.splitlines()[1:3])
    assert first[:5] == ["1", "46", "searched", "46", "60"]
    assert final[-7:-3] == ["60", "10", "100%", "240"], "50 examples in batches of 8 are 6 steps an epoch"
    assert "declared in the study file" in run.err
    assert "  round 1: trials=46\n  round 2: promote=2, fresh=2\n" in run.err
    assert not (tmp_path / "runs").exists()
    three = tuner("plan", study, "--total-steps", 3000, "--rounds", 3)
    assert "round 1: trials=23\n  round 2: trials=23\n  round 3: promote=2" in three.err
    few = tuner("plan", study, "--total-steps", 800)
    assert few.code == 2
    assert "that takes 840: raise --total-steps" in few.err
    assert "round-1" in tuner("plan", study).out, "priced like a dry run"
    assert tuner("plan", study, "--rounds", 3).code == 2


def test_before_the_sweep_its_answer_is_assumed(tuner, tmp_path):
    """2 times the 200 steps at which a sweep from 100 on is priced."""
    study = write_study(tmp_path, replace=[("max_train_steps=60, ", "")])
    run = tuner("plan", study, "--total-steps", 40_000)
    assert run.code == 0, run.err
    assert "trials of 400 steps (assumed until the sweep has found the steps to fit)" in run.err
