"""Loading processes: the same bits however many there are, wherever a trial resumes, and whatever happens to them."""

import itertools
import os
import random
import signal
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from support.drawing import MAKES, Batched, Drawing, OfDrawing, disturb
from support.patience import wait_for
from support.tiny import CPU, MemoryRecorder, StopAt, Tiny, setting_for, tiny_study, train_alone
from torch.utils.data import Dataset

from tuner import Splits, Stream
from tuner.records import State
from tuner.rounds.plan import planned_trials
from tuner.training.batches import TrainingBatches
from tuner.training.host_generators import HOST
from tuner.training.loading import useful_processes
from tuner.training.setup import Data

STUDY = tiny_study()
TRIAL = planned_trials(STUDY)[0]
TENSORS = Tiny().data().training


class Loaded(OfDrawing):
    """The workload whose dataset draws from three generators, loaded by some processes."""

    def __init__(self, processes, make=Drawing):
        super().__init__(make)
        self.data_workers = processes


def bits(batch):
    return [part.tolist() for part in batch]


def batches_of(workload, steps, start=0):
    """The training batches of some steps, and the evaluation batches of both splits."""
    data = Data.of(workload, CPU)
    with data.loading.at_work(workload.data_workers, 8, pin=False):
        batches = TrainingBatches(data.training, 8, 5)
        found = [bits(batches.at(step)) for step in range(start, start + steps)]
        return found, [bits(batch) for batch, _ in data.validation.in_order(16)]


@pytest.mark.parametrize("kind", MAKES)
def test_batches_are_the_same_bits_for_any_number_of_processes(kind):
    alone = batches_of(Loaded(0, MAKES[kind]), 14)
    for count in (1, 2, 4):
        disturb(count)
        assert batches_of(Loaded(count, MAKES[kind]), 14) == alone, f"{count} processes"


def test_batches_are_the_same_from_every_step_of_two_epochs():
    alone, _ = batches_of(Loaded(0), 14)
    data = Data.of(Loaded(2), CPU)
    with data.loading.at_work(2, 8, pin=False):
        for start in range(12):
            batches = TrainingBatches(data.training, 8, 5)
            disturb()
            assert [bits(batches.at(step)) for step in range(start, 14)] == alone[start:], f"resumed at {start}"
            batches.rewind()


def trained(folder, workload, stops=()):
    """The curve of a trial that is stopped at these questions, and its digest."""
    recorder = MemoryRecorder()
    for question in (*stops, None):
        stop = (lambda: False) if question is None else StopAt(question)
        setup = setting_for(STUDY, folder, workload, stop=stop)
        update = train_alone(setup, recorder, recorder.claim(TRIAL))
        assert setup.data.loading.pids == [], "they end with the training"
        assert update.state is (State.COMPLETE if question is None else State.RUNNING)
    return recorder.measurements


def test_a_trial_is_the_same_for_any_number_of_processes_and_resumed_at_every_step_of_two_epochs(tmp_path):
    alone = trained(tmp_path / "0", Loaded(0))
    for count in (1, 4):
        assert trained(tmp_path / str(count), Loaded(count)) == alone
    for stop in range(1, 13):
        assert trained(tmp_path / f"stopped {stop}", Loaded(2), [stop]) == alone, f"stopped at question {stop}"


def test_the_number_may_change_while_a_trial_is_stopped(tmp_path):
    recorder = MemoryRecorder()
    for processes, question in ((0, 5), (4, 6), (1, None)):
        stop = (lambda: False) if question is None else StopAt(question)
        setup = setting_for(STUDY, tmp_path, Loaded(processes), stop=stop)
        train_alone(setup, recorder, recorder.claim(TRIAL))
    assert recorder.measurements == trained(tmp_path / "0", Loaded(0))


def test_a_killed_process_changes_no_bit_and_is_replaced(caplog):
    alone, evaluated = batches_of(Loaded(0), 30)
    data = Data.of(Loaded(2), CPU)
    with data.loading.at_work(2, 8, pin=False):
        batches = TrainingBatches(data.training, 8, 5)
        found = [bits(batches.at(step)) for step in range(3)]
        first = data.loading.pids
        os.kill(first[0], signal.SIGKILL)
        found += [bits(batches.at(step)) for step in range(3, 20)]
        assert not set(first) & set(data.loading.pids), "others have taken their places"
        os.kill(data.loading.pids[1], signal.SIGKILL)
        assert [bits(batch) for batch, _ in data.validation.in_order(16)] == evaluated
        found += [bits(batches.at(step)) for step in range(20, 30)]
    assert found == alone
    assert caplog.text.count("killed by SIGKILL") == 2


