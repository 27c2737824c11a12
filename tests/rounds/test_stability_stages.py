"""`tuner stability`: what it trains, that the traces are true and change no bit, and that a planted warmup is found."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from analysis.handmade import study
from support import valley
from support.sessions import StopAfter
from support.shell import run_in
from support.study_files import write_study

import tuner
from tuner import SearchSpace, log_uniform
from tuner.analysis.frames import study_frames
from tuner.budget.step_budget import StepBudget
from tuner.design.study import MOST_TRACED, Study
from tuner.design.study_file import declared_stage, load_campaign
from tuner.errors import Interrupted
from tuner.execution.replay import replayed
from tuner.records.conclusions import StabilityStudies
from tuner.rounds.opening import SessionOptions, opened_session
from tuner.rounds.stability_stages import AskedStability, StabilityPlan, stability_plan, train_rates, train_warmups
from tuner.storage.store import open_ledger

QUICK = ("--above", "3,9", "--steps", "40", "--seeds", "2", "-q")
RATES = "stability-round-1-trial-"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which round 1 was launched; not to be written to."""
    folder = tmp_path_factory.mktemp("launched")
    write_study(folder, trials=3)
    with pytest.MonkeyPatch.context() as patched:
        assert run_in(folder, patched, "launch", "tiny.py", "--round", "1", "-q") == 0
    return folder


@pytest.fixture
def launched(trained, tmp_path):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return tmp_path / "tiny.py"


def ledger_of(folder):
    return open_ledger(str(folder / "runs" / "tuner.sqlite"), create=False)


def traces(folder):
    """Loss and norm of single updates by (study, trial, metric)."""
    with ledger_of(folder) as ledger:
        found = {}
        for row in ledger.studies("tiny"):
            if row.study.kind == "stability":
                curves = study_frames(ledger, "tiny", row.study.name).curves
                for (trial, metric), mine in curves.groupby(["trial", "metric"], observed=True):
                    if "step_" in metric:
                        found[row.study.name, trial, metric] = (mine["step"].tolist(), mine["value"].tolist())
        return found


def test_rates_are_trained_with_each_update_recorded_and_nothing_else_changes(tuner, launched, tmp_path):
    before = tuner("check", "tiny", "-f", "json").out
    found = tuner("stability", launched, *QUICK, "-f", "json")
    assert found.code in (0, 3), found.err
    (finding,) = json.loads(found.out)["findings"]
    assert [row["multiple"] for row in finding["evidence"]] == [1.0, 3.0, 9.0]
    assert {row["seeds"] for row in finding["evidence"]} == {2}
    with ledger_of(tmp_path) as ledger:
        (row,) = [row for row in ledger.studies("tiny") if row.study.kind == "stability"]
        trials = ledger.trials(row.study_id)
        best = ledger.trial(ledger.study("tiny", "round-1").study_id, int(row.study.lineage[0][1].split()[1]))
    rates = [trial.point.number("learning_rate") / best.point.number("learning_rate") for trial in trials]
    assert rates == pytest.approx([1.0, 3.0, 9.0] * 2)
    assert [(trial.seed == best.seed, trial.data_seed == best.data_seed) for trial in trials] == [(True, True)] * 3 + [
        (False, False)
    ] * 3
    assert len({trial.seed for trial in trials}) == 2, "all rates share their seeds"
    for steps, values in traces(tmp_path).values():
        assert steps == list(range(1, 41))
        assert np.isfinite(values).all()
    assert tuner("verify", "tiny").code == 0
    again = tuner("stability", launched, *QUICK, "-f", "json")
    assert again.out == found.out, "the same command again trains nothing"
    after = json.loads(tuner("check", "tiny", "-f", "json").out)["findings"]
    told = [one for one in after if one["question"] == "stability"]
    assert (len(told), told[0]["verdict"]) == (1, finding["verdict"])
    assert [one for one in after if one["question"] != "stability"] == json.loads(before)["findings"]


