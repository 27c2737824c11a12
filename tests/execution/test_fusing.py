"""Trials whose model or loss fails, trained together: each ends as it would alone, and no mate of it notices."""

import pytest
from support.fusible import SPACE, Mlp, MlpWithDropout
from support.loaded import loaded, train
from support.tiny import MemoryRecorder, setting_for, tiny_study
from torch import nn

from tuner import Splits
from tuner.budget.step_budget import StepBudget
from tuner.errors import Infeasible, NotFusible, TrialsFailed
from tuner.execution import fusing
from tuner.execution.backend import Job
from tuner.fused import engine as fused_engine
from tuner.fused import fusion
from tuner.fused.making import make_group
from tuner.rounds.plan import planned_trials
from tuner.storage.store import open_ledger
from tuner.training.alone import Alone
from tuner.training.randomness import epoch_order

MANY = 0.3  # the rates of the trials are 0.42, 0.35, 0.28, 0.21: the first two are beyond


class Rejects(MlpWithDropout):
    def model(self, point):
        if point["dropout"] > MANY:
            raise Infeasible("so much dropout")
        return super().model(point)


class Breaks(MlpWithDropout):
    def model(self, point):
        if point["dropout"] > MANY:
            raise ValueError("so much dropout")
        return super().model(point)


class LossBreaks(MlpWithDropout):
    def loss(self, model, batch, point):
        if point["dropout"] > MANY:
            raise ValueError("so much dropout")
        return super().loss(model, batch, point)


class LossRejects(MlpWithDropout):
    def loss(self, model, batch, point):
        raise Infeasible("whatever it is")


class LateLabel(MlpWithDropout):
    """A label beyond the classes in the fourth batch."""

    def data(self):
        splits = super().data()
        labels = splits.training[1].clone()
        labels[epoch_order(planned_trials(study())[0].data_seed, 0, len(labels))[3 * 32]] = 10
        return Splits(training=(splits.training[0], labels), validation=splits.validation)

    def metrics(self, model, batch):
        return super().metrics(model, (batch[0], batch[1].clamp(max=9)))


def study():
    budget = StepBudget(8, 2)
    return tiny_study(space=SPACE, num_trials=4, batch_size=32, budget=budget, fitted_when=None)


def ends(workload, fuse, folder):
    """State, reason without its place, last step and all measurements of each trial."""
    with open_ledger(f"sqlite:///{folder}.sqlite") as ledger:
        here = loaded(workload, folder, device="cpu", fuse=fuse)
        row = ledger.start_study("tiny", study(), here.fingerprint())
        ledger.plan_trials(row.study_id, planned_trials(study()))
        train(here, ledger, row)
        return [
            (one.state, one.reason.split(" (")[0], one.step, ledger.measured_until(one.trial_id, 99))
            for one in ledger.trials(row.study_id)
        ]


@pytest.fixture
def _always_probing(monkeypatch):
    for module in (fusing, fusion):
        monkeypatch.setattr(module, "FEWEST_STEPS", 0)
    monkeypatch.setattr(fusion, "PROBE_SHARE", 1e9)
    monkeypatch.setattr(fusion, "PAYS", 1e9)


def test_a_look_ahead_leaves_out_trials_whose_model_fails(tmp_path):
    look = fusion.look_at(loaded(Breaks(), tmp_path, device="cpu").setup(study()), planned_trials(study()))
    assert look.num_trials == 2
    assert look.ways["linear"] == "rule"


@pytest.mark.usefixtures("_always_probing")
@pytest.mark.parametrize("fuse", [2, "auto"])
@pytest.mark.parametrize("workload", [Rejects, Breaks])
def test_a_model_that_fails_ends_its_own_trial(workload, fuse, tmp_path):
    alone = ends(workload(), "off", tmp_path / "alone")
    assert "so much dropout" in alone[0][1]
    assert ends(workload(), fuse, tmp_path / "together") == alone


@pytest.mark.usefixtures("_always_probing")
@pytest.mark.parametrize("workload", [LossBreaks, LossRejects])
def test_a_loss_that_fails_is_trained_one_by_one_and_named(workload, tmp_path, caplog):
    alone = ends(workload(), "off", tmp_path / "alone")
    assert ends(workload(), "auto", tmp_path / "auto") == alone
    assert caplog.text.count("these trials are trained one by one") == 1
    with pytest.raises(NotFusible, match=r"while the loss was recorded.*--fuse auto trains such trials one by one"):
        ends(workload(), 2, tmp_path / "two")


