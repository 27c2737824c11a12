"""Checkpoints written beside the training: the same bits, one at a time, complete only when it is true."""

import errno
import os
import resource
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from support.patience import STILL, Patience
from support.tiny import CuttingRecorder, StopAt, Tiny, setting_for, tiny_study, train_alone
from training.test_resume import AwayRecorder, meaning, trained

from tuner.errors import LeaseLost
from tuner.records import State, TrialUpdate
from tuner.rounds.plan import planned_trials
from tuner.training import committing, saving
from tuner.training.checkpoints import (
    LARGE_FILE,
    CheckpointFolder,
    canonical_digest,
    read_state,
    read_weights,
    weights_as_file,
)
from tuner.training.compiler import plain_step
from tuner.training.endings import is_out_of_memory
from tuner.training.saving import BackgroundSaver, Copies, num_bytes

STUDY = tiny_study()
TRIAL = planned_trials(STUDY)[0]


@pytest.fixture(autouse=True)
def every_state_is_large(monkeypatch):
    monkeypatch.setattr(committing, "BACKGROUND_BYTES", 0)


@pytest.fixture
def writes(monkeypatch):
    """What the folder is asked to write. The disk can be slow (`seconds`), wait for a step, or have a `fault`."""
    return Writes(monkeypatch)


@pytest.fixture
def quick_disk(monkeypatch):
    """Every save is over when training goes on: the first one at each step, for at once there is time for another."""
    start, seen = BackgroundSaver.start, set()

    def started_and_over(self, update, files, copied):
        start(self, update, files, copied)
        if update.step not in seen:
            seen.add(update.step)
            wait(self.over)

    monkeypatch.setattr(BackgroundSaver, "start", started_and_over)


class Writes:
    def __init__(self, monkeypatch):
        self.seconds, self.fault, self.step, self.wait_for_step = 0.0, None, 0, 0
        self.threads, self.together, self.now, self.done = [], 0, 0, 0
        self.asked = []
        self.savers = []
        start = BackgroundSaver.start
        monkeypatch.setattr(BackgroundSaver, "start", lambda *given: self.savers.append(given[0]) or start(*given))
        for name in ("write_state", "write_weights"):
            method = getattr(CheckpointFolder, name)
            monkeypatch.setattr(CheckpointFolder, name, partial_method(self, method))

    def __call__(self, method, folder, *given):
        self.now += 1
        self.together = max(self.together, self.now)
        self.threads.append(threading.current_thread().name)
        self.asked.append(given[:2])
        time.sleep(self.seconds)
        if beside():
            wait(lambda: self.step >= self.wait_for_step)
        try:
            if self.fault is not None:
                raise self.fault
            return method(folder, *given)
        finally:
            self.now -= 1
            self.done += 1

    def wait_for_the_first(self):
        """Until a save is begun, from the step on before which the first one is started."""
        self.step += 1
        if self.step > 6:  # the loss of the first batch is looked at once more, before all
            wait(lambda: self.threads)

    def wait_for_all(self):
        """Until what was started has a result, and nobody writes."""
        wait(lambda: self.done >= 2 and all(not saver.busy or saver.over() for saver in self.savers))


def partial_method(writes, method):
    return lambda folder, *given: writes(method, folder, *given)


def beside():
    """Whether this is the thread that saves."""
    return threading.current_thread().name.startswith("tuner checkpoint")


def wait(condition):
    patience = Patience()
    while not condition() and patience.left():
        time.sleep(0.001)


