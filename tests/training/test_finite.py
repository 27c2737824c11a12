"""Values in the data that are not finite: refused where a metric proves it, said where a loss does, else left alone."""

import math
from dataclasses import replace

import pytest
import torch
from support.fusing import meaning, trained_alone, trained_together
from support.tiny import Tiny, setting_for, tiny_study
from torch import nn

from tuner import Splits
from tuner.errors import WorkloadError
from tuner.records import State
from tuner.rounds.plan import planned_trials
from tuner.training.finite import check_validation, warn_of_training
from tuner.training.spoiled import spoiled_examples


class Regression(Tiny):
    """60 training and 40 validation examples; `spoil` changes the inputs and targets in place before they are split."""

    fitted_when = None
    batch_size = 8

    def __init__(self, spoil=lambda x, y: None, masked=False):
        self.spoil = spoil
        self.masked = masked

    def data(self):
        x = torch.randn(100, 6, generator=torch.Generator().manual_seed(0))
        y = x.sum(1)
        self.spoil(x, y)
        return Splits(training=(x[:60], y[:60]), validation=(x[60:], y[60:]))

    def model(self, point):
        return nn.Linear(6, 1)

    def errors(self, model, batch):
        x, y = batch
        wrong = (model(x)[:, 0] - (y.nan_to_num(0.0) if self.masked else y)) ** 2
        return torch.where(y.isnan(), 0.0, wrong) if self.masked else wrong

    def loss(self, model, batch, point):
        return self.errors(model, batch).mean()

    def metrics(self, model, batch):
        return {"loss": self.errors(model, batch)}

    def augment(self, batch, point, generator):
        return batch


class Rows(torch.utils.data.Dataset):
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return {"features": self.x[index], "target": self.y[index]}


class OfDataset(Regression):
    def data(self):
        splits = super().data()
        return Splits(training=Rows(*splits.training), validation=Rows(*splits.validation))

    def errors(self, model, batch):
        return super().errors(model, (batch["features"], batch["target"]))


def label(place, value=math.nan):
    def spoil(x, y):
        y[place] = value

    return spoil


def pixel(place):
    def spoil(x, y):
        x[place, 2] = math.nan

    return spoil


def study_of(**changes):
    return replace(tiny_study(), fitted_when=None, **changes)


@pytest.mark.parametrize(
    ("workload", "words"),
    [
        (Regression(label(75)), "1 of 40 validation .* example 15 .*, which holds nan in tensor 1; .*mend these"),
        (Regression(label(slice(70, 73), math.inf)), "3 of 40 .* example 10 .*, which holds inf in tensor 1"),
        (Regression(pixel(99)), "1 of 40 .* example 39 .*, which holds nan in tensor 0"),
        (OfDataset(label(75)), "1 of 40 .* example 15 .*, which holds nan in tensor 'target'"),
    ],
)
def test_a_validation_example_without_a_value_is_refused_by_its_index(workload, words, tmp_path):
    study = study_of()
    with pytest.raises(WorkloadError, match=words):
        check_validation(setting_for(study, tmp_path, workload), planned_trials(study)[0])


def test_labels_that_are_masked_are_no_fault(tmp_path, caplog):
    study, workload = study_of(), Regression(label(slice(None, None, 7)), masked=True)
    setting = setting_for(study, tmp_path, workload)
    assert check_validation(setting, planned_trials(study)[0])
    warn_of_training(setting, planned_trials(study)[0])
    assert not caplog.records
    assert trained_alone(setting, planned_trials(study)[:1]).state(planned_trials(study)[0]) is State.COMPLETE


class Overflows(Regression):
    """Infinite for an untrained model, of finite data: training may mend it."""

    def metrics(self, model, batch):
        errors = self.errors(model, batch)
        return {"loss": torch.where(errors > errors.median(), math.inf, errors)}


def test_a_metric_that_overflows_before_training_is_said_and_not_refused(tmp_path, caplog):
    study = study_of()
    assert check_validation(setting_for(study, tmp_path, Overflows()), planned_trials(study)[0])
    assert "'validation/loss' is not finite for 20 of 40 validation examples" in caplog.text


