"""Who is dead is known from boot, namespaces, process id and start time; where it is not known the lease decides."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.needs import require

from tuner.records import Claim
from tuner.storage import liveness as living
from tuner.storage.liveness import dead_workers, worker_id
from tuner.storage.store import Ledger

HOST, PID, RANDOM, BOOT, NAMESPACES, STARTED = range(6)
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells boots, namespaces and start times")
pytestmark = linux
NAME_YOURSELF = "from tuner.storage.liveness import worker_id; print(worker_id(), flush=True); input()"


def changed(worker: str, place: int, value: str) -> str:
    parts = worker.split(":")
    parts[place] = value
    return ":".join(parts)


def is_dead(worker: str) -> bool:
    return dead_workers({worker}) == {worker}


@pytest.fixture
def another() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Another process of ours, and the name it gave itself."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", NAME_YOURSELF], text=True, **pipes)
    assert process.stdout is not None
    yield process, process.stdout.readline().strip()
    process.kill()
    process.communicate()


def test_a_worker_is_alive_until_its_process_ends(another: tuple[subprocess.Popen[str], str]) -> None:
    process, worker = another
    assert worker.split(":")[PID] == str(process.pid)
    assert not is_dead(worker)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert is_dead(worker), "ended, though nobody has waited for it"
    process.wait()
    assert is_dead(worker)


def test_a_process_id_that_was_given_again_is_another_process() -> None:
    mine = worker_id()
    assert not is_dead(mine)
    assert is_dead(changed(mine, STARTED, "1"))
    assert worker_id() != mine, "no name is given twice"


@pytest.mark.parametrize(
    ("place", "value"), [(HOST, "elsewhere"), (BOOT, "another-boot"), (NAMESPACES, "1.1"), (NAMESPACES, "")]
)
def test_of_other_machines_boots_and_containers_nothing_is_known(place: int, value: str) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    worker = changed(changed(worker_id(), PID, str(gone.pid)), STARTED, "1")
    assert is_dead(worker)
    assert not is_dead(changed(worker, place, value))


@pytest.mark.parametrize("name", ["{host}:{pid}:a", "no worker id", "", "{host}:-1:a:{boot}:1", "a:b:c:d:e:f", ":::::"])
def test_names_of_older_versions_and_of_nobody_are_left_to_their_lease(name: str) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    host, _, _, boot, *_ = worker_id().split(":")
    assert not is_dead(name.format(host=host, pid=gone.pid, boot=boot))


def test_a_process_that_hides_itself_or_belongs_to_somebody_else_is_alive(
    another: tuple[subprocess.Popen[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, worker = another
    whole = living._stat
    monkeypatch.setattr(living, "_stat", lambda process: whole(process) if process == "self" else None)
    assert not is_dead(worker), "as /proc mounted with hidepid shows it"

    def forbidden(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", forbidden)
    assert not is_dead(worker)
    monkeypatch.setattr(living, "_stat", whole)
    assert not is_dead(worker)
    assert is_dead(changed(worker, STARTED, "1")), "it is there, and it is another one"


def test_without_proc_a_worker_has_a_short_name_and_nobody_is_dead(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gone = changed(worker_id(), STARTED, "1")
    monkeypatch.setattr(living, "_PROC", tmp_path)
    assert len(worker_id().split(":")) == 3
    assert dead_workers({gone, worker_id()}) == set()


def test_a_forked_worker_names_itself() -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, worker_id().encode())
        os._exit(0)
    told = os.read(reader, 1000).decode()
    os.waitpid(child, 0)
    os.close(reader)
    os.close(writer)
    assert told.split(":")[PID] == str(child)
    assert int(told.split(":")[STARTED]) >= int(worker_id().split(":")[STARTED])
    assert is_dead(told)


def test_trials_of_the_dead_are_free_at_once_and_those_of_all_others_are_not(
    ledger: Ledger, study_id: int, claim: Callable[..., list[Claim]], another: tuple[subprocess.Popen[str], str]
) -> None:
    process, worker = another
    claim(worker=worker)
    claim(worker=worker_id())
    claim(worker=changed(worker, BOOT, "another-boot"))
    claim(worker=":".join(worker.split(":")[:3]))
    assert ledger.forget_dead_workers(study_id) == 0
    process.kill()
    process.wait()
    assert ledger.forget_dead_workers(study_id) == 1
    assert ledger.forget_dead_workers(study_id) == 0
    assert [claimed.trial.number for claimed in claim(9)] == [0]


# Real PID namespaces

ASK = """
import os, sys
from tuner.storage.liveness import dead_workers, worker_id
print(worker_id(), flush=True)
for line in sys.stdin:
    print(bool(dead_workers({line.strip()})), flush=True)
"""


@pytest.fixture
def inside() -> Iterator[Callable[..., Callable[[str], str]]]:
    """Start a process in a PID namespace of its own; the answer asks it whether a worker is dead ("": who it is)."""
    require("namespaces")
    started: list[subprocess.Popen[str]] = []

    def start(*options: str) -> Callable[[str], str]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        command = ["unshare", "-pf", "--kill-child", *options, sys.executable, "-c", ASK]
        started.append(subprocess.Popen(command, text=True, **pipes))
        name = started[-1].stdout.readline().strip()
        process = started[-1]

        def ask(worker: str) -> str:
            if not worker:
                return name
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{worker}\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        return ask

    yield start
    for one in started:
        one.kill()
        one.communicate()


def test_two_namespaces_with_the_same_process_ids_know_nothing_of_each_other(
    inside: Callable[..., Callable[[str], str]],
) -> None:
    one, other = inside("--mount-proc"), inside("--mount-proc")
    assert one("").split(":")[:2] == other("").split(":")[:2], "one host, and both are process 1"
    assert one("").split(":")[BOOT] == other("").split(":")[BOOT] == worker_id().split(":")[BOOT]
    for asked in (other(one("")), one(other("")), one(changed(one(""), NAMESPACES, other("").split(":")[NAMESPACES]))):
        assert asked == "False"
    assert one(one("")) == "False"
    assert one(changed(one(""), PID, "30000")) == "True", "its own namespace has no such process"
    assert not is_dead(changed(one(""), PID, "30000"))


def test_a_namespace_that_sees_the_proc_of_another_one_mistakes_nobody(
    inside: Callable[..., Callable[[str], str]],
) -> None:
    one = inside()
    assert one("").split(":")[PID] == "1"
    assert one(one("")) == "False", "/proc/1 is another process there"
    assert one(changed(one(""), PID, "30000")) == "True"
