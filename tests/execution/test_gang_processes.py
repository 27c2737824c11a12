"""Gangs of processes: the same bits, whichever rank is killed, hangs or is told to end; none is left behind."""

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from support.bench import Bench, Heard

from tuner.errors import InputError, Interrupted, Paused, TunerError
from tuner.execution.channel import END
from tuner.execution.gang_store import GangStore
from tuner.execution.machine import Machine, check_cores, check_ranks, machine_from, worker_devices
from tuner.execution.remote_job import Setup, setup_from
from tuner.execution.torchrun import Torchrun, check_torchrun, torchrun_of
from tuner.execution.worker_handle import WorkerHandle
from tuner.records import State

# What one rank does in its updates; `dist.get_rank()` is its number. A file says that it is done.
DEED = """
        import os, pathlib, time
        import torch.distributed as dist
        mark = pathlib.Path(__file__).with_name("done")
        if dist.is_initialized() and dist.get_rank() == {rank} and model.training:
            (pathlib.Path(__file__).parent / f"rank-{{os.getpid()}}").touch()
            {deed}
        """
ONCE = """if not mark.exists():
                mark.touch()
                {}"""
slow = pytest.mark.slow
KILL = ONCE.format("os.kill(os.getpid(), 9)")


def bench(folder, *, rank=0, deed="pass", **more):
    return Bench(folder, loss=DEED.format(rank=rank, deed=deed).strip(), slices=4, **{"trials": 2} | more)


@pytest.fixture(autouse=True)
def no_process_is_left(fork_server, monkeypatch):
    monkeypatch.setattr("tuner.execution.workers.ForkServer", lambda *given: fork_server)
    others = {child.pid for child in psutil.Process().children(recursive=True)}
    yield
    left = {child.pid for child in psutil.Process().children(recursive=True)}
    assert left - others in (set(), {fork_server.pid})


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """What one process makes of the study."""
    made = bench(tmp_path_factory.mktemp("calm"))
    made.run(0)
    return made.rows()


class Listening:
    """On which addresses this process and those below it have begun to listen."""

    def __init__(self):
        self.on = set()
        self.before = {place for place, _ in self.now()}

    def now(self):
        here = psutil.Process()
        for process in [here, *here.children(recursive=True)]:
            with suppress(psutil.Error):
                for one in process.net_connections("inet"):
                    if one.status == psutil.CONN_LISTEN:
                        yield (process.pid, one.laddr), one.laddr.ip

    def look(self):
        self.on |= {ip for place, ip in self.now() if place not in self.before}
        return False


@pytest.mark.parametrize(("ranks", "gangs"), [(2, 1), pytest.param(4, 1, marks=slow), pytest.param(2, 2, marks=slow)])
def test_a_gang_has_the_bits_of_one_process(ranks, gangs, tmp_path, calm):
    heard, made, listening = Heard(), bench(tmp_path), Listening()
    made.run(gangs, gang=ranks, listener=heard, stop=listening.look)
    assert made.rows() == calm
    assert made.rows("select state, attempt, fence from trial") == [("complete", 1, 1)] * 2
    assert len(heard.ended) == 2
    assert listening.on <= {"127.0.0.1", "::1"}  # nothing of it can be reached from other machines
    assert listening.on


@pytest.mark.parametrize("rank", [pytest.param(0, marks=slow), 1])
def test_a_rank_that_is_killed_is_replaced_with_its_whole_gang_and_the_attempt_is_counted_once(rank, tmp_path, calm):
    heard, hurt = Heard(), bench(tmp_path, rank=rank, deed=KILL)
    hurt.run(1, gang=2, listener=heard)
    assert hurt.rows() == calm
    assert heard.started == [(0, 1), (0, 2), (1, 1)]
    assert [state for _, state, _ in heard.ended] == [State.RUNNING, State.COMPLETE, State.COMPLETE]
    assert heard.ended[0][2].startswith(f"lost: rank {rank} of its gang was killed by signal 9")
    pids = {path.name for path in tmp_path.glob("rank-*")}
    assert len(pids) == 2


