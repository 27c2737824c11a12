"""Metrics of a whole split: what `split_metrics` is given, what counts as a value, what is refused before training."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.tiny import CPU, MemoryRecorder, StopAt, Tiny, setting_for, tiny_study, train_alone
from torch import nn

from tuner import Campaign, Round, SearchSpace, Splits, at_least, log_uniform, maximize, minimize
from tuner.errors import DeclarationError, WorkloadError
from tuner.records import State
from tuner.rounds.plan import planned_trials
from tuner.training.batches import Split
from tuner.training.checkpoints import read_weights
from tuner.training.evaluation import evaluate
from tuner.training.finite import check_validation
from tuner.training.first_look import first_look
from tuner.training.preflight import check_workload
from tuner.training.split_metrics import Gathered


def auc(score, positive):
    """By all pairs of a positive and a negative example; None where there is none."""
    above = score[positive][:, None] - score[~positive][None, :]
    return float(((above > 0).double() + 0.5 * (above == 0)).mean()) if above.numel() else None


class Ranked(Tiny):
    """Tiny, selected by its AUC."""

    select_by = maximize("validation/auc")
    fitted_when = at_least("training/auc", 1.0)
    not_averaged = ("score", "positive")

    def metrics(self, model, batch):
        logits = model(batch[0])
        loss = F.cross_entropy(logits, batch[1], reduction="none")
        return {"loss": loss, "score": logits[:, 1] - logits[:, 0], "positive": batch[1] == 1}

    def split_metrics(self, each):
        return {"auc": auc(each["score"], each["positive"])}


def ranked_study(**changes):
    return replace(
        tiny_study(), objective=maximize("validation/auc"), fitted_when=at_least("training/auc", 1.0), **changes
    )


def trained(workload, folder, study=None, stops=()):
    study, recorder = study or ranked_study(), MemoryRecorder()
    trial = planned_trials(study)[0]
    for stop in [*stops, None]:
        changes = {} if stop is None else {"stop": StopAt(stop + 1)}
        update = train_alone(setting_for(study, folder, workload, **changes), recorder, recorder.claim(trial))
    return update, recorder


def curve(recorder, metric):
    return {step: float.fromhex(value) for (step, name), value in recorder.measurements.items() if name == metric}


class Watched(Ranked):
    """Keeps what `split_metrics` was given."""

    not_averaged = ("index", "map", "words", "half", "yes")

    def __init__(self):
        self.seen = []

    def metrics(self, model, batch):
        (x,) = batch
        return {
            "loss": x / 3,
            "index": x.long(),
            "map": torch.stack([x, -x], dim=1)[:, :, None],
            "words": [torch.arange(int(i) % 3) for i in x],
            "half": x.half(),
            "yes": x > 4,
        }

    def split_metrics(self, each):
        self.seen.append(each)
        return {"count": len(each["loss"]), "narrow": np.float32(0.5), "wide": np.int64(3), "nothing": None}


@pytest.mark.parametrize("size", [1, 3, 7, 10])
def test_the_values_of_all_examples_come_once_in_the_order_of_the_split(size):
    x = torch.tensor([3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0, 5.0, 3.0])
    workload, split = Watched(), Split("validation", (x,), CPU)
    found = evaluate(workload, nn.Identity(), split, batch_size=size)
    assert found == {
        "validation/loss": pytest.approx(1.3, rel=1e-6),
        "validation/count": 10.0,
        "validation/narrow": 0.5,
        "validation/wide": 3.0,
    }
    assert {type(value) for value in found.values()} == {float}
    (each,) = workload.seen
    assert torch.equal(each["index"], x.long())
    assert torch.equal(each["loss"], (x / 3).double())
    assert each["map"].shape == (10, 2, 1)
    assert [len(words) for words in each["words"]] == [int(i) % 3 for i in x]
    kinds = {name: values.dtype for name, values in each.items() if isinstance(values, torch.Tensor)}
    assert kinds == {"loss": torch.float64, "index": torch.int64, "map": torch.float64, "half": torch.float64,
                     "yes": torch.bool}  # fmt: skip
    assert np.asarray(each["map"]).sum() == 0.0


def test_the_mean_of_a_metric_has_the_same_bits_with_and_without_split_metrics():
    x = torch.rand(1003, generator=torch.Generator().manual_seed(0))

    class Plain(Tiny):
        def metrics(self, model, batch):
            return {"loss": batch[0] / 3}

    class WithMore(Plain):
        not_averaged = ()

        def split_metrics(self, each):
            each["loss"].zero_()
            return {"zero": float(each["loss"].sum())}

    split = Split("validation", (x,), CPU)
    for size in (1, 7, 100, 1003):
        plain = evaluate(Plain(), nn.Identity(), split, batch_size=size)
        assert evaluate(WithMore(), nn.Identity(), split, batch_size=size) == plain | {"validation/zero": 0.0}


def test_memory_that_metrics_uses_again_is_copied_and_the_data_are_not_handed_out():
    x = torch.arange(6.0, dtype=torch.float64)

    class Reuses(Watched):
        not_averaged = ("index", "own")
        held = torch.zeros(2)

        def metrics(self, model, batch):
            self.held.copy_(batch[0])
            return {"index": self.held, "own": batch[0]}

        def split_metrics(self, each):
            each["own"].mul_(100)
            return {"sum": float(each["index"].sum())}

    assert evaluate(Reuses(), nn.Identity(), Split("validation", (x,), CPU), batch_size=2) == {"validation/sum": 15.0}
    assert x.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


def test_the_checkpoint_that_is_kept_is_the_best_by_auc(tmp_path):
    """The model of the best step has that AUC when it is evaluated by hand; by loss another step would win."""
    update, recorder = trained(Ranked(), tmp_path, ranked_study(keep_best=1))
    values = curve(recorder, "validation/auc")
    (kept,) = [one for one in update.checkpoints if one.kind == "best"]
    assert update.state is State.COMPLETE
    assert (kept.step, kept.value) == maximize("validation/auc").best(values.items())
    assert kept.step != minimize("validation/loss").best(curve(recorder, "validation/loss").items())[0]
    model = Tiny().model(None).eval()
    model.load_state_dict(read_weights(tmp_path, kept))
    x, y = Tiny().data().validation
    with torch.no_grad():
        logits = model(x)
    assert kept.value == pytest.approx(auc((logits[:, 1] - logits[:, 0]).double(), y == 1), abs=1e-12)
    names = {name for _, name in recorder.measurements}
    assert not {name for name in names if name.endswith(("score", "positive"))}
    assert {"training/auc", "validation/auc", "training/loss", "validation/loss"} <= names


def test_a_trial_stopped_anywhere_has_the_same_curve_and_checkpoints(tmp_path):
    whole, recorder = trained(Ranked(), tmp_path / "whole")
    for stop in (3, 5, 9, 10, 23):
        update, again = trained(Ranked(), tmp_path / str(stop), stops=[stop])
        assert again.measurements == recorder.measurements
        assert [(c.step, c.value) for c in update.checkpoints] == [(c.step, c.value) for c in whole.checkpoints]


class Sometimes(Ranked):
    """No value at some evaluations of the validation split. Its splits are told apart by their sizes."""

    def __init__(self, *without):
        self.without, self.count = without, 0

    def split_metrics(self, each):
        found = super().split_metrics(each)
        if len(each["score"]) == 50:
            return found
        self.count += 1
        return {"auc": None} if self.count in self.without else found


def test_where_there_is_no_value_nothing_is_recorded_and_no_checkpoint_is_kept(tmp_path):
    _, recorder = trained(Ranked(), tmp_path / "whole", ranked_study(keep_best=1))
    values = curve(recorder, "validation/auc")
    best = max(values, key=lambda step: (values[step], -step))
    missing = [5, 10, 15, 20, 24].index(best) + 1
    update, recorder = trained(Sometimes(missing), tmp_path / "some", ranked_study(keep_best=1))
    del values[best]
    assert update.state is State.COMPLETE
    assert curve(recorder, "validation/auc") == values
    assert best in curve(recorder, "validation/loss")
    (kept,) = [one for one in update.checkpoints if one.kind == "best"]
    assert (kept.step, kept.value) == maximize("validation/auc").best(values.items())


def test_a_trial_without_one_value_is_infeasible_and_says_so(tmp_path):
    update, recorder = trained(Sometimes(*range(1, 6)), tmp_path)
    assert update.state is State.INFEASIBLE
    assert update.reason == "validation/auc was not finite at any evaluation"
    assert curve(recorder, "validation/auc") == {}
    assert len(curve(recorder, "validation/loss")) == 5


def test_nan_in_training_never_wins(tmp_path):
    class Nan(Sometimes):
        def split_metrics(self, each):
            found = super().split_metrics(each)
            return {name: math.nan if value is None else value for name, value in found.items()}

    update, recorder = trained(Nan(1, 2, 3, 4), tmp_path, ranked_study(keep_best=1))
    assert [(c.kind, c.step) for c in update.checkpoints if c.kind == "best"] == [("best", 24)]
    assert [math.isnan(value) for value in curve(recorder, "validation/auc").values()] == [True] * 4 + [False]


def test_random_numbers_of_split_metrics_are_those_of_the_step(tmp_path):
    class Bootstrapped(Ranked):
        def split_metrics(self, each):
            drawn = torch.randint(len(each["score"]), (40,))
            return super().split_metrics(each) | {"low": float(each["score"][drawn].mean()) + np.random.rand()}

    _, one = trained(Bootstrapped(), tmp_path / "one")
    _, other = trained(Bootstrapped(), tmp_path / "other", stops=[7])
    assert one.measurements == other.measurements
    low = curve(one, "validation/low")
    assert len(set(low.values())) == len(low)


def test_an_error_of_split_metrics_fails_the_trial_by_its_place(tmp_path):
    class Raises(Ranked):
        def split_metrics(self, each):
            raise ZeroDivisionError("by hand")

    update, _ = trained(Raises(), tmp_path)
    assert update.state is State.FAILED
    assert "ZeroDivisionError: by hand" in update.reason
    assert "test_split_metrics.py" in update.reason


def test_code_that_only_split_metrics_runs_belongs_to_the_workload(tmp_path):
    """Which code runs is seen at the first look, before anything is trained."""
    called = []

    class Calls(Ranked):
        def split_metrics(self, each):
            called.append(len(each["score"]))
            return super().split_metrics(each)

    class Seen:
        texts = ()

        def note(self, code, module):
            called.append(code.co_name)

    study = ranked_study()
    first_look(setting_for(study, tmp_path, Calls()), [dict(planned_trials(study)[0].point)], Seen())
    assert called.count(8) == 1
    assert {"split_metrics", "auc"} <= set(called)


def inspected(workload, folder, study=None):
    """What is looked at before anything is trained."""
    study = study or ranked_study()
    setting, trial = setting_for(study, folder, workload), planned_trials(study)[0]
    check_workload(setting, trial)
    return check_validation(setting, trial)


def returning(found, **attributes):
    def split_metrics(self, each):
        return found(each) if callable(found) else found

    return type("Returning", (Ranked,), {"split_metrics": split_metrics, **attributes})()


def metrics_with(**more):
    """Ranked, with other metrics: functions of a batch."""

    def metrics(self, model, batch):
        found = Ranked.metrics(self, model, batch)
        return found | {name: made(batch) for name, made in more.items()}

    return metrics


def test_a_workload_with_metrics_of_the_whole_split_passes(tmp_path):
    assert inspected(Ranked(), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("workload", "words"),
    [
        (
            returning(lambda each: {"auc": float(each["scores"].mean())}),
            r"Returning.split_metrics reads 'scores', which Returning.metrics does not return; did you mean 'score'\? "
            "there are: 'loss', 'score', 'positive'",
        ),
        (returning(lambda each: {"auc": each["score"].mean()}), r"a tensor \(\) for 'auc'; .*float\(...\)"),
        (returning(lambda each: {"auc": each["score"]}), r"a tensor \(\d+,\) for 'auc'; a metric of a split is one"),
        (returning(lambda each: {"auc": np.zeros(3)}), "returns ndarray for 'auc'"),
        (returning({"auc": True}), "returns bool for 'auc'"),
        (returning({"auc": np.bool_(True)}), "returns bool.* for 'auc'"),
        (returning({"auc": "0.5"}), "returns str for 'auc'"),
        (returning({"auc": 1j}), "returns complex for 'auc'"),
        (returning(0.5), "must return a dict of floats, got float"),
        (returning({1: 0.5}), "names a metric 1; a name is a text"),
        (returning({"auc": 0.5, "loss": 1.0}), "returns 'loss', which is a name of Returning.metrics, too"),
        (returning({"auc": 0.5, "score": 1.0}), "returns 'score', which is a name of Returning.metrics, too"),
        (returning({"f1": 0.5}), "'validation/auc' is to be read, but Returning.metrics returns only 'loss', and "
         "Returning.split_metrics 'f1'"),
        (returning({"validation/auc": 0.5}), "recorded for each split, as 'validation/validation/auc': return 'auc'"),
        (returning({"auc": math.nan}), "returns nan for 'auc' over all 30 validation examples of an untrained model; "
         "return None where it has no value"),
        (returning({"auc": 0.5, "more": math.nan}), "returns nan for 'more'"),
        (returning({"auc": None}), "returns None for 'auc' over all 30 validation .*'validation/auc' is to be read; "
         "where a class is missing in Returning.data"),
        (
            returning(lambda each: {"auc": None if len(each["score"]) == 50 else 0.5}),
            "returns None for 'auc' over all 50 training examples .*'training/auc' is to be read",
        ),
        (returning(lambda each: {"auc": 1 / 0}), "Returning.split_metrics failed with ZeroDivisionError"),
        (returning({"auc": 0.5}, not_averaged=("score", "positiv")),
         "not_averaged names 'positiv', which Returning.metrics does not return; did you mean 'positive'"),
        (returning({"auc": 0.5}, not_averaged=("score",), metrics=metrics_with(positive=lambda batch: batch[0])),
         r"'positive' should have the shape \(2,\), got \(2, 6\); .*A metric of the whole split .*split_metrics"),
        (returning({"auc": 0.5}, metrics=metrics_with(loss=lambda batch: batch[1].float().mean())),
         r"'loss' should have the shape \(2,\), got \(\); .*not_averaged"),
        (returning({"auc": 0.5}, metrics=metrics_with(score=lambda batch: batch[0][:1])),
         r"'score' should have the shape \(2, ...\), or be a list of 2 tensors, got \(1, 6\)"),
        (returning({"auc": 0.5}, metrics=metrics_with(score=lambda batch: [batch[0]])),
         "or be a list of 2 tensors, got list of 1"),
        (returning({"auc": 0.5}, metrics=metrics_with(score=lambda batch: ["a"] * len(batch[0]))),
         "or be a list of 2 tensors, got list of 2"),
        (returning({"auc": 0.5}, metrics=metrics_with(score=lambda batch: batch[0][:, : len(batch[0])])),
         r"as \(6,\) of torch.float64 for each example, and as \(2,\) .* in another batch; .*a list of one tensor"),
    ],
)  # fmt: skip
def test_wrong_metrics_are_one_clear_error_before_anything_is_trained(workload, words, tmp_path):
    workload.evaluation_batch_size = 14  # 30 validation examples: 14, 14, 2
    with pytest.raises(WorkloadError, match=words):
        inspected(workload, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nan_names_the_example_that_makes_it(tmp_path):
    class Spoiled(Ranked):
        def data(self):
            splits = super().data()
            splits.validation[0][17, 3] = math.nan
            return splits

        def split_metrics(self, each):
            return {"auc": float(each["score"].mean())}

    with pytest.raises(
        WorkloadError, match=r"\('loss' is not finite for 1 of them, .* example 17, .*which holds nan in"
    ):
        inspected(Spoiled(), tmp_path)


def test_a_class_may_be_missing_among_the_few_examples_that_are_tried_first(tmp_path):
    """Sorted labels: no batch of the validation split has both classes; the whole split does."""

    class Sorted(Ranked):
        evaluation_batch_size = 8

        def data(self):
            splits = super().data()
            return Splits(
                *[(x[y.argsort(stable=True)], y.sort().values) for x, y in (splits.training, splits.validation)]
            )

    class Strict(Sorted):
        def split_metrics(self, each):
            if each["positive"].all() or not each["positive"].any():
                raise ValueError("only one class")
            return super().split_metrics(each)

    for workload in (Sorted(), Strict()):
        assert inspected(workload, tmp_path)
        assert trained(workload, tmp_path / type(workload).__name__)[0].state is State.COMPLETE


def test_an_infinite_value_before_training_is_said_and_not_refused(tmp_path, caplog):
    assert inspected(returning({"auc": math.inf}), tmp_path)
    assert "'validation/auc' is inf over all 30 validation examples of an untrained model" in caplog.text


def test_much_memory_is_said_before_training(tmp_path, caplog, monkeypatch):
    assert inspected(Ranked(), tmp_path)
    assert "keeps" not in caplog.text
    monkeypatch.setattr("tuner.training.preflight.MUCH_KEPT", 100)
    inspected(Ranked(), tmp_path)
    assert "each evaluation keeps 0.0 GB for Ranked.split_metrics" in caplog.text


def declared(**attributes):
    workload = type("Declared", (Ranked,), attributes)()
    return Campaign(
        workload, [Round("a", trials=1, max_train_steps=9, space=SearchSpace(learning_rate=log_uniform(1e-3, 1.0)))]
    )


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        (
            {"not_averaged": "score"},
            r"Declared.not_averaged is a tuple of names of metrics, like \('score',\), got 'score'",
        ),
        ({"not_averaged": (1,)}, r"is a tuple of names of metrics, .* got \(1,\)"),
        ({"not_averaged": ("score", "auc")}, "Declared.select_by reads 'validation/auc', but not_averaged names 'auc'"),
        ({"not_averaged": ("x",), "fitted_when": at_least("training/x", 1.0)}, "fitted_when reads 'training/x'"),
        ({"split_metrics_device": "cuda"}, "'cpu', or 'same' .*, got 'cuda'"),
    ],
)
def test_a_wrong_declaration_is_refused(attributes, words):
    assert declared().workload.not_averaged == ("score", "positive")
    with pytest.raises(DeclarationError, match=words):
        declared(**attributes)


def test_values_that_nothing_would_read_are_refused():
    class Unread(Tiny):
        not_averaged = ("loss",)
        select_by = minimize("validation/error_rate")

    with pytest.raises(
        DeclarationError, match="not_averaged names 'loss', which nothing would read: declare split_metrics"
    ):
        Campaign(Unread(), [Round("a", trials=1, space=SearchSpace(learning_rate=log_uniform(1e-3, 1.0)))])


def test_more_examples_than_were_expected_find_room():
    """Where `num_examples` counts the nodes of a graph, a split holds more of them than graphs."""
    found = Gathered("Graphs", CPU, size=2)
    for start in range(0, 30, 10):
        found.add("nodes", torch.arange(start, start + 10))
    assert found.whole(30)["nodes"].tolist() == list(range(30))
    with pytest.raises(WorkloadError, match="returned 'nodes' for 30 of 31 examples; return the same names for each"):
        found.whole(31)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 4)),
        (torch.zeros(2), torch.zeros(2, dtype=torch.int64)),
        ([torch.zeros(2), torch.zeros(2)], torch.zeros(2)),
        (torch.zeros(2), [torch.zeros(2), torch.zeros(2)]),
    ],
)
def test_values_of_one_name_have_one_form(one, other):
    found = Gathered("Mixed", CPU, size=4)
    found.add("x", one)
    found.add("x", one)
    with pytest.raises(WorkloadError, match=r"Mixed.metrics returns 'x' as .* in another batch; where examples differ"):
        found.add("x", other)
