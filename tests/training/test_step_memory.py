"""The memory of an update: as worked out by hand, as two portions foresee it, and as advice where it does not fit."""

import gc
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from support.gpu import ON_GPU
from support.tiny import CPU, MemoryRecorder, Tiny, setting_for, tiny_study, train_alone
from torch import nn
from torch.utils.checkpoint import checkpoint

from tuner import Splits
from tuner.errors import WorkloadError
from tuner.records import State, StepMemory
from tuner.rounds.plan import planned_trials
from tuner.training import step_memory
from tuner.training.allocations import allocated
from tuner.training.preflight import check_workload, measured_price
from tuner.training.step_memory import foreseen_memory, memory_of_update
from tuner.training.trial_run import TrialRun

BATCH, WIDTH = 64, 32


class Mlp(Tiny):
    batch_size = BATCH

    def data(self):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(300, 64, generator=generator)
        y = (x[:, 0] > 0).long()
        return Splits(training=(x[:200], y[:200]), validation=(x[200:], y[200:]))

    def model(self, point):
        return nn.Sequential(nn.Linear(64, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 2))

    def augment(self, batch, point, generator):
        return batch


class Cnn(Mlp):
    def model(self, point):
        return nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(512, 2),
        )  # fmt: skip


# What each layer keeps for its gradient, in float32: the results of two ReLUs; or of two convolutions (which batch norm
# reads) and two ReLUs, the places of the largest values as int64, their values, and mean and deviation of two batch
# norms. Then the log-probabilities, the loss and the sum of its weights.
LOSS = 4 * BATCH * 2 + 4 + 4
BY_HAND = {
    Mlp: 2 * 4 * BATCH * WIDTH + LOSS,
    Cnn: 4 * (4 * BATCH * 32 * 64) + (8 + 4) * BATCH * 32 * 16 + 2 * 2 * 4 * 32 + LOSS,
}


def run_of(workload, folder, **changes):
    study = tiny_study(batch_size=workload.batch_size, **changes)
    return TrialRun(setting_for(study, folder, workload), planned_trials(study)[0])


@pytest.mark.parametrize("kind", BY_HAND)
def test_activations_are_those_counted_by_hand_and_portions_foresee_them(kind, tmp_path):
    run = run_of(kind(), tmp_path)
    foreseen = foreseen_memory(run_of(kind(), tmp_path))
    run.advance(2)
    found = memory_of_update(run)
    weights = sum(one.nbytes for one in run.model.parameters())
    assert found.activations == BY_HAND[kind]
    assert (found.parameters, found.gradients) == (weights, weights)
    assert 2 * weights <= found.optimizer < 2 * weights + 100  # two moments, and a count of steps each
    assert found.batch == 4 * BATCH * 64 + 8 * BATCH
    assert found.peak >= found.activations
    assert found.kept == 2 * sum(one.nbytes for one in run.model.state_dict().values()), "two best are kept"
    assert foreseen.activations == pytest.approx(found.activations, rel=0.01)
    assert foreseen.needed == pytest.approx(found.needed, rel=0.1)
    assert (foreseen.optimizer, foreseen.batch, foreseen.examples) == (found.optimizer, found.batch, BATCH)


@pytest.mark.parametrize("kind", BY_HAND)
def test_what_autograd_saves_is_counted_alike_by_its_own_hooks(kind, tmp_path):
    run = run_of(kind(), tmp_path)
    run.advance(1)
    found = memory_of_update(run).activations
    batch = run.batches.fetched(0)
    known = {one.untyped_storage()._cdata for one in (*run.model.parameters(), *run.model.buffers(), *batch)}
    saved = {}

    def keep(tensor):
        place = tensor.untyped_storage()
        if place._cdata not in known:
            saved[place._cdata] = place.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = run.setup.workload.loss(run.model, batch, run.point)
    assert sum(saved.values()) + loss.nbytes == pytest.approx(found, abs=16)


