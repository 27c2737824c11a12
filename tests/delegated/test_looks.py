"""A first look at a loop: what it sees, what it leaves as it was, and how it ends a loop that would not end."""

import os
import random
import shutil
import tempfile

import numpy as np
import pytest
import torch
from support.loop_promises import GENERATOR_NOT_KEPT, Looked, write_loop
from support.loops import Plain, setup_for

from tuner.delegated.first_steps import FirstSteps
from tuner.delegated.looks import first_point, look_at, trial_at
from tuner.delegated.promised import _milliseconds
from tuner.errors import Paused, WorkloadError


def test_a_look_trains_the_loop_as_torch_alone_would(tmp_path):
    looked = Looked(write_loop(tmp_path))
    trial = trial_at(first_point(looked.setup))
    look = look_at(looked.setup, trial)
    torch.manual_seed(trial.seed)
    model = torch.nn.Sequential(
        torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Dropout(trial.point["dropout"]), torch.nn.Linear(16, 2)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=trial.point["learning_rate"], momentum=0.9)
    x = torch.randn(80, 6, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] + 0.5 * x[:, 1] > 0).long()
    draws = torch.Generator().manual_seed(trial.data_seed)
    expected = {}
    for step in range(1, 5):
        rows = torch.randint(50, (8,), generator=draws)
        model.train()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
        with torch.no_grad():
            model.eval()
            expected[step] = float(torch.nn.functional.cross_entropy(model(x[50:]), y[50:]))
    seen = {step: float.fromhex(value) for (step, name), value in look.curve.items() if name == "validation/loss"}
    assert seen == {2: expected[2], 4: expected[4]}


def test_looks_leave_generators_the_folder_and_the_workload_as_they_were(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    wanders = 'import os\n        if os.path.exists("other"): os.chdir("other")\n        self.mine = 1\n        '
    looked = Looked(write_loop(tmp_path, ("x, y = examples()", f"{wanders}x, y = examples()")))
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    looked.inspect()
    after = torch.get_rng_state(), np.random.get_state()[1], random.getstate()
    assert torch.equal(before[0], after[0])
    assert np.array_equal(before[1], after[1])
    assert before[2] == after[2]
    assert os.getcwd() == str(tmp_path)
    assert not hasattr(looked.workload, "mine")


ENDLESS = (
    "for step in trial.steps():",
    "for step in range(10**9):",
)


def test_a_loop_that_never_says_where_it_is_is_told_how(tmp_path):
    with pytest.raises(WorkloadError, match=r"Loop.train never says how many updates it has made.*trial\.steps\(\)"):
        Looked(write_loop(tmp_path, ENDLESS)).inspect()


def test_a_loop_that_reports_nothing_and_never_ends_is_ended_and_told(tmp_path):
    quiet = ("if trial.evaluates(step):", "if False:")
    light = ("model.train()", "trial.rate(step)\n            continue")
    with pytest.raises(WorkloadError, match=r"Loop.train never says how many updates it has made.*trial\.steps\(\)"):
        Looked(write_loop(tmp_path, ENDLESS, quiet, light)).inspect()


def test_a_loop_that_does_not_stop_where_it_is_told_to_is_ended_and_told(tmp_path):
    """It catches every Exception, so that no error of ours would end it."""
    deaf = (
        "for step in trial.steps():",
        """import contextlib
        for step in trial.steps():
            self.one(trial, step, model, optimizer, draws, x, y)
        for step in range(10**9):
            with contextlib.suppress(Exception):
                trial.rate(step)

    def one(self, trial, step, model, optimizer, draws, x, y):
        if True:""",
    )
    with pytest.raises(WorkloadError, match=r"Loop.train goes on after its trial has ended"):
        Looked(write_loop(tmp_path, deaf)).inspect()


def test_where_the_loop_rejects_the_middle_of_the_space_it_is_looked_at_elsewhere(tmp_path):
    rejects = (
        "x, y = examples()",
        'x, y = examples()\n        if trial.point["dropout"] == 0.25: trial.infeasible("not this one")',
    )
    looked = Looked(write_loop(tmp_path, rejects))
    looked.inspect()
    assert first_point(looked.setup)["dropout"] != 0.25
    assert looked.loaded.promises(looked.study).exact_resume


def test_a_loop_that_rejects_every_point_promises_nothing_and_stops_nothing(tmp_path, caplog):
    looked = Looked(write_loop(tmp_path, ("x, y = examples()", 'x, y = examples()\n        trial.infeasible("never")')))
    looked.inspect(price=True)
    assert not any(looked.loaded.promises(looked.study).to_data().values())
    assert "rejects each point at which it was tried, so nothing is known of it: never" in caplog.text
    assert looked.loaded.identity_of(looked.study).weights == ()


def test_a_hyperparameter_that_the_loop_never_reads_is_named(tmp_path, caplog):
    looked = Looked(write_loop(tmp_path, ('trial.point["dropout"]', "0.1")))
    assert looked.inspect().unread == ("dropout",)
    assert "nothing reads the hyperparameter dropout of round-1" in caplog.text
    assert looked.inspect().unread == (), "said once"


def test_the_metric_of_fitted_when_must_be_reported(tmp_path):
    looked = Looked(write_loop(tmp_path, (', "training/error_rate": wrong', "")))
    with pytest.raises(WorkloadError, match=r"reads 'training/error_rate', and .* reports 'validation/loss'"):
        looked.inspect()


@pytest.mark.parametrize(
    ("replaced", "told"),
    [
        (("0.0 if trial.regularization_off else ", ""), "if trial.regularization_off: train without them"),
        (("trial.rate(step)", "0.1"), r"trial.rate\(step\)\) before each update"),
    ],
)
def test_a_sweep_needs_regularization_off_and_its_rates(tmp_path, replaced, told):
    looked = Looked(write_loop(tmp_path, replaced))
    looked.inspect()
    with pytest.raises(WorkloadError, match=told):
        looked.inspect(without_randomness=True)


def test_a_price_counts_neither_the_first_step_nor_evaluations_as_steps():
    # Seconds at which so many updates were made: 30 for the first step, then 2 a step, and 5 more for an evaluation.
    look = FirstSteps(times=[(0, 0.0), (1, 30.0), (2, 37.0), (3, 39.0), (4, 46.0), (5, 48.0), (6, 55.0)])
    assert _milliseconds(look, (2, 4, 6)) == (2000.0, 5000.0)
    by_two = FirstSteps(times=[(0, 0.0), (2, 30.0), (4, 34.0), (6, 38.0), (6, 43.0)])
    assert _milliseconds(by_two, ()) == (2000.0, 0.0), "a loop that tells of several updates at once"


def test_a_dry_run_prices_steps_evaluations_and_checkpoints(tmp_path):
    looked = Looked(write_loop(tmp_path))
    price = looked.inspect(price=True).price
    assert price.step_ms > 0.0
    assert price.best_bytes == 4 * (6 * 16 + 16 + 16 * 2 + 2)
    assert price.latest_bytes > 2 * price.best_bytes, "momentum and generators, too"
    assert looked.inspect(price=True).price is price, "taken once"


class Full:
    free = 1000


def test_no_room_on_the_disk_pauses_before_anything_is_trained(tmp_path, monkeypatch):
    looked = Looked(write_loop(tmp_path, GENERATOR_NOT_KEPT))
    monkeypatch.setattr("shutil.disk_usage", lambda folder: Full())
    with pytest.raises(Paused, match="3 checkpoints of"):
        looked.inspect(room=True)


def test_what_lies_above_the_folder_of_a_look_is_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "of others").mkdir()

    class Clears(Plain):
        def train(self, trial):
            shutil.rmtree(trial.folder.parent)
            super().train(trial)

    setup = setup_for(Clears(), tmp_path / "checkpoints")
    look_at(setup, trial_at({"learning_rate": 0.01}))
    assert (tmp_path / "of others").is_dir()


