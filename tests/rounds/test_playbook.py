"""The whole playbook on a small study: both regimes, its questions, and that it goes on."""

import json
import re

import pandas as pd
import pytest
from support.study_files import write_study

from tuner.budget.families import constant_then_decay
from tuner.design.origin import Origin, promoted_from
from tuner.storage.store import open_ledger

NO_BUDGET = ("max_train_steps=60, ", "")
SWEEP = "sweep=Sweep(learning_rate=log_grid(1e-3, 1.0), start_steps=100, max_steps=800, seeds=2),"
COMPUTE_BOUND = [NO_BUDGET, (SWEEP, "")]


def studies(folder, name="tiny"):
    with open_ledger(str(folder / "runs" / "tuner.sqlite"), create=False) as ledger:
        return {row.study.name: (row.study, ledger.trials(row.study_id)) for row in ledger.studies(name)}


def test_not_compute_bound_the_sweep_gives_the_budget_and_the_best_points_are_trained_again(tuner, tmp_path):
    study = write_study(tmp_path, trials=8, replace=[NO_BUDGET])
    run = tuner("run", study, "--yes")
    assert run.code == 0, run.err
    assert "not_compute_bound" in run.err
    known = studies(tmp_path)
    steps = int(re.search(r"the estimate is (\d+)", run.err).group(1))
    first, final = known["round-1"], known["round-2"]
    assert first[0].budget.max_train_steps >= 2 * steps
    assert first[0].budget.max_train_steps <= 2.2 * steps + 10, "two leading digits"
    parents = {record.number: record for record in first[1]}
    origins = [promoted_from(record.origin) for record in final[1]]
    best, rival = (origin.trial for origin in origins[:2])
    assert origins[:2] == [Origin("round-1", best, "same"), Origin("round-1", rival, "same")]
    assert origins[2:] == [Origin("round-1", best, "fresh"), Origin("round-1", rival, "fresh")]
    for record, origin in zip(final[1], origins, strict=True):
        parent = parents[origin.trial]
        assert dict(record.point) == dict(parent.point)
        both = {record.seed, record.data_seed} & {parent.seed, parent.data_seed}
        assert both == ({parent.seed, parent.data_seed} if origin.seeds == "same" else set())
    _the_fresh_seed_comes_first(tuner, run, tmp_path)


def _the_fresh_seed_comes_first(tuner, run, folder):
    """The value of the better configuration's fresh seed: at the end of a run, in `best`, on the page, in JSON."""
    trials = json.loads(tuner("trials", "tiny", "--round", 2, "-f", "json").out)
    fresh = {promoted_from(row["origin"]).trial: row for row in trials if "fresh" in row["origin"]}
    best = min(fresh.values(), key=lambda row: row["best_value"])
    told = json.loads(tuner("best", "tiny", "-f", "json").out)
    assert (told["value"], told["value_kind"]) == (best["best_value"], "median of fresh seeds")
    seed = {"study": "round-2", "trial": best["trial"], "value": best["best_value"], "stopped_early": False}
    assert told["fresh"] == [seed]
    parent = promoted_from(best["origin"]).trial
    mine = [row for row in trials if promoted_from(row["origin"]).trial == parent]
    assert told["selected_value"] == told["best_value"] == min(row["best_value"] for row in mine)
    words = f"{told['value']:.4g}, one fresh seed"
    assert words in run.out
    assert words in tuner("best", "tiny").out
    page = (folder / "runs" / "tiny.html").read_text()
    assert f'<span class="value">{told["value"]:.4g}</span>' in page
    exported = tuner("best", "tiny", "--export", "model.safetensors")
    assert f"of trial {told['trial']} of round-2 at step {told['best_step']}, the selected run" in exported.err


def test_the_same_command_again_trains_nothing(tuner, tmp_path):
    study = write_study(tmp_path, trials=5, replace=[NO_BUDGET])
    tuner("run", study, "--yes")
    before = studies(tmp_path)
    again = tuner("run", study, "--yes")
    assert again.code == 0
    assert "complete, best" not in again.err
    assert studies(tmp_path) == before


