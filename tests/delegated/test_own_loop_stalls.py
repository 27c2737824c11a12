"""A loop that hangs in a step is replaced; one that gives signs of life is not, however long its step takes."""

import pytest
from support.loop_runs import left, running, write_loop_study
from support.loops import Plain, setup_for, train_loop
from support.processes import told
from support.tiny import MemoryRecorder, tiny_study

from tuner.delegated import engine
from tuner.rounds.plan import planned_trials

STUDY = tiny_study(batch_size=0, optimizer=None)
TRIAL = planned_trials(STUDY)[0]
SECONDS = 30.0
HANGS_ONCE = """if step == 200 and not trial.trying:
                try:
                    (Path(__file__).parent / "hung").touch(exist_ok=False)
                    __import__("time").sleep(10**6)
                except FileExistsError:
                    pass"""
SLOW_ONCE = """if step == 200 and not trial.trying and not (Path(__file__).parent / "slow").exists():
                for _ in range(90):
                    __import__("time").sleep(0.5)
                    trial.alive()
                (Path(__file__).parent / "slow").touch()"""


@pytest.mark.slow
def test_a_loop_that_hangs_in_a_step_is_replaced_and_nothing_is_lost(tmp_path):
    found = {}
    for name, within in (("hangs", HANGS_ONCE), ("slow", SLOW_ONCE), ("calm", "pass")):
        folder = write_loop_study(tmp_path / name, sweep="", length="max_train_steps=300, ", within=within)
        options = () if name == "calm" else ("--workers", "1", "--stall-timeout", SECONDS)
        code, err = told(running(folder, *options))
        assert code == 0, err
        measured, kept = left(folder)  # a state names the code of its study file, which is another one in each
        found[name] = measured, {place: content for place, content in kept.items() if place[2] == "best"}
        assert (f"stalled: no step for {SECONDS:g} s" in err) == (name == "hangs"), err
        assert (folder / "hung").exists() == (name == "hangs")
    assert found["hangs"] == found["slow"] == found["calm"]


def test_a_report_and_a_sign_of_life_within_a_step_are_passed_on(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "SAID_EVERY", 0.0)
    heard, before = [], []

    class Long(Plain):
        def step(self, trial, step, *others):
            before.append(len(heard))
            trial.alive()
            assert len(heard) == before[-1] + 1
            super().step(trial, step, *others)
            assert len(heard) == before[-1] + 1 + trial.evaluates(step)

    setup = setup_for(Long(), tmp_path)
    update = train_loop(setup, MemoryRecorder(), TRIAL, lambda claim, step: heard.append(step))
    assert not update.reason
    assert heard == sorted(heard)
    assert set(heard) >= set(range(24))
