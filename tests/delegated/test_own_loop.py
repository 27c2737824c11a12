"""An own loop by its handle: the curve of the loop alone, exact after every stop, and each breach is told."""

import copy
import gc
import importlib
import itertools
import math
import random
import re
import weakref

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.loops import Plain, X, Y, kept_at_the_end, setup_for, train_loop
from support.tiny import CPU, CuttingRecorder, MemoryRecorder, StopAt, tiny_study
from torch import nn

from tuner.delegated.looks import look_at, trial_at
from tuner.delegated.trainee import LoopTrainee
from tuner.delegated.trial import StudySchedule
from tuner.design.prefix import rates_of
from tuner.errors import Infeasible, WorkloadError
from tuner.records import State
from tuner.rounds.plan import planned_trials
from tuner.training import committing
from tuner.training.checkpoints import read_weights
from tuner.training.randomness import callers_generators_restored, seed_global_generators

STUDY = tiny_study(batch_size=0, optimizer=None)
TRIAL = planned_trials(STUDY)[0]
SEED = TRIAL.seed & 0xFFFF_FFFF  # NumPy's seed, and those of other libraries, have 32 bits
DUE = STUDY.budget.evaluation_steps


def whole(workload, folder, study=STUDY, trial=TRIAL):
    recorder = MemoryRecorder()
    update = train_loop(setup_for(workload, folder, study), recorder, trial)
    return update, recorder


def test_the_curve_is_that_of_the_loop_without_us(tmp_path):
    update, recorder = whole(Plain(), tmp_path)
    assert update.state is State.COMPLETE
    curve = {}
    with callers_generators_restored(CPU):
        seed_global_generators(SEED, CPU)
        model = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, 2))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1.0)
        for step, rate in enumerate(rates_of(TRIAL)):
            rows = torch.randint(50, (8,))
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            F.cross_entropy(model.train()(X[rows]), Y[rows]).backward()
            optimizer.step()
            if step + 1 in DUE:
                with torch.no_grad():
                    loss = F.cross_entropy(model.eval()(X[50:]), Y[50:])
                    wrong = (model(X[:50]).argmax(-1) != Y[:50]).double().mean()
                curve |= {(step + 1, "validation/loss"): loss.item().hex()}
                curve |= {(step + 1, "training/error_rate"): wrong.item().hex()}
    assert recorder.measurements == curve
    assert {step for step, _ in curve} == set(DUE)


class Scheduled(Plain):
    """The same rates by a scheduler of torch."""

    def step(self, trial, step, model, optimizer, batch):
        if step == trial.step and not hasattr(trial, "followed"):
            trial.followed = trial.scheduler(optimizer)
        optimizer.zero_grad()
        F.cross_entropy(model.train()(batch[0]), batch[1]).backward()
        optimizer.step()
        trial.followed.step()
        if trial.evaluates(step):
            with torch.no_grad():
                trial.report(self.metrics(model))


def test_the_scheduler_sets_the_rates_that_rate_gives(tmp_path):
    assert whole(Scheduled(), tmp_path / "a")[1].measurements == whole(Plain(), tmp_path / "b")[1].measurements


class OfAll(Plain):
    """Draws from all global generators in each step, and from three of its own that are kept."""

    def keep(self, trial, model, optimizer):
        self.own = torch.Generator().manual_seed(1), np.random.default_rng(2), random.Random(3)
        trial.keep(a=self.own[0], b=self.own[1], c=self.own[2], model=model, optimizer=optimizer)

    def batches(self, trial):
        while True:
            number = int(np.random.randint(50)) + random.randrange(50) + int(torch.randint(50, ()))
            number += int(torch.randint(50, (), generator=self.own[0]))
            number += int(self.own[1].integers(50)) + self.own[2].randrange(50)
            rows = (torch.arange(8) * 3 + number) % 50
            yield X[rows], Y[rows]


