"""Metrics of the whole split in a group: the bits of each trial alone, or each is evaluated for itself."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.fusible import SPACE, Mlp, Residual, SdpaTransformer, runs_of
from support.fusing import TrialsRecorder, meaning, trained_alone, trained_together
from support.tiny import StopAt, setting_for, tiny_study

from tuner import maximize
from tuner.fused import evaluation
from tuner.fused.evaluation import GroupEvaluation
from tuner.fused.making import exact_group
from tuner.records import State
from tuner.rounds.plan import planned_trials
from tuner.training.split_metrics import Gathered

STEPS = 4


def auc(score, positive):
    above = score[positive][:, None] - score[~positive][None, :]
    return float(((above > 0).double() + 0.5 * (above == 0)).mean()) if above.numel() else None


class Scores:
    """The AUC of one class, from all logits; what else is returned shows other types, and random numbers."""

    select_by = maximize("validation/auc")
    not_averaged: tuple[str, ...] = ("logits", "positive", "halves", "label")
    evaluation_batch_size = 50  # short batches at the end

    def metrics(self, model, batch):
        logits = model(batch[0])
        return {
            "loss": F.cross_entropy(logits, batch[1], reduction="none"),
            "logits": logits,
            "positive": batch[1] == 3,
            "halves": logits[:, 0].half(),
            "label": batch[1],
        }

    def split_metrics(self, each):
        drawn = np.random.randint(len(each["label"]))
        return {
            "auc": auc(each["logits"][:, 3], each["positive"]),
            "spread": float(each["logits"].mean(0).std()),
            "half": float(each["halves"].sum()),
            "drawn": float(each["logits"][drawn, 1]),
            "right": float((each["logits"].argmax(1) == each["label"]).double().mean()),
        }


def scored(kind):
    return type(f"Scored{kind.__name__}", (Scores, kind), {})


def group_of(workload, trials=3):
    group = exact_group(runs_of(workload, trials, objective=workload.select_by, fitted_when=None))
    group.advance(STEPS)
    return group


@pytest.mark.parametrize("kind", [Mlp, Residual, SdpaTransformer])
def test_a_group_measures_what_each_trial_alone_measures(kind):
    group = group_of(scored(kind)())
    together = GroupEvaluation(group)
    first, second = together.of([0, 1, 2]), together.of([0, 1, 2])
    assert together.refused in ("", "not faster than each trial alone")
    assert set(first) == {0, 1, 2}
    for trial, run in enumerate(group.runs):
        alone = run.evaluate()
        assert list(first[trial].items()) == list(second[trial].items()) == list(alone.items())
        assert {"validation/auc", "training/spread", "validation/drawn"} <= set(alone)


def test_a_few_trials_at_a_time_measure_the_same(monkeypatch):
    monkeypatch.setattr(evaluation, "CACHED_BYTES", 1)
    group = group_of(scored(Mlp)(), 3)
    together = GroupEvaluation(group)
    assert together.of([0, 2]) == {trial: group.runs[trial].evaluate() for trial in (0, 2)}
    assert (together._at_once, together.refused) == (1, "")


def test_values_of_other_bits_are_noticed_though_every_metric_is_the_same(monkeypatch):
    """An AUC stays the same where all scores are one bit larger; the loss does not show it either."""

    class OnlyRanks(Scores, Mlp):
        not_averaged = ("score", "positive")

        def metrics(self, model, batch):
            return {"score": model(batch[0])[:, 3], "positive": batch[1] == 3}

        def split_metrics(self, each):
            return {"auc": auc(each["score"], each["positive"])}

    group = group_of(OnlyRanks())
    assert set(GroupEvaluation(group).of([0, 1, 2])) == {0, 1, 2}
    of_trials = Gathered.of_trials

    def a_little_larger(self, total):
        found = of_trials(self, total)
        return {
            name: values * (1.0 + 1e-12) if values.is_floating_point() else values for name, values in found.items()
        }

    together = GroupEvaluation(group)
    alone = {trial: run.evaluate() for trial, run in enumerate(group.runs)}
    of_split = GroupEvaluation._of_split

    def changed(self, split):
        with monkeypatch.context() as patched:
            patched.setattr(Gathered, "of_trials", a_little_larger)
            return of_split(self, split)

    monkeypatch.setattr(GroupEvaluation, "_of_split", changed)
    assert together.of([0, 1, 2]) == alone
    assert together.refused == "other bits than those of each trial alone"


class Lists(Mlp):
    select_by = maximize("validation/auc")
    not_averaged = ("logits",)

    def metrics(self, model, batch):
        return {"logits": list(model(batch[0]))}

    def split_metrics(self, each):
        return {"auc": float(torch.stack(each["logits"]).mean())}


def test_lists_are_evaluated_one_by_one():
    together = GroupEvaluation(group_of(Lists()))
    assert together.of([0, 1, 2]) == {}
    assert "'logits' is a list of one tensor for each example" in together.refused


def test_values_too_many_for_all_trials_at_once_are_evaluated_one_by_one(monkeypatch):
    monkeypatch.setattr(evaluation, "MOST_KEPT", 1000)
    together = GroupEvaluation(group_of(scored(Mlp)()))
    assert together.of([0, 1, 2]) == {}
    assert "too many for all trials at once" in together.refused


class Raises(Scores, Mlp):
    """Raises for trials whose scores are large on average: for some, and not for all."""

    limit = 0.0

    def split_metrics(self, each):
        if float(each["logits"].mean()) > self.limit:
            raise ValueError("too large")
        return super().split_metrics(each)


def test_the_other_trials_are_evaluated_together_where_one_raises_an_error():
    group = group_of(Raises(), 4)
    together = GroupEvaluation(group)
    found = together.of([0, 1, 2, 3])
    assert together.refused == ""
    assert 0 < len(found) < 4
    for trial, run in enumerate(group.runs):
        if trial in found:
            assert found[trial] == run.evaluate()
        else:
            with pytest.raises(ValueError, match="too large"):
                run.evaluate()


def test_the_error_of_one_trial_is_its_own(tmp_path):
    workload = Raises()
    study = replace(
        tiny_study(space=SPACE, num_trials=4, batch_size=32), objective=workload.select_by, fitted_when=None
    )
    trials = planned_trials(study)
    alone = trained_alone(setting_for(study, tmp_path / "alone", workload), trials)
    together = trained_together(setting_for(study, tmp_path / "together", workload), trials)
    states = [alone.state(trial) for trial in trials]
    assert set(states) == {State.COMPLETE, State.FAILED}
    for trial in trials:
        one, other = (found.of(trial)[-1] for found in (alone, together))
        assert (one.state, one.step) == (other.state, other.step)
        if one.state is State.COMPLETE:
            assert meaning(together, tmp_path / "together", trial) == meaning(alone, tmp_path / "alone", trial)
        else:
            assert "too large" in other.reason


def test_trials_alone_together_and_resumed_have_the_same_curves_and_checkpoints(tmp_path):
    workload = scored(Mlp)()
    study = replace(
        tiny_study(space=SPACE, num_trials=3, batch_size=32), objective=workload.select_by, fitted_when=None
    )
    trials = planned_trials(study)
    alone = trained_alone(setting_for(study, tmp_path / "alone", workload), trials)
    together = trained_together(setting_for(study, tmp_path / "together", workload), trials)
    recorder = TrialsRecorder()
    for stop in (StopAt(8), lambda: False):
        trained_together(setting_for(study, tmp_path / "resumed", workload, stop=stop), trials, recorder)
    for trial in trials:
        found = meaning(alone, tmp_path / "alone", trial)
        assert found == meaning(together, tmp_path / "together", trial)
        assert found == meaning(recorder, tmp_path / "resumed", trial)
        assert found[0][0] is State.COMPLETE
        assert any(name == "validation/auc" for _, name in found[1])
