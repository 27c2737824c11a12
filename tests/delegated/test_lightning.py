"""LightningWorkload: the curve of Lightning alone, exact after every stop, and each breach is told by name."""

import subprocess
import sys
import warnings
from dataclasses import replace

import lightning.pytorch as pl
import pytest
import pytorch_lightning
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint
from support.lightning_nets import (
    Data,
    DrawsAtTheEndNet,
    Manual,
    Net,
    NoisyNet,
    OwnGeneratorNet,
    ProcessesNet,
    Scheduled,
    StreamNet,
    TwoLoadersNet,
    workload_of,
)  # fmt: skip
from support.loops import kept_at_the_end, setup_for, train_loop
from support.tiny import CPU, CuttingRecorder, MemoryRecorder, StopAt, tiny_study
from torch import nn

from tuner import LightningWorkload, minimize
from tuner.delegated.lightning_data import trained_name, validated_name
from tuner.delegated.looks import look_at, trial_at
from tuner.delegated.trainee import OF_LENGTH
from tuner.design.prefix import rates_of
from tuner.errors import DeclarationError, Infeasible, WorkloadError
from tuner.records import State
from tuner.rounds.plan import planned_trials
from tuner.training.checkpoints import read_weights
from tuner.training.randomness import callers_generators_restored, seed_global_generators

STUDY = tiny_study(batch_size=0, optimizer=None)
TRIAL = planned_trials(STUDY)[0]
DUE = STUDY.budget.evaluation_steps
RATE = TRIAL.point["learning_rate"]


def whole(workload, folder, study=STUDY):
    recorder = MemoryRecorder()
    return train_loop(setup_for(workload, folder, study), recorder, TRIAL), recorder


class Recorded(pl.Callback):
    """The metrics after each update of a Trainer without us."""

    def __init__(self):
        self.curve = {}

    def on_validation_end(self, trainer, pl_module):
        for number, split in enumerate(("validation", "training")):
            for name in ("loss", "error_rate"):
                value = trainer.callback_metrics[f"val_{name}/dataloader_idx_{number}"].item()
                self.curve[trainer.global_step, f"{split}/{name}"] = value.hex()


@pytest.mark.parametrize("kind", [Net, NoisyNet])
def test_the_curve_is_that_of_a_trainer_without_us(kind, tmp_path):
    class Alone(kind):  # type: ignore[misc,valid-type]
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            rates = rates_of(TRIAL)
            schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rates[min(step, 23)] / RATE)
            return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    update, recorder = whole(workload_of(kind), tmp_path)
    assert update.state is State.COMPLETE
    recorded = Recorded()
    with callers_generators_restored(CPU), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seed_global_generators(TRIAL.seed, CPU)
        pl.Trainer(
            max_steps=24, max_epochs=-1, val_check_interval=1, num_sanity_val_steps=0, callbacks=[recorded],
            logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu",
            enable_model_summary=False, default_root_dir=tmp_path,
        ).fit(Alone(RATE))  # fmt: skip
    ours = {key: float.fromhex(value) for key, value in recorder.measurements.items()}
    theirs = {key: float.fromhex(value) for key, value in recorded.curve.items() if key[0] in DUE}
    assert ours == pytest.approx(theirs, rel=1e-5)  # the factors of LambdaLR round otherwise
    assert {step for step, _ in ours} == set(DUE)


def ema():
    return {"trainer": lambda point: {"callbacks": [EMAWeightAveraging(decay=0.7)]}}


