"""What many workers cost the database: one cheap question at a time, ever more rarely, and one renewal for a group."""

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import psycopg
import pytest
from sqlalchemy import event, text
from storage.test_liveness import BOOT, changed

from tuner.design.trial import Trial
from tuner.execution import waiting
from tuner.execution.waiting import Waiting, pause_seconds
from tuner.records import Claim, State, TrialUpdate
from tuner.storage import server as engines
from tuner.storage.claims import Left
from tuner.storage.liveness import worker_id
from tuner.storage.store import Ledger

Claiming = Callable[..., list[Claim]]
Updating = Callable[..., TrialUpdate]
Pausing = Callable[[float], None]
LEASE = 60.0  # seconds


@contextmanager
def counted(ledger: Ledger) -> Iterator[list[str]]:
    """The statements that are sent within the block."""
    sent: list[str] = []

    def note(connection, cursor, statement, parameters, context, executemany):
        sent.append(statement)

    event.listen(ledger._database._engine, "before_cursor_execute", note)
    yield sent
    event.remove(ledger._database._engine, "before_cursor_execute", note)


@pytest.fixture
def neighbour() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process of this machine that lives, and its name as a worker."""
    script = (
        "import sys; from tuner.storage.liveness import worker_id; print(worker_id(), flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", script], text=True, **pipes) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
        process.kill()


# What is left


def test_what_is_left_of_a_study(
    ledger: Ledger, study_id: int, claim: Claiming, update: Updating, pause: Pausing
) -> None:
    assert ledger.work_left(study_id) == Left(free=True, running=0)
    short, *held = claim(4)
    assert ledger.work_left(study_id) == Left(free=False, running=4)
    ledger.renew(held)
    with ledger._database.writing() as connection:
        connection.execute(text("UPDATE trial SET lease_until = 1.0 WHERE id = :id"), {"id": short.trial_id})
    assert ledger.work_left(study_id) == Left(free=True, running=4), "a lease that is over"
    (taken,) = claim(1, worker="host:2:b")
    assert ledger.work_left(study_id) == Left(free=False, running=4)
    ledger.record([update(one, 10, 0.5, State.COMPLETE) for one in (taken, *held)])
    assert ledger.work_left(study_id) == Left(free=False, running=0)
    assert ledger.work_left(study_id).nothing
    assert ledger.work_left(study_id + 1).nothing, "of another study"


def test_a_question_is_one_statement_and_opens_no_transaction(ledger: Ledger, study_id: int, claim: Claiming) -> None:
    claim(4)
    with counted(ledger) as sent:
        ledger.work_left(study_id)
    assert len(sent) == 1
    with counted(ledger) as sent:
        assert ledger.forget_dead_workers(study_id) == 0
    assert len(sent) == 1, "nobody is dead: nothing is written or locked"
    if ledger.file is None:

        def status(connection):
            connection.execute(text("SELECT 1"))
            return connection.connection.driver_connection.info.transaction_status

        assert ledger._database.glance(status) == psycopg.pq.TransactionStatus.IDLE


def test_what_is_left_of_many_trials_is_found_in_the_index(
    ledger: Ledger, study_id: int, make_trial: Callable[..., Trial], claim: Callable[..., list[Claim]]
) -> None:
    """At the end of a study, when many ask."""
    ledger.plan_trials(study_id, [make_trial(number) for number in range(4, 3000)])
    claim(4)
    with ledger._database.writing() as connection:
        connection.execute(text("UPDATE trial SET state = 'complete' WHERE state = 'waiting'"))
    asked = []
    engine = ledger._database._engine
    event.listen(engine, "before_cursor_execute", lambda *told: asked.append((told[2], told[3])))
    ledger.work_left(study_id)
    ((statement, parameters),) = asked
    with ledger._database.writing() as connection:
        if ledger.file is None:
            connection.execute(text("ANALYZE trial"))
        cursor = connection.connection.cursor()
        cursor.execute(f"{'EXPLAIN' if ledger.file is None else 'EXPLAIN QUERY PLAN'} {statement}", parameters)
        plan = str(cursor.fetchall())
    assert plan.count("trial_by_state") == 2, "of those that run, and of those that wait"


# Renewals


@pytest.fixture
def group(ledger: Ledger, study_id: int, make_trial: Callable[..., Trial], claim: Claiming) -> list[Claim]:
    """The claims of 64 trials."""
    ledger.plan_trials(study_id, [make_trial(number) for number in range(4, 64)])
    return claim(64, lease_seconds=LEASE)


def leases(ledger: Ledger) -> dict[int, float]:
    with ledger._database.reading() as connection:
        return {row.id: row.lease_until for row in connection.execute(text("SELECT id, lease_until FROM trial"))}


def test_a_group_is_renewed_and_released_by_one_statement(ledger: Ledger, group: list[Claim], pause: Pausing) -> None:
    pause(LEASE / 2)
    before = leases(ledger)
    with counted(ledger) as sent:
        assert ledger.renew(group) == group
    assert len(sent) == 1
    assert all(until > before[trial_id] + LEASE / 4 for trial_id, until in leases(ledger).items())
    with counted(ledger) as sent:
        assert ledger.release(group) == 64
    assert len(sent) == 1
    assert ledger.release(group) == 0
    assert ledger.renew(group) == []
    assert ledger.renew([]) == []


@pytest.mark.parametrize("num_held", [1, 64])
def test_a_renewal_leaves_alone_what_another_worker_holds_now(
    num_held: int, ledger: Ledger, group: list[Claim], claim: Claiming, pause: Pausing
) -> None:
    held = group[:num_held]
    ledger.release([held[0]])
    (theirs,) = claim(1, worker="host:2:b", lease_seconds=LEASE)
    assert theirs.trial_id == held[0].trial_id
    pause(LEASE / 2)
    before = leases(ledger)
    assert ledger.renew(held) == held[1:], "the fence is another one"
    assert leases(ledger)[theirs.trial_id] == before[theirs.trial_id]
    assert ledger.release(held) == num_held - 1
    assert ledger.renew([theirs]) == [theirs]


def test_whoever_holds_thousands_renews_and_releases_them_too(ledger: Ledger, group: list[Claim]) -> None:
    gone = [replace(group[0], trial_id=10**6 + number, fence=1 + number % 7) for number in range(12_000)]
    assert ledger.renew([*gone, *group[::-1]]) == group
    assert ledger.release([*group, *gone]) == 64


ON_A_SERVER = pytest.mark.parametrize("url", ["postgresql"], indirect=True)


@ON_A_SERVER
def test_renewals_in_any_order_never_wait_for_each_other_in_a_circle(
    ledger: Ledger, url: str, group: list[Claim], update: Updating
) -> None:

    def renew(held: list[Claim]) -> None:
        for step in range(1, 16):
            ledger.renew(held)
            ledger.record([update(one, step) for one in held[:8]])

    def deadlocks() -> object:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("SELECT pg_stat_force_next_flush()")
            query = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
            return connection.execute(query).fetchone()

    before = deadlocks()  # other tests make some on purpose
    threads = [threading.Thread(target=renew, args=(held,)) for held in (group, group[::-1], group[32:] + group[:32])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert deadlocks() == before


# Connections


@ON_A_SERVER
def test_a_connection_that_rested_is_asked_and_another_one_opened(
    ledger: Ledger, url: str, study_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(url, autocommit=True) as connection:

        def cut() -> None:
            ledger.campaigns()
            others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            connection.execute(f"{others} AND datname = current_database()")

        cut()
        assert ledger.work_left(study_id).free, "within the while: asked again"
        monkeypatch.setattr(engines, "REST_SECONDS", -1.0)
        cut()
        with ledger._database.writing() as transaction:  # with no second try
            assert transaction.scalar(text("SELECT 1")) == 1


# Waiting


def latest(low: float, high: float) -> float:
    return high


def test_short_waits_of_few_workers_are_as_quick_as_ever() -> None:
    """A first pause of 0.02 s, a tenth of what was waited."""
    assert pause_seconds(0.0, 0, latest) == 0.02
    for waited in (0.0, 0.1, 1.0, 4.0, 40.0):
        assert 0.02 <= pause_seconds(waited, 2, latest) <= 0.0211 + waited / 10
        assert pause_seconds(waited, 2, min) == pause_seconds(waited, 2, latest) / 2


def test_pauses_have_bounds() -> None:
    assert pause_seconds(1e9, 1, latest) == pytest.approx(5.005)
    assert pause_seconds(1e9, 1000, latest) == pytest.approx(10.0)
    assert pause_seconds(1e9, 10_000, latest) == 30.0
    assert pause_seconds(0.0, 1000, latest) == pytest.approx(0.52), "nobody ends soon among a thousand"
    assert all(0.01 <= pause_seconds(waited, 0) <= 5.0 for waited in range(200))


@pytest.mark.parametrize("running", [1, 500])
def test_the_end_of_a_wait_is_noticed_within_a_tenth_of_it(running: int) -> None:
    chance = random.Random(1)
    for end in (0.5, 3.0, 30.0, 300.0):
        now = 0.0
        while now < end:
            now += pause_seconds(now, running, chance.uniform)
        assert now - end <= 0.02 + running * 0.0005 + end / 10


def test_a_thousand_workers_ask_fewer_than_150_questions_a_second() -> None:
    chance = random.Random(1)
    questions = 0
    for _ in range(500):  # 500 wait for the trials of 500
        now = chance.uniform(60.0, 300.0)
        end = now + 60.0
        while now < end:
            questions += 1
            now += pause_seconds(now, 500, chance.uniform)
    assert questions / 60 < 150


@pytest.fixture
def no_time(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Sleep takes no time; what it would have taken is noted."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept


def test_a_wait_ends_where_nothing_runs_and_asks_once(
    ledger: Ledger, study_id: int, claim: Claiming, update: Updating, no_time: list[float]
) -> None:
    ledger.record([update(one, 10, 0.5, State.COMPLETE) for one in claim(4)])
    with counted(ledger) as sent:
        assert Waiting(ledger, study_id, lambda: False).for_others() is False
    assert (len(sent), no_time) == (1, [])


def test_a_wait_ends_where_a_lease_is_over_or_a_trial_is_given_back(
    ledger: Ledger, study_id: int, claim: Claiming, pause: Pausing, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = claim(4, worker=changed(worker_id(), BOOT, "another-boot"), lease_seconds=LEASE)
    turns = iter([lambda: None, lambda: ledger.release([held[0]]), lambda: pause(2 * LEASE)])
    monkeypatch.setattr(time, "sleep", lambda seconds: next(turns)())
    wait = Waiting(ledger, study_id, lambda: False)
    assert wait.for_others()
    assert claim(1)[0].trial_id == held[0].trial_id
    assert wait.for_others(), "and those of a worker of which nothing is known here"
    assert len(claim(9)) == 4


def test_what_a_dead_neighbour_holds_is_free_at_once(
    ledger: Ledger,
    study_id: int,
    claim: Claiming,
    neighbour: tuple[subprocess.Popen[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    process, worker = neighbour
    claim(3, worker=worker)
    claim(1, worker=changed(worker, BOOT, "another-boot"))
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 30:
            process.kill()
            process.wait()

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(waiting, "pause_seconds", lambda waited, running: 3600.0)
    with counted(ledger) as sent:
        assert Waiting(ledger, study_id, lambda: False).for_others()
    assert len(slept) == 30, "seen at the first look after its death"
    assert set(slept) == {waiting.LOOK_SECONDS}
    of_the_wait = [statement for statement in sent if statement.startswith("SELECT")]
    assert len(of_the_wait) <= 6, "29 looks at a living neighbour ask the database nothing"
    assert [one.trial.number for one in claim(9)] == [0, 1, 2]


def test_a_neighbour_that_was_dead_before_is_found_without_a_pause(
    ledger: Ledger,
    study_id: int,
    claim: Claiming,
    neighbour: tuple[subprocess.Popen[str], str],
    no_time: list[float],
) -> None:
    process, worker = neighbour
    wait = Waiting(ledger, study_id, lambda: False)
    wait.free_the_dead()
    claim(4, worker=worker)
    process.kill()
    process.wait()
    wait.free_the_dead()  # asked a moment ago
    assert claim(9) == []
    assert wait.for_others()
    assert no_time == []
    assert len(claim(9)) == 4


def test_a_long_pause_ends_with_the_process(
    ledger: Ledger, study_id: int, claim: Claiming, no_time: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    claim(4)
    monkeypatch.setattr(waiting, "pause_seconds", lambda waited, running: 3600.0)
    asked = iter([False, False, True])
    assert Waiting(ledger, study_id, lambda: next(asked)).for_others()
    assert len(no_time) == 3
