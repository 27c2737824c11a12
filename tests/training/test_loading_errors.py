"""What a dataset does wrong in a loading process: said and judged as if it had been done here."""

import os
import re
import signal
import sys
import threading
from functools import partial
from types import ModuleType

import pytest
import torch
from support.drawing import Drawing, OfDrawing
from support.tiny import CPU, MemoryRecorder, Tiny, setting_for, tiny_study, train_alone
from torch.utils.data import Dataset

from tuner import Campaign, Infeasible, Round, SearchSpace, Splits, log_uniform
from tuner.design.study_file import load_campaign
from tuner.errors import DeclarationError, Paused, WorkloadError
from tuner.records import State
from tuner.rounds.plan import planned_trials
from tuner.training import loading_processes
from tuner.training.batches import TrainingBatches
from tuner.training.loading_processes import LoadingProcesses, check_loading
from tuner.training.setup import Data
from tuner.training.travelling_errors import TravellingError

STUDY = tiny_study()
TRIAL = planned_trials(STUDY)[0]
TENSORS = Tiny().data().training


class OfTwo(Exception):
    """It cannot be made again from its message."""

    def __init__(self, file, line):
        super().__init__(f"{file}, line {line}, cannot be read")
        self.line = line


class Failing(Dataset):
    """Raises an error at one example."""

    def __init__(self, tensors, fail, at=17):
        self.x, self.y = tensors
        self.fail, self.at = fail, at

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        if index == self.at:
            self.fail()
        return self.x[index], self.y[index]


class Broken(OfDrawing):
    """Its training split alone fails."""

    def __init__(self, processes, fail):
        super().__init__(partial(Failing, fail=fail))
        self.data_workers = processes

    def data(self):
        splits = super().data()
        return Splits(training=splits.training, validation=Tiny().data().validation)


def two():
    raise OfTwo("photo.jpg", 3)


def missing():
    open("/nonexistent/photo.jpg").close()


def key():
    raise KeyError("label")


def infeasible():
    raise Infeasible("too wide")


def memory():
    raise MemoryError("no room")


def chained():
    try:
        key()
    except KeyError as error:
        raise ValueError("no label") from error


def local():
    class Own(ValueError):
        pass

    raise Own("odd")


def ended(folder, processes, fail):
    """How the trial ends, without how much memory is free at that moment."""
    setup = setting_for(STUDY, folder, Broken(processes, fail))
    recorder = MemoryRecorder()
    update = train_alone(setup, recorder, recorder.claim(TRIAL))
    assert setup.data.loading.pids == []
    return update.state, re.sub(r"[\d.]+ .B is free", "some is free", update.reason)


@pytest.mark.parametrize("fail", [two, missing, key, infeasible, memory, chained])
def test_a_trial_ends_by_an_error_of_its_dataset_as_without_processes(fail, tmp_path):
    alone = ended(tmp_path / "0", 0, fail)
    assert ended(tmp_path / "2", 2, fail) == alone
    assert alone[0] is (State.INFEASIBLE if fail in (infeasible, memory) else State.FAILED)


def test_a_reason_names_the_place_in_the_users_code(tmp_path):
    _, reason = ended(tmp_path, 1, two)
    assert reason.startswith("OfTwo: photo.jpg, line 3, cannot be read (")
    assert reason.endswith("in two)")
    assert __file__ in reason


def test_an_error_travels_with_its_attributes_its_causes_and_its_traceback():
    with pytest.raises(OfTwo) as caught:
        raised_elsewhere(two)
    assert caught.value.line == 3
    assert caught.traceback[-1].name == "two"
    with pytest.raises(ValueError, match="no label") as chain:
        raised_elsewhere(chained)
    assert isinstance(chain.value.__cause__, KeyError)
    with pytest.raises(ValueError, match="Own: odd"):
        raised_elsewhere(local)


def raised_elsewhere(fail):
    processes = LoadingProcesses([fail], 1)
    try:
        next(processes.ahead(iter([(0, ())])))
    finally:
        processes.close()


def test_an_error_that_nothing_can_be_made_of_is_told_as_text():
    class Odd(BaseException):
        def __str__(self):
            return "odd"

    travelling = TravellingError.of(Odd())
    assert "Odd: odd" in str(travelling.error())


