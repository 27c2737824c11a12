"""Engines: what they are called, what is refused, and a backend over one that starts processes of this machine."""

import json
import os
import platform
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from support.bench import Bench, Heard
from support.patience import wait_for
from support.study_files import write_study

import tuner
from tuner import system
from tuner.api.sessions import session_options
from tuner.errors import InputError, Interrupted, Paused, StudyChanged
from tuner.execution import on_engine
from tuner.execution.engines import EngineChoice, Needs, Seat, SeatEvent, check_share, parsed_engine
from tuner.execution.fork_server import SEAT, SharedForkServer, private_folder, worker_environment
from tuner.execution.on_engine import OnEngine, SeatPlan
from tuner.execution.ray_engine import RayEngine, _events_of, _refuse_infeasible, _room_for, _unlike
from tuner.execution.seat_process import SeatOrder
from tuner.execution.shipping import pack, shipped_files, sweep, unpacked
from tuner.records import State
from tuner.storage.store import open_ledger


@pytest.mark.parametrize(
    ("text", "address"),
    [("ray", ""), ("ray://", None), ("ray://head", "head:6379"), ("ray://10.0.0.1:7000/", "10.0.0.1:7000"),
     ("ray://[::1]:7000", "[::1]:7000")],
)  # fmt: skip
def test_the_name_of_an_engine(text, address):
    if address is None:
        with pytest.raises(InputError, match="--engine is ray"):
            parsed_engine(text)
    else:
        assert parsed_engine(text) == EngineChoice("ray", address)


@pytest.mark.parametrize(
    ("text", "said"),
    [("slurm", "got 'slurm'"), ("http://head:6379", "ray://HOST:PORT"), ("ray://head:0", "1 to 65535"),
     ("ray://head:99999", "1 to 65535"), ("ray://head:10001", "Ray Client, which is not used"),
     ("ray://a b:1", "--engine is ray")],
)  # fmt: skip
def test_a_wrong_name_of_an_engine_says_what_is_right(text, said):
    with pytest.raises(InputError, match=said):
        parsed_engine(text)


@pytest.mark.parametrize("value", [0.0, 0.25, 1.0, 8.0])
def test_a_share_of_a_gpu_or_whole_ones(value):
    check_share("--gpus", value)


@pytest.mark.parametrize("value", [1.5, -1.0, float("nan")])
def test_other_shares_are_refused(value):
    with pytest.raises(InputError, match=r"--gpus is a share of one \(0\.5\), or a whole number"):
        check_share("--gpus", value)


def test_a_share_that_ray_cannot_count_is_refused():
    with pytest.raises(InputError, match=r"--gpus is 0, or at least 0\.0001, got 1e-05"):
        check_share("--gpus", 1e-5)


def test_python_asks_for_as_many_seats_as_it_says(tmp_path):
    assert session_options(None, None, 1, {"engine": "ray"}).workers == 1
    assert session_options(None, None, "auto", {"engine": "ray"}).workers == 0
    assert session_options(None, None, 1, {}).workers is None
    with pytest.raises(InputError, match="give --engine ray with them"):
        tuner.launch(write_study(tmp_path), gpus=1.0, storage=str(tmp_path / "new.sqlite"))
    assert not (tmp_path / "new.sqlite").exists()


def test_a_folder_that_cannot_be_read_is_one_clear_error(tmp_path, monkeypatch):
    (tmp_path / "study.py").write_text("")

    def refused(archive, source, name):
        raise PermissionError(13, "Permission denied", str(source))

    monkeypatch.setattr("zipfile.ZipFile.write", refused)
    with pytest.raises(InputError, match=r"study\.py in it cannot be read: Permission denied"):
        pack(tmp_path, tmp_path / "code.zip")


def test_what_no_node_can_have_is_refused_with_what_there_is():
    nodes = [{"name": "a (1)", "cpus": 4.0, "gpus": 0.0}, {"name": "b (2)", "cpus": 2.0, "gpus": 1.0}]
    for fits in (Seat(0, 4.0, 0.0), Seat(0, 2.0, 1.0), Seat(0, 0.5, 0.5)):
        _refuse_infeasible(fits, nodes, grows=False)
    with pytest.raises(InputError, match=r"no node .* has 4 CPUs and 1 GPU .*a \(1\) has 4 CPUs and 0 GPUs, b \(2\)"):
        _refuse_infeasible(Seat(0, 4.0, 1.0), nodes, grows=False)
    _refuse_infeasible(Seat(0, 4.0, 1.0), nodes, grows=True)


