"""What the recipes are compared with, and the database that they share."""

import pytest
from storage.postgres import Server
from support.needs import require
from support.patience import all_said
from support.processes import started
from support.slow_study import records, write_slow


@pytest.fixture(scope="session")
def server():
    require("postgresql")
    made = Server()
    yield made
    made.close()


@pytest.fixture(scope="session")
def alone(tmp_path_factory):
    """The records of one process, on SQLite."""
    return records_alone(tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="session")
def alone_in_slices(tmp_path_factory):
    """The records of one process that computes each batch in slices, as a gang can share."""
    return records_alone(tmp_path_factory.mktemp("slices"), slices=4)


def records_alone(folder, slices=1):
    write_slow(folder, slices)
    run = started(folder, "run", "study.py", "--yes", OMP_NUM_THREADS="1")
    _, err = all_said(run)
    assert run.returncode == 0, err
    found = records(f"sqlite:///{folder}/runs/tuner.sqlite")
    assert len({row[:2] for row in found["curves"]}) == 8, "two rounds of four trials"
    return found
