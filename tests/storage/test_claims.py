"""A trial has one owner: who claims it holds a lease and the newest fence, and everybody else is refused."""

import os
import subprocess
import time
from collections.abc import Callable

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from storage.processes import drained_by

from tuner.design.trial import Trial
from tuner.errors import LeaseLost, StorageError
from tuner.records import Checkpoint, Claim, Numerics, State, TrialUpdate
from tuner.storage.store import Ledger, open_ledger

Claiming = Callable[..., list[Claim]]
Updating = Callable[..., TrialUpdate]
Pausing = Callable[[float], None]
LEASE = 60.0  # seconds


def checkpoint(kind: str, step: int, file: str | None = None) -> Checkpoint:
    return Checkpoint(kind, step, file or f"{kind}-{step}.pt", "digest", 8, 0.5)


def numbers(claims: list[Claim]) -> list[int]:
    return [claimed.trial.number for claimed in claims]


def test_waiting_trials_are_claimed_by_number(claim: Claiming) -> None:
    assert [numbers(claim()), numbers(claim(2)), numbers(claim(9)), numbers(claim())] == [[0], [1, 2], [3], []]


def test_a_claim_gives_back_what_was_planned(claim: Claiming, make_trial: Callable[..., Trial]) -> None:
    (claimed,) = claim()
    assert claimed.trial == make_trial(0)
    assert list(claimed.trial.point) == list(make_trial(0).point)
    assert (claimed.fence, claimed.attempt, claimed.checkpoints) == (1, 1, ())


def test_only_one_shape_group_is_claimed_at_once(
    ledger: Ledger, study_id: int, claim: Claiming, make_trial: Callable[..., Trial]
) -> None:
    ledger.plan_trials(study_id, [make_trial(number, f"width {number % 2}") for number in range(4, 10)])
    assert numbers(claim(9)) == [0, 1, 2, 3]
    assert numbers(claim(2)) == [4, 6]
    assert numbers(claim(9, shape_group="width 1")) == [5, 7, 9]
    assert numbers(claim(9)) == [8]


def test_a_lease_that_ran_out_hands_the_trial_on(claim: Claiming) -> None:
    (old,) = claim(lease_seconds=0.05)
    time.sleep(0.1)
    (new,) = claim(worker="host:2:b")
    assert (new.trial_id, new.fence, new.attempt) == (old.trial_id, old.fence + 1, 2)


def test_an_old_fence_is_refused_and_its_whole_batch_with_it(
    ledger: Ledger, study_id: int, claim: Claiming, update: Updating, pause: Pausing
) -> None:
    (old,) = claim()
    (ours,) = claim(lease_seconds=10 * LEASE)
    pause(2 * LEASE)
    claim(worker="host:2:b")
    with pytest.raises(LeaseLost, match=r"trial 0 is running with fence 2 \(worker host:2:b\), and ours is 1"):
        ledger.record([update(ours, 10, 0.5), update(old, 10, 0.5)])
    assert len(ledger.measurements(study_id)) == 0
    assert [record.step for record in ledger.trials(study_id)] == [0, 0, 0, 0]


def test_nothing_is_written_to_a_finished_trial(
    ledger: Ledger, study_id: int, claim: Claiming, update: Updating
) -> None:
    (claimed,) = claim()
    ledger.record([update(claimed, 10, 0.5, State.COMPLETE)])
    with pytest.raises(LeaseLost, match=r"trial 0 is complete"):
        ledger.record([update(claimed, 20, 0.25, State.FAILED)])
    assert ledger.trial(study_id, 0).state is State.COMPLETE
    assert ledger.renew([claimed]) == []


def test_an_unknown_trial_is_named(ledger: Ledger) -> None:
    with pytest.raises(LeaseLost, match="there is no trial with id 999"):
        ledger.record([TrialUpdate(999, 1, 1)])


def test_recording_and_renewing_lengthen_the_lease(
    ledger: Ledger, claim: Claiming, update: Updating, pause: Pausing
) -> None:
    recorded, renewed, _idle = claim(3)
    for step in range(1, 4):
        pause(0.4 * LEASE)
        ledger.record([update(recorded, step, 0.5)])
        assert ledger.renew([renewed]) == [renewed]
    assert numbers(claim(9)) == [2, 3]


