"""What training prefixes save: as a plan shows it before, and as the Ledger says afterwards."""

import re

from support.sessions import session_for
from support.study_files import write_study
from support.tiny import Tiny
from torch import nn

from tuner import Campaign, Round, SearchSpace, Sweep, Workload, load, log_uniform
from tuner.design.origin import promoted_from
from tuner.records.sweep_outcomes import NotFitted
from tuner.rounds.price import Extremes, priced_campaign
from tuner.rounds.sweep import run_sweep
from tuner.storage.store import open_ledger

# Round 1: 40 steps, of which the last 8 decay; round 2: 400.
TRUNK, LENGTH = 32, 400
MORE = "production_steps=400, warmup_steps=5,"
COMPUTE_BOUND = [
    ("max_train_steps=60, ", ""),
    ("sweep=Sweep(learning_rate=log_grid(1e-3, 1.0), start_steps=100, max_steps=800, seeds=2),", ""),
]


def saved_of(plan, study):
    """The column "saved" of a printed plan; without one nothing is saved."""
    header, *rows = plan.splitlines()
    if "saved" not in header:
        return 0
    place = re.split(r"\s\s+", header.strip()).index("saved")
    (row,) = (row for row in rows if row.startswith(study))
    return int(re.split(r"\s\s+", row.strip())[place].replace(",", ""))


def test_a_plan_shows_what_the_trunks_of_round_1_save_and_round_2_saves_it(tuner, tmp_path):
    study = write_study(tmp_path, trials=6, more=MORE, replace=COMPUTE_BOUND)
    before = tuner("run", study, "--dry-run")
    assert before.code == 0, before.err
    assert (saved_of(before.out, "round-1"), saved_of(before.out, "round-2")) == (0, 2 * TRUNK)
    assert "saved: 64 steps" in before.err
    assert tuner("launch", study, "--round", "1").code == 0
    again = tuner("launch", study, "--round", "2", "--dry-run")
    assert saved_of(again.out, "round-2") == 2 * TRUNK
    run = tuner("run", study, "--yes")
    assert run.code == 0, run.err
    with open_ledger(str(tmp_path / "runs" / "tuner.sqlite"), create=False) as ledger:
        records = ledger.trials(ledger.study("tiny", "round-2").study_id)
    same = [promoted_from(record.origin).seeds == "same" for record in records]
    assert sum(same) == 2
    assert [record.inherited.steps for record in records] == [TRUNK if shared else 0 for shared in same]
    executed = sum(record.step - record.inherited.steps for record in records)
    assert executed == len(records) * LENGTH - 2 * TRUNK, "the closed form"


def test_a_study_without_prefixes_saves_nothing_and_says_nothing(tuner, tmp_path):
    plan = tuner("launch", write_study(tmp_path), "--dry-run")
    assert saved_of(plan.out, "round-1") == 0
    assert "saved:" not in plan.err


class NeverFits(Tiny):
    """Learns nothing, so that a sweep doubles its steps up to the cap. Counts its training steps."""

    augment = Workload.augment
    executed = 0

    def model(self, point):
        return nn.Linear(6, 2)

    def loss(self, model, batch, point):
        type(self).executed += 1
        return 0.0 * super().loss(model, batch, point)


def test_a_sweep_that_doubles_its_length_executes_no_step_twice(tmp_path):
    sweep = Sweep(learning_rate=(1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1), start_steps=10, max_steps=70, seeds=2)
    space = SearchSpace(learning_rate=log_uniform(1e-3, 1e-1))
    campaign = Campaign(NeverFits(), [Round("r", trials=2, space=space)], sweep=sweep, evaluations=5)
    with session_for(campaign, tmp_path) as session:
        extremes = next(line for line in priced_campaign(session) if isinstance(line, Extremes))
        NeverFits.executed = 0
        run_sweep(session, sweep)
        tried = NeverFits.executed - steps_of(session)
        studies = session.ledger.studies("test")
        assert [row.study.budget.max_train_steps for row in studies] == [10, 20, 40, 70, 70]
        longest = {}
        for row in studies:
            for record in session.ledger.trials(row.study_id):
                rate = record.point["learning_rate"]
                longest[rate] = max(longest.get(rate, 0), record.step)
        assert steps_of(session) == sum(longest.values())
        assert 0 <= tried <= 12 * len(studies), "besides, the workload is tried before it is trained"
        likely, worst = (sum(plan.steps for plan in plans) for plans in (extremes.likely, extremes.worst))
        assert likely == 6 * 20 + 2 * 40, "6 rates of 2 x 10 steps, and 2 seeds of twice as many"
        assert likely < steps_of(session) <= worst, "no rate fitted, so it cost more than is likely"
    assert isinstance(load("test", str(tmp_path / "ledger.sqlite")).sweep().outcome, NotFitted)


def steps_of(session):
    """Steps that the Ledger says were trained."""
    records = [record for row in session.ledger.studies("test") for record in session.ledger.trials(row.study_id)]
    return sum(record.step - record.inherited.steps for record in records)
