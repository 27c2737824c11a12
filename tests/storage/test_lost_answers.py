"""Commits whose answer got lost, deadlocks, cut connections, servers that crash: nothing lost, nothing doubled."""

import math
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy import update as sql_update
from storage.conftest import empty_database
from storage.postgres import Server
from storage.proxy import Proxy
from support.patience import STILL

from tuner import failpoints
from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.errors import Unreachable
from tuner.records import Checkpoint, Claim, Measurement, State, TrialUpdate
from tuner.records.conclusions import RegimeVerdict
from tuner.storage import engine as engines
from tuner.storage.engine import parsed_url
from tuner.storage.schema import trial
from tuner.storage.store import Ledger, open_ledger

Claiming = Callable[..., list[Claim]]
Updating = Callable[..., TrialUpdate]
LOSE = "tx-committed@1=operational"


@pytest.fixture(autouse=True)
def unharmed() -> Iterator[None]:
    yield
    failpoints.disarm()


def test_a_claim_whose_answer_got_lost_is_given_and_not_lost(ledger: Ledger, study_id: int, claim: Claiming) -> None:
    (first,) = claim()
    failpoints.arm(LOSE)
    (second,) = claim()
    assert (first.trial.number, second.trial.number, second.attempt, second.fence) == (0, 1, 1, 1)
    assert ledger.state_counts(study_id)[State.RUNNING] == 2


@pytest.mark.parametrize("state", [State.RUNNING, State.COMPLETE, State.WAITING, State.FAILED])
def test_an_update_whose_answer_got_lost_is_written_once(
    state: State, ledger: Ledger, study_id: int, claim: Claiming, update: Updating
) -> None:
    (claimed,) = claim()
    ledger.record([update(claimed, 5, 0.7)])
    failpoints.arm(LOSE)
    kept = [Checkpoint("latest", 10, "latest-10.pt", "digest", 8)]
    ledger.record([update(claimed, 10, 0.5, state, checkpoints=kept)])
    assert ledger.measurements(study_id).values == [0.7, 0.5]
    record = ledger.trial(study_id, 0)
    assert (record.state, record.step, record.checkpoints) == (state, 10, tuple(kept))
    assert record.attempt == int(state is not State.WAITING)


def test_a_release_whose_answer_got_lost_gives_one_attempt_back(ledger: Ledger, study_id: int, claim: Claiming) -> None:
    held = claim()
    failpoints.arm(LOSE)
    ledger.release(held)
    assert (ledger.trial(study_id, 0).state, ledger.trial(study_id, 0).attempt) == (State.WAITING, 0)


def test_a_launch_whose_answer_got_lost_is_written_down_once(ledger: Ledger, study_id: int) -> None:
    failpoints.arm(LOSE)
    ledger.add_launch(study_id, command="tuner launch", revision={}, environment={}, worker="host:1:a")
    assert len(ledger.launches(study_id)) == 1


def test_plans_and_studies_whose_answers_got_lost_are_there_once(
    ledger: Ledger, study_id: int, study: Study, make_trial: Callable[..., Trial]
) -> None:
    failpoints.arm(f"{LOSE}, tx-committed@3=operational")
    assert ledger.start_study("digits", study, "code and data").study_id == study_id
    ledger.plan_trials(study_id, [make_trial(number) for number in range(6)])
    assert ledger.state_counts(study_id)[State.WAITING] == 6


def test_a_database_that_stays_away_is_said_to_be_unreachable(
    ledger: Ledger, claim: Claiming, update: Updating, monkeypatch: pytest.MonkeyPatch
) -> None:
    (claimed,) = claim()
    monkeypatch.setattr(engines, "RETRY_SECONDS", 0.1)
    failpoints.arm(", ".join(f"tx-begun@{k}=operational" for k in range(1, 100)))
    with pytest.raises(Unreachable, match="run again to continue"):
        ledger.record([update(claimed, 10, 0.5)])


def test_a_curve_is_cut_back_when_its_training_went_on_from_earlier(
    ledger: Ledger, study_id: int, claim: Claiming, update: Updating
) -> None:
    (claimed,) = claim()
    for step in (10, 20, 30):
        ledger.record([update(claimed, step, step / 7)])
    ledger.record([update(claimed, 20, 0.5, cut_back_to=10)])
    assert (ledger.measurements(study_id).steps, ledger.measurements(study_id).values) == ([10, 20], [10 / 7, 0.5])


# PostgreSQL alone


@pytest.fixture
def postgres(server: Server) -> str:
    return empty_database(server.url)


def started(url: str, study: Study, make_trial: Callable[..., Trial], trials: int = 4) -> tuple[Ledger, int]:
    ledger = open_ledger(url)
    row = ledger.start_study("digits", study, "code and data")
    ledger.plan_trials(row.study_id, [make_trial(number) for number in range(trials)])
    return ledger, row.study_id


