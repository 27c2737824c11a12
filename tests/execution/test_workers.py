"""Worker processes: as many as wanted, the same bits; killed, stalled, poisoned, stopped, orphaned."""

import json
import os
import signal
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from support.bench import STALL_SECONDS, Bench, Heard

from tuner.errors import InputError, Interrupted, TrialsFailed
from tuner.execution import worker_handle
from tuner.execution.fusing import even_share
from tuner.execution.machine import Machine, worker_devices
from tuner.execution.worker_handle import WorkerHandle
from tuner.records import State

# Done once, by the worker that makes the file first; the others train as always.
ONCE = """
        try:
            (__import__("pathlib").Path(__file__).parent / "done").touch(exist_ok=False)
        except FileExistsError:
            pass
        else:
            {}
        """
GIVEN_UP = (
    "quarantined after 5 attempts, none of which got beyond step 0; the last one: lost: its worker was killed by "
    "signal 9"
)
DATA = "generator = torch.Generator().manual_seed(0)"


@pytest.fixture(scope="module")
def children():
    """Our processes, but for those that tests of other files left to be used again."""
    others = set(psutil.Process().children(recursive=True))
    return lambda: [child for child in psutil.Process().children(recursive=True) if child not in others]


@pytest.fixture(autouse=True)
def no_process_is_left(children, fork_server, monkeypatch):
    monkeypatch.setattr("tuner.execution.workers.ForkServer", lambda *given: fork_server)
    yield
    assert [child.pid for child in children()] in ([], [fork_server.pid])


def test_ctrl_c_ends_no_fork_server_that_still_imports(fork_server):
    worker = fork_server.fork()
    told = worker.stdout.readline()
    worker.kill()
    worker.wait()
    for end in (worker.stdin, worker.stdout):
        end.close()
    assert json.loads(told) == {"is": "alive"}


def test_results_do_not_depend_on_the_number_of_workers(tmp_path):
    heard = Heard()
    alone, two = Bench(tmp_path / "alone"), Bench(tmp_path / "two")
    alone.run(0)
    two.run(2, listener=heard)
    assert two.rows() == alone.rows()
    assert sorted(number for number, state, _ in heard.ended if state is State.COMPLETE) == [0, 1, 2, 3]
    assert len({worker for (worker,) in two.rows("select distinct started from trial")}) == 4


@pytest.fixture
def impatient(monkeypatch):
    """Let a worker seem to have stalled as soon as a file is there that says so, and not before, nor twice."""

    whole = WorkerHandle.is_stalled

    def about(mark, told):
        def is_stalled(worker, seconds):
            assert seconds == STALL_SECONDS
            return mark.exists() and not told() and whole(worker, 0.0)

        monkeypatch.setattr(WorkerHandle, "is_stalled", is_stalled)

    return about


def test_a_worker_that_is_killed_or_stalled_is_replaced_and_nothing_is_lost(tmp_path, impatient):
    calm = Bench(tmp_path / "calm")
    calm.run(0)
    deaths = {
        "killed": ("import os; os.kill(os.getpid(), 9)", "lost: its worker was killed by signal 9"),
        "stalled": ("import time; time.sleep(600)", "stalled: no step for 60 s"),
    }
    for name, (deed, reason) in deaths.items():
        heard, hurt = Heard(), Bench(tmp_path / name, loss=ONCE.format(deed).strip())
        impatient(hurt.folder / ("done" if name == "stalled" else "never"), lambda heard=heard: heard.ended)
        hurt.run(1, listener=heard)
        assert hurt.rows() == calm.rows()
        assert heard.ended[0][2].startswith(reason)
        assert hurt.rows("select fence, count(*) from trial group by fence order by 1") == [(1, 3), (2, 1)]


def test_a_worker_that_hangs_before_it_claims_anything_is_replaced(tmp_path, caplog, monkeypatch, impatient):
    monkeypatch.setattr(worker_handle, "READY_SECONDS", 0.0)
    bench, mark = Bench(tmp_path, trials=1), tmp_path / "hung"
    hang = f"""
        import os, pathlib, time
        mark = pathlib.Path({str(mark)!r})
        if os.getpid() != {os.getpid()} and not mark.exists():
            mark.touch()
            time.sleep(600)
        """
    bench.file.write_text(bench.file.read_text().replace(DATA, f"{hang.strip()}\n        {DATA}"))
    impatient(mark, lambda: caplog.messages)
    bench.run(1)
    assert caplog.messages == ["a worker is replaced, stalled: no sign of life for 60 s"]
    assert bench.rows("select state, attempt from trial") == [("complete", 1)]