def test_the_scheduler_takes_a_rate_that_is_a_tensor():
    """float(torch.tensor(0.01)) is not 0.01: a compiled step takes rates as tensors of 32 bits."""
    base, parameters = 0.01, [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [
        {"params": [one], "lr": torch.tensor(rate)} for one, rate in zip(parameters, (base, 2 * base), strict=True)
    ]
    optimizer = torch.optim.SGD(groups)
    scheduler = StudySchedule(optimizer, lambda step: base / (step + 1), base, 0)
    for step in range(3):
        rates = [group["lr"] for group in optimizer.param_groups]
        torch.testing.assert_close(rates, [torch.tensor(one / (step + 1)) for one in (base, 2 * base)])
        optimizer.step()
        scheduler.step()
    with pytest.raises(WorkloadError, match=r"no group of the optimizer begins at learning_rate = 0\.03"):
        StudySchedule(torch.optim.SGD(groups), lambda step: base, 0.03, 0)


@pytest.mark.parametrize("kind", [Plain, Scheduled, OfAll])
def test_a_trial_that_is_stopped_at_any_step_has_the_same_bits(kind, tmp_path):
    _, expected = whole(kind(), tmp_path / "whole")
    states = kept_at_the_end(tmp_path / "whole", expected)
    for question in range(1, STUDY.budget.max_train_steps + 1, 2):
        folder, recorder = tmp_path / str(question), MemoryRecorder()
        setup = setup_for(kind(), folder, stop=StopAt(question))
        assert train_loop(setup, recorder, TRIAL).state is State.RUNNING
        assert train_loop(setup_for(kind(), folder), recorder, TRIAL).state is State.COMPLETE
        assert recorder.measurements == expected.measurements
        assert kept_at_the_end(folder, recorder) == states
        assert recorder.updates[-1].numerics.exact


def test_a_trial_goes_on_from_its_last_commit_when_it_is_killed(tmp_path):
    class Dies(Plain):
        left = 10**9

        def step(self, trial, step, *others):
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
            super().step(trial, step, *others)

    _, expected = whole(Plain(), tmp_path / "whole")
    recorder, dying = CuttingRecorder(), Dies()
    for left in (5, 7, 9):
        dying.left = left
        with pytest.raises(KeyboardInterrupt):
            train_loop(setup_for(dying, tmp_path, commit_seconds=0.0), recorder, TRIAL)
    dying.left = 10**9
    assert train_loop(setup_for(dying, tmp_path, commit_seconds=0.0), recorder, TRIAL).state is State.COMPLETE
    assert recorder.measurements == expected.measurements


def test_a_large_state_that_is_saved_beside_the_training_is_that_of_one_step(tmp_path, monkeypatch):
    monkeypatch.setattr(committing, "BACKGROUND_BYTES", 0)
    _, expected = whole(Plain(), tmp_path / "whole")
    for steps in range(2, 20, 3):
        recorder, dying = CuttingRecorder(), DiesAt(steps)
        setup = setup_for(dying, tmp_path / str(steps), commit_seconds=0.0)
        with pytest.raises(KeyboardInterrupt):
            train_loop(setup, recorder, TRIAL)
        resumed = setup_for(Plain(), tmp_path / str(steps))
        assert train_loop(resumed, recorder, TRIAL).state is State.COMPLETE
        assert recorder.measurements == expected.measurements


class DiesAt(Plain):
    def __init__(self, at):
        super().__init__()
        self.at = at

    def step(self, trial, step, *others):
        if step == self.at:
            raise KeyboardInterrupt
        super().step(trial, step, *others)


def test_a_signal_stops_at_the_next_boundary_of_a_step_and_saves_it(tmp_path):
    recorder, stepped = MemoryRecorder(), []

    class Noting(Plain):
        def step(self, trial, step, *others):
            super().step(trial, step, *others)
            stepped.append(step)

    update = train_loop(setup_for(Noting(), tmp_path, stop=lambda: len(stepped) == 7), recorder, TRIAL)
    assert (update.state, update.step) == (State.RUNNING, 7)
    assert [one.step for one in update.checkpoints if one.kind == "latest"] == [7]


# What a loop may keep.


class KeepsMuch(Plain):
    """Compiled and averaged models, torch's schedulers, a scaler, a metric of torchmetrics, an own object."""

    def keep(self, trial, model, optimizer):
        torchmetrics = importlib.import_module("torchmetrics")
        averaging = torch.optim.swa_utils
        self.average = averaging.AveragedModel(model, multi_avg_fn=averaging.get_ema_multi_avg_fn())
        self.compiled: nn.Module = torch.compile(model, backend="eager")
        other = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        self.scheduler = torch.optim.lr_scheduler.SequentialLR(
            other,
            [
                torch.optim.lr_scheduler.LinearLR(other, total_iters=5),
                torch.optim.lr_scheduler.CosineAnnealingLR(other, T_max=20),
            ],
            milestones=[5],
        )
        self.other, self.scaler = other, torch.amp.GradScaler("cpu")
        self.metric = torchmetrics.MeanMetric()
        self.metric.persistent(True)
        trial.keep(
            model=self.compiled, average=self.average, optimizer=optimizer, other=other, scheduler=self.scheduler,
            scaler=self.scaler, metric=self.metric,
        )  # fmt: skip

    def step(self, trial, step, model, optimizer, batch):
        optimizer.zero_grad()
        loss = F.cross_entropy(self.compiled.train()(batch[0]), batch[1])
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        self.scaler.step(optimizer)
        self.scaler.update()
        self.other.step()
        self.scheduler.step()
        self.metric.update(loss.detach())
        self.average.update_parameters(model)
        if trial.evaluates(step):
            with torch.no_grad():
                rate = self.scheduler.get_last_lr()[0]
                more = {"training/rate": rate, "training/loss": self.metric.compute()}
                trial.report(self.metrics(self.average) | more | {"training/scale": self.scaler.get_scale()})


@pytest.mark.needs("lightning")  # which torchmetrics comes with
def test_compiled_and_averaged_models_schedulers_scalers_and_metrics_are_kept(tmp_path):
    update, expected = whole(KeepsMuch(), tmp_path / "whole")
    assert update.state is State.COMPLETE, update.reason
    best = next(one for one in update.checkpoints if one.kind == "best")
    names = read_weights(tmp_path / "whole", best)
    assert {"model.0.weight", "average.module.0.weight", "average.n_averaged"} <= names.keys()
    for question in (1, 8, 16):
        recorder = MemoryRecorder()
        train_loop(setup_for(KeepsMuch(), tmp_path / str(question), stop=StopAt(question)), recorder, TRIAL)
        assert train_loop(setup_for(KeepsMuch(), tmp_path / str(question)), recorder, TRIAL).state is State.COMPLETE
        assert recorder.measurements == expected.measurements


def stopped_then(first, second, folder):
    recorder = MemoryRecorder()
    train_loop(setup_for(first, folder, stop=StopAt(6)), recorder, TRIAL)
    before = list(recorder.updates)
    with pytest.raises(WorkloadError) as caught:
        train_loop(setup_for(second, folder), recorder, TRIAL)
    assert recorder.updates == before, "nothing is recorded, nothing is lost"
    assert train_loop(setup_for(first, folder), recorder, TRIAL).state is State.COMPLETE
    return str(caught.value)


def keeping(**kept):
    class Keeps(Plain):
        def keep(self, trial, model, optimizer):
            trial.keep(**{name: {"model": model, "optimizer": optimizer}.get(one, one) for name, one in kept.items()})

    return Keeps()


def test_other_kept_objects_than_when_it_was_saved_are_named(tmp_path):
    both, renamed = keeping(model="model", optimizer="optimizer"), keeping(model="model", optim="optimizer")
    said = stopped_then(both, renamed, tmp_path)
    assert "optimizer: in the checkpoint, and not kept; optim: kept, and not in the checkpoint" in said


def test_a_state_that_does_not_fit_its_object_is_told(tmp_path):
    class Wider(Plain):
        def model(self, trial):
            return nn.Sequential(nn.Linear(6, 13), nn.ReLU(), nn.Linear(13, 2))

    said = stopped_then(Plain(), Wider(), tmp_path)
    assert "does not fit model (Sequential)" in said
    assert "has changed" in said


def test_files_that_are_kept_no_more_are_told(tmp_path):
    class OfFiles(Plain):
        def keep(self, trial, model, optimizer):
            both = {"model": model, "optimizer": optimizer}

            def save(folder):
                torch.save({name: one.state_dict() for name, one in both.items()}, folder / "all.pt")

            def load(folder):
                for name, state in torch.load(folder / "all.pt", weights_only=True).items():
                    both[name].load_state_dict(state)

            trial.keep_files(save, load)

    said = stopped_then(OfFiles(), keeping(), tmp_path / "a")
    assert "its checkpoint holds files and the loop keeps none" in said
    said = stopped_then(Plain(), OfFiles(), tmp_path / "b")
    assert "in the checkpoint, and not kept" in said
    _, expected = whole(Plain(), tmp_path / "c")
    recorder = MemoryRecorder()
    train_loop(setup_for(OfFiles(), tmp_path / "d", stop=StopAt(9)), recorder, TRIAL)
    assert train_loop(setup_for(OfFiles(), tmp_path / "d"), recorder, TRIAL).state is State.COMPLETE
    assert recorder.measurements == expected.measurements


def test_an_object_that_is_kept_again_under_its_name_gets_the_state_too(tmp_path):
    class Wrapped(Plain):
        def keep(self, trial, model, optimizer):
            trial.keep(model=copy.deepcopy(model))
            trial.keep(model=model, optimizer=optimizer)

    _, expected = whole(Wrapped(), tmp_path / "a")
    recorder = MemoryRecorder()
    train_loop(setup_for(Wrapped(), tmp_path / "b", stop=StopAt(9)), recorder, TRIAL)
    train_loop(setup_for(Wrapped(), tmp_path / "b"), recorder, TRIAL)
    assert recorder.measurements == expected.measurements


# What breaks the contract.


def changed(report=None, **methods):
    """A loop whose steps are those of Plain, and whose reports are `report(trial, step, metrics)`."""

    class Changed(Plain):
        def step(self, trial, step, model, optimizer, batch):
            handle = _Reporting(trial, report, step) if report else trial
            super().step(handle, step, model, optimizer, batch)

    for name, method in methods.items():
        setattr(Changed, name, method)
    return Changed()


class _Reporting:
    def __init__(self, trial, report, step):
        self.trial, self.reporter, self.at = trial, report, step

    def __getattr__(self, name):
        return getattr(self.trial, name)

    def report(self, metrics):
        self.reporter(self.trial, self.at, metrics)


def without_handle(self, trial):
    trial.keep(model=self.model(trial))
    for step in range(10**9):
        if trial.evaluates(step):
            trial.report({"validation/loss": 1.0, "training/error_rate": 0.0}, step=step + 1)


def told_and_goes_on(self, trial):
    trial.keep(model=self.model(trial))
    for step in range(10**9):
        if step + 1 in trial.evaluation_steps:
            trial.report({"validation/loss": 1.0}, step=step + 1)
        trial.stepped(step + 1)


def asks_beyond(self, trial):
    trial.keep(model=self.model(trial))
    for step in trial.steps():
        if trial.evaluates(step):
            trial.report({"validation/loss": 1.0})
    for step in itertools.count(trial.step):
        trial.evaluates(step)


def breaks_out(self, trial):
    trial.keep(model=self.model(trial))
    for step in trial.steps():
        if step == 3:
            break


def begins_steps_again(self, trial):
    trial.keep(model=self.model(trial))
    while True:
        for _ in trial.steps():
            break


def keeps_late(self, trial):
    for _ in trial.steps():
        trial.keep(model=self.model(trial))


def keeps_a_number(self, trial):
    trial.keep(epoch=3)


def goes_back(self, trial):
    trial.keep(model=self.model(trial))
    trial.stepped(1)
    trial.stepped(0)


def passes_an_evaluation(self, trial):
    trial.keep(model=self.model(trial))
    trial.stepped(STUDY.budget.max_train_steps)


def twice(trial, step, metrics):
    trial.report(metrics)
    trial.report(metrics)


BREACHES = {
    "goes on without the handle": (changed(train=without_handle), "has not said that the"),
    "goes on though it is told to end": (changed(train=told_and_goes_on), "after it was told to end at"),
    "goes on after the end": (changed(train=asks_beyond), "after the end of its trial"),
    "breaks out": (changed(train=breaks_out), r"returned after 3 of 24 updates.*its data ended.*trial\.batches\("),
    "returns at once": (changed(train=lambda self, trial: None), "returned after 0 (of 24 )?updates"),
    "steps within a step": (changed(train=begins_steps_again), "call it once"),
    "keeps after the first step": (changed(train=keeps_late), "called after the first step"),
    "keeps what has no state": (changed(train=keeps_a_number), r"trial.keep\(epoch=...\) takes objects"),
    "steps backwards": (changed(train=goes_back), "says that 0 updates are made, after 1"),
    "passes an evaluation": (changed(train=passes_an_evaluation), "reported nothing after"),
    "reports nothing": (changed(lambda *given: None), "reported nothing after"),
    "reports where nothing is due": (
        changed(lambda trial, step, metrics: trial.report(metrics, step=step)), "no evaluation is due"
    ),
    "reports beyond the end": (
        changed(lambda trial, step, metrics: trial.report(metrics, step=100)), "the trial ends after 24"
    ),
    "reports backwards": (
        changed(lambda trial, step, metrics: trial.report(metrics, step=DUE[0] if step >= DUE[1] else None)),
        "after step .*: reports go forward",
    ),
    "reports twice": (changed(twice), "reports training/error_rate, validation/loss twice after"),
    "reports no number": (
        changed(lambda trial, step, metrics: trial.report({"validation/loss": torch.ones(3)})), "is no number"
    ),
    "reports a text": (changed(lambda trial, step, metrics: trial.report({"validation/loss": "low"})), "is no number"),
    "reports as to Optuna": (
        changed(lambda trial, step, metrics: trial.report(0.5, step)), r"trial.report\(\{'validation/loss': value\}\)"
    ),
    "reports no metrics by name": (changed(lambda trial, step, metrics: trial.report(0.5)), "takes metrics by name"),
    "reports a name of no split": (
        changed(lambda trial, step, metrics: trial.report({"loss": 0.5})), "named by split and name"
    ),
    "reports the test split": (
        changed(lambda trial, step, metrics: trial.report({"test/loss": 0.5})), "never selects anything"
    ),
    "misspells the metric": (
        changed(lambda trial, step, metrics: trial.report({"validation/los": 0.5})), "did you mean 'validation/los'"
    ),
}  # fmt: skip


# A look is of four steps, and evaluated after others: it finds these where it finds them, in other words.
OF_WHOLE_TRIALS = {
    "breaks out", "passes an evaluation", "reports beyond the end", "reports backwards", "reports where nothing is due",
}  # fmt: skip


@pytest.mark.parametrize("breach", BREACHES)
def test_each_breach_is_one_clear_error_at_the_first_look_and_in_a_trial(breach, tmp_path):
    workload, words = BREACHES[breach]
    if breach not in OF_WHOLE_TRIALS:
        with pytest.raises(WorkloadError, match=words):
            look_at(setup_for(workload, tmp_path), TRIAL)
    recorder = MemoryRecorder()
    with pytest.raises(WorkloadError, match=words):
        train_loop(setup_for(workload, tmp_path), recorder, TRIAL)
    assert [one for one in recorder.updates if one.state is State.FAILED] == []


@pytest.mark.parametrize("breach", ["reports twice", "misspells the metric", "reports where nothing is due"])
def test_a_loop_that_catches_every_error_is_told_all_the_same(breach, tmp_path):
    workload, words = BREACHES[breach]

    class Catches(type(workload)):  # type: ignore[misc]
        def step(self, *given):
            try:
                super().step(*given)
            except Exception:
                self.caught = True

        def train(self, trial):
            try:
                super().train(trial)
            except Exception:
                self.caught = True

    catching = Catches()
    with pytest.raises(WorkloadError, match=words):
        train_loop(setup_for(catching, tmp_path), MemoryRecorder(), TRIAL)
    assert catching.caught


def test_a_fit_that_a_sweep_reads_must_be_reported(tmp_path):
    only = changed(lambda trial, step, metrics: trial.report({"validation/loss": 0.5}))
    sweep = tiny_study(batch_size=0, optimizer=None, kind="sweep", name="sweep-1", round=None, augment=False)
    with pytest.raises(WorkloadError, match="fitted_when reads 'training/error_rate'"):
        train_loop(setup_for(only, tmp_path, sweep), MemoryRecorder(), TRIAL)
    assert whole(only, tmp_path)[0].state is State.COMPLETE


def reporting(value, at):
    return changed(
        lambda trial, step, metrics: trial.report(metrics | ({"validation/loss": value} if step + 1 == DUE[at] else {}))
    )


def test_a_selection_metric_that_is_no_number_ends_the_trial_as_infeasible(tmp_path):
    update, recorder = whole(reporting(math.nan, 2), tmp_path)
    assert (update.state, update.step) == (State.INFEASIBLE, DUE[2])
    assert update.reason == f"diverged: validation/loss is nan at step {DUE[2]}"
    assert recorder.measurements[DUE[2], "validation/loss"] == "nan"


def test_an_infinite_value_is_recorded_and_never_selected(tmp_path):
    update, recorder = whole(reporting(math.inf, 2), tmp_path)
    assert update.state is State.COMPLETE
    assert recorder.measurements[DUE[2], "validation/loss"] == "inf"
    assert DUE[2] not in [one.step for one in update.checkpoints if one.kind == "best"]


@pytest.mark.parametrize(
    ("error", "state", "words"),
    [
        (ValueError("no such layer"), State.FAILED, "ValueError: no such layer"),
        (Infeasible("too wide"), State.INFEASIBLE, "too wide"),
        (torch.OutOfMemoryError("CUDA out of memory"), State.INFEASIBLE, "out of memory"),
        (MemoryError(), State.INFEASIBLE, "MemoryError"),
    ],
)
@pytest.mark.parametrize("commit_seconds", [1e9, 0.0])
def test_an_error_of_the_loop_ends_the_trial_by_its_kind(error, state, words, commit_seconds, tmp_path):
    def report(trial, step, metrics):
        if step + 1 == DUE[3]:
            raise error
        trial.report(metrics)

    recorder = MemoryRecorder()
    update = train_loop(setup_for(changed(report), tmp_path, commit_seconds=commit_seconds), recorder, TRIAL)
    assert update.state is state
    assert words in update.reason
    assert {step for step, _ in recorder.measurements} == set(DUE[:3])


def test_infeasible_counts_where_the_loop_catches_it(tmp_path):
    def report(trial, step, metrics):
        try:
            trial.infeasible("too wide for the input")
        except Exception:
            trial.caught = True

    update, _ = whole(changed(report), tmp_path)
    assert (update.state, update.reason) == (State.INFEASIBLE, "too wide for the input")


def test_a_loop_that_breaks_out_after_its_last_report_has_trained_all(tmp_path):
    class Breaks(Plain):
        def train(self, trial):
            model = self.model(trial)
            trial.keep(model=model)
            for step in trial.steps():
                if trial.evaluates(step):
                    with torch.no_grad():
                        trial.report(self.metrics(model))
                if step + 1 == trial.max_train_steps:
                    break

    update, _ = whole(Breaks(), tmp_path)
    assert (update.state, update.step) == (State.COMPLETE, DUE[-1])


def test_what_is_said_after_the_end_or_a_stop_is_not_taken(tmp_path):
    class Talks(Plain):
        def train(self, trial):
            super().train(trial)
            assert list(trial.steps()) == []
            trial.report({"validation/loss": 0.0})

    update, recorder = whole(Talks(), tmp_path / "a")
    assert update.state is State.COMPLETE
    assert "0x0.0p+0" not in recorder.measurements.values()
    stopped = train_loop(setup_for(Talks(), tmp_path / "b", stop=StopAt(5)), MemoryRecorder(), TRIAL)
    assert (stopped.state, stopped.step) == (State.RUNNING, 4)


def test_a_failure_after_the_end_leaves_the_trial_complete(tmp_path, caplog):
    class Fails(Plain):
        def train(self, trial):
            super().train(trial)
            raise ValueError("a plot without data")

    update, _ = whole(Fails(), tmp_path)
    assert update.state is State.COMPLETE
    assert "was over when its loop failed: ValueError: a plot without data" in caplog.text


def test_the_handle_of_an_ended_trial_is_refused_in_another(tmp_path):
    class Shares(Plain):
        first = None

        def train(self, trial):
            self.first = self.first or trial
            trial.keep(model=self.model(trial))
            for step in self.first.steps():
                if trial.evaluates(step):
                    self.first.report({"validation/loss": 0.5})

    workload = Shares()
    assert whole(workload, tmp_path)[0].state is State.COMPLETE
    with pytest.raises(
        WorkloadError, match=f"the handle of trial {TRIAL.number} was used after its train had returned"
    ):
        whole(workload, tmp_path / "b")


def test_the_handle_says_what_it_should(tmp_path):
    said = {}

    class Asks(Plain):
        def train(self, trial):
            said.update(
                number=trial.number, seed=trial.seed, data_seed=trial.data_seed, device=trial.device,
                rate=trial.point["learning_rate"], last=trial.max_train_steps, due=trial.evaluation_steps,
                off=trial.regularization_off, resumed=trial.resumed, step=trial.step,
            )  # fmt: skip
            (trial.folder / "notes.txt").write_text(f"{trial.resumed}")
            super().train(trial)

    recorder = MemoryRecorder()
    train_loop(setup_for(Asks(), tmp_path, stop=StopAt(4)), recorder, TRIAL)
    assert said == {
        "number": TRIAL.number, "seed": SEED, "data_seed": TRIAL.data_seed & 0xFFFF_FFFF, "device": CPU,
        "rate": TRIAL.point["learning_rate"], "last": 24, "due": DUE, "off": False, "resumed": False, "step": 0,
    }  # fmt: skip
    notes = tmp_path / f"tiny/round-1/trial-{TRIAL.number:05d}/files/notes.txt"
    assert notes.read_text() == "False"
    train_loop(setup_for(Asks(), tmp_path), recorder, TRIAL)
    assert (said["resumed"], said["step"], notes.read_text()) == (True, 3, "True")


def test_what_another_process_writes_into_the_folders_of_a_trial_is_left_alone(tmp_path):
    recorder = MemoryRecorder()
    train_loop(setup_for(Plain(), tmp_path, stop=StopAt(9)), recorder, TRIAL)
    place = tmp_path / f"tiny/round-1/trial-{TRIAL.number:05d}"
    foreign = [place / "files" / "events.log", place / "latest.pt", place / "files" / "latest-000000003-1.pt"]
    for file in foreign:
        file.write_bytes(b"not ours")
    _, expected = whole(Plain(), tmp_path / "whole")
    assert train_loop(setup_for(Plain(), tmp_path), recorder, TRIAL).state is State.COMPLETE
    assert recorder.measurements == expected.measurements
    assert {file.read_bytes() for file in foreign} == {b"not ours"}


def test_no_state_is_copied_before_a_commit_is_due(tmp_path, monkeypatch):
    copied, whole_state = [], LoopTrainee.state
    monkeypatch.setattr(LoopTrainee, "state", lambda self: copied.append(self.step) or whole_state(self))
    whole(Plain(), tmp_path / "a")
    assert copied == [DUE[-1]]
    copied.clear()
    train_loop(setup_for(Plain(), tmp_path / "b", commit_seconds=0.0), MemoryRecorder(), TRIAL)
    assert set(copied) == {*range(25)}


def test_nothing_of_a_trial_is_held_when_it_is_over(tmp_path):
    handles = []

    class Notes(Plain):
        def train(self, trial):
            super().train(trial)
            handles.append(weakref.ref(trial))

    whole(Notes(), tmp_path)
    gc.collect()
    assert handles[0]() is None


@pytest.mark.parametrize(
    ("word", "ours"),
    [
        ("suggest_float", r"the SearchSpace of the campaign declares ranges; read trial.point\['learning_rate'\]"),
        ("params", "the point is trial.point"),
        ("config", "the point is trial.point"),
        ("should_prune", r"no trial is stopped early, .*\(A11\)"),
        ("log", r"metrics are reported: trial.report\(\{'validation/loss': value\}\)"),
        ("get_checkpoint", r"trial.keep\(model=model, optimizer=optimizer\) before the first step"),
        ("colour", "a trial has no 'colour' "),
    ],
)
def test_words_of_other_tools_are_answered_with_ours(tmp_path, word, ours):
    workload = changed(train=lambda self, trial: getattr(trial, word))
    with pytest.raises(
        WorkloadError, match=f"Changed.train failed with AttributeError: a trial has no '{word}'.*"
    ) as raised:
        look_at(setup_for(workload, tmp_path), TRIAL)
    assert re.search(ours, str(raised.value))


def test_what_a_first_look_says_has_no_number_of_its_own(tmp_path):
    def one_pass(self, trial):
        trial.keep(model=nn.Linear(1, 1))
        for _ in zip(trial.steps(), range(1), strict=False):
            pass

    with pytest.raises(WorkloadError, match=r"after 1 updates of a first look, .*trial\.batches") as raised:
        look_at(setup_for(changed(train=one_pass), tmp_path), TRIAL)
    assert "1,000" not in str(raised.value)
    with pytest.raises(WorkloadError, match="told to end after 4 updates of a first look: for step") as raised:
        look_at(setup_for(changed(train=asks_beyond), tmp_path), trial_at(dict(TRIAL.point.values_by_name)))
    assert "1,000" not in str(raised.value)


class NextRate(Plain):
    """The scheduler is made before the optimizer gets a state."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def keep(self, trial, model, optimizer):
        trial.scheduler(optimizer)
        trial.keep(model=model, optimizer=optimizer)
        for group in optimizer.param_groups:  # as the state of a trial with another rate from here on
            group["lr"] = 7.0

    def step(self, trial, step, model, optimizer, batch):
        self.seen.append(optimizer.param_groups[0]["lr"])
        trial.infeasible("seen")


def test_a_scheduler_sets_its_own_rate_whatever_a_state_held(tmp_path):
    workload = NextRate()
    train_loop(setup_for(workload, tmp_path, STUDY), MemoryRecorder(), TRIAL)
    assert workload.seen == [rates_of(TRIAL)[0]]