EXACT = {
    "net": (Net, {}),
    "noise": (NoisyNet, {}),
    "stream": (StreamNet, {}),
    "generator": (OwnGeneratorNet, {}),
    "two loaders": (TwoLoadersNet, {}),
    "hooks": (DrawsAtTheEndNet, {}),
    "manual": (Manual, {}),
    "accumulation": (NoisyNet, {"trainer": {"accumulate_grad_batches": 3, "gradient_clip_val": 0.5}}),
    "averaging": (NoisyNet, ema()),
    "bf16": (NoisyNet, {"trainer": {"precision": "bf16-mixed"}}),
    "datamodule": (Net, {"datamodule": Data}),
    "own schedule": (Scheduled, {"schedule": "module"}),
    "short passes": (NoisyNet, {"trainer": {"limit_train_batches": 3}}),
}


@pytest.mark.parametrize("case", EXACT)
def test_a_trial_that_is_stopped_has_the_same_bits(case, tmp_path):
    kind, changes = EXACT[case]
    _, expected = whole(workload_of(kind, **changes), tmp_path / "whole")
    assert expected.updates[-1].state is State.COMPLETE
    states = kept_at_the_end(tmp_path / "whole", expected)
    for question in (1, 2, 6, 7, 8, 11, 14, 20, 24):  # the end of a pass is after 7 batches
        folder, recorder = tmp_path / str(question), MemoryRecorder()
        setup = setup_for(workload_of(kind, **changes), folder, stop=StopAt(question))
        assert train_loop(setup, recorder, TRIAL).state is State.RUNNING
        assert train_loop(setup_for(workload_of(kind, **changes), folder), recorder, TRIAL).state is State.COMPLETE
        assert recorder.measurements == expected.measurements
        assert kept_at_the_end(folder, recorder) == states


def test_batches_of_loading_processes_are_the_same_after_a_stop(tmp_path):
    _, expected = whole(workload_of(ProcessesNet), tmp_path / "whole")
    for question in (3, 8):
        folder, recorder = tmp_path / str(question), MemoryRecorder()
        train_loop(setup_for(workload_of(ProcessesNet), folder, stop=StopAt(question)), recorder, TRIAL)
        train_loop(setup_for(workload_of(ProcessesNet), folder), recorder, TRIAL)
        assert recorder.measurements == expected.measurements


class Dies(NoisyNet):
    left = 10**9

    def training_step(self, batch, batch_idx):
        Dies.left -= 1
        if Dies.left < 0:
            raise KeyError("killed")
        return super().training_step(batch, batch_idx)


def test_a_trial_goes_on_from_its_last_commit_when_it_dies(tmp_path):
    _, expected = whole(workload_of(NoisyNet), tmp_path / "whole")
    recorder = CuttingRecorder()
    for left in (3, 9, 11, 10**9):
        Dies.left = left
        last = train_loop(setup_for(workload_of(Dies), tmp_path, commit_seconds=0.0), recorder, TRIAL)
    assert last.state is State.COMPLETE
    assert recorder.measurements == expected.measurements


def test_the_weights_that_were_evaluated_are_kept_where_they_are_averages(tmp_path):
    _, recorder = whole(workload_of(NoisyNet, **ema()), tmp_path)
    for one in recorder.updates[-1].checkpoints:
        if one.kind == "best":
            net = NoisyNet()
            net.load_state_dict(read_weights(tmp_path, one))
            net.eval()
            losses = [F.cross_entropy(net.net(x), y) * len(x) for x, y in net.val_dataloader()[0]]
            assert float(sum(losses).detach()) / 30 == pytest.approx(one.value, rel=1e-5)


def test_a_training_metric_is_the_mean_over_the_batches_since_the_last_evaluation(tmp_path):
    logged = []

    class Telling(Net):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            self.log("grad/norm", loss * 2, on_step=True)
            logged.append(loss.item())
            return loss

    workload = workload_of(Telling, evaluated=("validation",), trainer={"accumulate_grad_batches": 2})
    object.__setattr__(workload, "fitted_when", None)
    Telling.val_dataloader = lambda self: Net.val_dataloader(self)[0]
    _, recorder = whole(workload, tmp_path)
    found = {key: float.fromhex(value) for key, value in recorder.measurements.items()}
    batches = [batch for batch in range(1, len(logged) + 1) if batch % 7 % 2 == 0]  # 7 a pass; the last one steps, too
    begun = 0
    for step in DUE:
        end = batches[step - 1]
        mean = sum(logged[begun:end]) / (end - begun)
        assert found[step, "training/loss"] == pytest.approx(mean, rel=1e-6)
        assert found[step, "training/grad/norm"] == pytest.approx(2 * mean, rel=1e-6)
        begun = end