@slow
@pytest.mark.parametrize(("end", "words"), [
    ("sys.exit(3)", "rank 1 of its gang ended with code 3"),
    ("os._exit(7)", "rank 1 of its gang ended with code 7"),
    ("sys.exit(0)", "rank 1 of "),
    ("os._exit(0)", "rank 1 of "),
])  # fmt: skip
def test_a_rank_that_ends_itself_is_named_with_its_exit_code(end, words, tmp_path, calm):
    """Rank 0 notices it, too, and may say so first; the exit code says more."""
    heard, hurt = Heard(), bench(tmp_path, rank=1, deed="import sys\n            " + ONCE.format(end))
    hurt.run(1, gang=2, listener=heard)
    assert hurt.rows() == calm
    assert heard.started == [(0, 1), (0, 2), (1, 1)]
    assert heard.ended[0][2].startswith(f"lost: {words}")
    assert ".cc:" not in heard.ended[0][2]


@slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_hangs_is_replaced_with_its_whole_gang(rank, tmp_path, calm):
    heard, hurt = Heard(), bench(tmp_path, rank=rank, deed=ONCE.format("os.kill(os.getpid(), 19)"))
    hurt.run(1, gang=2, listener=heard, stall_seconds=15.0)
    assert hurt.rows() == calm
    assert heard.started == [(0, 1), (0, 2), (1, 1)]
    assert heard.ended[0][2] == "stalled: no step for 15 s"


@slow
def test_a_rank_that_is_killed_ends_rank_0_in_the_middle_of_its_own_work(tmp_path, calm):
    """Rank 0 does not come to an exchange, where it would notice: the coordinator does."""
    deed = """
        import os, pathlib, time
        import torch.distributed as dist
        rank = dist.get_rank() if dist.is_initialized() and model.training else None
        mark = pathlib.Path(__file__).with_name(f"done-{rank}")
        if rank is not None and not mark.exists():
            mark.touch()
            if rank == 0:
                time.sleep(600)
            while not mark.with_name("done-0").exists():
                time.sleep(0.01)
            os.kill(os.getpid(), 9)
        """
    heard, hurt = Heard(), Bench(tmp_path, trials=2, slices=4, loss=deed.strip())
    hurt.run(1, gang=2, listener=heard)
    assert hurt.rows() == calm
    assert heard.ended[0][2].startswith("lost: rank 1 of its gang was killed by signal 9")


@slow
def test_a_gang_that_dies_in_a_trial_again_and_again_is_given_up_with_it(tmp_path):
    first = bench(tmp_path).rates()[0]
    made = bench(tmp_path, rank=1, deed=f'if point["dropout"] == {first!r}: os.kill(os.getpid(), 9)')
    made.run(1, gang=2)
    assert made.rows("select state, attempt from trial order by number") == [("failed", 5), ("complete", 1)]
    ((reason,),) = made.rows("select reason from trial where number = 0")
    assert "none of which got beyond step 0; the last one: lost" in reason
    assert "rank 1 of " in reason  # as the coordinator says it, or as rank 0 does, which may notice first


@slow
def test_ranks_that_die_while_they_start_are_not_started_for_ever(tmp_path):
    made = bench(tmp_path)
    deadly = f"import os\nif os.getpid() != {os.getpid()}: os.kill(os.getpid(), 9)\nimport torch.nn.functional"
    changed = made.file.read_text().replace("import torch.nn.functional", deadly)
    with pytest.raises(Paused, match="3 workers ended while they started, the last one lost: rank"):
        made.run(1, gang=2, when_read=lambda: made.file.write_text(changed))


