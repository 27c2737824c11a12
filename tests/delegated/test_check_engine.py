"""`tuner.testing.check_engine`: which promises of a training hold, and what to change, without a study."""

import subprocess
import sys

import pytest
from support.loop_promises import (
    GENERATOR_NOT_KEPT,
    OWN_RATES,
    READS_THE_LENGTH,
    SEEDED_BY_NUMBER,
    SEEDLESS,
    UNSEEDED,
    write_loop,
)
from support.tiny import Tiny

from tuner.design.study_file import load_campaign
from tuner.errors import DeclarationError
from tuner.testing import check_engine

POINT = {"learning_rate": 0.1, "dropout": 0.1}


def campaign_of(folder, *replaced):
    return load_campaign(write_loop(folder, *replaced))[1]


def test_a_sound_loop_keeps_every_promise_that_a_loop_can(tmp_path, caplog):
    found = check_engine(campaign_of(tmp_path))
    assert (found.ok, found.name, found.why, found.unread) == (True, "Loop", {}, ())
    found.require("deterministic", "exact_resume", "prefixes", "follows_schedule")
    head, *lines, note = repr(found).splitlines()
    assert "a step takes" in head
    assert [line.split()[:2] for line in lines] == [
        ["yes", "deterministic"], ["yes", "exact_resume"], ["yes", "prefixes"], ["yes", "follows_schedule"]
    ]  # fmt: skip
    assert "note: seen in 4 updates; what goes wrong later" in note
    assert "<pre>Loop: checked in" in found._repr_html_()
    assert caplog.text == "", "what is found is returned, and not logged besides"


@pytest.mark.parametrize(
    ("replaced", "missing", "change"),
    [
        (UNSEEDED, ("deterministic", "exact_resume", "prefixes"), "seed what draws random numbers by trial.seed"),
        (GENERATOR_NOT_KEPT, ("exact_resume", "prefixes"), "keep all that has a state, trial.keep"),
        (OWN_RATES, ("prefixes", "follows_schedule"), "trial.rate(step), or trial.scheduler(optimizer)"),
        (READS_THE_LENGTH, ("prefixes",), "it reads trial.max_train_steps"),
        (SEEDED_BY_NUMBER, ("prefixes",), "not on trial.number"),
    ],
)
def test_each_promise_that_does_not_hold_is_named_with_what_to_change(tmp_path, replaced, missing, change):
    workload = campaign_of(tmp_path, replaced).workload
    found = check_engine(workload, point=POINT)
    lines = repr(found).splitlines()
    assert found.ok
    assert tuple(line.split()[1] for line in lines if line.startswith("  NO ")) == missing
    assert change in repr(found)
    with pytest.raises(AssertionError, match=missing[0]):
        found.require(missing[0])


def test_a_promise_that_breaks_after_some_steps_shows_in_longer_looks(tmp_path):
    later = ("rows = torch", "draws.seed() if step == 20 else 0\n            rows = torch")
    workload = campaign_of(tmp_path, later).workload
    assert check_engine(workload, point=POINT).promises.deterministic
    assert not check_engine(workload, point=POINT, steps=40).promises.deterministic


def test_seeds_without_an_effect_and_unread_hyperparameters_are_noted(tmp_path):
    workload = campaign_of(tmp_path, SEEDLESS).workload
    found = check_engine(workload, point={**POINT, "width": 8})
    assert found.unread == ("width",)
    assert "note: other seeds gave the same curve" in repr(found)
    assert "note: nothing reads the hyperparameter width" in repr(found)


@pytest.mark.parametrize(
    ("replaced", "told"),
    [
        ((".backward()", ".backwards()"), "Loop.train failed with AttributeError"),
        (("trial.keep(model=model, optimizer=optimizer, draws=draws)", "pass"), "keeps nothing"),
        (("0.0 if trial.regularization_off else ", ""), "never reads trial.regularization_off, and a sweep trains"),
        (("x, y = examples()", 'trial.infeasible("never")'), "rejects each point at which it was tried, so nothing"),
        (("x, y = examples()", 'raise MemoryError("no room")'), "so nothing is known of it: no room"),
    ],
)
def test_what_is_wrong_is_told_and_neither_raised_nor_logged(tmp_path, replaced, told, caplog):
    found = check_engine(campaign_of(tmp_path, replaced))
    assert not found.ok
    assert told in repr(found)
    assert caplog.text == ""
    with pytest.raises(AssertionError, match=r"Loop\.train"):
        found.require()


def test_a_workload_of_our_own_trainer_can_be_checked_too():
    assert check_engine(Tiny(), point=POINT).promises.fusing


def test_a_point_is_needed_and_steps_are_counted(tmp_path):
    workload = campaign_of(tmp_path).workload
    with pytest.raises(DeclarationError, match="needs the point at which Loop is looked at"):
        check_engine(workload)
    with pytest.raises(DeclarationError, match="steps must be a whole number of at least 2, got 1"):
        check_engine(workload, point=POINT, steps=1)
    with pytest.raises(ValueError, match="there is no promise 'exact'"):
        check_engine(workload, point=POINT).require("exact")


def test_importing_it_imports_nothing_heavy():
    heavy = "{'torch', 'pandas', 'numpy', 'scipy', 'sqlalchemy', 'lightning', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", f"import sys, tuner.testing; sys.exit(bool({heavy}))"], check=True)