@pytest.mark.parametrize(
    ("logged", "trained", "validated"),
    [
        ("val_loss", "training/val_loss", "validation/loss"),
        ("val/loss", "training/val/loss", "validation/loss"),
        ("valid_acc", "training/valid_acc", "validation/acc"),
        ("validation_loss", "training/validation_loss", "validation/loss"),
        ("train_loss", "training/loss", "training/loss"),
        ("Train/Acc", "training/Acc", "training/Acc"),
        ("value", "training/value", "validation/value"),
        ("acc", "training/acc", "validation/acc"),
    ],
)
def test_the_names_of_metrics(logged, trained, validated):
    assert trained_name(logged) == trained
    assert validated_name(logged, ()) == validated
    assert validated_name(f"{logged}/dataloader_idx_1", ("validation", "training")).startswith("training/")


def test_all_optimizers_follow_the_schedule_and_keep_their_ratio(tmp_path):
    seen = []

    class Watched(Manual):
        def training_step(self, batch, batch_idx):
            seen.append([one.param_groups[0]["lr"] for one in self.optimizers()])
            return super().training_step(batch, batch_idx)

    update, _ = whole(workload_of(Watched), tmp_path)
    assert update.step == 24
    rates = rates_of(TRIAL)
    assert seen == [[rate, pytest.approx(rate / 4, rel=1e-12)] for rate in rates]


def test_a_module_of_the_other_package_is_trained_by_its_own_trainer(tmp_path):
    body = {name: value for name, value in vars(Net).items() if callable(value)}

    def init(self, learning_rate=0.1, dropout=0.3):
        pytorch_lightning.LightningModule.__init__(self)
        self.learning_rate = learning_rate
        self.net = Net(learning_rate, dropout).net

    other = type("Other", (pytorch_lightning.LightningModule,), body | {"__init__": init, "__module__": __name__})
    _, recorder = whole(workload_of(other), tmp_path / "a")
    _, expected = whole(workload_of(Net), tmp_path / "b")
    assert recorder.measurements == expected.measurements


def test_a_point_with_a_default_is_given(tmp_path):
    seen = []

    def data(point=None):
        seen.append(point)
        return Data()

    whole(workload_of(datamodule=data), tmp_path)
    assert [dict(point) for point in seen] == [{"learning_rate": RATE}]


# What is refused


def refused(tmp_path, workload, study=STUDY):
    with pytest.raises(WorkloadError) as caught:
        whole(workload, tmp_path, study)
    return str(caught.value)


def options(**given):
    return {"trainer": lambda point: given}


class NoValidation(Net):
    def val_dataloader(self):
        return []


class SilentNet(Net):
    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        pass


class StopsItself(Net):
    def on_train_batch_end(self, *arguments):
        self.trainer.should_stop = self.trainer.global_step >= 3


class Fixed(Net):
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5)


class Twice(Net):
    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        super().validation_step(batch, batch_idx, dataloader_idx)
        self.log("valid_loss", 1.0)