def test_an_error_of_a_later_batch_comes_when_its_turn_comes():
    def make(number):
        return number if number != 3 else key()

    processes = LoadingProcesses([make], 2)
    try:
        batches = processes.ahead((0, (number,)) for number in range(6))
        assert [next(batches) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(KeyError, match="label"):
            next(batches)
        assert list(batches) == [4, 5]
    finally:
        processes.close()


def test_a_batch_that_cannot_be_sent_is_an_error_and_no_standstill():
    for made in (threading.Lock, lambda: lambda: 0, lambda: torch.ones(2, requires_grad=True) * 2):
        with pytest.raises(WorkloadError, match=r"a batch cannot be sent from .* set data_workers = 0"):
            raised_elsewhere(made)


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_batch_at_which_every_process_ends_pauses_the_trial_after_a_few(tmp_path, caplog):
    setup = setting_for(STUDY, tmp_path, Broken(2, killed))
    recorder = MemoryRecorder()
    with pytest.raises(Paused, match=r"3 loading processes ended .* the last killed by SIGKILL .* data_workers = 0"):
        train_alone(setup, recorder, recorder.claim(TRIAL))
    assert caplog.text.count("is replaced") >= loading_processes.MOST_DEATHS - 1, "batches before it are made first"
    assert setup.data.loading.pids == []


@pytest.mark.slow
def test_a_process_that_ends_by_itself_is_replaced_and_an_exit_of_the_dataset_is_one_here():
    with pytest.raises(SystemExit):
        raised_elsewhere(lambda: exit(3))
    with pytest.raises(Paused, match="with exit code 5"):
        raised_elsewhere(lambda: os._exit(5))


@pytest.mark.parametrize("wrong", [-1, 257, 2.5, True, "four", None, "4"])
def test_data_workers_is_a_whole_number_or_auto(wrong):
    workload = OfDrawing(Drawing)
    workload.data_workers = wrong
    rounds = [
        Round("which rate", trials=2, max_train_steps=24, space=SearchSpace(learning_rate=log_uniform(1e-3, 1e-1)))
    ]
    with pytest.raises(DeclarationError, match=r"data_workers is a whole number from 0 to 256, or \"auto\""):
        Campaign(workload, rounds=rounds)


def test_tensors_in_memory_refuse_processes_and_leave_an_automatic_choice_at_none():
    workload = Tiny()
    workload.data_workers = 2
    with pytest.raises(WorkloadError, match=r"Tiny.data_workers = 2 would change nothing: .* tensors in memory"):
        Data.of(workload, CPU)
    workload.data_workers = "auto"
    data = Data.of(workload, CPU)
    with data.loading.at_work("auto", 8, pin=False):
        assert TrainingBatches(data.training, 8, 5).at(0)[0].shape == (8, 6)
        assert data.loading.pids == []


@pytest.fixture
def anew(monkeypatch):
    """Processes that are not forked."""
    monkeypatch.setattr(loading_processes, "start_method", lambda: "spawn")


def test_what_cannot_be_pickled_is_refused_where_processes_are_not_forked(anew):
    broken = Data.of(OfDrawing(partial(Drawing, draw=lambda: 0.0)), CPU)
    with pytest.raises(WorkloadError, match=r"cannot be sent to loading processes .* lambdas.* data_workers = 0"):
        broken.loading.check()


def test_processes_that_are_started_anew_give_the_same_bits(anew):
    data = Data.of(OfDrawing(Drawing), CPU)
    data.loading.check()
    alone = TrainingBatches(data.training, 8, 5)
    expected = [alone.at(step)[0].tolist() for step in range(9)]
    with data.loading.at_work(2, 8, pin=False):
        batches = TrainingBatches(data.training, 8, 5)
        assert [batches.at(step)[0].tolist() for step in range(9)] == expected


STUDY_FILE = """
import torch
from tuner import Campaign, Round, SearchSpace, Splits, Workload, log_uniform, minimize


class Numbers(torch.utils.data.Dataset):
    def __len__(self):
        return 32

    def __getitem__(self, index):
        return index + torch.rand(3), index


class Net(Workload):
    batch_size = 8
    select_by = minimize("validation/loss")

    def data(self):
        return Splits(training=Numbers(), validation=Numbers())


space = SearchSpace(learning_rate=log_uniform(1e-3, 1e-1))
campaign = Campaign(Net(), rounds=[Round("which rate", trials=2, max_train_steps=24, space=space)])
"""


def test_processes_that_are_started_anew_load_the_study_file_that_they_need_and_no_other(anew, tmp_path, monkeypatch):
    study = tmp_path / "counted.py"
    study.write_text(STUDY_FILE)
    _, campaign = load_campaign(study)
    other = ModuleType("tuner_study_of_a_folder_that_is_gone")
    other.__file__ = str(tmp_path / "gone.py")
    monkeypatch.setitem(sys.modules, other.__name__, other)
    data = Data.of(campaign.workload, CPU)
    data.loading.check()
    expected = TrainingBatches(data.training, 8, 5).at(2)[0].tolist()
    with data.loading.at_work(1, 8, pin=False):
        assert TrainingBatches(data.training, 8, 5).at(2)[0].tolist() == expected


def test_forked_processes_need_not_be_given_anything():
    check_loading([lambda: 0])


def test_a_dataset_that_uses_the_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(loading_processes, "_uses_cuda", lambda: True)
    with pytest.raises(WorkloadError, match="the dataset uses the GPU"):
        loading_processes._sent(0)


@pytest.mark.filterwarnings("ignore:.*parse.*:UserWarning")  # torch's own, of checks of sparse tensors
@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(3.5, dtype=torch.bfloat16),
        torch.arange(6).reshape(2, 3),
        torch.arange(6).reshape(2, 3).T,
        torch.tensor([True, False]),
        torch.empty(0, 3),
        torch.ones(4)[1:3],
        torch.zeros(2, 1, 3).transpose(0, 1),
        torch.rand(1000, generator=torch.Generator().manual_seed(0)),
        torch.tensor([1 + 2j]).conj(),
        torch.eye(3).to_sparse(),
    ],
    ids=lambda tensor: f"{tensor.dtype} {list(tensor.shape)} {tensor.layout}",
)
def test_a_tensor_arrives_as_it_was_sent_whatever_its_size_and_strides(tensor):
    (arrived,) = loading_processes._Message.of((tensor,)).content()
    assert (arrived.dtype, arrived.shape, arrived.layout) == (tensor.dtype, tensor.shape, tensor.layout)
    assert torch.equal(arrived.to_dense(), tensor.to_dense())
    if tensor.layout is torch.strided:
        assert arrived.stride() == tensor.stride()
        arrived.zero_()  # it may be written to


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_nested_tensors_arrive_too(layout):
    parts = [torch.arange(2.0), torch.arange(3.0)]
    (arrived,) = loading_processes._Message.of((torch.nested.nested_tensor(parts, layout=layout),)).content()
    assert [one.tolist() for one in arrived.unbind()] == [one.tolist() for one in parts]