def test_a_renewal_says_which_claims_are_still_ours(ledger: Ledger, claim: Claiming, pause: Pausing) -> None:
    lost = claim(2)
    kept = claim(lease_seconds=10 * LEASE)
    pause(2 * LEASE)
    claim(worker="host:2:b")
    assert ledger.renew([*lost, *kept]) == [lost[1], *kept]


def test_a_released_trial_waits_again_and_its_attempt_does_not_count(
    ledger: Ledger, study_id: int, claim: Claiming
) -> None:
    first = claim()
    assert ledger.release(first) == 1
    second = claim()
    assert (second[0].fence, second[0].attempt) == (2, 1)
    assert ledger.release(second, count_attempt=True) == 1
    assert ledger.release(first) == 0
    assert ledger.trial(study_id, 0).state is State.WAITING
    assert claim()[0].attempt == 2


def test_a_trial_can_be_handed_back_together_with_its_last_words(
    ledger: Ledger, study_id: int, claim: Claiming, update: Updating
) -> None:
    (claimed,) = claim()
    ledger.record([update(claimed, 7, 0.5, State.WAITING, checkpoints=[checkpoint("latest", 7)])])
    (again,) = claim()
    assert (again.attempt, again.checkpoints) == (1, (checkpoint("latest", 7),))
    assert ledger.measurements(study_id).values == [0.5]


def test_a_trial_that_takes_every_worker_down_is_given_up(
    ledger: Ledger, study_id: int, claim: Claiming, pause: Pausing
) -> None:
    for _ in range(2):
        assert numbers(claim(max_attempts=2)) == [0]
        pause(2 * LEASE)
    assert numbers(claim(max_attempts=2)) == [1]
    given_up = ledger.trial(study_id, 0)
    told = "quarantined after 2 attempts, none of which got beyond step 0"
    assert (given_up.state, given_up.reason) == (State.FAILED, told)


def test_a_curve_is_cut_back_to_where_its_trial_resumes(
    ledger: Ledger, study_id: int, claim: Claiming, update: Updating, pause: Pausing
) -> None:
    resumed, restarted, untouched = claim(3)
    kept = [checkpoint("best", 30), checkpoint("trunk", 10), checkpoint("latest", 20)]
    for step in (10, 20, 30):
        ledger.record([update(resumed, step, 1.0 / step, checkpoints=kept), update(restarted, step, 1.0 / step)])
    pause(2 * LEASE)
    again = claim(2)
    assert [claimed.checkpoints for claimed in again] == [tuple(kept), ()]
    assert [record.step for record in ledger.trials(study_id)[:2]] == [20, 0]
    curves = ledger.measurements(study_id)
    assert list(zip(curves.trial_numbers, curves.steps, strict=True)) == [(0, 10), (0, 20)]
    assert untouched.trial.number == 2


def test_a_trunk_is_resumed_from_where_there_is_nothing_later(
    ledger: Ledger, study_id: int, claim: Claiming, update: Updating, pause: Pausing
) -> None:
    (claimed,) = claim()
    ledger.record([update(claimed, 10, 0.5, checkpoints=[checkpoint("trunk", 10)]), update(claimed, 20, 0.4)])
    pause(2 * LEASE)
    claim()
    assert ledger.measurements(study_id).steps == [10]