REFUSED = {
    "own schedule": (workload_of(Scheduled), "configure_optimizers returns a scheduler (StepLR)"),
    "rate": (workload_of(Fixed), "begins at learning_rate"),
    "ddp": (workload_of(**options(strategy="ddp")), "strategy = 'ddp' starts the command line again"),
    "fork": (workload_of(**options(strategy="ddp_fork")), "strategy = 'ddp_fork' trains in processes of its own"),
    "nothing": (workload_of(NoValidation), "there is no validation"),
    "silent": (workload_of(SilentNet), "a validation logged nothing"),
    "stops": (workload_of(StopsItself), "Lightning ended after 3 updates"),
    "two": (workload_of(evaluated=()), "there are 2 validation dataloaders"),
    "twice": (workload_of(Twice), "which are both validation/loss"),
    "no module": (workload_of(module=lambda point: nn.Linear(1, 1)), "must return a LightningModule, got Linear"),
    "misconfigured": (workload_of(Manual, **options(gradient_clip_val=1.0)), "Lightning does not take what"),
    "unknown": (workload_of(**options(max_stepz=3)), "Trainer does not take its options: "),
    "max_epochs": (workload_of(**options(max_epochs=3)), "trainer has max_epochs = 3 (a length is in steps"),
    "EarlyStopping": (workload_of(**options(callbacks=[EarlyStopping("val_loss")])), "EarlyStopping is refused"),
    "datamodule": (workload_of(datamodule=lambda: Data), "datamodule must return a LightningDataModule, got type"),
    "none": (workload_of(datamodule=lambda: None), "datamodule must return a LightningDataModule, got None"),
    "no loader": (workload_of(val_dataloaders=lambda: 3), "val_dataloaders must return a DataLoader, or several, got"),
    "no dict": (workload_of(trainer=lambda point: 3), "must return a dict of options, got int"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_breaks_the_contract_is_refused_by_name(case, tmp_path):
    workload, said = REFUSED[case]
    assert said in refused(tmp_path, workload)


def test_the_module_of_another_trial_is_refused(tmp_path):
    shared = Net(RATE)
    workload = workload_of(module=lambda point: shared)
    whole(workload, tmp_path / "a")
    assert "must make a new one" in refused(tmp_path / "b", workload)


def test_the_wanted_metric_is_named_where_it_is_not_logged(tmp_path):
    study = replace(STUDY, objective=minimize("validation/los"))
    assert "did you mean 'validation/loss'" in refused(tmp_path, workload_of(), study)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"trainer": {"max_steps": 3}}, "max_steps = 3 (the length of a trial is that of the study"),
        ({"trainer": {"devices": 2}}, "trials train side by side by --workers"),
        ({"trainer": {"callbacks": ModelCheckpoint()}}, "the callback ModelCheckpoint is refused"),
        ({"trainer": {"limit_val_batches": 0}}, "leaves nothing to pick checkpoints by"),
        ({"trainer": 3}, "trainer is a dict of options of Trainer"),
        ({"datamodule": Data()}, "datamodule=lambda: Data(...)"),
        ({"module": Net()}, "module=lambda point: Net(...)"),
        ({"schedule": "linear"}, 'schedule is "study" or "module"'),
        ({"evaluated": ("validation", "test")}, "the test split never selects anything"),
        ({"evaluated": ("training",)}, 'evaluated needs "validation"'),
        ({"modul": Net}, "knows no argument 'modul'"),
        ({"module": None}, "needs a function that makes the LightningModule"),
    ],
)
def test_a_declaration_that_cannot_be_is_refused(given, said):
    with pytest.raises(DeclarationError) as caught:
        workload_of(**given)
    assert said in str(caught.value)


def test_without_lightning_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("tuner.delegated.lightning.PACKAGES", ("no_such_package",))
    with pytest.raises(DeclarationError, match=r"pip install 'tuner\[lightning\]'"):
        workload_of()


def test_the_declaration_imports_no_lightning():
    code = "import sys, tuner.delegated.lightning; from tuner import *; LightningWorkload(module=print);"
    said = f"{code} print([one for one in ('lightning', 'torch', 'pytorch_lightning') if one in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


class Decays(Net):
    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=self.learning_rate)