def test_a_look_that_takes_too_long_is_priced_and_left_to_the_launch(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("tuner.training.finite.SLOW_LOOK", -1.0)
    study, workload = study_of(), Regression(label(99))
    setting = setting_for(study, tmp_path, workload)
    assert not check_validation(setting, planned_trials(study)[0], most_seconds=-1.0)
    assert "a launch looks once at all 40 validation examples, about 0 s here" in caplog.text


@pytest.mark.parametrize(
    ("workload", "words"),
    [
        (
            Regression(label(33)),
            "with training example 33 (counted from 0) is nan: it holds nan in tensor 1; 1 of",
        ),
        (
            Regression(label(slice(50, 52), -math.inf)),
            "example 50 (counted from 0) is inf: it holds inf in tensor 1; 2 of",
        ),
        (OfDataset(pixel(1)), "example 1 (counted from 0) is nan: it holds nan in tensor 'features'; 1 of 60"),
    ],
)
def test_a_training_example_that_spoils_the_loss_is_said(workload, words, tmp_path, caplog):
    study = study_of()
    warn_of_training(setting_for(study, tmp_path, workload), planned_trials(study)[0])
    assert words in caplog.text


@pytest.mark.parametrize("kind", [torch.float16, torch.float64, torch.complex64, torch.int64])
def test_large_finite_values_of_any_type_are_no_spoiled_examples(kind, tmp_path):
    class Typed(Regression):
        def data(self):
            x = torch.full((60, 6), 60_000).to(kind)
            return Splits(training=(x, x), validation=(x, x))

    assert spoiled_examples(setting_for(study_of(), tmp_path, Typed()).data.training) is None


@pytest.mark.parametrize("workload", [Regression(label(33)), OfDataset(label(33))])
def test_the_reason_of_a_divergence_names_the_example_alone_and_together(workload, tmp_path):
    """All trials share one order of the examples, so all meet example 33 in one update, whatever their rate."""
    study = study_of()
    trials = planned_trials(study)
    alone = trained_alone(setting_for(study, tmp_path / "alone", workload), trials)
    together = trained_together(setting_for(study, tmp_path / "together", workload), trials)
    reasons = {alone.of(trial)[-1].reason for trial in trials}
    assert len(reasons) == 1
    assert "the loss became nan; its batch holds training example 33, which has nan in tensor" in reasons.pop()
    for trial in trials:
        assert alone.state(trial) is State.INFEASIBLE
        assert meaning(together, tmp_path / "together", trial) == meaning(alone, tmp_path / "alone", trial)


class NeverFinite(Regression):
    def metrics(self, model, batch):
        return {"loss": self.errors(model, batch) * math.nan}


def test_a_trial_whose_metric_was_never_finite_is_infeasible_alone_and_together(tmp_path):
    study = study_of()
    trials = planned_trials(study)
    for train in (trained_alone, trained_together):
        recorder = train(setting_for(study, tmp_path / train.__name__, NeverFinite()), trials)
        for trial in trials:
            last = recorder.of(trial)[-1]
            assert (last.state, last.step) == (State.INFEASIBLE, 24)
            assert last.reason == "validation/loss was not finite at any evaluation"


class FiniteOnce(Regression):
    """Finite at the first evaluation only: enough for a checkpoint."""

    def model(self, point):
        self.first = None
        return super().model(point)

    def metrics(self, model, batch):
        self.first = model.weight.detach().clone() if self.first is None else self.first
        return {"loss": self.errors(model, batch) * (1.0 if torch.equal(model.weight, self.first) else math.nan)}


def test_one_finite_value_is_enough_for_a_result(tmp_path):
    study = study_of()
    trial = planned_trials(study)[0]
    recorder = trained_alone(setting_for(study, tmp_path, FiniteOnce()), [trial])
    values = [m.value for update in recorder.of(trial) for m in update.measurements if m.metric == "validation/loss"]
    assert [math.isfinite(value) for value in values] == [True, False, False, False, False]
    assert recorder.state(trial) is State.COMPLETE