def test_retried_trials_go_on_from_their_state_or_begin_afresh(
    ledger: Ledger, study_id: int, claim: Claiming, update: Updating
) -> None:
    saved, bare, complete = claim(3)
    ledger.record([update(saved, 10, 0.5, checkpoints=[checkpoint("latest", 10)], numerics=Numerics("cpu"))])
    ledger.record(
        [
            update(saved, 15, 0.4, State.FAILED, reason="KeyError\0\ud800"),
            update(bare, 5, 0.5, State.FAILED, reason="KeyError", numerics=Numerics("cpu")),
            update(complete, 10, 0.5, State.COMPLETE),
        ]
    )
    assert ledger.trial(study_id, 0).reason == "KeyError\\0\\ud800"
    assert ledger.retry(study_id, numbers=[0, 2]) == [0], "what is complete stays so"
    again = ledger.trial(study_id, 0)
    assert (again.state, again.attempt, again.step, again.reason, again.numerics) == (
        State.WAITING,
        0,
        10,
        "",
        Numerics("cpu"),
    )
    assert again.checkpoints == (checkpoint("latest", 10),)
    assert ledger.measured_until(again.trial_id, 99) == ledger.measured_until(again.trial_id, 10) != ()
    assert ledger.retry(study_id) == [1]
    anew = ledger.trial(study_id, 1)
    assert (anew.state, anew.step, anew.numerics, anew.checkpoints) == (State.WAITING, 0, None, ())
    assert ledger.measured_until(anew.trial_id, 99) == ()
    (again_claimed,) = claim()
    assert (again_claimed.fence, again_claimed.checkpoints, again_claimed.farthest) == (2, again.checkpoints, 15)
    ledger.record([update(again_claimed, 12, state=State.FAILED)])
    assert ledger.retry(study_id, afresh=True) == [0]
    fresh = ledger.trial(study_id, 0)
    assert (fresh.step, fresh.numerics, fresh.checkpoints) == (0, None, ())
    assert ledger.measured_until(fresh.trial_id, 99) == ()
    assert ledger.checkpoint_files() == []


def test_a_failed_trial_that_cannot_be_read_stays_failed(
    ledger: Ledger, study_id: int, claim: Claiming, update: Updating
) -> None:
    ledger.record([update(claimed, 1, state=State.FAILED, reason="KeyError") for claimed in claim(2)])
    with ledger._database.writing() as connection:
        connection.execute(text("UPDATE trial SET point = 'no JSON' WHERE number = 0"))
    assert ledger.retry(study_id) == [1]
    assert ledger.state_counts(study_id)[State.FAILED] == 1


@pytest.mark.parametrize("terms", [{"max_trials": 0}, {"max_attempts": 0}, {"lease_seconds": 0.0}])
def test_terms_that_cannot_be_are_refused(claim: Claiming, terms: dict[str, int]) -> None:
    with pytest.raises(StorageError, match="got"):
        claim(**terms)


def test_no_row_can_be_running_without_a_lease_or_in_an_unknown_state(ledger: Ledger, study_id: int) -> None:
    for state in ("running", "exploded"):
        with pytest.raises(IntegrityError), ledger._database.writing() as connection:
            connection.execute(text("UPDATE trial SET state = :state, lease_until = NULL"), {"state": state})


def test_an_unreadable_trial_fails_by_name_and_stops_no_other(ledger: Ledger, study_id: int, claim: Claiming) -> None:
    with ledger._database.writing() as connection:
        connection.execute(text("UPDATE trial SET point = '{\"width\": [1]}' WHERE number = 0"))
        connection.execute(text("UPDATE trial SET schedule = 'no JSON' WHERE number = 1"))
    records = ledger.trials(study_id)
    assert [record.state for record in records] == [State.FAILED, State.FAILED, State.WAITING, State.WAITING]
    assert "trial 0 is unreadable in the Ledger: point: width" in records[0].reason
    with pytest.raises(StorageError, match="trial 1 is unreadable"):
        ledger.trial(study_id, 1)
    assert numbers(claim(2)) == [2, 3]
    assert ledger.state_counts(study_id)[State.FAILED] == 2


def test_four_processes_drain_two_hundred_trials_each_once(
    url: str,
    ledger: Ledger,
    study_id: int,
    make_trial: Callable[..., Trial],
    process: Callable[..., subprocess.Popen[str]],
) -> None:
    ledger.plan_trials(study_id, [make_trial(number) for number in range(200)])
    drained = drained_by([process("drain", url, study_id) for _ in range(4)])
    assert sorted(number for numbers in drained for number in numbers) == list(range(200))
    assert ledger.state_counts(study_id)[State.COMPLETE] == 200
    assert ledger.measurements(study_id).values == [float(number) for number in range(200)]


def test_a_forked_process_must_open_its_own_ledger(ledger: Ledger, url: str) -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            ledger.campaigns()
            os.write(writer, b"worked")
        except BaseException as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    message = os.read(reader, 1000).decode()
    os.close(reader)
    os.close(writer)
    assert "does not survive a fork; call open_ledger again" in message
    assert open_ledger(url).close() is None