class Noise(Net):
    train_dataloader = NoisyNet.train_dataloader


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Net, "Dropout(p=0.3) at 'net.3'"),
        (lambda **point: Decays(**point, dropout=0.0), "weight_decay = 0.01"),
        (lambda **point: Noise(**point, dropout=0.0), "augmentation: example 0 of the training data"),
    ],
)
def test_a_sweep_refuses_what_it_sees_of_regularization(kind, said, tmp_path):
    sweep = replace(STUDY, augment=False)
    assert said in refused(tmp_path, workload_of(kind), sweep)
    off = workload_of(module=lambda point, regularization_off: Net(**point, dropout=0.3 * (not regularization_off)))
    assert whole(off, tmp_path / "off", sweep)[0].state is State.COMPLETE


def test_a_point_that_the_module_gives_up_is_infeasible(tmp_path):
    class GivesUp(Net):
        def training_step(self, batch, batch_idx):
            raise Infeasible("too wide")

    update, _ = whole(workload_of(GivesUp), tmp_path)
    assert (update.state, update.reason) == (State.INFEASIBLE, "too wide")


def test_a_loss_that_is_no_number_ends_the_trial(tmp_path):
    class Diverges(Net):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            self.log("val_loss", float("nan"))
            self.log("val_error_rate", 0.5)

    update, _ = whole(workload_of(Diverges), tmp_path)
    assert update.state is State.INFEASIBLE
    assert "diverged" in update.reason


def test_a_subclass_has_methods_in_place_of_functions(tmp_path):
    class Mine(LightningWorkload):
        select_by = minimize("validation/loss")
        evaluated = ("validation", "training")

        def module(self, point):
            return Net(**point)

        def datamodule(self):
            return Data(batch_size=10)

        def trainer(self, point):
            return {"gradient_clip_val": 1.0}

    update, _ = whole(Mine(), tmp_path)
    assert update.state is State.COMPLETE


def test_nothing_is_written_beside_the_checkpoints_and_nothing_is_printed(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole(workload_of(), tmp_path)
    assert capsys.readouterr() == ("", "")
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".pt", ".safetensors"}


def test_all_options_and_callbacks_that_are_refused_are_told_at_once():
    with pytest.raises(DeclarationError, match=r"max_epochs = 3 .*devices = 2 .*leave them out"):
        workload_of(trainer={"max_epochs": 3, "devices": 2})
    with pytest.raises(DeclarationError, match=r"EarlyStopping is refused.*ModelCheckpoint is refused.*leave them out"):
        workload_of(trainer={"callbacks": [EarlyStopping("val_loss"), ModelCheckpoint()]})


class AsksInAStep(Net):
    def training_step(self, batch, batch_idx):
        scale = 1.0 if self.global_step < 0.5 * self.trainer.max_steps else 0.5
        return scale * super().training_step(batch, batch_idx)


class AsksAtTheStart(Net):
    def configure_optimizers(self):
        self.half = self.trainer.estimated_stepping_batches // 2
        return super().configure_optimizers()


@pytest.mark.parametrize(("kind", "asked"), [(Net, False), (AsksInAStep, True), (AsksAtTheStart, True)])
def test_a_module_that_asks_its_trainer_for_the_length_is_seen(kind, asked, tmp_path):
    look = look_at(setup_for(workload_of(kind), tmp_path, STUDY), trial_at(dict(TRIAL.point.values_by_name)))
    assert bool(look.read & OF_LENGTH.keys()) is asked


def test_callbacks_that_are_none_and_misspelt_arguments_are_told():
    with pytest.raises(DeclarationError, match=r"the callback EarlyStopping is refused"):
        workload_of(trainer={"callbacks": [EarlyStopping]})
    with pytest.raises(DeclarationError, match=r"are objects of Lightning's Callback, got 'early'"):
        workload_of(trainer={"callbacks": "early"})
    with pytest.raises(DeclarationError, match=r"no argument 'select'.*did you mean 'select_by'"):
        workload_of(select=1)
