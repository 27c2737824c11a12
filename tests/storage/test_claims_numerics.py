"""Who claims a trial that was begun under other Numerics, and under which Numerics a study was begun."""

from collections.abc import Callable

import pytest
from sqlalchemy import text

from tuner.records import Checkpoint, Claim, Numerics, State, TrialUpdate
from tuner.records.conclusions import StudyNumerics
from tuner.storage.store import Ledger

HERE = Numerics.of({"torch": "2.13", "device": "cpu", "cpu_capability": "AVX512", "processor": "GenuineIntel avx2"})
OLDER = Numerics.of({"torch": "2.13", "device": "cpu", "cpu_capability": "AVX512"})  # as an earlier version wrote it
THERE = Numerics.of({"torch": "2.13", "device": "cpu", "cpu_capability": "DEFAULT", "processor": "GenuineIntel avx2"})


def numbers(claims: list[Claim]) -> list[int]:
    return [claimed.trial.number for claimed in claims]


@pytest.fixture
def begun(ledger: Ledger, study_id: int) -> Callable[..., None]:
    """Begin the next trials, each under these Numerics, save a state of each, and hand them back."""

    def begin(*under: Numerics) -> None:
        held = [ledger.claim(study_id, worker="host:1:a", lease_seconds=60.0)[0] for _ in under]
        for claimed, numerics in zip(held, under, strict=True):
            kept = (Checkpoint("latest", 3, f"latest-{claimed.trial_id}.pt", "digest", 8),)
            ledger.record([TrialUpdate(claimed.trial_id, claimed.fence, 3, (), kept, numerics=numerics)])
        assert ledger.release(held) == len(under)

    return begin


def test_trials_begun_under_other_numerics_are_left_while_others_wait(
    ledger: Ledger, study_id: int, begun: Callable[..., None]
) -> None:
    begun(THERE, HERE)
    taken = [ledger.claim(study_id, worker=f"host:{one}:b", lease_seconds=60.0, numerics=HERE)[0] for one in range(4)]
    assert numbers(taken) == [1, 2, 3, 0], "its own first, then new ones, and the one of the others last"
    assert [Numerics.from_text(one.begun_under) if one.begun_under else None for one in taken] == [
        HERE, None, None, THERE,
    ]  # fmt: skip


def test_their_own_machines_take_them_first(ledger: Ledger, study_id: int, begun: Callable[..., None]) -> None:
    begun(THERE, HERE)
    assert numbers(ledger.claim(study_id, worker="host:1:b", lease_seconds=60.0, numerics=THERE)) == [0]
    assert numbers(ledger.claim(study_id, worker="host:2:b", lease_seconds=60.0, numerics=THERE)) == [2]


def test_a_group_leaves_them_out_and_takes_those_of_an_earlier_version(
    ledger: Ledger, study_id: int, begun: Callable[..., None]
) -> None:
    begun(OLDER, THERE, replaced_exact(HERE))
    claims = ledger.claim(study_id, worker="host:1:b", lease_seconds=60.0, max_trials=4, numerics=HERE)
    assert numbers(claims) == [0, 2, 3]
    assert numbers(ledger.claim(study_id, worker="host:1:b", lease_seconds=60.0, max_trials=4, numerics=HERE)) == [1]


def replaced_exact(numerics: Numerics) -> Numerics:
    return Numerics(numerics.canonical, exact=False)


def test_without_numerics_the_smallest_number_is_taken(
    ledger: Ledger, study_id: int, begun: Callable[..., None]
) -> None:
    begun(THERE)
    assert numbers(ledger.claim(study_id, worker="host:1:b", lease_seconds=60.0)) == [0]


def test_a_dead_machine_of_the_others_is_waited_for_while_there_is_other_work(
    ledger: Ledger, study_id: int, begun: Callable[..., None], pause: Callable[[float], None]
) -> None:
    begun(THERE)
    (lost,) = ledger.claim(study_id, worker="host:1:c", lease_seconds=60.0, numerics=THERE)
    pause(100.0)
    taken = [ledger.claim(study_id, worker=f"host:{one}:b", lease_seconds=60.0, numerics=HERE)[0] for one in range(4)]
    assert numbers(taken) == [1, 2, 3, lost.trial.number]


def test_the_first_who_begins_decides_and_while_nothing_is_trained_whoever_comes(
    ledger: Ledger, study_id: int, begun: Callable[..., None]
) -> None:
    row = ledger.study("digits", "round-1")
    here, there = StudyNumerics(HERE.canonical), StudyNumerics(THERE.canonical)
    assert ledger.begin_under(row, here) == here
    assert ledger.begin_under(row, there) == there, "nobody had trained anything"
    (claimed,) = ledger.claim(study_id, worker="host:1:a", lease_seconds=60.0, numerics=THERE)
    assert ledger.begin_under(row, here) == there, "a trial is in training"
    ledger.record([TrialUpdate(claimed.trial_id, claimed.fence, 9, numerics=THERE, state=State.FAILED)])
    assert ledger.begin_under(row, here) == there
    assert ledger.conclusion("digits", StudyNumerics, study_id) == there


def test_a_study_of_an_earlier_version_was_begun_as_its_first_trial_says(
    ledger: Ledger, study_id: int, begun: Callable[..., None]
) -> None:
    begun(replaced_exact(THERE), HERE)
    row = ledger.study("digits", "round-1")
    assert ledger.begin_under(row, StudyNumerics(HERE.canonical)) == StudyNumerics(THERE.canonical)


def test_what_was_noted_of_the_beginning_and_is_damaged_is_named_and_found_out_again(
    ledger: Ledger, study_id: int, claim: Callable[..., list[Claim]]
) -> None:
    row = ledger.study("digits", "round-1")
    ledger.begin_under(row, StudyNumerics(THERE.canonical))
    (held,) = claim()
    ledger.record([TrialUpdate(held.trial_id, held.fence, 10, numerics=THERE)])
    with ledger._database.writing() as connection:
        connection.execute(text("UPDATE conclusion SET data = '{\"numerics\": 7}' WHERE kind = 'numerics'"))
    (problem,) = ledger.unreadable_rows(row)
    assert "'numerics'" in problem
    assert "found out again" in problem
    assert ledger.begin_under(row, StudyNumerics(HERE.canonical)) == StudyNumerics(THERE.canonical)
