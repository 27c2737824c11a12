"""Validation inputs of a stage that earlier stages trained on: counted, said before training, and a finding (C5)."""

from dataclasses import replace

import pytest
import torch
from support.planted import SEARCH, Line, planted
from torch import nn

import tuner
from tuner import Campaign, Splits, best_of
from tuner.analysis.questions.leaks import leak_findings
from tuner.records.conclusions import StageLeaks, TrainingInputs
from tuner.storage.store import open_ledger

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(3))
SHORT = replace(SEARCH, trials=2, max_train_steps=4)


class Part(Line):
    """Reconstructs or predicts; trained on some rows of X, validated on others."""

    def __init__(self, training, validation):
        self.training, self.validation = training, validation

    def data(self):
        y = X.sum(1, keepdim=True)
        parts = (slice(*self.training), slice(*self.validation))
        return Splits(*((X[part], y[part]) for part in parts))

    def model(self, point):
        return nn.Linear(4, 1, bias=False)


def stage(name, training, validation, source=None, **more):
    start = None if source is None else best_of(source, **more)
    return Campaign(Part(training, validation), name=name, rounds=[SHORT], start_from=start, evaluations=2)


def run(campaign, folder, storage="runs.sqlite"):
    tuner.run(campaign, yes=True, storage=str(folder / storage), progress=False)


def told(folder, name, storage="runs.sqlite"):
    with open_ledger(str(folder / storage), create=False) as ledger:
        known = ledger.conclusion(name, StageLeaks)
        findings = [(one.subject, one.verdict) for one in leak_findings(ledger, name)]
    return [(one.campaign, one.found, one.compared) for one in known.stages], findings


def test_the_whole_chain_is_looked_through_and_said_before_training(tmp_path, caplog):
    first = stage("first", (0, 30), (30, 60))
    second = stage("second", (30, 40), (45, 60), first)
    third = stage("third", (40, 50), (25, 35), second)
    run(first, tmp_path)
    run(second, tmp_path)
    assert told(tmp_path, "second") == ([("first", 0, 15)], [("first", "none")])
    assert "occur among" not in caplog.text
    run(third, tmp_path)
    assert told(tmp_path, "third") == (
        [("second", 5, 10), ("first", 5, 10)],
        [("second", "leaked"), ("first", "leaked")],
    )
    words = "third: 5 of 10 validation inputs (50%) occur among the training inputs of first: the comparison with"
    assert words in caplog.text
    record = [line.getMessage() for line in caplog.records]
    assert [line for line in record if line.startswith("third: 5")], record
    checked = [one for one in tuner.load("third", str(tmp_path / "runs.sqlite")).check() if one.question == "leaks"]
    assert [(one.subject, one.needs_action) for one in checked] == [("second", True), ("first", True)]
    assert checked[0].evidence[["found", "compared", "examples"]].to_numpy().tolist() == [[5, 10, 10]]


@pytest.mark.slow
def test_stages_of_other_storages_bring_the_inputs_of_those_before_them(tmp_path):
    """The middle stage was trained from another storage, and the last one knows both."""
    first, one, two = stage("first", (0, 30), (30, 60)), str(tmp_path / "one.sqlite"), str(tmp_path / "two.sqlite")
    run(first, tmp_path, "one.sqlite")
    run(stage("second", (30, 40), (45, 60), "first", storage=one), tmp_path, "two.sqlite")
    run(stage("third", (40, 50), (25, 35), "second", storage=two), tmp_path, "three.sqlite")
    assert told(tmp_path, "third", "three.sqlite")[0] == [("second", 5, 10), ("first", 5, 10)]


def test_what_cannot_be_known_is_said(tmp_path, caplog):
    campaign = planted(tmp_path, SHORT)
    run(campaign, tmp_path)
    found, findings = told(tmp_path, "line")
    assert [verdict for _, verdict in findings] == ["undecided"]
    assert "is not known: a file of weights does not tell what it was trained on" in caplog.text
    with open_ledger(str(tmp_path / "runs.sqlite"), create=False) as ledger:
        assert [one.campaign for one in ledger.conclusion("line", TrainingInputs).sets] == ["line"]
        assert [one.examples for one in ledger.conclusion("line", TrainingInputs).sets] == [16]
    assert found == [(str(tmp_path / "good.safetensors"), 0, 0)]