def test_traces_are_the_losses_and_norms_of_the_updates_and_alone_has_the_bits_of_fused(tuner, launched, tmp_path):
    assert tuner("stability", launched, *QUICK, "--fuse", "off").code in (0, 3)
    alone = traces(tmp_path)
    with ledger_of(tmp_path) as ledger:
        (row,) = [row for row in ledger.studies("tiny") if row.study.kind == "stability"]
        again = replayed(ledger, row, 1, load_campaign(launched)[1].workload)
        assert (again.different, again.values > 80) == (0, True), again.first_difference
        frames = study_frames(ledger, "tiny", row.study.name)
    at_evaluations = frames.curves[frames.curves["metric"] == "batch/loss"]
    for trial, mine in at_evaluations.groupby("trial"):
        _, values = alone[row.study.name, trial, "batch/step_loss"]
        ends = mine["step"].tolist()
        parts = [values[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        assert [sum(part) / len(part) for part in parts] == pytest.approx(mine["value"].tolist())
        norms = frames.curves[(frames.curves["metric"] == "batch/gradient_norm") & (frames.curves["trial"] == trial)]
        traced = dict(zip(*alone[row.study.name, trial, "batch/step_gradient_norm"], strict=True))
        assert [traced[step] for step in norms["step"]] == norms["value"].tolist()
    shutil.rmtree(tmp_path / "runs")
    with pytest.MonkeyPatch.context() as patched:
        assert run_in(tmp_path, patched, "launch", "tiny.py", "--round", "1", "-q") == 0
    assert tuner("stability", launched, *QUICK, "--fuse", "3").code in (0, 3)
    assert traces(tmp_path) == alone


def test_a_traced_trial_has_the_weights_of_one_that_is_not(tuner, launched, tmp_path, monkeypatch):
    """The same study once with the limit that no norm reaches, once without a limit: equal to the bit."""
    assert tuner("stability", launched, *QUICK, "--fuse", "off").code in (0, 3)
    with ledger_of(tmp_path) as ledger:
        (row,) = [row for row in ledger.studies("tiny") if row.study.kind == "stability"]
        before = study_frames(ledger, "tiny", row.study.name).curves
        monkeypatch.setattr(Study, "traced_every", property(lambda study: 0))
        plain = replayed(ledger, row, 2, load_campaign(launched)[1].workload)
    mine = before[before["trial"] == 2]
    assert plain.values == len(mine)
    assert plain.different == int(mine["metric"].isin(["batch/step_loss", "batch/step_gradient_norm"]).sum())


def test_a_dry_run_prices_rates_and_warmups_and_writes_nothing(tuner, launched, tmp_path):
    told = tuner("stability", launched, "--warmups", "2,4", "--dry-run")
    assert told.code == 0, told.err
    assert re.search(r"stability-round-1-trial-\d+-2x-5x-10x-60 +12 +60", told.out)
    assert re.search(r"warmup-2-to-20x +3 +6", told.out)
    assert re.search(r"warmup-4-to-20x +3 +12", told.out)
    assert "the shortest first, until one is stable" in told.err
    assert traces(tmp_path) == {}
    short = tuner("stability", launched, "--dry-run")
    assert re.search(r"warmup-6-to-20x", short.out), "a tenth of 60 steps"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--above", "0.5,2"], r"above takes multiples of the best learning rate, larger than 1.*got \[0.5, 2.0\]"),
        (["--above", "two"], "--above takes numbers with commas between, like 2,5,10, got 'two'"),
        (["--steps", "many"], "--steps takes a number of steps, or a share like 20%, got 'many'"),
        (["--steps", "0"], "steps is a number of steps, like 500, or a share of the budget, like 0.2; got 0"),
        (["--steps", "120%"], "got 1.2"),
        (["--seeds", "0"], "seeds must be at least 1, got 0"),
        (["--warmups", "10,5"], r"warmups takes steps, ascending, each once, like 10,100,1000; got \[10, 5\]"),
        (["--factor", "0.5"], "factor must be at least 1, and 10 or more is usual"),
        (["--round", "2"], "round 2 of 'tiny' was not launched"),
        (["--trial", "77"], "there is no trial 77"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_trained(options, message, tuner, launched, tmp_path):
    wrong = tuner("stability", launched, *options)
    assert wrong.code == 2, wrong.err
    assert re.search(message, wrong.err), wrong.err
    assert traces(tmp_path) == {}


def test_more_seeds_extend_the_study_and_a_share_is_of_the_budget(tuner, launched, tmp_path):
    some = ("--above", "3", "--steps", "50%", "-q")
    assert tuner("stability", launched, *some, "--seeds", "1").code in (0, 3)
    first = traces(tmp_path)
    assert tuner("stability", launched, *some, "--seeds", "2").code in (0, 3)
    then = traces(tmp_path)
    assert {key: then[key] for key in first} == first
    assert (len(first), len(then)) == (4, 8)
    assert {max(steps) for steps, _ in then.values()} == {30}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """The planted instability of seed 0, found; with the storage."""
    storage = str(tmp_path_factory.mktemp("valley") / "valley.sqlite")
    return found_in_valley(0, storage, seeds=2), storage


def found_in_valley(seed, storage, **more):
    campaign = valley.campaign(seed)
    tuner.launch(campaign, 1, storage=storage, progress=False)
    options = {"above": valley.ABOVE, "steps": 100, "warmups": valley.WARMUPS, "yes": True, "progress": False} | more
    return tuner.stability(campaign, storage=storage, **options)


def is_right(found, seed):
    """Whether the lowest unstable rate and the shortest stable warmup are those that were planted."""
    records = found.records.stability()
    multiple = valley.unstable_multiple(records.best_rate)
    warmup = valley.shortest_warmup(10.0 * multiple * records.best_rate, valley.steep_steps(seed))
    return (float(records.unstable["multiple"]), found.warmup_steps) == (multiple, warmup)


def test_a_planted_instability_is_found_with_its_shortest_warmup(planted):
    found, _ = planted
    assert is_right(found, 0)
    assert (found.finding.verdict, found.warmup_steps, found.finding.needs_action) == ("warmup_helps", 500, True)
    assert "A warmup of 500 steps to " in found.finding.summary
    assert "12, 40, 150 are too short" in found.finding.summary
    assert "Write warmup_steps=fixed(500) in the SearchSpace of a new Round" in found.finding.action
    assert "max_train_steps=800" in found.finding.action
    assert "(300 + 500 = 800 steps)" in found.finding.action
    assert any("above 5% the budget may have to grow" in note for note in found.finding.caveats)
    assert found.failures == ()
    assert found.table["part"].tolist() == ["rate"] * 5 + ["warmup"] * 4


def test_warmups_end_with_the_first_that_is_stable_and_have_twice_as_many_steps_at_the_base_rate(planted):
    _, storage = planted
    with open_ledger(storage, create=False) as ledger:
        names = ledger.conclusion("valley", StabilityStudies).warmups
        assert [name.partition("warmup-")[2] for name in names] == [f"{n}-to-40x" for n in valley.WARMUPS]
        for name, warmup in zip(names, valley.WARMUPS, strict=True):
            row = ledger.study("valley", name)
            assert row.study.budget.max_train_steps == 3 * warmup
            schedule = ledger.trials(row.study_id)[0].schedule
            assert (schedule.fraction(0), schedule.fraction(warmup - 1)) == (1 / warmup, 1.0)
            assert set(schedule.fractions()[warmup:]) == {1.0}


def test_it_is_drawn_and_stands_on_the_page(planted, tmp_path):
    _, storage = planted
    figure = tuner.plot("stability", "valley", storage=storage)
    assert len(figure.axes) == 4
    text = tuner.write_report("valley", tmp_path / "page.html", storage=storage).read_text()
    assert 'id="stability-plot"' in text
    assert "are too short" in text
    told = [one for one in tuner.check("valley", storage=storage) if one.question == "stability"]
    assert [one.verdict for one in told] == ["warmup_helps"]


def test_without_yes_the_warmups_are_the_next_action(planted, tmp_path):
    storage = str(tmp_path / "other.sqlite")
    found = found_in_valley(0, storage, yes=False, seeds=1)
    assert (found.finding.verdict, found.warmup_steps) == ("unstable", None)
    assert "tuner stability STUDY_FILE --yes trains the warmups" in found.finding.action
    assert found.finding.strength == "weak"


def test_an_interrupted_study_goes_on_to_the_same_records(tmp_path):
    short = {"seeds": 1, "steps": 60, "above": (4.0,), "warmups": (12, 40)}
    first = found_in_valley(0, str(tmp_path / "first.sqlite"), **short)
    campaign, again = valley.campaign(0), str(tmp_path / "again.sqlite")
    tuner.launch(campaign, 1, storage=again, progress=False)
    asked, interrupted = AskedStability(**{**short, "steps": 60}), 0
    while True:
        with opened_session(declared_stage(campaign), SessionOptions(storage=again)) as session:
            session = replace(session, stop=StopAfter(80 + 30 * interrupted))
            plan = stability_plan(session, asked)
            try:
                other = train_warmups(session, plan, train_rates(session, plan))
                break
            except Interrupted:
                interrupted += 1
    assert interrupted >= 2
    one = first.records.stability()
    assert one.curves.equals(other.curves)
    assert one.trials.equals(other.trials)
    assert one.shortest_warmup is None, "40 steps are too few"


def plan_of(budget, warmup=0, **asked):
    row = type("Row", (), {"study": type("Source", (), {"budget": type("B", (), {"max_train_steps": budget})})})
    record = type("Record", (), {"schedule": type("S", (), {"warmup_steps": warmup})})
    return StabilityPlan(row, record, AskedStability(**asked))


@pytest.mark.parametrize(
    ("budget", "present", "warmups"),
    [
        (10_000, 0, (10, 100, 1000)),
        (20_000, 0, (10, 100, 1000, 2000)),
        (10_000, 100, (1000,)),
        (560, 20, (56,)),
        (60, 0, (6,)),
        (60, 20, ()),
        (15, 0, ()),
    ],
)
def test_warmups_are_powers_of_ten_up_to_a_tenth_of_the_budget(budget, present, warmups):
    assert plan_of(budget, present).warmups == warmups


def test_the_length_is_500_steps_after_the_warmup_or_the_budget():
    assert (plan_of(10_000).steps, plan_of(10_000, 20).steps, plan_of(300, 20).steps) == (500, 520, 300)
    assert (plan_of(10_000, steps=0.2).steps, plan_of(10_000, steps=77).steps) == (2000, 77)
    assert plan_of(10_000, 100, steps=50).steps == 101, "one step at the full rate at least"


def test_a_long_trial_is_traced_at_every_few_updates():
    budget = StepBudget(10 * MOST_TRACED, MOST_TRACED)
    long = replace(study(SearchSpace(learning_rate=log_uniform(1e-3, 1e-1))), kind="stability", budget=budget)
    assert (long.traced_every, replace(long, kind="round").traced_every) == (10, 0)
    assert replace(long, budget=StepBudget(MOST_TRACED, 1)).traced_every == 1


@pytest.mark.slow
def test_a_planted_instability_is_found_with_the_right_warmup_in_18_of_20_seeds(tmp_path):
    torch.set_num_threads(1)
    right = [is_right(found_in_valley(seed, str(tmp_path / f"{seed}.sqlite")), seed) for seed in range(20)]
    assert sum(right) >= 18, right