def test_compute_bound_rounds_grow_and_schedules_keep_their_decay(tuner, tmp_path):
    study = write_study(tmp_path, trials=6, more="production_steps=400, warmup_steps=5,", replace=COMPUTE_BOUND)
    run = tuner("run", study, "--yes")
    assert run.code == 0, run.err
    known = studies(tmp_path)
    assert {name: one[0].budget.max_train_steps for name, one in known.items()} == {"round-1": 40, "round-2": 400}
    short, long = known["round-1"][1][0].schedule, known["round-2"][1][0].schedule
    assert short == constant_then_decay(0.2).schedule(40, 5)
    assert long.fractions()[-8:] == short.fractions()[-8:], "the decay keeps its 8 steps (A41)"
    assert long.fractions()[:5] == short.fractions()[:5], "the warmup keeps its 5 steps"
    assert set(long.fractions()[5:-8]) == {1.0}
    assert "the decay is 2.0% of the longer run" in run.err, "D19"
    _what_a_second_round_says(tuner, tmp_path)


def _what_a_second_round_says(tuner, folder):
    """The transfer check as it is asked, drawn and remembered."""
    checked = tuner("check", "tiny", "--round", 2, "-f", "json")
    found = {(one["question"], one["subject"]): one for one in json.loads(checked.out)["findings"]}
    assert {("transfer", "winner"), ("longer_training", "round-2")} <= set(found)
    assert ("transfer", "ranking") not in found, "two configurations have no ranking"
    pairs = found["transfer", "winner"]["evidence"]
    assert [pair["seeds"] for pair in pairs] == ["same", "same", "fresh", "fresh"]
    assert re.search(r"is (better|worse) by \S+ \(80% interval", found["transfer", "winner"]["summary"])
    kept = json.loads(tuner("conclusions", "tiny", "-f", "json").out)
    winner = next(row for row in kept if row["conclusion"] == "winner of round-1")
    assert (winner["drawn_at"], winner["asked_at"]) == (40, 400)
    assert tuner("plot", "transfer", "tiny", "-o", "transfer.png").code == 0
    assert tuner("plot", "transfer", "tiny", "--round", 1).code == 2, "there is no round before it"
    assert tuner("plot", "schedules", "tiny", "-o", "schedules.png").code == 0
    drawn = pd.read_csv(folder / "schedules.csv")
    assert drawn.groupby("schedule")["step"].max().tolist() == [39, 399], "the best trial of each round, as trained"
    assert "What holds at which length" in (folder / "runs" / "tiny.html").read_text()


def test_a_cosine_is_stretched(tuner, tmp_path):
    study = write_study(tmp_path, more="production_steps=400, schedule=cosine(),", replace=COMPUTE_BOUND)
    assert tuner("run", study, "--yes").code == 0
    known = studies(tmp_path)
    short, long = known["round-1"][1][0].schedule, known["round-2"][1][0].schedule
    assert long.fractions()[::10] == pytest.approx(short.fractions())
    seeds = [promoted_from(record.origin).seeds for record in known["round-2"][1]]
    assert seeds == ["fresh", "fresh"], "a cosine shares no step, so nothing goes on from a trunk"


def test_a_schedule_without_a_rule_asks(tuner, tmp_path):
    study = write_study(tmp_path, more="production_steps=400, schedule=inverse_sqrt(20),", replace=COMPUTE_BOUND)
    run = tuner("run", study, "--yes")
    assert run.code == 2
    assert "inverse_sqrt" in run.err
    assert "rescale" in run.err
    assert not (tmp_path / "runs" / "checkpoints").exists(), "said before round 1 is trained"