def test_another_study_file_on_a_rank_is_an_error_before_anything_is_trained(tmp_path, monkeypatch):
    made = bench(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    (other / "tiny.py").write_text(made.file.read_text().replace("ReLU", "GELU"))
    whole = WorkerHandle._mates_setup

    def elsewhere(handle, rank, device):
        return replace(whole(handle, rank, device), study_file=other / "tiny.py")

    monkeypatch.setattr(WorkerHandle, "_mates_setup", elsewhere)
    with pytest.raises(InputError, match=r"on rank 1: .*is not what was launched .*method Tiny\.model changed"):
        made.run(1, gang=2)
    assert made.rows("select state, attempt from trial") == [("waiting", 0)] * 2


@slow
def test_a_gang_that_is_told_to_stop_saves_and_counts_no_attempt(tmp_path):
    alone, hurried = bench(tmp_path / "alone", steps=600), bench(tmp_path / "hurried", steps=600)
    heard = Heard()
    with pytest.raises(Interrupted):
        hurried.run(1, gang=2, stop=lambda: len(heard.steps) > 2, listener=heard)
    ((step,),) = hurried.rows("select max(step) from trial")
    assert 0 < step < 600
    assert hurried.rows("select max(attempt) from trial") == [(0,)]
    hurried.run(0)  # with one process
    alone.run(0)
    assert hurried.rows() == alone.rows()


def test_a_signal_to_one_rank_that_follows_stops_all_and_saves(tmp_path):
    made = bench(tmp_path, steps=600, rank=1, deed=ONCE.format(f"os.kill(os.getpid(), {int(signal.SIGTERM)})"))
    with pytest.raises(Interrupted):
        made.run(1, gang=2)
    assert made.rows("select state, attempt from trial") == [("waiting", 0)] * 2
    ((step,),) = made.rows("select max(step) from trial")
    assert 0 < step < 600


def test_a_rank_that_follows_is_told_nothing_of_the_records(tmp_path):
    made = bench(tmp_path)
    machine = Machine(tmp_path, "cpu", gang=2)
    url = "postgresql://me:secret@there/records"
    setup = Setup(made.file, url, machine, "tuner.training.alone:Alone", relay="/a/socket")
    handle = WorkerHandle.__new__(WorkerHandle)
    handle.setup = setup
    store = GangStore(2)
    handle.spot = store.spot
    sent = handle._mates_setup(1, "cuda:3").as_json()
    store.close()
    assert "secret" not in json.dumps(sent)
    assert (sent["url"], sent["relay"], sent["machine"]["device"]) == ("", "", "cuda:3")
    assert sent["spot"] == store.spot.as_json() | {"rank": 1}
    assert setup_from(sent).spot == sent["spot"]


def test_each_start_of_a_gang_has_a_store_of_its_own():
    first, second = GangStore(2), GangStore(2)
    assert first.spot.name != second.spot.name
    assert first.port != second.port
    for store in (first, second):
        store.close()
        with socket.socket() as again, pytest.raises(ConnectionRefusedError):
            again.connect(("127.0.0.1", store.port))


@pytest.mark.parametrize("gang", [0, -2, 3, 6, 2048])
def test_the_ranks_of_a_gang_are_a_power_of_two(gang):
    with pytest.raises(InputError, match=f"--gang is a power of two from 1 to 1024.*got {gang}"):
        check_ranks(gang)
    check_ranks(1)
    check_ranks(8, "auto")


def test_a_gang_shares_cores_with_a_word_and_not_beyond_four_ranks_on_each():
    assert check_cores(2, 2) == ""
    assert check_cores(4, 2) == "4 ranks share 2 cores: a step takes longer than with fewer ranks"
    assert check_cores(8, 2)
    with pytest.raises(InputError, match=r"--gang 16: this machine has 2 cores.*say --gang 8 at most"):
        check_cores(16, 2)
    with pytest.raises(InputError, match=r"this machine has 3 cores.*say --gang 8 at most"):
        check_cores(16, 3)
    assert check_cores(2, 2, 2) == "4 ranks share 2 cores: a step takes longer than with fewer ranks"
    with pytest.raises(InputError, match=r"--gang 2 --workers 100: 200 ranks, .* 2 cores.*say --workers 4 at most"):
        check_cores(2, 2, 100)


def devices(count, gang, num_gpus, device=None, shared=1):
    machine = Machine(Path(), device, gang=gang, workers_per_gpu=shared)
    return worker_devices(machine, count, num_gpus)


def test_each_rank_has_a_gpu_of_its_own_unless_they_are_to_be_shared():
    assert devices(2, 2, 4) == ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]
    assert devices(1, 4, 2, shared=2) == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert devices(1, 2, 4, "cuda:3", shared=2) == ["cuda:3"] * 2
    assert devices(2, 2, 0) == [None] * 4
    assert devices(1, 4, 1, "cpu") == ["cpu"] * 4
    with pytest.raises(
        InputError, match=r"a gang of 4 ranks, 2 GPUs and 1 process on each .* say --gang 2, or --workers-per-gpu 2"
    ):
        devices(1, 4, 2)
    with pytest.raises(InputError, match=r"2 gangs of 4 ranks, 4 GPUs .* say --workers 1, or --workers-per-gpu 2"):
        devices(2, 4, 4)
    with pytest.raises(
        InputError, match=r"--device cuda:1 and .* leave out the number of the GPU, or --workers-per-gpu 2"
    ):
        devices(1, 2, 4, "cuda:1")


