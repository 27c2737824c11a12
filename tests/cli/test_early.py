"""What is begun while the command still imports torch: a process that workers are forked from."""

import os
from pathlib import Path

import psutil
import pytest

from tuner.cli.training_options import early_fork_server


def fork_servers():
    """The fork_servers of this process, by their command line."""
    return [child for child in psutil.Process().children() if "tuner.execution.fork_server_process" in child.cmdline()]


@pytest.fixture(autouse=True)
def none_is_left():
    known = fork_servers()
    yield
    assert fork_servers() == known


@pytest.mark.parametrize(("workers", "device"), [(None, "cpu"), ("auto", "cuda:1"), ("2", "cuda"), ("two", "cpu")])
def test_no_process_is_started_that_may_not_be_needed(workers, device):
    known = fork_servers()
    with early_fork_server(workers, device, threads=1, study=Path("study.py")) as server:
        assert server is None
        assert fork_servers() == known


@pytest.mark.parametrize("workers", ["2", "auto"])
def test_the_process_has_the_threads_of_its_workers_and_is_gone_when_the_command_fails(workers):
    known = fork_servers()

    def command():
        with early_fork_server(workers, "cpu", threads=3, study=Path("study.py")):
            (started,) = set(fork_servers()) - set(known)
            assert started.environ()["OMP_NUM_THREADS"] == "3"
            assert started.ppid() == os.getpid()
            raise RuntimeError("wrong study file")

    with pytest.raises(RuntimeError, match="wrong study file"):
        command()