def test_a_round_says_how_schedules_are_carried_over_and_trains_the_winner_at_half_its_rate(tuner, tmp_path):
    declared = ("promote=2", 'promote=2, transfer="rescale", rate_arms=(1.0, 0.5)')
    more = "production_steps=400, schedule=inverse_sqrt(20),"
    told = write_study(tmp_path, "told.py", more=more, replace=[*COMPUTE_BOUND, declared])
    assert tuner("run", told, "--yes").code == 0
    known = studies(tmp_path, "told")
    trials, parents = known["round-2"][1], {record.number: record for record in known["round-1"][1]}
    origins = [promoted_from(record.origin) for record in trials]
    assert [(origin.seeds, origin.rate) for origin in origins] == [("fresh", 1.0), ("fresh", 1.0), ("fresh", 0.5)]
    assert trials[0].schedule.fractions()[::10] == pytest.approx(parents[origins[0].trial].schedule.fractions())
    assert origins[2].trial == origins[0].trial, "the winner alone has arms"
    assert trials[2].point["learning_rate"] == 0.5 * trials[0].point["learning_rate"]


def test_a_dry_run_prices_every_stage_and_writes_nothing(tuner, tmp_path):
    run = tuner("run", write_study(tmp_path, replace=[NO_BUDGET]), "--dry-run")
    assert run.code == 0, run.err
    assert [word for word in ("sweep", "round-1", "round-2") if word in run.out] == ["sweep", "round-1", "round-2"]
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_prices_declared_lengths_and_what_is_left(tuner, tmp_path):
    study = write_study(tmp_path)
    before = tuner("run", study, "--dry-run")
    rows = [line.replace("sweep, fresh seeds", "seeds").split()[:3] for line in before.out.splitlines()[1:]]
    assert rows == [["sweep", "10", "200"], ["seeds", "2", "400"], ["round-1", "4", "60"], ["round-2", "4", "60"]]
    found = re.findall(r"^(the \w+, [\w ]+): ([\d,]+) steps, about", before.err, re.MULTILINE)
    told = {what: int(steps.replace(",", "")) for what, steps in found}
    # At worst 10 rates, 3 extensions by 3 and 4 refinements of 3 rates to 800 steps, and 2 seeds to twice as many; then
    # round 2, which alone declares no length, 4 trials of 2 x 800.
    assert told["the sweep, likely"] == 10 * 200 + 2 * 400
    assert told["the sweep, at worst"] == (10 + 3 * 3 + 4 * 3) * 800 + 2 * 1600
    assert told["the rounds, likely"] == 4 * 60
    assert told["the rounds, at worst"] == 4 * 1600
    assert tuner("launch", study).code == 0
    after = tuner("launch", study, "--dry-run")
    assert after.out.splitlines()[1].split()[:3] == ["round-1", "0", "60"]
    assert "round-1: 4 more trials are finished" in after.err


def test_an_invalid_sweep_asks_and_yes_extends_it(tuner, tmp_path):
    low_grid = ("log_grid(1e-3, 1.0)", "log_grid(1e-3, 4e-3)")
    study = write_study(tmp_path, replace=[NO_BUDGET, low_grid])
    asked = tuner("run", study)
    assert asked.code == 3, asked.err
    assert "question:" in asked.err
    assert "Extend it?" in asked.err
    assert "round-1" not in studies(tmp_path)
    first = tuner("run", study, "--yes")
    assert first.code == 0
    assert "round-2" in studies(tmp_path)
    assert "--extend" not in first.out, "what the run has done is not left to do"
    again = tuner("run", study)
    assert again.out == first.out
    assert again.code == 0, "the extended sweep settled it: nobody is asked again"
    assert "Extend it?" not in again.err