@pytest.mark.timeout(120)  # it waited for ever
@pytest.mark.parametrize("closes", [False, True])
def test_a_process_that_is_killed_with_the_lock_of_the_shared_event_is_replaced_too(closes):
    """Each process takes that lock for a moment with each batch."""
    alone, _ = batches_of(Loaded(0), 6)
    data, found = Data.of(Loaded(2), CPU), []
    with data.loading.at_work(2, 8, pin=False):
        batches = TrainingBatches(data.training, 8, 5)
        found += [bits(batches.at(step)) for step in range(3)]
        ended = data.loading._processes[False]._iterator._workers_done_event._shared
        assert ended._cond.acquire()  # as the killed one leaves it
        os.kill(data.loading.pids[0], signal.SIGKILL)
        if not closes:
            found += [bits(batches.at(step)) for step in range(3, 6)]
    assert found == alone[: len(found)]


def test_evaluations_in_between_take_nothing_from_the_training():
    alone, evaluated = batches_of(Loaded(0), 20)
    data = Data.of(Loaded(3), CPU)
    with data.loading.at_work(3, 8, pin=False):
        batches = TrainingBatches(data.training, 8, 5)
        for step in range(20):
            batch = batches.at(step)
            assert not batch[0].is_inference(), "it can be trained on, although it came during an evaluation"
            assert bits(batch) == alone[step]
            if step % 3 == 0:
                with torch.inference_mode():
                    assert [bits(batch) for batch, _ in data.validation.in_order(16)] == evaluated
            if step % 5 == 0:
                next(data.training_sample.in_order(7))  # an evaluation that is given up
        held = [source.held for source in data.loading._processes[False]._requests.sources]
        assert max(held) <= 2 * 2 * 3 + 1, "memory is bounded"


@pytest.mark.parametrize("draw", [np.random.rand, random.random, lambda: float(torch.rand(()))])
def test_no_two_examples_share_what_they_draw_in_whichever_process_they_are_made(draw):
    zeros = torch.zeros(64, dtype=torch.float64), torch.zeros(64)
    data = Data.of(Loaded(4, lambda tensors: Drawing(zeros, draw)), CPU)
    with data.loading.at_work(4, 8, pin=False):
        batches = TrainingBatches(data.training, 8, 5)
        seen = [batches.at(step)[0].tolist() for step in range(24)]
    assert len(set(itertools.chain(*seen))) == 24 * 8


def test_the_generators_of_the_trainer_are_not_touched():
    data = Data.of(Loaded(2), CPU)
    with data.loading.at_work(2, 8, pin=False):
        batches = TrainingBatches(data.training, 8, 5)
        HOST.rest()
        before = torch.get_rng_state()
        for step in range(9):
            batches.at(step)
        list(data.validation.in_order(16))
        assert not HOST.touched
        assert torch.equal(torch.get_rng_state(), before)


class Telling(Dataset):
    """Each example tells of the process that made it."""

    def __init__(self, tensors):
        self.y = tensors[1]

    def __len__(self):
        return len(self.y)

    def __getitem__(self, index):
        ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        tiny = float(torch.tensor(1e-39))
        told = [os.getpid(), torch.get_num_threads(), int(ignored), int(tiny == 0.0), int(torch.is_grad_enabled()), 0]
        return torch.tensor(told, dtype=torch.float64), self.y[index]


def test_each_process_has_one_thread_ignores_ctrl_c_and_is_in_no_mode_of_its_parent():
    data = Data.of(Loaded(2, Telling), CPU)
    torch.set_flush_denormal(True)
    try:
        with data.loading.at_work(2, 8, pin=False), torch.inference_mode():
            batches = TrainingBatches(data.training, 8, 5)
            told = torch.cat([batches.at(step)[0] for step in range(6)])
            pids = data.loading.pids
            for pid in pids:
                os.kill(pid, signal.SIGINT)
            told = torch.cat([told, *(batches.at(step)[0] for step in range(6, 12))])
    finally:
        torch.set_flush_denormal(False)
    assert {int(pid) for pid in told[:, 0]} == set(pids), "none was replaced"
    assert told[:, 1:5].unique(dim=0).tolist() == [[1.0, 1.0, 1.0, 1.0]]


def test_examples_are_made_by_one_thread_here_too_because_sums_depend_on_their_number():
    data = Data.of(Loaded(0, Telling), CPU)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert data.training.first(3)[0][:, 1].tolist() == [1.0] * 3
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_processes_end_with_the_block_with_an_error_and_with_their_owner():
    data = Data.of(Loaded(2), CPU)
    with suppress(ZeroDivisionError), data.loading.at_work(2, 8, pin=False):
        TrainingBatches(data.training, 8, 5).at(0)
        pids = data.loading.pids
        raise ZeroDivisionError
    assert not any(psutil.pid_exists(pid) for pid in pids)
    working = data.loading.at_work(2, 8, pin=False)
    working.__enter__()
    TrainingBatches(data.training, 8, 5).at(0)
    pids = data.loading.pids
    assert all(psutil.pid_exists(pid) for pid in pids)
    del data, working
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in pids))


def test_outside_a_training_every_batch_is_fetched_by_the_process_itself():
    data = Data.of(Loaded(2, Telling), CPU)
    batches = TrainingBatches(data.training, 8, 5)
    with data.loading.at_work(2, 8, pin=False):
        assert os.getpid() not in batches.at(0)[0][:, 0].tolist()
        assert set(batches.fetched(0)[0][:, 0].tolist()) == {os.getpid()}
    assert set(batches.at(1)[0][:, 0].tolist()) == {os.getpid()}


