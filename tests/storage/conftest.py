"""A Ledger for each test: on SQLite, and on PostgreSQL too, which is started where it is installed.

TUNER_TEST_POSTGRESQL names an empty database to use instead; without either those tests are skipped, slow ones fail.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from storage.postgres import Server
from support.needs import require

from tuner.budget.families import constant_then_decay
from tuner.budget.schedules import Schedule
from tuner.budget.step_budget import StepBudget
from tuner.design.hyperparameters import choice, integers, log_uniform, uniform
from tuner.design.objective import at_most, minimize
from tuner.design.points import Point
from tuner.design.space import SearchSpace
from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.records import Claim, Measurement, State, TrialUpdate
from tuner.storage.engine import parsed_url
from tuner.storage.schema import metadata
from tuner.storage.store import Ledger, open_ledger

POSTGRESQL = os.environ.get("TUNER_TEST_POSTGRESQL")
SCRIPT = Path(__file__).with_name("processes.py")


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A PostgreSQL of our own, for all tests of this process."""
    require("postgresql")
    started = Server()
    yield started
    started.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/runs/tuner.sqlite"
    if not POSTGRESQL:
        require("postgresql")  # asked for each test: what a fixture of the session said would be said again
    return empty_database(POSTGRESQL or request.getfixturevalue("server").url)


def empty_database(url: str) -> str:
    engine = create_engine(parsed_url(url))
    metadata.drop_all(engine)
    engine.dispose()
    return url


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    with open_ledger(url) as opened:
        yield opened


@pytest.fixture
def study() -> Study:
    space = SearchSpace(
        learning_rate=log_uniform(1e-4, 1e-1),
        width=integers(1, 8),
        dropout=uniform(0.0, 0.5, limits="low"),
        activation=choice("relu", "tanh"),
        momentum=0.9,
    )
    return Study(
        name="round-1",
        kind="round",
        goal="Which learning rate?",
        hyperparameters=space.hyperparameters,
        fixed=space.fixed,
        budget=StepBudget(100, 10),
        num_trials=4,
        objective=minimize("validation/loss"),
        fitted_when=at_most("training/error_rate", 0.0),
        optimizer="sgd",
        schedule=constant_then_decay(),
        warmup_steps=5,
        batch_size=64,
        seed=2**63 - 1,
        round=1,
        lineage=(("sweep", "digits"),),
    )


@pytest.fixture
def schedule(study: Study) -> Schedule:
    return study.schedule.schedule(100, 5)


@pytest.fixture
def make_trial(schedule: Schedule) -> Callable[..., Trial]:
    def make(number: int, group: str = "") -> Trial:
        point = Point.of({"learning_rate": 0.1 + 0.2, "width": number, "nesterov": True, "activation": "relu"})
        return Trial(number, point, 2**63 - 1 - number, number, schedule, f"quasi-random {number}", group)

    return make


@pytest.fixture
def study_id(ledger: Ledger, study: Study, make_trial: Callable[..., Trial]) -> int:
    """A study of four waiting trials."""
    started = ledger.start_study("digits", study, "code and data")
    ledger.plan_trials(started.study_id, [make_trial(number) for number in range(4)])
    return started.study_id


@pytest.fixture
def claim(ledger: Ledger, study_id: int) -> Callable[..., list[Claim]]:
    def take(max_trials: int = 1, lease_seconds: float = 60.0, worker: str = "host:1:a", **terms: int) -> list[Claim]:
        return ledger.claim(study_id, worker=worker, lease_seconds=lease_seconds, max_trials=max_trials, **terms)

    return take


@pytest.fixture
def pause(ledger: Ledger) -> Callable[[float], None]:
    """Let so many seconds pass for all leases, whatever a clock says: they become that much older."""

    def older(seconds: float) -> None:
        with ledger._database.writing() as connection:
            aging = "UPDATE trial SET lease_until = lease_until - :seconds"
            connection.execute(text(aging), {"seconds": seconds})

    return older


@pytest.fixture
def update() -> Callable[..., TrialUpdate]:
    """What a claimed trial says at a step: one loss, and whatever else is given."""

    def make(
        claimed: Claim, step: int, value: float | None = None, state: State = State.RUNNING, **rest: object
    ) -> TrialUpdate:
        measured = () if value is None else (Measurement(step, "validation/loss", value),)
        return TrialUpdate(claimed.trial_id, claimed.fence, step, measured, state=state, **rest)

    return make


@pytest.fixture
def process() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `processes.py` with a command; whatever still runs at the end of the test is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(*command: object) -> subprocess.Popen[str]:
        arguments = [sys.executable, str(SCRIPT), *map(str, command)]
        started.append(subprocess.Popen(arguments, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.communicate()