def test_activations_that_are_computed_again_take_less(tmp_path):
    class Deep(Mlp):
        batch_size = 192
        again = False

        def model(self, point):
            return Layers(self.again)

    class Again(Deep):
        again = True

    kept, again = (memory_of_update(advanced(kind(), tmp_path)) for kind in (Deep, Again))
    assert again.activations < 0.4 * kept.activations
    assert again.needed < kept.needed


class Layers(nn.Module):
    def __init__(self, again):
        super().__init__()
        self.again = again
        self.parts = nn.ModuleList(
            nn.Sequential(*[layer for _ in range(4) for layer in (nn.Linear(64, 64), nn.Tanh())]) for _ in range(4)
        )
        self.last = nn.Linear(64, 2)

    def forward(self, x):
        for part in self.parts:
            x = checkpoint(part, x, use_reentrant=False) if self.again else part(x)
        return self.last(x)


def advanced(workload, folder):
    run = run_of(workload, folder)
    run.advance(1)
    return run


def test_allocations_are_counted_with_those_that_are_gone_again():
    with allocated(CPU) as found:
        kept = torch.ones(1000)
        torch.ones(5000).sum()
    assert found.left == kept.nbytes
    assert 24_000 <= found.peak < 24_200


def test_what_python_collects_of_an_earlier_look_is_not_taken_off():
    """The allocator knows the size of what was made while it was watched, and says when it is freed later."""
    before = gc.get_threshold()
    with allocated(CPU):
        older = [torch.ones(50_000)]
    gc.set_threshold(1)
    try:
        with allocated(CPU) as found:
            circle = [older.pop()]
            circle.append(circle)  # only a collection frees it
            del circle
            kept = [torch.ones(10) for _ in range(20)]
    finally:
        gc.set_threshold(*before)
    assert found.left == sum(one.nbytes for one in kept)
    assert gc.isenabled()


def memory(**changes):
    of = {"parameters": 10, "gradients": 10, "optimizer": 20, "buffers": 0, "batch": 10, "activations": 2600}
    of |= {"peak": 2700, "kept": 10, "free": 1400}
    sizes = {name: value * 10**6 for name, value in of.items()}
    return StepMemory(**{**sizes, "examples": 256, "batch_size": 256, **changes})


def test_the_advice_names_the_numbers_and_the_line_to_write():
    told = memory().advice("Net")
    assert told == (
        "the step needs about 2.8 GB (activations 2.6 GB for 256 examples); 1.4 GB is free; micro_batch_size = 64 "
        "would need about 752.5 MB: write micro_batch_size = 64 in Net"
    )
    assert memory().needed_with(64) == (50 + 30) * 10**6 + 2690 * 10**6 // 4
    assert memory(free=2 * 10**9).micro_batch_size == 128, "the largest part that leaves some room"


def test_in_slices_the_advice_is_more_slices():
    told = memory(examples=64, batch_size=256).advice("Net")
    assert told.partition("; 1.4 GB is free; ")[2] == (
        "slices = 16 would need about 772.5 MB: write slices = 16 in Net, and give the campaign another name, because "
        "what a trial computes depends on its slices"
    )
    assert memory(examples=48, batch_size=96).micro_batch_size == 16, "a part of a slice, so that a slice is made of it"


@pytest.mark.parametrize(("batch_size", "slices"), [(8, 1), (2, 1), (64, 8)])
def test_small_batches_with_batch_norms_are_foreseen_too(batch_size, slices, tmp_path):
    study = tiny_study(batch_size=batch_size, slices=slices)
    run = TrialRun(setting_for(study, tmp_path, Cnn()), planned_trials(study)[0])
    assert f"for {batch_size // slices} examples" in run.out_of_memory()


def test_where_one_example_is_too_much_another_way_is_named():
    told = memory(free=60 * 10**6).advice("Net")
    assert "one example at a time would still need about" in told
    assert "torch.utils.checkpoint" in told
    assert memory(free=60 * 10**6).micro_batch_size == 0