@pytest.mark.parametrize(("fuse", "error"), [("off", TrialsFailed), ("auto", TrialsFailed), (2, NotFusible)])
def test_a_batch_that_user_code_cannot_bear_is_named_however_late(fuse, error, tmp_path):
    with pytest.raises(error, match=r"IndexError: Target 10|while it was trained: index 10 is out of bounds"):
        ends(LateLabel(), fuse, tmp_path / "one")


class Leaves(Mlp):
    """Without a module where most have one, and with it where not: two kinds of models in one shape group."""

    def model(self, point):
        rate = point["dropout"] if point["dropout"] < MANY else 0.0
        middle = nn.Dropout(rate) if rate > 0.0 else nn.Identity()
        return nn.Sequential(nn.Linear(64, 32), middle, nn.Linear(32, 10))


def test_models_of_two_kinds_train_in_two_groups(tmp_path, monkeypatch):
    sizes = []
    counted = lambda runs, **rest: sizes.append(len(runs)) or make_group(runs, **rest)  # noqa: E731
    monkeypatch.setattr(fused_engine, "make_group", counted)
    assert ends(Leaves(), 4, tmp_path / "together") == ends(Leaves(), "off", tmp_path / "alone")
    assert sizes == [2, 2]


@pytest.mark.parametrize(
    ("order", "count", "chosen"), [((0, 2, 3, 1), 2, [2, 3]), ((0, 2, 3), 3, [2, 3]), ((1, 2), 2, [1])]
)
def test_a_probe_takes_models_of_one_kind_and_no_more_than_it_needs(order, count, chosen, tmp_path):
    trials = planned_trials(study())
    runs = fusion.runs_of(setting_for(study(), tmp_path, Leaves()), [trials[place] for place in order], count)
    assert [run.trial.number for run in runs] == chosen


class Unlike(Mlp):
    def model(self, point):
        model = super().model(point)
        model.rates = [point["dropout"]]
        return model


@pytest.mark.usefixtures("_always_probing")
def test_trials_of_which_no_two_are_alike_are_trained_one_by_one_and_what_differs_is_said_once(tmp_path, caplog):
    assert ends(Unlike(), "auto", tmp_path / "together") == ends(Unlike(), "off", tmp_path / "alone")
    assert caplog.text.count("one by one: the models of the trials are not alike: rates") == 1


def test_a_number_of_trials_is_refused_before_any_is_trained_where_no_two_are_alike(tmp_path):
    with pytest.raises(NotFusible, match=r"the models of the trials are not alike: rates, .*; --fuse auto trains such"):
        ends(Unlike(), 3, tmp_path)
    with open_ledger(f"sqlite:///{tmp_path}.sqlite") as ledger:
        (row,) = ledger.studies("tiny")
        assert [(one.state.value, one.step) for one in ledger.trials(row.study_id)] == [("waiting", 0)] * 4


class OneAlone(Mlp):
    """The last trial is of a kind of its own."""

    def model(self, point):
        model = super().model(point)
        return nn.Sequential(model, nn.Identity()) if point["dropout"] < 0.25 else model


def test_a_last_trial_without_mates_is_trained_alone(tmp_path):
    assert ends(OneAlone(), 2, tmp_path / "together") == ends(OneAlone(), "off", tmp_path / "alone")


@pytest.mark.parametrize(("gang", "claimed"), [(1, 4), (2, 1)])
def test_groups_are_off_in_a_gang(gang, claimed, tmp_path, monkeypatch):
    monkeypatch.setattr(fusing, "FEWEST_STEPS", 0)
    monkeypatch.setattr(fusing, "largest_group", lambda device: 4)
    with open_ledger(f"sqlite:///{tmp_path}/tuner.sqlite") as ledger:
        here = loaded(MlpWithDropout(), tmp_path, device="cpu", fuse="auto", gang=gang)
        row = ledger.start_study("tiny", study(), here.fingerprint())
        ledger.plan_trials(row.study_id, planned_trials(study()))
        planner = fusing.FusionPlanner(Job(ledger, row, here), Alone(here.setup(study())), MemoryRecorder(), print)
        assert planner.claim_size() == claimed
