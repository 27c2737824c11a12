"""Numbers below 1.2e-38 are 0 while trials train on one thread, and before and after it as the caller has it."""

from dataclasses import replace

import pytest
import torch
from support.fusing import trained_alone, trained_together
from support.tiny import CPU, setting_for, tiny_study

from tuner.rounds.plan import planned_trials
from tuner.training.denormals import denormals_as_zero
from tuner.training.numerics import numerics


def is_zero():
    return bool(torch.tensor(1e-39) == 0.0)


@pytest.mark.parametrize("train", [trained_alone, trained_together])
def test_tiny_numbers_are_zero_while_a_trial_trains_and_not_afterwards(train, tmp_path):
    study, seen = tiny_study(num_trials=2), set()

    def stop():  # is asked before each step
        seen.add(is_zero())
        return False

    train(replace(setting_for(study, tmp_path), stop=stop), planned_trials(study))
    assert seen == {True}
    assert not is_zero()


def test_a_caller_who_wants_them_zero_keeps_it_so():
    torch.set_flush_denormal(True)
    try:
        with denormals_as_zero(CPU):
            pass
        assert is_zero()
    finally:
        torch.set_flush_denormal(False)


def test_the_numerics_say_so_and_with_several_threads_numbers_are_kept():
    assert numerics(CPU).values["denormals"] == "zero"
    torch.set_num_threads(2)
    try:
        assert numerics(CPU).values["denormals"] == "kept"
        with denormals_as_zero(CPU):
            assert not is_zero()
    finally:
        torch.set_num_threads(1)