COUNTS = ("for step in trial.steps():", "for step in range(10**9):\n            if trial.stepped(step): return")


def test_a_loop_that_counts_by_itself_is_told_what_its_report_lacks(tmp_path):
    looked = Looked(write_loop(tmp_path, COUNTS))
    with pytest.raises(WorkloadError, match=r"follows trial.evaluates\(1\).*told of 1 updates.*step=2\), and calls"):
        look_at(looked.setup, trial_at(first_point(looked.setup)))


def test_a_loop_that_counts_from_0_where_it_is_resumed_is_told_of_trial_step(tmp_path):
    said = ('"training/error_rate": wrong})', '"training/error_rate": wrong}, step=step + 1)')
    looked = Looked(write_loop(tmp_path, COUNTS, said))
    looked.inspect()
    assert "begin to count at trial.step" in looked.loaded.measured(looked.study).why["exact_resume"]


def test_a_name_that_the_point_lacks_is_told_with_the_line_that_read_it(tmp_path):
    looked = Looked(write_loop(tmp_path, ('trial.point["learning_rate"], momentum', 'trial.point["lr"], momentum')))
    with pytest.raises(
        WorkloadError, match=r"KeyError: the point has no 'lr': it has .*learning_rate.*\.py:\d+ in train"
    ):
        look_at(looked.setup, trial_at(first_point(looked.setup)))


def test_a_loop_that_exits_is_an_error_and_does_not_end_the_program(tmp_path):
    looked = Looked(write_loop(tmp_path, ("loss.backward()", "loss.backward(); raise SystemExit(3)")))
    with pytest.raises(
        WorkloadError, match=r"Loop.train failed with .*called sys.exit\(3\); it must.*\.py:\d+ in train\)"
    ):
        look_at(looked.setup, trial_at(first_point(looked.setup)))


def test_a_first_look_that_diverges_gives_no_advice_on_what_to_keep(tmp_path):
    looked = Looked(write_loop(tmp_path, ('"validation/loss": validation', '"validation/loss": float("nan")')))
    looked.inspect()
    why = looked.loaded.measured(looked.study).why
    assert why["exact_resume"].startswith("it diverged in its first look")
    assert "trial.keep" not in str(why)
