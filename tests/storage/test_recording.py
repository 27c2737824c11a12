"""What trials have to say is written in one piece: measurements, checkpoints and states of all of them, or nothing."""

import math
import signal
import subprocess
import time
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from sqlalchemy import event, text

from tuner.errors import LeaseLost, StorageError
from tuner.records import Checkpoint, Claim, Measurement, Numerics, State, TrialUpdate
from tuner.storage.store import Ledger, open_ledger

Claiming = Callable[..., list[Claim]]
Updating = Callable[..., TrialUpdate]


def shared(step: int, claimed: Claim) -> list[Checkpoint]:
    return [Checkpoint("latest", step, f"group-{step}.pt", f"digest {step}", 8, -math.inf, str(claimed.trial_id))]


def test_updates_of_several_trials_are_one_transaction(
    ledger: Ledger, study_id: int, claim: Claiming, update: Updating
) -> None:
    one, other = claim(2)
    ledger.record([update(one, 10, 0.5), update(other, 10, 0.25, State.COMPLETE, numerics=Numerics("cpu"))])
    with pytest.raises(LeaseLost):
        ledger.record([update(one, 20, 0.1, State.COMPLETE, checkpoints=shared(20, one)), update(other, 20, 0.1)])
    first, second = ledger.trials(study_id)[:2]
    assert (first.state, first.step, first.checkpoints) == (State.RUNNING, 10, ())
    assert (second.state, second.step, second.numerics) == (State.COMPLETE, 10, Numerics("cpu"))
    assert ledger.measurements(study_id).values == [0.5, 0.25]


def test_nothing_to_say_is_fine(ledger: Ledger) -> None:
    ledger.record([])


def test_the_same_value_again_is_a_replay(ledger: Ledger, study_id: int, claim: Claiming, update: Updating) -> None:
    (claimed,) = claim()
    for value in (0.5, math.nan, -0.0):
        step = ledger.trial(study_id, 0).step + 1
        ledger.record([update(claimed, step, value)])
        ledger.record([update(claimed, step, value)])
    assert len(ledger.measurements(study_id)) == 3


@pytest.mark.parametrize(("before", "now"), [(0.5, 0.25), (0.0, -0.0), (1.0, math.nan), (math.inf, -math.inf)])
def test_another_value_at_the_same_step_is_an_error(
    ledger: Ledger, study_id: int, claim: Claiming, update: Updating, before: float, now: float
) -> None:
    (claimed,) = claim()
    ledger.record([update(claimed, 10, before)])
    with pytest.raises(
        StorageError, match=rf"trial 0 already has validation/loss = {before} at step 10, and now {now}"
    ):
        ledger.record([update(claimed, 10, now), update(claimed, 20, 0.5)])
    assert ledger.measurements(study_id).steps == [10]


@pytest.mark.parametrize("value", [None, "low", [1.0], 10**400])
def test_what_is_no_number_is_refused_by_metric_and_step(ledger: Ledger, claim: Claiming, value: object) -> None:
    (claimed,) = claim()
    wrong = Measurement(3, "validation/loss", value)
    with pytest.raises(StorageError, match=r"validation/loss of trial id \d+ at step 3 must be a number, got"):
        ledger.record([TrialUpdate(claimed.trial_id, claimed.fence, 3, [wrong])])


@pytest.mark.parametrize("value", [np.float32(0.5), np.float64(0.5), Decimal("0.5"), Fraction(1, 2), torch.tensor(0.5)])
def test_whatever_is_a_number_is_one(value: object, ledger: Ledger, study_id: int, claim: Claiming) -> None:
    (claimed,) = claim()
    measured = Measurement(3, "validation/loss", value)
    ledger.record([TrialUpdate(claimed.trial_id, claimed.fence, 3, [measured])])
    assert ledger.measurements(study_id).values == [0.5]


def test_curves_come_back_by_metric(ledger: Ledger, study_id: int, claim: Claiming) -> None:
    for claimed in claim(2):
        for step in (20, 10):
            measured = [Measurement(step, name, step / 7) for name in ("training/loss", "validation/loss")]
            ledger.record([TrialUpdate(claimed.trial_id, claimed.fence, step, measured)])
    kept = ledger.measurements(study_id, ["training/loss"])
    assert (kept.trial_numbers, kept.steps) == ([0, 0, 1, 1], [10, 20, 10, 20])
    assert (set(kept.metrics), kept.values) == ({"training/loss"}, [10 / 7, 20 / 7] * 2)
    assert len(ledger.measurements(study_id)) == 8
    assert len(ledger.measurements(study_id, ["unheard/of"])) == 0