def test_a_batch_that_is_taken_again_is_the_same_and_each_of_several_readers_has_its_own_copy():
    data = Data.of(Loaded(2, Batched), CPU)
    alone = [bits(batch) for batch in map(TrainingBatches(data.training, 8, 5).at, range(12))]
    with data.loading.at_work(2, 8, pin=False):
        batches = TrainingBatches(data.training, 8, 5)
        batches.at(0)[0].zero_()
        assert bits(batches.at(0)) == alone[0], "it was changed in place"
        batches.shared_by(3, repeated=True)
        for step in range(1, 6):
            for ahead in (0, 4, 0):  # three trials, one of them at another step
                batch = batches.at(step + ahead)
                assert bits(batch) == alone[step + ahead]
                batch[0].zero_()
        assert len(batches._readers._readers) == 2


def test_an_automatic_choice_weighs_fetching_against_the_rest_of_a_step():
    assert useful_processes(0.093, 0.009, 4) == 4
    assert useful_processes(0.093, 0.05, 4) == 2
    assert useful_processes(0.02, 0.1, 4) == 1
    assert useful_processes(0.0002, 0.0, 4) == 0, "it costs nothing"
    assert useful_processes(0.005, 0.1, 4) == 0, "hardly anything of a step"
    assert useful_processes(0.093, 0.009, 1) == 0, "no core is left for it"
    assert useful_processes(0.05, 0.0, 3) == 3


def test_an_automatic_choice_is_made_in_the_midst_of_a_training_and_changes_no_bit(monkeypatch, tmp_path):
    chosen = []
    monkeypatch.setattr("tuner.training.loading.useful_processes", lambda *seen: chosen.append(seen) or 2)
    assert trained(tmp_path / "auto", Loaded("auto")) == trained(tmp_path / "0", Loaded(0))
    assert len(chosen) == 1, "once a process"


@pytest.mark.parametrize(("tick", "processes"), [(2.0**-17, 0), (0.125, 1)])
def test_a_dataset_that_costs_nothing_gets_no_processes_by_itself(tick, processes, monkeypatch):
    """By a clock on which fetching a batch takes one tick, and the rest of a step one, too."""
    clock = SimpleNamespace(perf_counter=itertools.count(0.0, tick).__next__)
    monkeypatch.setattr("tuner.training.loading.time", clock)
    data = Data.of(Loaded("auto"), CPU)
    with data.loading.at_work("auto", 8, pin=False):
        batches = TrainingBatches(data.training, 8, 5)
        for step in range(20):
            batches.at(step)
        assert data.loading.chosen == len(data.loading.pids) == processes


class Mixed(Tiny):
    """Tensors to train on, a dataset to evaluate."""

    data_workers = 2

    def data(self):
        splits = super().data()
        return Splits(training=splits.training, validation=Telling(splits.validation))


def test_tensors_to_train_on_and_a_dataset_to_evaluate_go_together():
    data = Data.of(Mixed(), CPU)
    with data.loading.at_work(2, 8, pin=False):
        assert TrainingBatches(data.training, 8, 5).at(0)[0].shape == (8, 6)
        pids = {pid for batch, _ in data.validation.in_order(4) for pid in batch[0][:, 0].tolist()}
        assert pids == set(data.loading.pids)


class Streamed(Tiny):
    """Examples of a stream, each with the process that made it and how often a stream was opened there."""

    def __init__(self, processes):
        self.data_workers = processes
        self.opened = 0

    def data(self):
        splits = super().data()
        return Splits(training=Stream(self.examples), validation=splits.validation)

    def examples(self, start):
        self.opened += 1
        for number in itertools.count(start):
            drawn = [number, random.random(), float(torch.rand(())), np.random.rand()]
            yield torch.tensor(drawn), self.opened, os.getpid()


def test_a_stream_is_read_in_order_by_one_process_and_the_bits_are_the_same():
    workload = Streamed(0)
    workload.training_evaluation_examples = 20
    alone = TrainingBatches(Data.of(workload, CPU).training, 8, 5)
    expected = [alone.at(step)[0].tolist() for step in range(12)]
    workload = Streamed(3)
    workload.training_evaluation_examples = 20
    data = Data.of(workload, CPU)
    with data.loading.at_work(3, 8, pin=False):
        batches = TrainingBatches(data.training, 8, 5)
        found = [batches.at(step) for step in range(6)]
        assert len(list(data.training_sample.in_order(7))) == 3
        found += [batches.at(step) for step in range(6, 12)]
        batches.rewind()
        assert batches.at(4)[0].tolist() == expected[4]
    assert [batch[0].tolist() for batch in found] == expected
    assert len({int(pid) for batch in found for pid in batch[2]}) == 1
    assert {int(opened) for batch in found[:6] for opened in batch[1]} <= {1, 2}, "it stays open between batches"
