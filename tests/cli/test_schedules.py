"""A schedule that is a function of the share of training, from the study file to a report without it."""

import pytest
from support.study_files import write_study

from tuner import by_share, step_drops
from tuner.storage.store import open_ledger

FUNCTION = "schedule=lambda share: 1.0 if share < 0.5 else 0.5 * (1.0 - share),"
COMPUTE_BOUND = [
    ("max_train_steps=60, ", ""),
    ("    sweep=Sweep(learning_rate=log_grid(1e-3, 1.0), start_steps=100, max_steps=800, seeds=2),\n", ""),
]


def rates(share):
    return 1.0 if share < 0.5 else 0.5 * (1.0 - share)


def trials(folder, name="round-1"):
    with open_ledger(str(folder / "runs" / "tuner.sqlite"), create=False) as ledger:
        return ledger.trials(ledger.study("tiny", name).study_id)


def test_a_function_trains_its_rates_and_the_records_are_read_without_it(tuner, tmp_path):
    study = write_study(tmp_path, trials=2, more=FUNCTION)
    launched = tuner("launch", study, "--round", "1")
    assert launched.code == 0, launched.err
    assert tuner("replay", study, "--trial", "0").code == 0, "the same rates again"
    study.unlink()
    (first, _) = trials(tmp_path)
    assert first.schedule == by_share(rates).schedule(60)
    assert first.schedule.fractions() == pytest.approx([rates(step / 60) for step in range(60)], rel=2e-4)
    assert tuner("plot", "schedules", "tiny", "-o", "rates.png").code == 0
    drawn = [float(line.split(",")[-1]) for line in (tmp_path / "rates.csv").read_text().splitlines()[1:]]
    best = max(drawn)
    assert [rate / best for rate in drawn[:60]] == pytest.approx(first.schedule.fractions()), "of one of the two"
    assert tuner("report", "tiny", "-o", "page.html").code in (0, 3)
    assert "a function of the share of training over 60 steps" in (tmp_path / "page.html").read_text()


def test_another_function_is_refused_by_name_and_the_same_rates_in_other_code_are_the_same(tuner, tmp_path):
    assert tuner("launch", write_study(tmp_path, trials=2, more=FUNCTION), "--round", "1").code == 0
    same = "schedule=lambda position: 0.5 * (1.0 - position) if position >= 0.5 else 1.0,"
    again = tuner("launch", write_study(tmp_path, trials=2, more=same), "--round", "1")
    assert again.code == 0, again.err
    other = write_study(tmp_path, trials=2, more=FUNCTION.replace("0.5 else", "0.6 else"))
    refused = tuner("launch", other, "--round", "1")
    assert refused.code == 2
    assert "schedule.curve: was" in refused.err
    assert "undo the change, or give the campaign another name" in " ".join(refused.err.split())


def test_a_function_that_is_not_finite_is_one_error_before_training(tuner, tmp_path):
    wrong = write_study(tmp_path, more="schedule=lambda share: float('nan') if share > 0.9 else 1.0,")
    refused = tuner("launch", wrong, "--round", "1")
    assert refused.code == 2
    assert "gives nan at the share 0.900391 of training, which is no learning rate" in " ".join(refused.err.split())
    assert not (tmp_path / "runs").exists()


def test_a_scheduler_of_torch_is_one_error_before_training(tuner, tmp_path):
    wrong = write_study(tmp_path, more="schedule=torch.optim.lr_scheduler.ReduceLROnPlateau,")
    refused = tuner("launch", wrong, "--round", "1")
    assert refused.code == 2
    assert "ReduceLROnPlateau is refused: it waits until validation stalls" in " ".join(refused.err.split())
    assert not (tmp_path / "runs").exists()


def test_a_longer_round_of_a_family_without_a_rule_asks_and_does_as_it_is_told(tuner, tmp_path):
    more = "production_steps=120, schedule=step_drops((0.5, 0.75)), warmup=0.2,"
    asking = write_study(tmp_path, trials=2, more=more, replace=COMPUTE_BOUND)
    asked = tuner("launch", asking, "--round", "1")
    assert asked.code == 2
    assert "round 2: no rule carries the schedule constant + level + level to a longer run (A38)" in " ".join(
        asked.err.split()
    )
    told = ("promote=2)", "promote=2, transfer='rescale')")
    study = write_study(tmp_path, trials=2, more=more, replace=[*COMPUTE_BOUND, told])
    for number in (1, 2):
        launched = tuner("launch", study, "--round", number)
        assert launched.code == 0, launched.err
    assert {trial.schedule for trial in trials(tmp_path)} == {step_drops((0.5, 0.75)).schedule(12, 2)}
    longer = {trial.schedule for trial in trials(tmp_path, "round-2")}
    assert [schedule.warmup_steps for schedule in longer] == [2]
    (schedule,) = longer
    assert [piece.steps for piece in schedule.pieces] == [2, 59, 35, 24], "5, 3 and 2 of 10 steps stretched to 118"