def test_a_machine_with_a_gang_is_told_to_other_processes(tmp_path):
    machine = Machine(tmp_path, gang=4)
    assert machine_from(json.loads(json.dumps(machine.as_json()))).gang == 4
    assert machine.for_worker("cuda:1", 2).gang == 4


STARTED = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


def test_what_was_started_together_is_known_by_its_environment():
    known = torchrun_of(STARTED)
    assert known == Torchrun(1, 4, 1, "127.0.0.1", 29500, False, "tuner--")
    agent = {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RUN_ID": "x", "TORCHELASTIC_RESTART_COUNT": "2"}
    assert torchrun_of(STARTED | agent) == replace(known, hosted=True, name="tuner-x-2")
    assert torchrun_of({}) is None
    assert torchrun_of({name: value for name, value in STARTED.items() if name != "MASTER_ADDR"}) is None
    assert torchrun_of(STARTED | {"WORLD_SIZE": "1", "RANK": "0"}) is None
    for wrong in ({"RANK": "4"}, {"RANK": "one"}, {"MASTER_PORT": "0"}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            torchrun_of(STARTED | wrong)


def test_what_was_started_together_is_one_worker_of_so_many_ranks():
    here = torchrun_of(STARTED)
    check_torchrun(here, 1, None, None)
    check_torchrun(here, 4, "1", None)
    with pytest.raises(InputError, match="--gang 2, and 4 processes were started together"):
        check_torchrun(here, 2, None, None)
    with pytest.raises(InputError, match="--workers auto, and 4 processes"):
        check_torchrun(here, 1, "auto", None)
    with pytest.raises(InputError, match="--engine ray starts the processes"):
        check_torchrun(here, 1, None, "ray")
    with pytest.raises(InputError, match=r"power of two.*got 3"):
        check_torchrun(replace(here, world=3), 1, None, None)
    assert [here.device(None, 2), here.device(None, 0), here.device("cuda:0", 1)] == ["cuda:1", None, "cuda:0"]
    with pytest.raises(TunerError, match="process 2 of this machine, which has 1 GPU: start 1"):
        here.device(None, 1)


LATE = """
import gc, os, signal, sys
from tuner.execution import {module} as process
from tuner.signals import SHUTDOWN, silent

def ended(*given):
    SHUTDOWN.listen(silent, alone=False)
    return 0

process._followed = process._work = ended
process.setup_from = process.setup_from if "{module}" == "gang_process" else lambda data: None
gc.freeze = lambda: os.kill(os.getpid(), signal.SIGTERM)
process.main()
"""


@slow
@pytest.mark.parametrize("module", ["gang_process", "worker_process"])
def test_a_signal_to_a_process_that_has_done_its_work_is_no_traceback(module):
    command = [sys.executable, "-c", LATE.format(module=module)]
    done = subprocess.run(
        command, input="{}\n" + json.dumps(END) + "\n", capture_output=True, text=True, check=False, env=os.environ
    )
    assert (done.returncode, done.stderr) == (0, "")