def test_a_gang_needs_room_for_all_its_ranks():
    nodes = [{"name": "a (1)", "cpus": 5.0, "gpus": 4.0}, {"name": "b (2)", "cpus": 3.0, "gpus": 0.0}]
    for world, room in ((1, 8), (2, 3), (4, 1)):  # 2: two of them on a, one on b; 4: on a, and the rests are on two
        _refuse_infeasible(Seat(0, 1.0, 0.0, world), nodes, grows=False)
        assert _room_for(Seat(0, 1.0, 0.0, world), nodes) == room
    many = [{"name": name, "cpus": 3.0, "gpus": 0.0} for name in "abc"]
    assert _room_for(Seat(0, 1.0, 0.0, 4), many) == 2, "no node is large enough, and all together have 9"
    with pytest.raises(InputError, match=r"a gang of 16 needs 1 CPU for each rank, .* room for 8 ranks: a \(1\)"):
        _refuse_infeasible(Seat(0, 1.0, 0.0, 16), nodes, grows=False)
    with pytest.raises(InputError, match=r"no node .* has 1 CPU and 8 GPUs for a rank of a gang of 2: a \(1\) has 5"):
        _refuse_infeasible(Seat(0, 1.0, 8.0, 2), nodes, grows=False)
    _refuse_infeasible(Seat(0, 1.0, 0.0, 16), nodes, grows=True)
    with pytest.raises(InputError, match="reserve no place for a rank"):
        _refuse_infeasible(Seat(0, 0.0, 0.0, 2), nodes, grows=True)


@pytest.mark.parametrize(
    ("world", "seats", "said"),
    [
        (1, [0, 1], "2 workers wait for 1 CPU and 1 GPU each; free are 0 CPUs and 3 GPUs in all"),
        (4, [0], "a gang of 4 waits for 1 CPU and 1 GPU for each rank, all at once; free are 0 CPUs and 3 GPUs in all"),
        (
            4,
            [2, 5],
            "2 gangs of 4 wait for 1 CPU and 1 GPU for each rank, all at once; free are 0 CPUs and 3 GPUs in all",
        ),
    ],
)
def test_who_waits_for_what(world, seats, said):
    each, free = {"cpus": 1.0, "gpus": 1.0, "world": world}, {"cpus": 0.0, "gpus": 3.0}
    (event,) = _events_of({"is": "waiting", "seats": seats, "free": free, "each": each})
    assert (event.kind, event.seat, event.text) == ("waiting", seats[0], said)


def test_the_interface_of_an_address_is_known():
    assert system.interface_of("127.0.0.1") == system.interface_of("127.0.0.9") == "lo"
    addresses = {name: [one.address for one in found if one.family == socket.AF_INET]
                 for name, found in psutil.net_if_addrs().items()}  # fmt: skip
    for name, found in addresses.items():
        assert [system.interface_of(one) for one in found[:1]] == [name] * len(found[:1])
    assert system.interface_of("203.0.113.1") == ""


HERE = {"python": "3.11.7", "tuner": "d", "versions": {"tuner": "1", "torch": "2.13.0+cu126", "ray": "2.60.0"},
        "files": {}, "boot": "b", "missing": []}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, []),
        ({"versions": HERE["versions"] | {"torch": "2.13.0+cpu"}}, []),
        ({"python": "3.11.8"}, ["node n has Python 3.11.8, and here it is 3.11.7"]),
        ({"tuner": ""}, ["node n has no tuner"]),
        ({"tuner": "e"}, ["tuner of the same version with other source files"]),
        ({"versions": HERE["versions"] | {"tuner": "2"}}, ["node n has tuner 2, and here it is 1"]),
        ({"versions": HERE["versions"] | {"torch": "2.12.0"}}, ["node n has torch 2.12.0, and here it is 2.13.0"]),
        ({"missing": ["helpers"]}, ["has no module helpers, which the study imports from /x/helpers.py"]),
        ({"files": {"/c/owner": None}}, ["node n does not see /c/owner as it is here"]),
        ({"boot": "other"}, ["an SQLite file of this one: several machines need PostgreSQL"]),
    ],
)
def test_what_a_node_lacks_is_named_with_the_node(changed, said):
    here = HERE | {"files": {"/c/owner": "x"}}
    node = {**here, "node": "n"} | changed
    found = _unlike(node, here, Needs({}, {"helpers": "/x/helpers.py"}, (Path("/c/owner"),), (Path("/r.sqlite"),)))
    assert len(found) == len(said)
    for words, one in zip(said, found, strict=True):
        assert words in one


