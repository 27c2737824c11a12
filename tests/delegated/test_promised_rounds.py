"""Longer rounds and budget curves of a loop: from kept states where that is promised, else from scratch."""

import json

import pytest
from support.loop_promises import ASKS_LATE, GENERATOR_NOT_KEPT, READS_THE_LENGTH, SEEDLESS, write_loop

LENGTHS = ("--lengths", "40,60,80,100")


def trials(tuner, name, study):
    return json.loads(tuner("trials", name, "--round", study, "-f", "json").out)


def curves(tuner):
    out = tuner("status", "loop", "-f", "json").out
    return [row["study"] for row in json.loads(out) if "curve" in row["study"]]


def test_a_budget_curve_goes_on_from_kept_states_where_that_is_promised(tuner, tmp_path):
    write_loop(tmp_path)
    assert tuner("launch", "loop.py").code == 0
    priced = tuner("budget-curve", "loop.py", *LENGTHS, "--dry-run")
    assert (priced.code, "are inherited from trials that begin with the same steps" in priced.err + priced.out) == (
        0,
        True,
    )
    made = tuner("budget-curve", "loop.py", *LENGTHS)
    assert made.code in (0, 3), made.err
    # The trunk is the constant part of 80 %; each shorter length trains its decay alone: 100 + 8 + 12 + 16 at most.
    assert "steps trained; separate runs would have trained 280" in made.out + made.err
    trained = int((made.out + made.err).partition(" steps trained")[0].split()[-1].replace(",", ""))
    assert trained <= 136


@pytest.mark.parametrize("broken", [READS_THE_LENGTH, GENERATOR_NOT_KEPT])
def test_without_the_promise_each_length_is_trained_from_its_first_step_and_priced_so(tuner, tmp_path, broken, caplog):
    write_loop(tmp_path, broken)
    assert tuner("launch", "loop.py").code == 0
    priced = tuner("budget-curve", "loop.py", *LENGTHS, "--dry-run")
    assert priced.code == 0
    assert "inherited" not in priced.err + priced.out
    made = tuner("budget-curve", "loop.py", *LENGTHS)
    assert made.code in (0, 3), made.err
    assert "280 steps trained; each length was trained from its first step" in made.out + made.err
    assert "promises less" in caplog.text


def test_a_longer_round_goes_on_from_trunks_only_where_that_is_promised(tuner, tmp_path):
    write_loop(tmp_path)
    assert tuner("launch", "loop.py").code == 0
    assert tuner("launch", "loop.py", "--round", 2).code == 0
    assert max(row["inherited"] for row in trials(tuner, "loop", 2)) == 48, "of 60 steps the decay takes a fifth"
    replayed = tuner("replay", "loop.py", "--round", 2, "--trial", 0)
    assert (replayed.code, "0 differ" in replayed.out) == (0, True), "as trained from the first step"
    changed = write_loop(tmp_path, READS_THE_LENGTH, name="other.py")
    assert tuner("launch", changed).code == 0
    assert tuner("launch", changed, "--round", 2).code == 0
    assert {row["inherited"] for row in trials(tuner, "other", 2)} == {0}


def test_a_loop_that_asks_for_its_length_after_the_first_looks_passes_nothing_on(tuner, tmp_path):
    write_loop(tmp_path, *ASKS_LATE)
    assert tuner("launch", "loop.py").code == 0
    assert tuner("launch", "loop.py", "--round", 2).code == 0
    assert {row["inherited"] for row in trials(tuner, "loop", 2)} == {0}
    replayed = tuner("replay", "loop.py", "--round", 2, "--trial", 0)
    assert (replayed.code, "0 differ" in replayed.out) == (0, True)


def test_copies_are_no_replicates(tuner, tmp_path):
    write_loop(tmp_path, SEEDLESS)
    assert tuner("launch", "loop.py").code == 0
    contest = tuner("adopt", "loop.py", "--candidate", "1/1", "--baseline", "1/0", "--replicates", 2)
    assert "inconclusive" in contest.out
    assert "trials with fresh seeds are copies of one" in contest.out + contest.err
    write_loop(tmp_path, name="sound.py")
    assert tuner("launch", "sound.py").code == 0
    sound = tuner("adopt", "sound.py", "--candidate", "1/1", "--baseline", "1/0", "--replicates", 2)
    assert "copies" not in sound.out + sound.err


def test_a_search_after_the_round_trains_a_loop_too(tuner, tmp_path):
    write_loop(tmp_path, GENERATOR_NOT_KEPT)
    assert tuner("launch", "loop.py", "--trials", 8).code == 0
    made = tuner("exploit", "loop.py", "--round", 1, "--sampler", "tpe", "--trials", 4, "--although", "a test")
    assert made.code == 0, made.err
    found = json.loads(tuner("status", "loop", "-f", "json").out)
    assert [row["complete"] for row in found if "exploit" in row["study"]] == [4]
