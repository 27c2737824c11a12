"""A study of which nothing is kept begins with the code of today; any other stays with the code it began with."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import pytest

from tuner.design.study import Study
from tuner.errors import LeaseLost, StudyChanged
from tuner.records import Checkpoint, Claim, State, TrialUpdate
from tuner.records.conclusions import BudgetRecord
from tuner.storage.store import Ledger, open_ledger
from tuner.storage.studies import StudyRow

Claiming = Callable[..., list[Claim]]
Updating = Callable[..., TrialUpdate]
BASIS = BudgetRecord(basis={"batch_size": "64"})
NEW: dict[str, object] = {"code": "mended"}


@pytest.fixture
def row(ledger: Ledger, study_id: int) -> StudyRow:
    ledger.conclude("digits", BudgetRecord(basis={"batch_size": "32"}), study_id)
    ledger.add_launch(study_id, command="tuner launch", revision={}, environment={"promises": {}}, worker="host:1:a")
    return ledger.study("digits", "round-1")


def begin_again(ledger: Ledger, row: StudyRow, fingerprint: str = "mended") -> StudyRow:
    return ledger.begin_again(row, replace(row.study, num_examples=77), fingerprint, NEW, BASIS)


def test_a_study_that_only_waits_begins_with_the_code_of_today(ledger: Ledger, row: StudyRow) -> None:
    began = begin_again(ledger, row)
    assert began == ledger.study("digits", "round-1")
    assert (began.fingerprint, began.identity, began.study.num_examples) == ("mended", NEW, 77)
    assert began.created > row.created
    assert replace(began.study, num_examples=row.study.num_examples) == row.study
    assert ledger.conclusion("digits", BudgetRecord, row.study_id) == BASIS
    assert ledger.launches(row.study_id) == [], "what they were promised is not promised of the code of today"


def test_a_clock_that_stands_or_goes_back_hides_no_beginning(ledger: Ledger, row: StudyRow) -> None:
    with ledger._database.writing() as connection:
        connection.exec_driver_sql("UPDATE study SET created = created + 1000.0")
    before = ledger.study("digits", "round-1")
    began = begin_again(ledger, before)
    assert began.created > before.created
    with pytest.raises(StudyChanged):
        ledger.claim(before, worker="host:1:a", lease_seconds=60.0)


def test_trials_that_failed_or_were_given_back_wait_as_if_nobody_had_claimed_them(
    ledger: Ledger, row: StudyRow, claim: Claiming, update: Updating
) -> None:
    failed, released, died = claim(3)
    ledger.record([update(failed, 0, state=State.FAILED, reason="RuntimeError: a breach")])
    ledger.release([released], count_attempt=True, reason="stalled")
    ledger.renew([died])
    with ledger._database.writing() as connection:
        connection.exec_driver_sql("UPDATE trial SET lease_until = 1.0 WHERE lease_until IS NOT NULL")
    assert begin_again(ledger, row).fingerprint == "mended"
    records = ledger.trials(row.study_id)
    assert [(one.state, one.reason, one.attempt) for one in records] == [(State.WAITING, "", 0)] * 4
    assert ledger.first_start(row.study_id) is None
    with pytest.raises(LeaseLost):
        ledger.record([update(died, 10, 0.5)])
    assert [one.fence for one in claim(4)] == [2, 2, 2, 1]


@pytest.mark.parametrize("kept", ["measured", "saved", "complete", "infeasible", "cancelled", "inherited", "held"])
def test_nothing_is_written_where_anything_is_kept_or_trained(
    ledger: Ledger, row: StudyRow, claim: Claiming, update: Updating, kept: str
) -> None:
    (mine,) = claim()
    saved = (Checkpoint("latest", 10, "latest-10.pt", "digest", 8, None),)
    if kept == "measured":
        ledger.record(
            [
                update(mine, 10, 0.5),
            ]
        )
        ledger.release([mine])
    elif kept == "saved":
        ledger.record([update(mine, 10, state=State.FAILED, reason="a breach", checkpoints=saved)])
    elif kept == "inherited":
        with ledger._database.writing() as connection:
            connection.exec_driver_sql("UPDATE trial SET inherited_steps = 5 WHERE number = 2")
        ledger.release([mine])
    elif kept != "held":
        ledger.record([update(mine, 10, state=State(kept))])
    before = ledger.trials(row.study_id)
    assert begin_again(ledger, row) == row
    assert ledger.study("digits", "round-1") == row
    assert ledger.trials(row.study_id) == before
    assert ledger.conclusion("digits", BudgetRecord, row.study_id) != BASIS
    assert len(ledger.launches(row.study_id)) == 1


def test_who_read_the_study_before_trains_nothing_of_it(ledger: Ledger, row: StudyRow) -> None:
    began = begin_again(ledger, row)
    with pytest.raises(StudyChanged, match="round-1 of 'digits' has begun with other code since"):
        ledger.claim(row, worker="host:1:a", lease_seconds=60.0, max_trials=9)
    assert {one.state for one in ledger.trials(row.study_id)} == {State.WAITING}, "the claim is taken back"
    assert len(ledger.claim(began, worker="host:1:a", lease_seconds=60.0, max_trials=9)) == 4


def test_of_two_who_mended_it_differently_one_is_told_what_the_other_wrote(ledger: Ledger, row: StudyRow) -> None:
    first = begin_again(ledger, row)
    assert begin_again(ledger, row, "mended otherwise") == first
    assert ledger.study("digits", "round-1") == first


def test_one_that_claims_by_old_code_and_one_that_begins_again_never_both_succeed(
    url: str, ledger: Ledger, study: Study, make_trial: Callable
) -> None:
    for number in range(12):
        declared = replace(study, name=f"study-{number}")
        planned = [make_trial(trial) for trial in range(4)]
        row = ledger.start_study("digits", declared, "code and data", identity={"code": "old"}, trials=planned)
        at_once = Barrier(2)

        def claimed(row: StudyRow = row, at_once: Barrier = at_once) -> bool:
            with open_ledger(url) as mine:
                at_once.wait()
                try:
                    return bool(mine.claim(row, worker="host:1:a", lease_seconds=60.0))
                except StudyChanged:
                    return False

        def began(row: StudyRow = row, at_once: Barrier = at_once) -> bool:
            with open_ledger(url) as mine:
                at_once.wait()
                return begin_again(mine, row).fingerprint == "mended"

        with ThreadPoolExecutor(2) as threads:
            old, new = threads.submit(claimed), threads.submit(began)
            assert old.result() is not new.result()