def test_workers_are_forked_and_a_killed_fork_server_is_replaced_with_all_of_them(tmp_path, fork_server, children):
    """The last two trials, one for each worker, wait for the kill."""
    calm, heard, killed = Bench(tmp_path / "calm"), Heard(), []
    calm.run(0)
    wait = """
        go = __import__("pathlib").Path(__file__).with_name("go")
        while float(point["dropout"]) in {} and not go.exists():
            __import__("time").sleep(0.01)
        """
    hurt = Bench(tmp_path / "hurt", loss=wait.format(calm.rates()[2:]).strip())

    def kill():
        if {number for number, _ in heard.started} >= {2, 3} and not killed:
            assert {child.ppid() for child in children()} == {os.getpid(), fork_server.pid}
            killed.append(fork_server.pid)
            os.kill(fork_server.pid, signal.SIGKILL)
            (hurt.folder / "go").touch()
        return False

    hurt.run(2, listener=heard, stop=kill)
    assert hurt.rows() == calm.rows()
    assert fork_server.pid not in killed
    lost = [(number, reason) for number, state, reason in heard.ended if state is State.RUNNING]
    assert sorted(number for number, _ in lost) == [2, 3]
    assert all(reason.startswith("lost: its worker was killed by signal 9") for _, reason in lost)


def test_a_process_whose_device_died_trains_nothing_more(tmp_path):
    calm = Bench(tmp_path / "calm")
    calm.run(0)
    note = '(__import__("pathlib").Path(__file__).parent / "pids").open("a").write(f"{__import__(\'os\').getpid()}\\n")'
    deed = 'raise torch.AcceleratorError("CUDA error: device-side assert triggered")'
    hurt = Bench(tmp_path / "hurt", loss=f"{note}\n        {ONCE.format(deed).strip()}")
    hurt.run(1)
    assert hurt.rows() == calm.rows()
    first, *others = (tmp_path / "hurt" / "pids").read_text().split()
    assert first not in others
    assert len(set(others)) == 1
    assert hurt.rows("select max(fence), count(*) from trial where state = 'complete'") == [(2, 4)]


@pytest.mark.slow
def test_a_trial_that_takes_down_its_workers_is_given_up_and_the_others_complete(tmp_path):
    deadly = 'if point["dropout"] > 0.4: import os; os.kill(os.getpid(), 9)'
    bench = Bench(tmp_path / "poison", loss=deadly, trials=4)
    bench.run(2)
    states = dict(bench.rows("select state, count(*) from trial group by state"))
    assert states["complete"] == 4 - states["failed"]
    for reason, attempt in bench.rows("select reason, attempt from trial where state = 'failed'"):
        assert reason.startswith(GIVEN_UP)
        assert attempt == 5


@pytest.mark.slow
def test_a_trial_that_takes_down_its_workers_takes_no_mates_with_it(tmp_path):
    bench = Bench(tmp_path, trials=5, steps=20)
    deadly = f'if point["dropout"] == {bench.rates()[2]!r}: import os; os.kill(os.getpid(), 9)\n        return nn.Seq'
    bench.file.write_text(bench.file.read_text().replace("return nn.Seq", deadly))
    bench.run(1, fuse=8)
    assert bench.rows("select number from trial where state != 'complete'") == [(2,)]
    ((reason,),) = bench.rows("select reason from trial where state = 'failed'")
    assert reason.startswith(GIVEN_UP)


@pytest.mark.slow
def test_workers_stop_when_told_save_and_count_no_attempt(tmp_path):
    calm, hurried = Bench(tmp_path / "calm", steps=600), Bench(tmp_path / "hurried", steps=600)
    calm.run(0)
    heard = Heard()
    with pytest.raises(Interrupted):
        hurried.run(2, stop=lambda: len(heard.steps) > 6, listener=heard)
    assert hurried.rows("select count(*) from trial where state = 'running'") == [(0,)]
    hurried.run(2)
    assert hurried.rows() == calm.rows()
    assert hurried.rows("select max(attempt) from trial") == [(1,)]


@pytest.mark.slow
def test_a_step_may_take_longer_than_a_lease(tmp_path):
    bench = Bench(tmp_path / "slow", steps=20, trials=1, loss=ONCE.format("import time; time.sleep(4)").strip())
    bench.run(1, lease_seconds=2.0)
    assert bench.rows("select attempt, fence from trial") == [(1, 1)]
    alone = Bench(tmp_path / "alone", steps=20, trials=1, loss=ONCE.format("import time; time.sleep(4)").strip())
    alone.run(0, lease_seconds=2.0)
    assert alone.rows("select attempt, fence from trial") == [(1, 1)]


