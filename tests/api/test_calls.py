"""Calling tuner from Python: what a campaign that is passed as an object needs, and what a call leaves behind."""

import signal
from dataclasses import replace
from typing import Any

import pytest
import torch
from api.conftest import declared

import tuner
from tuner.api.showing import Display, StopFlag
from tuner.errors import DeclarationError, InputError, Interrupted, StorageError, StudyChanged
from tuner.storage.store import open_ledger


def test_a_run_returns_its_findings_its_best_configuration_and_its_page(campaign, ran):
    folder, _, result = ran
    assert result.complete
    assert result.rounds == ("round-1",)
    assert [finding.question for finding in result.findings][:2] == ["sweep", "regime"]
    assert result.best is not None
    assert result.best.value == result.records.best().value
    assert (folder / result.report).read_text().startswith("<!doctype html>")
    assert repr(result).splitlines()[0] == f"tiny: round-1; report: {result.report}"


def test_the_same_call_again_repeats_nothing(campaign, ran):
    def launches():
        with open_ledger(ran[2].records.storage, create=False) as ledger:
            return sum(len(ledger.launches(row.study_id)) for row in ledger.studies("tiny"))

    before = launches()
    assert before > 0
    again = tuner.run(campaign, yes=True, progress=False, fuse="off")
    assert repr(again.best) == repr(ran[2].best)
    assert launches() == before


def test_a_question_is_returned_and_not_answered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rates = replace(declared().sweep, learning_rate=(0.001, 0.01, 0.1))  # the fastest is the highest
    result = tuner.run(declared("asks", sweep=rates), progress=False, fuse="off")
    assert result.decision is not None
    assert "extend the grid" in result.decision.proposal
    assert (result.complete, result.rounds, result.best) == (False, (), None)
    assert "question: " in repr(result)


def test_a_sweep_whose_grid_ends_too_early_is_extended(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    campaign = declared("extends")
    with pytest.raises(DeclarationError, match="no invalid sweep to extend"):
        tuner.sweep(campaign, extend=True, progress=False, fuse="off")
    first = tuner.sweep(campaign, learning_rates=[0.1, 0.001, 0.01], progress=False, fuse="off")
    assert first.fits["learning_rate"].tolist() == [0.001, 0.01, 0.1]
    assert (first.steps, first.finding.verdict) == (None, "invalid")
    longer = tuner.sweep(campaign, extend=True, progress=False, fuse="off")
    assert set(longer.fits["learning_rate"]) > {0.001, 0.01, 0.1}
    again = tuner.sweep(campaign, extend=True, progress=False, fuse="off")
    assert again.fits.equals(longer.fits), "the extension has ended, and is not extended again"


def test_a_campaign_without_a_name_is_refused(tmp_path):
    for call in (tuner.run, tuner.plan, tuner.load):
        with pytest.raises(InputError, match="needs a name: Campaign"):
            call(declared(name=None), storage=str(tmp_path / "x.sqlite"))


def test_workers_need_a_study_file(tmp_path):
    with pytest.raises(InputError, match=r"each worker process loads the study file.*%%writefile tiny\.py"):
        tuner.run(declared(), workers=2, storage=str(tmp_path / "x.sqlite"))
    with pytest.raises(InputError, match="workers is 'auto' or a number"):
        tuner.run(declared(), workers=0, storage=str(tmp_path / "x.sqlite"))
    assert list(tmp_path.iterdir()) == []


def test_what_is_read_needs_records(tmp_path):
    with pytest.raises(StorageError):
        tuner.check("nothing", storage=str(tmp_path / "x.sqlite"))
    assert list(tmp_path.iterdir()) == []


def test_a_round_and_a_study_at_once_are_refused(campaign):
    records = tuner.load(campaign)
    assert repr(records.frames(study="round-1")) == repr(records.frames(round=1)) == "<round-1: 60 steps; 4 complete>"
    for read in (records.frames, records.trials, records.best, records.best_steps):
        with pytest.raises(InputError, match="give one of them"):
            read(1, study="round-1")


def test_another_class_under_the_same_name_is_noticed(campaign):
    """As in a notebook whose cell was edited and run again."""

    known: Any = type(campaign.workload)

    class Tiny(known):
        batch_size = 4

    with pytest.raises(StudyChanged):
        tuner.launch(replace(campaign, workload=Tiny()), progress=False)


def test_the_settings_of_torch_are_as_before(campaign):
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        tuner.launch(campaign, progress=False)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


def test_an_interrupt_saves_the_trials_in_training_and_the_next_call_goes_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen = []

    def interrupt_at_30(self, claim, step):
        seen.append(step)
        if len(seen) == 1:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("tuner.api.showing.Silent.trial_stepped", interrupt_at_30)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted):
        tuner.launch(declared("stops"), progress=False, fuse="off")
    assert signal.getsignal(signal.SIGINT) is before
    stopped = tuner.load("stops").trials(round=1)
    assert (stopped["state"] == "complete").sum() < 4
    assert tuner.launch(declared("stops"), progress=False, fuse="off").states == {"complete": 4}


def test_progress_is_lines_of_text_where_nobody_watches_and_it_was_asked_for(campaign, capsys):
    Display(True, StopFlag()).tell("round 1: a \x1b[31mtest")
    assert capsys.readouterr().err == "round 1: a \\x1b[31mtest\n"
    Display(None, StopFlag()).tell("nobody reads this")
    Display(False, StopFlag()).tell("nor this")
    assert capsys.readouterr().err == ""