def train(folder, recorder=None, stops=(), **changes):
    """Train the trial beside whose training everything is saved, stopped at each of `stops`."""
    recorder, study = recorder or CuttingRecorder(), changes.pop("study", STUDY)
    trial = changes.pop("trial", TRIAL)
    changes = {"commit_seconds": 0.0, **changes}
    for stop in [*stops, None]:
        more = {} if stop is None else {"stop": StopAt(stop + 1)}
        train_alone(setting_for(study, folder, **changes, **more), recorder, recorder.claim(trial))
    return recorder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What a training says that is never interrupted, and saves only at its end."""
    folder = tmp_path_factory.mktemp("whole")
    return meaning(trained(STUDY, folder), folder)


@pytest.mark.parametrize("seconds", [0.0, 0.01])
def test_saving_beside_the_training_changes_no_bit(seconds, whole, writes, tmp_path):
    writes.seconds = seconds
    recorder = train(tmp_path)
    assert meaning(recorder, tmp_path) == whole
    assert any(name.startswith("tuner checkpoint") for name in writes.threads)
    assert writes.together == 1
    on_disk = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert on_disk == {kept.file for kept in recorder.checkpoints}
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tuner checkpoint")]


def test_a_trial_stopped_again_and_again_while_it_is_saved_ends_with_the_same_bits(whole, writes, tmp_path):
    writes.seconds = 0.003
    assert meaning(train(tmp_path, stops=[2, 5, 4, 1, 7]), tmp_path) == whole


def test_complete_is_said_when_the_files_are_there_and_training_does_not_wait_for_them(whole, writes, tmp_path):
    writes.wait_for_step = 21
    steps, told = [], []

    class Watching(CuttingRecorder):
        def record(self, updates):
            for update in updates:
                told.append((update.state, update.step))
                missing = [kept.file for kept in update.checkpoints if not (tmp_path / kept.file).is_file()]
                assert missing == []
            super().record(updates)

    class Counting(Tiny):
        def loss(self, model, batch, point):
            writes.wait_for_the_first()
            steps.append(writes.now)
            return super().loss(model, batch, point)

    recorder = train(tmp_path, Watching(), workload=Counting())
    assert told[-1] == (State.COMPLETE, 24)
    assert steps[6:20] == [1] * 14, "the disk was busy"
    assert writes.together == 1
    assert meaning(recorder, tmp_path) == whole


@pytest.mark.usefixtures("quick_disk")
def test_what_fails_beside_the_training_is_raised_at_the_next_step(writes, tmp_path):
    writes.fault = OSError(errno.ENOSPC, "No space left on device")
    steps = []

    class Counting(Tiny):
        def loss(self, model, batch, point):
            steps.append(len(writes.threads))
            return super().loss(model, batch, point)

    recorder = CuttingRecorder()
    with pytest.raises(OSError, match="No space left"):
        train(tmp_path, recorder, workload=Counting())
    assert steps == [0] * 6, "and the look at the first loss"
    assert [update.state for update in recorder.updates] == []
    writes.fault = None
    assert recorder.claim(TRIAL).checkpoints == ()


def test_the_end_of_a_training_hears_of_a_save_that_failed(writes, tmp_path):
    writes.seconds, writes.fault = 0.3, OSError(errno.EIO, "Input/output error")
    with pytest.raises(OSError, match="Input/output"):
        train(tmp_path)


class InStep(Tiny):
    """Counts its steps, and trains beyond one of them only when the first save is written."""

    def __init__(self, writes, until):
        self.writes, self.until = writes, until

    def loss(self, model, batch, point):
        self.writes.step += 1
        if self.writes.step > self.until:
            self.writes.wait_for_all()
        return super().loss(model, batch, point)


class Killed(BaseException):
    """The end of the process."""


class Dying(CuttingRecorder):
    """Records one update, and is killed before the next."""

    def record(self, updates):
        if self.updates:
            raise Killed
        super().record(updates)


@pytest.fixture
def slow_helper(monkeypatch):
    """The thread that saves takes its time to copy, too: longer than nine steps of the training, the first time."""
    copy, delays = saving._copy, iter([0.2])

    def slowly(room, tensors):
        if beside():
            time.sleep(next(delays, 0.0))
        copy(room, tensors)

    monkeypatch.setattr(saving, "_copy", slowly)


@pytest.mark.usefixtures("slow_helper")
def test_what_is_saved_late_is_the_state_of_its_own_step(writes, tmp_path):
    """Between the copy at step 5 and the writing of it the weights change, and better ones take a place of the best."""
    study = tiny_study(keep_best=1)

    writes.wait_for_step = 13
    recorder = Dying()
    with pytest.raises(Killed):
        train(tmp_path, recorder, study=study, workload=InStep(writes, until=14))
    best, latest = recorder.updates[0].checkpoints or ()
    assert (best.step, latest.step) == (5, 5)
    assert canonical_digest(read_weights(tmp_path, best)) == canonical_digest(read_state(tmp_path, latest)["model"])
    recorder.record = partial(CuttingRecorder.record, recorder)
    expected = meaning(trained(study, tmp_path / "whole"), tmp_path / "whole")
    assert meaning(train(tmp_path, recorder, study=study), tmp_path) == expected


def test_a_trunk_that_is_left_while_something_older_is_saved_stays(writes, tmp_path):
    writes.wait_for_step = 13
    trial = replace(TRIAL, pins=(7, 9, 14))
    recorder = train(tmp_path, trial=trial, workload=InStep(writes, until=14), fingerprint="code and data")
    named = [[(kept.kind, kept.step) for kept in update.checkpoints] for update in recorder.updates]
    assert named[0] == [("best", 5), ("latest", 5)], "a trunk beyond the curve is not named yet"
    assert [step for kind, step in named[-1] if kind == "trunk"] == [7, 9, 14]
    assert all(read_state(tmp_path, kept)["step"] == kept.step for kept in recorder.checkpoints if kept.kind != "best")


@pytest.mark.usefixtures("quick_disk")
def test_a_trunk_is_left_once_though_a_save_is_over_before_the_next_step(writes, tmp_path):
    recorder = CuttingRecorder()
    train(tmp_path, recorder, trial=replace(TRIAL, pins=(7,)), fingerprint="code and data")
    assert writes.asked.count(("trunk", 7)) == 1
    assert [kept.step for kept in recorder.checkpoints if kept.kind == "trunk"] == [7]


def test_a_limit_on_the_size_of_files_is_the_machines_and_not_the_trials(tmp_path):
    recorder, (soft, hard) = CuttingRecorder(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            train(tmp_path, recorder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert State.FAILED not in [update.state for update in recorder.updates]


@pytest.mark.parametrize("last_step", [7, 24])
def test_a_trial_that_is_lost_while_it_is_saved_takes_its_files_back(last_step, writes, tmp_path):
    told = []

    def refuse(updates):
        told.append(updates[0].state)
        raise LeaseLost("trial 0 is somebody else's")

    recorder = CuttingRecorder()
    recorder.record = refuse
    writes.wait_for_step = last_step
    with pytest.raises(LeaseLost):
        train(tmp_path, recorder, workload=InStep(writes, until=last_step))
    assert told == [State.COMPLETE if last_step == 24 else State.RUNNING]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.usefixtures("quick_disk")
@pytest.mark.parametrize("answer_lost", [False, True])
def test_training_goes_on_while_the_database_is_away(answer_lost, whole, writes, tmp_path):
    class Away(AwayRecorder):
        def record(self, updates):
            if updates[0].state is State.COMPLETE:
                self.away = ()
            super().record(updates)

    recorder = Away({1, 2}, answer_lost=answer_lost)
    assert meaning(train(tmp_path, recorder), tmp_path) == whole
    assert recorder.calls > 3


def test_an_error_of_the_users_code_ends_the_trial_and_the_thread(writes, tmp_path):
    writes.seconds = 0.1

    class Failing(Tiny):
        def loss(self, model, batch, point):
            writes.wait_for_the_first()
            if writes.threads:
                raise ValueError("a bug")
            return super().loss(model, batch, point)

    recorder = train(tmp_path, workload=Failing())
    assert recorder.updates[-1].state is State.FAILED
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tuner checkpoint")]


def test_small_states_are_written_at_once(writes, tmp_path, monkeypatch):
    monkeypatch.setattr(committing, "BACKGROUND_BYTES", 1 << 20)
    train(tmp_path)
    assert set(writes.threads) == {threading.current_thread().name}


def state_of(generator):
    """A state of every kind of tensor, and the optimizer of a part of it."""
    wide = torch.randn(4, 3, 5, 5, generator=generator).to(memory_format=torch.channels_last)
    many = {"half": torch.randn(7, generator=generator).bfloat16(), "none": torch.empty(0), "step": torch.tensor(3.0)}
    state = {"wide": wide, "list": [many, (1, "text", None)], "flag": True, "view": wide.permute(3, 2, 1, 0)[1:]}
    weight = torch.nn.Parameter(torch.randn(5, generator=generator))
    optimizer = torch.optim.Adam([weight])
    step(optimizer)
    return state | {"optimizer": optimizer.state_dict()}, optimizer


def step(optimizer):
    (weight,) = optimizer.param_groups[0]["params"]
    weight.grad = torch.ones(5)
    plain_step(optimizer)()  # as trials are trained


@pytest.fixture
def helper():
    with ThreadPoolExecutor(1) as pool:
        yield pool


def test_a_copy_means_the_same_and_the_next_one_takes_its_memory(helper):
    generator, copies = torch.Generator().manual_seed(0), Copies()
    places = []
    for _ in range(3):
        state, optimizer = state_of(generator)
        expected = canonical_digest(state)
        copy, copied = copies.of(state, optimizer, helper)
        state["wide"].zero_()
        copied.result()
        assert canonical_digest(copy) == expected
        assert num_bytes(copy) == num_bytes(state) == 4 * (300 + 240 + 1) + 14 + 4 * (5 + 5 + 1)
        moment = copy["optimizer"]["state"][0]["exp_avg"]
        places.append((copy["wide"].data_ptr(), copy["list"][0]["half"].data_ptr(), moment.data_ptr()))
    assert len(set(places)) == 1
    for other in ({"other": torch.arange(3)}, {"none": []}, {"two": [torch.ones(2), torch.zeros(5)]}):
        copy, copied = copies.of(other | {"optimizer": {}}, optimizer, helper)
        assert canonical_digest(copy) == canonical_digest(other | {"optimizer": {}})


def test_an_update_waits_until_the_state_of_its_optimizer_is_copied_and_the_next_one_does_not(helper):
    """The helper is busy when the copy is asked for, and still when the next update comes."""
    free, copies = threading.Event(), Copies()
    state, optimizer = state_of(torch.Generator().manual_seed(0))
    expected = canonical_digest(state)
    helper.submit(free.wait, STILL)
    copy, copied = copies.of(state, optimizer, helper)
    threading.Timer(0.05, free.set).start()
    step(optimizer)
    assert copied.done()
    assert canonical_digest(copy) == expected != canonical_digest(state)
    step(optimizer)
    assert canonical_digest(copy) == expected


def test_a_copy_that_failed_is_never_written():
    saver, copied, written = BackgroundSaver(), Future(), []
    copied.set_exception(MemoryError("no room"))
    saver.start(TrialUpdate(1, 1, 1), [lambda: written.append(1)], copied)
    with pytest.raises(MemoryError, match="no room"):
        saver.result()
    saver.close()
    assert written == []


def test_a_file_of_weights_that_memory_ends_for_is_an_error_and_no_death():
    """The allocator of safetensors ends the process; here in a child, whose address space is limited."""
    weights = {"weight": torch.zeros(2 * LARGE_FILE // 4)}
    child = os.fork()
    if not child:
        status = Path("/proc/self/statm").read_text().split()[0]
        room = int(status) * resource.getpagesize() + LARGE_FILE
        resource.setrlimit(resource.RLIMIT_AS, (room, resource.getrlimit(resource.RLIMIT_AS)[1]))
        try:
            weights_as_file(weights)
        except RuntimeError as error:
            os._exit(7 if is_out_of_memory(error) else 8)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