def test_where_weights_fill_the_memory_no_part_of_a_batch_is_proposed():
    """Sums of gradients take more than fewer activations save: one example at a time would need ten sums."""
    sizes = {name: size * 10**6 for name, size in {"parameters": 800, "gradients": 800, "optimizer": 1600}.items()}
    heavy = memory(**sizes, activations=200 * 10**6, peak=1050 * 10**6, free=3 * 10**9)
    assert heavy.needed_with(1) > 2 * heavy.needed
    told = heavy.advice("Net")
    assert "fewer examples at a time would not need less, because it is not activations that fill it" in told
    assert "parameters 800.0 MB, gradients 800.0 MB, optimizer state 1.6 GB" in told
    assert "micro_batch_size" not in told


def test_a_trial_that_runs_out_of_memory_says_what_it_needs_and_what_would_fit(tmp_path, monkeypatch):
    class Greedy(Mlp):
        def loss(self, model, batch, point):
            if len(batch[0]) > 32:
                torch.empty(10**14)
            return super().loss(model, batch, point)

    study = tiny_study(batch_size=BATCH)
    run = advanced(Mlp(), tmp_path)
    of_weights = memory_of_update(run)
    monkeypatch.setattr(step_memory, "free_bytes", lambda device: of_weights.optimizer + of_weights.kept + 150_000)
    recorder = MemoryRecorder()
    setup = setting_for(study, tmp_path, Greedy())
    update = train_alone(setup, recorder, recorder.claim(planned_trials(study)[0]))
    assert update.state is State.INFEASIBLE
    assert "can't allocate memory" in update.reason
    assert "the step needs about" in update.reason
    assert "for 64 examples" in update.reason
    gc.collect()


def test_too_little_memory_is_said_before_anything_is_tried(tmp_path, monkeypatch, caplog):
    for known in ("free_bytes", "reachable_bytes"):
        monkeypatch.setattr(step_memory, known, lambda device: 20_000)
    study = tiny_study(batch_size=BATCH)
    setup, trial = setting_for(study, tmp_path, Mlp()), planned_trials(study)[0]
    check_workload(setup, trial)
    assert (
        "the first point needs more memory than there is, so nothing was tried with it: the step needs" in caplog.text
    )
    with pytest.raises(WorkloadError, match="no price for what cannot be trained here: the step needs about"):
        measured_price(setup, trial)


def test_swap_space_and_memory_that_can_be_freed_keep_a_study_from_being_refused(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(step_memory, "free_bytes", lambda device: 20_000)
    monkeypatch.setattr(step_memory, "reachable_bytes", lambda device: 10**9)
    study = tiny_study(batch_size=BATCH)
    setup, trial = setting_for(study, tmp_path, Mlp()), planned_trials(study)[0]
    check_workload(setup, trial)
    assert "more memory than there is" not in caplog.text
    found = measured_price(setup, trial).memory
    assert found is not None
    assert not found.fits


class Padded(Mlp):
    """Examples of 1 to 64 values, in one batch of the longest of them."""

    batch_size = 64

    def data(self):
        lengths = [1, 1, 1, 1, 1, 1, 1, 1, 64, *[32] * 119]
        rows = [(torch.ones(length), torch.tensor(length % 2)) for length in lengths]
        return Splits(training=rows, validation=rows[:64])

    def collate(self, examples):
        return torch.nn.utils.rnn.pad_sequence([x for x, _ in examples], True), torch.stack([y for _, y in examples])

    def model(self, point):
        return Reader()


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.wide, self.narrow = nn.Linear(1, 32), nn.Linear(32, 2)

    def forward(self, x):
        return self.narrow(torch.tanh(self.wide(x.unsqueeze(-1))).mean(1))


def test_two_portions_that_are_padded_to_other_lengths_do_not_foresee_more_than_there_will_be(tmp_path):
    foreseen = foreseen_memory(run_of(Padded(), tmp_path))
    run, longest = run_of(Padded(), tmp_path), torch.ones(64, 64)
    run.model(longest)
    with allocated(CPU) as found:
        kept = run.model(longest)
    del kept
    assert found.left <= foreseen.activations <= 1.05 * found.left, "all at the largest length, and the loss"


def test_sparse_gradients_take_what_they_hold_and_not_a_whole_table(tmp_path):
    class Table(Mlp):
        def data(self):
            x = torch.arange(200) % 50
            return Splits(training=(x, x % 2), validation=(x, x % 2))

        def model(self, point):
            return nn.Sequential(nn.Embedding(20_000, 2, sparse=True))

    run = run_of(Table(), tmp_path, optimizer="sgd")
    assert foreseen_memory(run).gradients < 0.01 * 20_000 * 2 * 4


APART = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed goes back to the system at once
OUT_OF_MEMORY = """
import resource, sys
sys.path[:0] = ["tests"]
import torch
from pathlib import Path
torch.set_num_threads(1)
from training.test_step_memory import Wide
from support.tiny import MemoryRecorder, setting_for, tiny_study, train_alone
from tuner.rounds.plan import planned_trials
from tuner.training.memory import free_bytes
study = tiny_study(batch_size=2048)
setup = setting_for(study, Path(sys.argv[1]), Wide())
used = int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmSize")))
resource.setrlimit(resource.RLIMIT_AS, (1024 * used + 150 * 2**20, resource.RLIM_INFINITY))
assert free_bytes(torch.device("cpu")) <= 150 * 2**20
recorder = MemoryRecorder()
print(train_alone(setup, recorder, recorder.claim(planned_trials(study)[0])).reason)
"""


class Wide(Mlp):
    """Of 2,048 examples its 20 layers keep 20 * 2048 * 1024 * 4 bytes: 168 MB."""

    batch_size = 2048

    def data(self):
        x = torch.randn(4200, 64)
        return Splits(training=(x[:4100], x[:4100, 0].long() * 0), validation=(x[4100:], x[4100:, 0].long() * 0))

    def model(self, point):
        layers = [layer for _ in range(20) for layer in (nn.Linear(1024, 16), nn.Linear(16, 1024), nn.Tanh())]
        return nn.Sequential(nn.Linear(64, 1024), *layers, nn.Linear(1024, 2))

    def loss(self, model, batch, point):
        return F.cross_entropy(model(batch[0]), batch[1])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="a process is given so little memory there")