def test_a_sweep_that_finds_no_number_stops_the_run_unless_a_length_is_declared(tuner, tmp_path):
    never = ('fitted_when = at_most("training/error_rate", 0.0)', 'fitted_when = at_most("training/error_rate", -1.0)')
    short = ("max_steps=800", "max_steps=100")
    study = write_study(tmp_path, replace=[NO_BUDGET, never, short])
    stopped = tuner("run", study, "--yes")
    assert stopped.code == 3, stopped.err
    assert "How long shall trials train?" in stopped.err
    assert "--yes cannot choose this for you" in stopped.err
    assert "next: tuner run" not in stopped.err, "the same command again would end the same way"
    lines = [line.strip() for line in stopped.err.splitlines() if line.startswith("  ")]
    codes = ("max_train_steps=", "production_steps=", "Sweep(")
    assert any(line.startswith(codes) for line in lines), lines
    assert "round-1" not in studies(tmp_path)
    steps = write_study(tmp_path, steps=70, replace=[never, short])
    went_on = tuner("run", steps)
    assert went_on.code in (0, 3), went_on.err
    assert "going on with the 70 steps that round 1 declares" in went_on.err
    assert studies(tmp_path)["round-1"][0].budget.max_train_steps == 70
    changes = [NO_BUDGET, never, short]
    declared = write_study(tmp_path, "other.py", more="production_steps=300,", replace=changes)
    run = tuner("run", declared, "--yes")
    assert run.code == 0, run.err
    assert studies(tmp_path, "other")["round-2"][0].budget.max_train_steps == 300


def test_a_declared_regime_that_the_evidence_contradicts_is_said_and_obeyed(tuner, tmp_path):
    study = write_study(tmp_path, more='regime="not_compute_bound",', replace=[NO_BUDGET])
    assert "contradict" not in tuner("run", study, "--yes").err
    other = write_study(tmp_path, "other.py", more='regime="compute_bound", production_steps=300,', replace=[NO_BUDGET])
    run = tuner("run", other, "--yes")
    assert run.code == 0, run.err
    assert studies(tmp_path, "other")["round-2"][0].budget.max_train_steps == 300


def test_production_steps_below_a_round_are_refused(tuner, tmp_path):
    run = tuner("run", write_study(tmp_path, more="production_steps=50,"))
    assert run.code == 2
    assert "round 1 declares 60 steps, more than production_steps = 50" in run.err


def test_a_production_length_no_longer_than_round_1_is_refused(tuner, tmp_path):
    study = write_study(tmp_path, steps=400, more="production_steps=400,", replace=COMPUTE_BOUND[1:])
    run = tuner("run", study, "--yes")
    assert run.code == 2
    assert "must grow" in run.err


def test_nothing_that_says_how_long_to_train_is_an_error_at_once(tuner, tmp_path):
    run = tuner("run", write_study(tmp_path, replace=COMPUTE_BOUND))
    assert run.code == 2
    assert "nothing says how long to train" in run.err
    assert "runs" not in [path.name for path in tmp_path.iterdir() if path.name == "runs" and any(path.glob("check*"))]


def test_the_sweep_command_prints_its_finding_and_its_exit_code(tuner, tmp_path):
    study = write_study(tmp_path, replace=[NO_BUDGET])
    run = tuner("sweep", study, "-f", "json")
    priced = tuner("run", study, "--dry-run")
    assert [line.split()[0] for line in priced.out.splitlines()[1:]] == ["round-1", "round-2"], "the sweep is made"
    assert run.code == 0, run.err
    assert json.loads(run.out)["findings"][0]["verdict"] == "fitted"
    cut = tuner("sweep", study, "--learning-rates", "1e-3,2e-3,4e-3")
    assert cut.code == 3
    assert "invalid" in cut.out
    again = tuner("sweep", study, "--learning-rates", "1e-3,2e-3,4e-3", "--again")
    assert (again.code, again.out) == (3, cut.out), "trained anew, and the same"
    assert "sweep-3-grid" in studies(tmp_path)
    extended = tuner("sweep", study, "--extend")
    assert extended.code in (0, 3)
    assert tuner("launch", study).code == (0 if extended.code == 0 else 2)


def test_metrics_that_are_never_finite_are_refused_before_training(tuner, tmp_path):
    study = write_study(tmp_path, replace=[NO_BUDGET, ('"error_rate": wrong', '"error_rate": wrong * float("nan")')])
    run = tuner("run", study, "--yes")
    assert run.code == 2
    assert "not finite" in run.err