def test_a_package_of_the_study_is_compared(tmp_path):
    node = {**HERE, "node": "n"}
    (found,) = _unlike(node, HERE, Needs({"scikit_learn": "1.9"}))
    assert found == "node n has no scikit_learn, and here it is 1.9"


def test_only_code_is_shipped_and_its_size_is_said(tmp_path):
    folder, archive = tmp_path / "study", tmp_path / "code.zip"
    for name in ("study.py", "pkg/net.py", "runs/a.txt", ".git/config", "__pycache__/x.pyc", "t.sqlite", ".venv/b.py"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("12345")
    (folder / "pkg/net.py").chmod(0o755)
    said = pack(folder, archive)
    copy = unpacked(archive.read_bytes(), tmp_path, "it")
    assert sorted(str(one.path) for one in shipped_files(folder)) == ["pkg/net.py", "study.py"]
    assert sorted(str(path.relative_to(copy)) for path in copy.rglob("*.*")) == ["pkg/net.py", "study.py"]
    assert [os.access(copy / name, os.X_OK) for name in ("pkg/net.py", "study.py")] == [True, False]
    assert (copy / "study.py").read_text() == "12345"
    assert "2 files" in said
    assert "10 B" in said or "10 bytes" in said


def test_a_folder_that_is_too_large_is_refused_with_its_largest_files(tmp_path, monkeypatch):
    (tmp_path / "study.py").write_text("x")
    (tmp_path / "large.npy").write_bytes(b"x" * 3000)
    monkeypatch.setattr("tuner.execution.shipping.MOST_BYTES", 2000)
    with pytest.raises(InputError, match=r"3\.0 kB.*the largest: large\.npy.*data where each machine finds them"):
        pack(tmp_path, tmp_path / "code.zip")
    assert not (tmp_path / "code.zip").exists()


UNPACKS = """
import sys
from pathlib import Path
from tuner.execution.shipping import unpacked
print(unpacked(Path(sys.argv[1]).read_bytes(), Path(sys.argv[2]), sys.argv[3]), flush=True)
sys.stdin.read()
"""


def test_what_was_unpacked_is_shared_and_removed_once_nobody_uses_it(tmp_path):
    folder, parent, archive = tmp_path / "study", tmp_path / "node", tmp_path / "code.zip"
    folder.mkdir()
    parent.mkdir()
    (folder / "study.py").write_text("one")
    pack(folder, archive)
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", UNPACKS, str(archive), str(parent)]
    users = [subprocess.Popen([*command, "it"], stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    try:
        places = {Path(user.stdout.readline().strip()) for user in users}
        (place,) = places
        users[0].kill()
        users[0].communicate()
        sweep(parent)
        assert (place / "study.py").read_text() == "one", "the other one uses it"
        users[1].kill()
        users[1].communicate()
        sweep(parent)
        assert not list(parent.glob("*.code"))
    finally:
        for user in users:
            user.kill()
            user.communicate()


def test_without_the_package_the_way_to_install_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("tuner.execution.ray_engine.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'tuner\[ray\]'"):
        RayEngine().check(Seat(0), tmp_path / "study.py")


def test_bad_options_end_before_the_study_is_run(tmp_path, tuner):
    (tmp_path / "bad.py").write_text("raise SystemExit('it ran')")
    for options, said in (
        (["--engine", "ray://x:10001"], "Ray Client"),
        (["--engine", "dask"], "--engine is ray"),
        (["--engine", "ray", "--gpus", "1.5"], "--gpus is a share"),
        (["--engine", "ray", "--workers", "9999"], "from 1 to 4096"),
        (["--gpus", "1"], "give --engine ray with them"),
        (["--engine", "ray", "--workers-per-gpu", "2"], "--gpus 0.5 lets two share one"),
        (["--engine", "ray", "--device", "cuda"], "write --gpus 1 instead"),
        (["--engine", "ray", "--device", "cuda:1", "--gpus", "1"], "the engine gives each worker its GPU"),
        (["--engine", "ray", "--device", "cpu", "--gpus", "0.5"], "nobody would use these GPUs"),
    ):
        ended = tuner("launch", tmp_path / "bad.py", *options)
        assert ended.code == 2, ended.err
        assert said in " ".join(ended.err.split())


class LocalProcesses:
    """An engine of this machine: each seat is a process, which is started again where it dies, as Ray does."""

    def __init__(self, idle_seconds=60.0):
        self.idle_seconds = idle_seconds
        self.server = SharedForkServer(worker_environment(1), "", f"tests-{os.getpid()}")
        self.processes, self.orders, self.told = {}, {}, []
        self.started, self.stopped, self.compared, self.readers = [], [], [], {}

    def check(self, seat, study_file):
        return 2

    def compare(self, needs):
        self.compared.append(needs)

    def start(self, seat, setup, task):
        folder, name = str(setup.study_file.parent), setup.study_file.name
        order = SeatOrder(setup.as_json(), task.as_json(), folder, name, {}, self.server.name, self.idle_seconds)
        self.orders[seat.number] = order.as_json()
        self.started.append(seat.number)
        self._begin(seat.number)

    def _begin(self, number):
        process = self.processes[number] = self.server.fork(SEAT)
        process.stdin.write(json.dumps(self.orders[number]).encode() + b"\n")
        process.stdin.flush()
        self.readers[process] = threading.Thread(target=self._follow, args=(number, process), daemon=True)
        self.readers[process].start()

    def _follow(self, number, process):
        lines = process.stdout.read().splitlines()
        if process.wait() == -signal.SIGKILL and self.processes.get(number) is process:
            process.stdin.close()
            process.stdout.close()
            self._begin(number)
        else:
            told = json.loads(lines[-1]) if lines else {"how": "died"}
            self.told.append(
                SeatEvent(told["how"], number, told.get("text", ""), told.get("kind", ""), told.get("name", ""))
            )

    def events(self, timeout):
        threading.Event().wait(min(timeout, 0.05))
        told, self.told = self.told, []
        return told

    def ask_to_stop(self, seat):
        self.stopped.append(seat.number)
        process = self.processes[seat.number]
        process.stdin.write(b'{"stop": true}\n')
        process.stdin.flush()

    def end(self, seat):
        process = self.processes.pop(seat.number, None)
        if process is not None:
            with suppress(BrokenPipeError):
                process.stdin.close()
            self.readers.pop(process).join()  # it waits for its end
            process.stdout.close()

    def close(self):
        for number in list(self.processes):
            self.end(Seat(number))
        self.server.close()


@pytest.fixture
def local():
    made = LocalProcesses()
    yield made
    made.close()


def backend(bench, engine, count=2):
    return OnEngine(bench.url, engine, SeatPlan(count))


def test_a_backend_over_an_engine_trains_the_same_bits_and_sees_it_in_the_ledger(tmp_path, local):
    alone, seats, heard = Bench(tmp_path / "alone"), Bench(tmp_path / "seats"), Heard()
    alone.run(0)
    seats.run(2, backend=backend(seats, local), listener=heard)
    assert seats.rows() == alone.rows()
    assert sorted(number for number, state, _ in heard.ended if state is State.COMPLETE) == [0, 1, 2, 3]
    assert {number for number, _ in heard.started} == {0, 1, 2, 3}
    (needs,) = local.compared
    assert needs.local == (tmp_path / "seats/runs/tuner.sqlite",)
    assert needs.modules == {}
    assert [path.exists() for path in needs.shared] == [True]


def test_a_seat_that_is_killed_takes_its_worker_with_it_and_its_trials_go_on(tmp_path, local, monkeypatch):
    monkeypatch.setattr(on_engine, "LOOK_SECONDS", 0.02)  # a trial is seen many times while it is trained
    monkeypatch.setattr(on_engine, "EVENT_SECONDS", 0.02)
    alone, seats = Bench(tmp_path / "alone", trials=2, steps=20_000), Bench(tmp_path / "seats", trials=2, steps=20_000)
    alone.run(0)
    killed = []

    class Kills(Heard):
        def trial_stepped(self, claim, step):
            if step and not killed:
                ((worker,),) = seats.rows("select distinct worker from trial where state = 'running'")
                killed.append(psutil.Process(int(worker.split(":")[1])))
                psutil.Process(_pid(local.processes[0])).kill()
                wait_for(lambda: not killed[0].is_running() or killed[0].status() == psutil.STATUS_ZOMBIE)

    seats.run(1, backend=backend(seats, local, 1), listener=Kills())
    assert len(killed) == 1
    assert seats.rows() == alone.rows()
    assert max(seats.rows("select fence from trial")) == (2,)


def test_a_stop_saves_and_gives_back_without_counting_an_attempt(tmp_path, local):
    bench, stepped = Bench(tmp_path, steps=20_000), threading.Event()

    class Watch(Heard):
        def trial_stepped(self, claim, step):
            if step:
                stepped.set()

    with pytest.raises(Interrupted, match="everything up to the last step is saved"):
        bench.run(2, backend=backend(bench, local), listener=Watch(), stop=stepped.is_set)
    rows = bench.rows("select state, attempt from trial")
    assert set(rows) <= {("waiting", 0), ("complete", 1)}
    assert local.processes == {}


def test_an_error_of_a_worker_is_raised_with_its_own_kind(tmp_path, local):
    bench = Bench(tmp_path)
    text = bench.file.read_text().replace("ReLU", "GELU")
    with pytest.raises(StudyChanged, match=rf"on node {platform.node()}: .*not what was launched"):
        bench.run(2, backend=backend(bench, local), when_read=lambda: bench.file.write_text(text))


def test_a_seat_that_has_nothing_to_do_ends(tmp_path):
    """One trial, two seats: the second may not stay, or its machine never goes down."""
    local, bench = LocalProcesses(idle_seconds=0.5), Bench(tmp_path, trials=1, steps=60_000)
    ended = []

    class Watch(Heard):
        def trial_stepped(self, claim, step):
            ended.append(len(local.processes))

    engine = backend(bench, local)
    with pytest.raises(Interrupted):
        bench.run(2, backend=engine, listener=Watch(), stop=lambda: len(ended) > 3)
    assert local.started == [0], "no more seats than trials"
    local.close()


def test_a_seat_that_finds_only_trials_of_others_gives_its_place_back(tmp_path):
    """Its machine can go down then; and somebody looks again, because the other one may die."""
    bench, held = Bench(tmp_path, trials=1), []

    class LooksTwice(LocalProcesses):
        def start(self, seat, setup, task):
            super().start(seat, setup, task)
            if len(self.started) == 2:
                with open_ledger(bench.url) as ledger:
                    ledger.release(held)

    def another_worker_claims_it():
        with open_ledger(bench.url) as ledger:
            row = ledger.study("tiny", "round-1")
            held.extend(ledger.claim(row, worker="elsewhere:1:x", lease_seconds=1e4, max_trials=1))

    engine = LooksTwice(idle_seconds=0.3)
    bench.run(2, backend=backend(bench, engine), when_read=another_worker_claims_it)
    assert engine.started[:2] == [0, 1], "the first one had ended"
    assert bench.rows("select state from trial") == [("complete",)]
    engine.close()


class Dying(LocalProcesses):
    """An engine whose seats die at once."""

    def start(self, seat, setup, task):
        self.started.append(seat.number)
        self.told.append(SeatEvent("died", seat.number, "its process was ended by SIGSEGV"))

    def end(self, seat):
        pass


def test_seats_that_die_again_and_again_pause_the_command(tmp_path):
    bench, engine = Bench(tmp_path), Dying()
    with pytest.raises(Paused, match=r"5 workers died while no trial got on, .* ended by SIGSEGV"):
        bench.run(2, backend=backend(bench, engine))


def test_code_outside_of_the_shipped_folder_is_known(tmp_path, monkeypatch):
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    (outside / "far_away.py").write_text("def scale(x):\n    return x * 1.0\n")
    monkeypatch.syspath_prepend(str(outside))
    bench = Bench(tmp_path / "bench")
    bench.file.write_text(bench.file.read_text().replace("\n\nclass Tiny", "\nimport far_away\n\n\nclass Tiny"))
    seen = []

    class Looks(LocalProcesses):
        def compare(self, needs):
            seen.append(needs)
            raise InputError("enough")

    with pytest.raises(InputError, match="enough"):
        bench.run(2, backend=backend(bench, Looks()))
    assert dict(seen[0].modules) == {"far_away": str(outside / "far_away.py")}


@pytest.mark.slow
def test_coordinators_share_a_fork_server_that_ends_after_the_last_of_them(tmp_path):
    name = f"test-{tmp_path.name}"
    first, second = (SharedForkServer(worker_environment(1), "", name) for _ in range(2))
    workers = [first.fork(), second.fork()]
    servers = {psutil.Process(_pid(worker)).ppid() for worker in workers}
    assert len(servers) == 1, "one fork server for both"
    (server,) = map(psutil.Process, servers)
    assert server.ppid() != psutil.Process().pid
    first.close()
    workers.append(second.fork())
    assert workers[-1].poll() is None, "the other one still has it"
    for worker in workers:
        worker.stdin.close()  # a coordinator that has ended
    for worker in workers:
        worker.wait()
        worker.stdout.close()
    second.close()
    wait_for(lambda: not server.is_running())
    assert not (private_folder() / f"{name}.socket").exists()


def _pid(worker):
    wait_for(lambda: worker._pid() is not None)
    return worker._pid()


def test_the_folder_of_sockets_is_this_users_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = private_folder()
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)
    with pytest.raises(PermissionError, match="not a folder of this user alone"):
        private_folder()