def test_groups_are_split_over_workers_and_a_dead_one_gives_back_its_whole_group(tmp_path):
    calm = Bench(tmp_path / "calm", trials=6)
    calm.run(0)
    heard, hurt = Heard(), Bench(tmp_path / "hurt", trials=6, loss=ONCE.format("import os; os.kill(os.getpid(), 9)"))
    hurt.run(2, listener=heard, fuse=16)
    assert hurt.rows() == calm.rows()
    lost = [number for number, _, reason in heard.ended if reason.startswith("lost: its worker was killed")]
    assert len(lost) == 3  # half of six trials for each of two workers
    claims_alone = {row for row in hurt.rows("select number, fence from trial") if row[0] in lost}
    assert {fence for _, fence in claims_alone} == {2}
    assert [number for number, state, _ in heard.ended if state is State.COMPLETE] != lost
    ((told,),) = hurt.rows("select data from conclusion where kind = 'fusion' order by id desc limit 1")
    assert '"self_check":"identical"' in told.replace(" ", "")


@pytest.mark.parametrize(
    ("waiting", "running", "most", "workers", "share"),
    [(32, 0, 32, 2, 16), (16, 16, 32, 2, 16), (40, 0, 16, 2, 10), (30, 10, 16, 2, 10), (20, 10, 16, 2, 10),
     (10, 10, 16, 2, 10), (3, 0, 16, 4, 1), (1, 1, 16, 4, 1), (5, 0, 2, 1, 2), (0, 3, 8, 2, 1)],
)  # fmt: skip
def test_workers_share_what_is_left_evenly(waiting, running, most, workers, share):
    assert even_share(waiting, running, most, workers) == share


def test_errors_of_workers_reach_the_coordinator(tmp_path):
    broken = Bench(tmp_path / "broken", trials=8, loss='if not model.training or point: raise KeyError("width")')
    with pytest.raises(TrialsFailed, match="3 trials in a row failed alike"):
        broken.run(2)
    changed = Bench(tmp_path / "changed")
    text = changed.file.read_text().replace("ReLU", "GELU")
    with pytest.raises(InputError, match=r"not what was launched \(the study file: method Tiny\.model changed\)"):
        changed.run(1, when_read=lambda: changed.file.write_text(text))


def test_an_error_of_one_worker_gives_back_what_the_others_hold(tmp_path):
    """One hangs in its first trial while the other's fail: it is ended, and nobody trains that trial any more."""
    hanging = ONCE.format("import time; time.sleep(60)") + 'raise KeyError("width")'
    bench = Bench(tmp_path, trials=8, loss=hanging)
    with pytest.raises(TrialsFailed, match="3 trials in a row failed alike"):
        bench.run(2)
    assert bench.rows("select count(*) from trial where state = 'running'") == [(0,)]
    assert bench.rows("select attempt from trial where state = 'waiting' and fence > 0") == [(0,)]


def test_threads_and_their_patience_are_set_before_torch_is_imported(tmp_path, children):
    bench = Bench(tmp_path / "study", trials=1)
    seen = {}

    def look():
        for worker in children():
            with suppress(psutil.Error):
                seen.update(worker.environ())
        return False

    bench.run(1, stop=look)
    assert (seen["OMP_NUM_THREADS"], seen["MKL_NUM_THREADS"], seen["OMP_WAIT_POLICY"]) == ("1", "1", "PASSIVE")


def devices_of(count, device, num_gpus, workers_per_gpu):
    return worker_devices(Machine(Path(), device, workers_per_gpu=workers_per_gpu), count, num_gpus)


def test_each_worker_has_a_gpu_of_its_own_unless_they_are_to_be_shared():
    assert devices_of(3, None, 4, 1) == ["cuda:0", "cuda:1", "cuda:2"]
    assert devices_of(4, "cuda", 2, 2) == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert devices_of(2, "cuda:3", 4, 1) == ["cuda:3", "cuda:3"], "asked for by name"
    assert devices_of(2, "cpu", 4, 1) == ["cpu", "cpu"]
    assert devices_of(2, None, 0, 1) == [None, None]
    with pytest.raises(InputError, match=r"5 workers, 2 GPUs .* say --workers 2, or --workers-per-gpu 3"):
        devices_of(5, None, 2, 1)