def test_cut_connections_and_crashes_lose_and_double_nothing(
    server: Server, postgres: str, study: Study, make_trial: Callable[..., Trial]
) -> None:
    ledger, study_id = started(postgres, study, make_trial)
    (claimed,) = ledger.claim(study_id, worker="host:1:a", lease_seconds=60.0)
    through = threading.Event()

    def disturb() -> None:
        engine = create_engine(parsed_url(postgres), isolation_level="AUTOCOMMIT")
        try:
            for _ in range(8):
                with engine.connect() as connection:
                    others = "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()"
                    connection.execute(text(f"{others} and datname = current_database()"))
                time.sleep(0.1)
            engine.dispose()
            server.stop("immediate")
            server.start()
        finally:
            through.set()

    troublemaker = threading.Thread(target=disturb)
    troublemaker.start()
    step = 0
    while not through.is_set() or step < 100:
        step += 1
        loss = Measurement(step, "validation/loss", step / 7)
        while True:
            try:
                ledger.record([TrialUpdate(claimed.trial_id, claimed.fence, step, [loss])])
                break
            except Unreachable:
                continue
    troublemaker.join()
    assert ledger.measurements(study_id).values == [number / 7 for number in range(1, step + 1)]
    assert ledger.trial(study_id, 0).attempt == 1
    ledger.close()


def test_two_transactions_in_a_deadlock_both_come_to_an_end(
    postgres: str, study: Study, make_trial: Callable[..., Trial]
) -> None:
    ledger, study_id = started(postgres, study, make_trial)
    both = threading.Barrier(2)
    tries = []

    def lock(first: int, second: int) -> None:
        def work(connection):
            tries.append(first)
            for number in (first, second):
                mine = (trial.c.study_id == study_id) & (trial.c.number == number)
                connection.execute(sql_update(trial).where(mine).values(attempt=trial.c.attempt + 1))
                if len(tries) <= 2 and number == first:
                    both.wait(STILL)

        ledger._database.write(work)

    threads = [threading.Thread(target=lock, args=order) for order in ((0, 1), (1, 0))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [record.attempt for record in ledger.trials(study_id)[:2]] == [2, 2]
    assert len(tries) == 3, "one of them was tried again"
    ledger.close()


def test_the_dropped_answer_of_any_commit_doubles_nothing(
    server: Server, postgres: str, study: Study, make_trial: Callable[..., Trial]
) -> None:
    proxy = Proxy(server.port)
    ledger, study_id = started(postgres.replace(str(server.port), str(proxy.port)), study, make_trial)
    done = []
    for _ in range(4):
        proxy.drop_next()
        (claimed,) = ledger.claim(study_id, worker="host:1:a", lease_seconds=60.0)
        done.append((claimed.trial.number, claimed.attempt))
        for step in (1, 2, 3):
            proxy.drop_next()
            loss = Measurement(step, "validation/loss", step / 7)
            state = State.COMPLETE if step == 3 else State.RUNNING
            ledger.record([TrialUpdate(claimed.trial_id, claimed.fence, step, [loss], state=state)])
    assert done == [(0, 1), (1, 1), (2, 1), (3, 1)]
    assert ledger.measurements(study_id).values == [1 / 7, 2 / 7, 3 / 7] * 4
    proxy.drop_next()
    assert len(ledger.trials(study_id)) == 4, "reading is tried again, too"
    ledger.close()
    proxy.close()
    assert proxy.dropped == 17


def test_a_dump_of_the_server_is_restored_into_an_empty_database(
    server: Server, postgres: str, study: Study, make_trial: Callable[..., Trial], tmp_path: Path
) -> None:
    ledger, study_id = started(postgres, study, make_trial)
    held = ledger.claim(study_id, worker="host:1:a", lease_seconds=60.0, max_trials=2)
    losses = [Measurement(step, "validation/loss", value) for step, value in ((1, 0.1 + 0.2), (2, math.nan), (3, -0.0))]
    kept = [Checkpoint("latest", 3, "latest-3.pt", "digest", 8)]
    ledger.record([TrialUpdate(held[0].trial_id, held[0].fence, 3, losses, kept, state=State.COMPLETE)])
    ledger.conclude("digits", RegimeVerdict("compute_bound", "undecided"), study_id)
    ledger.backup(tmp_path / "dump")
    with restored(server, tmp_path / "dump") as url, open_ledger(url, create=False) as copy:
        assert meaning(copy, study_id) == meaning(ledger, study_id)
        assert copy.state_counts(study_id) == {**dict.fromkeys(State, 0), **COUNTS}
        copy.record([TrialUpdate(held[1].trial_id, held[1].fence, 3, losses[:1])])  # it goes on
        assert copy.claim(study_id, worker="host:2:b", lease_seconds=60.0)[0].trial.number == 2
    ledger.close()


COUNTS = {State.COMPLETE: 1, State.RUNNING: 1, State.WAITING: 2}


@contextmanager
def restored(server: Server, dump: Path) -> Iterator[str]:
    """A new database with what a dump holds, brought back by the server's own program."""
    engine = create_engine(parsed_url(server.url), isolation_level="AUTOCOMMIT")
    address = f"{server.url.rpartition('/')[0]}/restored"
    with engine.connect() as connection:
        connection.execute(text("create database restored"))
        command = [str(server.bin / "pg_restore"), "--exit-on-error", "-d", address, str(dump)]
        subprocess.run(command, check=True)
        yield address
        connection.execute(text("drop database restored with (force)"))
    engine.dispose()


def meaning(ledger: Ledger, study_id: int) -> object:
    """All that can be read about a study; values to the bit."""
    curves = ledger.measurements(study_id)
    columns = zip(curves.trial_numbers, curves.metrics, curves.steps, curves.values, strict=True)
    return (
        ledger.study("digits", "round-1"),
        ledger.trials(study_id),
        [(number, metric, step, value.hex()) for number, metric, step, value in columns],
        ledger.conclusion("digits", RegimeVerdict, study_id),
        ledger.launches(study_id),
    )