def test_checkpoints_are_replaced_as_a_whole_and_share_files(
    ledger: Ledger, study_id: int, claim: Claiming, update: Updating
) -> None:
    one, other = claim(2)
    ledger.record([update(claimed, 10, checkpoints=shared(10, claimed)) for claimed in (one, other)])
    assert [file.path for file in ledger.checkpoint_files()] == ["group-10.pt"]
    ledger.record([update(one, 20, checkpoints=shared(20, one)), update(other, 20)])
    assert [file.path for file in ledger.checkpoint_files()] == ["group-10.pt", "group-20.pt"]
    assert ledger.trial(study_id, 0).checkpoints == tuple(shared(20, one))
    assert ledger.trial(study_id, 1).checkpoints == tuple(shared(10, other))
    ledger.record([update(other, 30, checkpoints=[])])
    assert [(file.path, file.digest) for file in ledger.checkpoint_files()] == [("group-20.pt", "digest 20")]


def test_a_file_written_anew_gets_its_new_digest(
    ledger: Ledger, study_id: int, claim: Claiming, update: Updating
) -> None:
    (claimed,) = claim()
    for digest in ("old", "new"):
        ledger.record([update(claimed, 1, checkpoints=[Checkpoint("latest", 1, "latest.pt", digest, 8)])])
    assert [kept.digest for kept in ledger.trial(study_id, 0).checkpoints] == ["new"]


def others_are_served(ledger: Ledger) -> bool:
    """Whether the server still works for anybody but us."""
    others = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
    with ledger._database.reading() as connection:
        return bool(connection.scalar(text(others)))


def test_kill_9_in_the_middle_of_recording_leaves_all_or_nothing(
    url: str, ledger: Ledger, study_id: int, process: Callable[..., subprocess.Popen[str]]
) -> None:
    before, attempts = 0, 0
    for life in range(5):
        writer = process("record", url, study_id)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        time.sleep((0.05 + 0.0137 * life) * (6 if url.startswith("postgresql") else 1))
        while life == 4 and not ledger.trial(study_id, 0).step:
            time.sleep(0.01)  # on a busy machine the lives before may all have been too short
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        assert writer.returncode == -signal.SIGKILL
        while url.startswith("postgresql") and others_are_served(ledger):
            time.sleep(0.01)  # the server may still be committing
        records, curves = ledger.trials(study_id), ledger.measurements(study_id)
        steps = {record.step for record in records}
        assert len(steps) == 1
        (step,) = steps
        assert len(curves) == 4 * 8 * step
        assert [kept.step for record in records for kept in record.checkpoints] == [step] * 4 * bool(step)
        assert len(ledger.checkpoint_files()) == bool(step)
        lives_without_progress = {record.attempt for record in records}
        assert lives_without_progress == ({1} if step > before else {attempts + 1})
        before, (attempts,) = step, lives_without_progress
        assert ledger.forget_dead_workers(study_id) == 4
    assert step > 0


def test_thousands_of_measurements_are_asked_for_at_once(ledger: Ledger, study_id: int, claim: Claiming) -> None:
    claims, asked = claim(4), []
    event.listen(ledger._database._engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
    questions = []
    for steps in (range(5), range(5, 500)):
        names = [f"validation/metric {k}" for k in range(10)]
        measured = [Measurement(step, name, step * 0.1) for name in names for step in steps]
        ledger.record([TrialUpdate(claimed.trial_id, claimed.fence, steps[-1], measured) for claimed in claims])
        asked.clear()
        kept = ledger.measurements(study_id)
        questions.append(len(asked))
    assert questions[0] == questions[1] <= 6
    assert len(kept) == 20_000
    assert kept.steps[:3] == [0, 1, 2]
    assert kept.values[:3] == [0.0, 0.1, 0.2]


@pytest.mark.parametrize("name", ["'; DROP TABLE trial; --", "метрика \U0001f600", "a\nb", "%s {x} :y ?"])
def test_names_are_data(url: str, ledger: Ledger, study_id: int, claim: Claiming, name: str) -> None:
    (claimed,) = claim(worker=name)
    ledger.record([TrialUpdate(claimed.trial_id, claimed.fence, 1, [Measurement(1, name, 0.5)], reason=name)])
    with open_ledger(url) as other:
        assert other.measurements(study_id, [name]).metrics == [name]
        assert len(other.trials(study_id)) == 4


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 201, "\ud800"])
def test_names_no_database_can_hold_are_refused(ledger: Ledger, claim: Claiming, name: str) -> None:
    (claimed,) = claim()
    with pytest.raises(StorageError, match="the name of a metric is text of 1 to 200 characters without NUL, got"):
        ledger.record([TrialUpdate(claimed.trial_id, claimed.fence, 1, [Measurement(1, name, 0.5)])])