def test_where_memory_really_ends_the_advice_fits_it(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", OUT_OF_MEMORY, str(tmp_path)], capture_output=True, text=True, check=False, env=APART
    )
    assert "can't allocate memory" in done.stdout, done.stderr[-2000:]
    assert "MB for 2,048 examples)" in done.stdout
    assert "write micro_batch_size = " in done.stdout


RESIDENT = """
import sys
sys.path[:0] = ["tests"]
from pathlib import Path
import torch
torch.set_num_threads(1)
from training.test_step_memory import Wide
from support.tiny import setting_for, tiny_study
from tuner.rounds.plan import planned_trials
from tuner.training.step_memory import foreseen_memory
from tuner.training.trial_run import TrialRun

def resident(word):
    status = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in status if line.startswith(word))

study = tiny_study(batch_size=2048)
run = TrialRun(setting_for(study, Path(sys.argv[1]), Wide()), planned_trials(study)[0])
foreseen = foreseen_memory(run)
run.advance(1)
Path("/proc/self/clear_refs").write_text("5")  # the highest point so far is forgotten
before = resident("VmRSS:")
run.advance(2)
print(foreseen.peak, resident("VmHWM:") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the system counts in another way there")
def test_the_resident_memory_of_a_process_grows_as_foreseen(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", RESIDENT, str(tmp_path)], capture_output=True, text=True, check=True, env=APART
    )
    peak, grown = map(int, done.stdout.split())
    assert 0.9 * peak <= grown <= 1.1 * peak


@ON_GPU[0]
@ON_GPU[1]
def test_on_a_gpu_the_allocator_agrees_with_what_is_foreseen(tmp_path):
    device = torch.device("cuda", 0)
    study = tiny_study(batch_size=2048)
    run, other = (TrialRun(setting_for(study, tmp_path, Wide(), device), planned_trials(study)[0]) for _ in range(2))
    foreseen = foreseen_memory(other)
    run.advance(2)
    found = memory_of_update(run)
    assert foreseen.activations == pytest.approx(found.activations, rel=0.05)
    assert foreseen.needed == pytest.approx(found.needed, rel=0.15)
