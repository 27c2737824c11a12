"""Trials in bf16, fp16, tf32 and float32: what is cast, what stays float32, and updates that are no steps."""

import copy
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from reference_studies.digits import Digits
from support.fusible import Images, Mlp, MlpWithDropout, Residual, TiedLm, runs_of
from support.tiny import CPU, MemoryRecorder, StopAt, Tiny, setting_for, tiny_study, train_alone
from torch import nn

from tuner import SearchSpace, Splits, choice, log_uniform, uniform
from tuner.budget.step_budget import StepBudget
from tuner.errors import InputError, WorkloadError
from tuner.records import Price, State
from tuner.rounds.plan import planned_trials
from tuner.training import loss_scale, precision
from tuner.training.checkpoints import canonical_digest, read_state, read_weights
from tuner.training.engine import Asked
from tuner.training.evaluation import evaluate
from tuner.training.inspection import inspected
from tuner.training.loss_scale import MOST_SKIPPED, START, LossScale
from tuner.training.numerics import numerics
from tuner.training.precision import check_precision_here, computing, updating
from tuner.training.preflight import check_workload
from tuner.training.trial_run import TrialRun
from tuner.training.update import Draws

CUDA = torch.device("cuda", 0)  # its switches can be set without one
SGD = SearchSpace(learning_rate=log_uniform(1e-3, 1e-1), one_minus_momentum=0.1, dropout=uniform(0.2, 0.3))


def one_run(workload, **changes):
    return runs_of(workload, 1, **changes)[0]


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def by_hand(run, steps, dtype, scaler=None):
    """The trial trained by a loop as the handbook of torch writes it; its weights."""
    model, loss = copy.deepcopy(run.model).train(), run.setup.workload.loss
    given = run.optimizer.param_groups[0]
    settings = {name: given[name] for name in ("betas", "eps", "weight_decay", "fused", "foreach")}
    optimizer = torch.optim.AdamW(model.parameters(), lr=run.rates[0], **settings)
    scaler = scaler or torch.amp.GradScaler("cpu", enabled=False)
    scales = []
    for step in range(steps):
        torch.manual_seed(run.rule.draw_seed(Draws.LOSS, step))
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype):
            value = loss(model, run.batches.at(step), run.point)
        scaler.scale(value).backward()
        optimizer.param_groups[0]["lr"] = run.rates[step]
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale() if scaler.is_enabled() else 1.0)
    return weights(model), scales


@pytest.mark.parametrize("workload", [Mlp, MlpWithDropout, Residual, TiedLm])
def test_a_trial_in_bf16_has_the_bits_of_a_hand_written_loop(workload):
    run = one_run(workload(), precision="bf16")
    expected, _ = by_hand(run, 6, torch.bfloat16)
    before = weights(run.model)
    run.advance(6)
    assert same(weights(run.model), expected)
    plain = one_run(workload())
    assert same(weights(plain.model), before), "the precision decides nothing about the initial weights"
    plain.advance(6)
    assert not same(weights(plain.model), expected)


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_slices_have_half_bits_each_and_their_sum_is_float32(name):
    run, plain = one_run(Mlp(), precision=name, slices=4), one_run(Mlp(), precision="float32", slices=4)
    run.advance(1)
    plain.advance(1)
    for one, other in zip(run.parameters, plain.parameters, strict=True):
        assert one.grad.dtype == torch.float32
        assert torch.allclose(one.grad, other.grad, rtol=0.05, atol=2e-3)
        assert not torch.equal(one.grad, other.grad)


def test_fp16_without_an_overflow_has_the_bits_of_torchs_own_scaler(monkeypatch):
    monkeypatch.setattr(loss_scale, "START", 2.0**10)
    monkeypatch.setattr(loss_scale, "GROWTH_AFTER", 4)
    run = one_run(MlpWithDropout(), precision="fp16")
    run.scale.value = 2.0**10
    expected, scales = by_hand(
        run, 10, torch.float16, torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=4)
    )
    found = []
    for step in range(1, 11):
        run.advance(step)
        found.append(run.scale.value)
    assert found == scales == [1024.0] * 3 + [2048.0] * 4 + [4096.0] * 3
    assert same(weights(run.model), expected)


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_weights_gradients_and_state_stay_float32(name):
    run = one_run(Residual(), precision=name)
    seen = []
    run.model.blocks.register_forward_hook(lambda module, given, result: seen.append(result.dtype))
    run.advance(3)
    assert set(seen) == {precision.AUTOCAST[name]}
    floats = [*run.parameters, *(one.grad for one in run.parameters)]
    floats += [one for state in run.optimizer.state.values() for one in state.values() if one.dim()]
    floats += [one for one in run.model.buffers() if one.is_floating_point()]
    assert {one.dtype for one in floats} == {torch.float32}
    seen.clear()
    run.evaluate()
    assert set(seen) == {precision.AUTOCAST[name]}, "evaluations compute in it, too"


def test_no_cast_of_a_weight_outlives_a_step_even_where_the_caller_computes_in_autocast():
    run, twin = one_run(Mlp(), precision="bf16"), one_run(Mlp(), precision="bf16")
    run.advance(3)
    run.evaluate()
    run.advance(6)
    with torch.autocast("cpu", torch.bfloat16):
        twin.advance(3)
        twin.evaluate()  # its casts have no gradients
        twin.advance(6)
    assert same(weights(run.model), weights(twin.model))


def test_declared_float32_is_not_moved_by_autocast_around_it():
    run, twin = one_run(Mlp(), precision="float32"), one_run(Mlp())
    twin.advance(4)
    with torch.autocast("cpu", torch.bfloat16):
        run.advance(4)
        measured = run.evaluate()
    assert same(weights(run.model), weights(twin.model))
    assert measured == twin.evaluate()


# ---- skipped updates


class Overflowing(Images):
    """The batch of one step has a loss whose gradient is too large for fp16 at the first scales."""

    factor = 2.0**9

    def data(self):
        splits = super().data()
        splits.training[0][:, 0] = 0.0
        splits.training[0][5, 0] = 1.0  # marks an example, and with it the batch of one step
        return splits

    def model(self, point):
        return nn.Sequential(
            nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(point["dropout"]), nn.Linear(32, 10)
        )

    def loss(self, model, batch, point):
        self.seen = getattr(self, "seen", [])
        hook = model[3].register_forward_hook(lambda m, given, out: self.seen.append((out == 0).clone()))
        value = F.cross_entropy(model(batch[0]), batch[1])
        hook.remove()
        drawn = 1.0 + 1e-3 * random.random()
        self.drawn = [*getattr(self, "drawn", []), (drawn, batch[0].clone())]
        return value * drawn * (self.factor if bool((batch[0][:, 0] > 0.5).any()) else 1.0)


def overflowing_step(run):
    return next(step for step in range(4) if bool((run.batches.at(step)[0][:, 0] > 0.5).any()))


def attempts(run, count=1):
    """So many updates, made or skipped."""
    left = [count]

    def pause():
        left[0] -= 1
        return left[0] < 0

    run.advance(len(run.rates), pause)


def kept(run):
    state = run.state()
    return canonical_digest({name: value for name, value in state.items() if name != "scale"})


@pytest.mark.parametrize("space", [None, SGD], ids=["adamw", "sgd"])
def test_a_skipped_update_is_no_step(space):
    changes = {} if space is None else {"space": space, "optimizer": "sgd"}
    run = one_run(Overflowing(), precision="fp16", **changes)
    run.scale.value = 2.0**14  # which the other batches stand
    at, workload = overflowing_step(run), run.setup.workload
    run.advance(at)
    assert (run.step, run.scale.value) == (at, 2.0**14)
    before, rate = kept(run), run.optimizer.param_groups[0]["lr"]
    workload.seen, workload.drawn = [], []
    attempts(run)
    assert (run.step, run.scale.value, run.scale.skipped, len(run.losses)) == (at, 2.0**13, 1, at)
    assert kept(run) == before, "weights, optimizer, buffers, losses and step are as before"
    assert run.optimizer.param_groups[0]["lr"] == rate
    while run.step == at:
        attempts(run)
    scale = run.scale.value
    assert scale < 2.0**13, "more than one was skipped"
    assert len(workload.seen) == len(workload.drawn) == run.scale.skipped_since + 1 > 2
    first, *others = workload.seen
    assert all(torch.equal(first, one) for one in others), "each time the same dropout"
    (drawn, batch), *others = workload.drawn
    assert all(one == drawn and torch.equal(batch, given) for one, given in others), "the same numbers, the same batch"
    assert run.scale.skipped == 0
    # As if it had begun at the scale that it found.
    calm = one_run(Overflowing(), precision="fp16", **changes)
    calm.scale.value = 2.0**14
    calm.advance(at)
    calm.scale.value = scale
    calm.advance(at + 1)
    assert calm.scale.skipped_since == 0
    assert kept(calm) == kept(run)
    assert run.measure()["batch/skipped_updates"] == len(workload.seen) - 1
    assert run.measure({})["batch/skipped_updates"] == 0 if run.losses else True


class Teacher(Tiny):
    """The loss itself moves a teacher, clips a weight that is trained, and makes a buffer at its first call."""

    def model(self, point):
        model = nn.ModuleDict({"student": nn.Linear(6, 2), "teacher": nn.Linear(6, 2).requires_grad_(False)})
        model.register_buffer("calls", None)
        return model

    def loss(self, model, batch, point):
        model.calls = (torch.zeros(()) if model.calls is None else model.calls) + 1
        model["teacher"].weight.data.mul_(0.5)  # as nobody is told
        with torch.no_grad():
            model["teacher"].bias.add_(0.1)
            model["student"].bias.add_(0.1)
        return F.cross_entropy(model["student"](batch[0]), batch[1])

    def metrics(self, model, batch):
        return super().metrics(model["student"], batch)


class CompiledTeacher(Teacher):
    """With kernels, which may be recorded with the addresses of parameters."""

    def model(self, point):
        model = super().model(point)
        model["student"].compile(backend="eager")
        return model


@pytest.mark.parametrize("workload", [Teacher, CompiledTeacher])
def test_a_skipped_update_leaves_what_the_loss_itself_writes(workload):
    run, calm = (TrialRun(setting_for(tiny_study(precision="fp16"), None, workload()), trial_of()) for _ in range(2))
    run.scale.value = 2.0**22
    before = weights(run.model)
    attempts(run)
    assert run.scale.skipped == 1
    assert same(weights(run.model), before)
    attempts(run, MOST_SKIPPED)
    assert run.scale.skipped_since > 2
    assert run.step > 1
    calm.scale.value = run.scale.value
    calm.advance(run.step)
    assert kept(calm) == kept(run)


def test_a_skipped_update_gets_its_batch_as_it_was_though_the_loss_writes_into_it():
    class Writing(Overflowing):
        def loss(self, model, batch, point):
            value = super().loss(model, batch, point)
            batch[0][:, 1:].mul_(0.5)
            return value

    run = one_run(Writing(), precision="fp16")
    run.advance(overflowing_step(run) + 1)
    assert run.scale.skipped_since > 1
    calm = one_run(Writing(), precision="fp16")
    calm.scale.value = run.scale.value
    calm.advance(run.step)
    assert kept(calm) == kept(run)


def test_averages_stay_where_an_update_is_skipped():
    run = one_run(Overflowing(), precision="fp16", ema_steps=3)
    run.advance(overflowing_step(run))
    run.averages.values[0].add_(1.0)  # so that it would move towards the weights
    before = kept(run)
    attempts(run)
    assert run.scale.skipped == 1
    assert kept(run) == before


def test_complex_parameters_are_unscaled_too():
    class Complex(Teacher):
        def model(self, point):
            return nn.ParameterDict({"student": torch.randn(6, 2, dtype=torch.complex64)})

        def loss(self, model, batch, point):
            return F.cross_entropy((batch[0].to(torch.complex64) @ model["student"]).real, batch[1])

    scaled, plain = (
        TrialRun(setting_for(tiny_study(precision=name), None, Complex()), trial_of()) for name in ("fp16", "float32")
    )
    assert (scaled.advance(2), plain.advance(2)) == (False, False)
    assert same(weights(scaled.model), weights(plain.model))


def test_trials_in_fp16_train_whatever_torchs_default_type_is():
    run, other = one_run(Overflowing(), precision="fp16"), one_run(Overflowing(), precision="fp16")
    run.advance(3)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        other.advance(3)
    finally:
        torch.set_default_dtype(before)
    assert kept(run) == kept(other)


def trial_of():
    return planned_trials(tiny_study())[0]


@pytest.mark.parametrize("slices", [1, 2])
def test_resumed_between_two_skips_a_trial_has_the_same_bits(slices):
    whole = one_run(Overflowing(), precision="fp16", slices=slices)
    whole.advance(8)
    assert whole.scale.skipped_since > 3
    run = one_run(Overflowing(), precision="fp16", slices=slices)
    at, resumed, between = overflowing_step(run), 0, 0
    while run.step < 8:
        assert resumed < 100, "a scale that is forgotten is halved again and again"
        attempts(run)
        between += run.scale.skipped > 0 and run.step == at
        fresh = run.fresh()
        fresh.load(copy.deepcopy(run.state()))
        run, resumed = fresh, resumed + 1
    assert between > 1
    assert canonical_digest(run.state()) == canonical_digest(whole.state())


@pytest.mark.parametrize("name", ["fp16", "bf16"])
def test_a_trial_stopped_between_any_two_updates_ends_with_the_same_bits(name, tmp_path):
    class Loud(Tiny):
        def loss(self, model, batch, point):
            return 64 * super().loss(model, batch, point)

    def trained(folder, stops=()):
        study = tiny_study(precision=name)
        recorder = MemoryRecorder()
        for stop in [*stops, None]:
            changes = {} if stop is None else {"stop": StopAt(stop + 1)}
            setting = setting_for(study, folder, Loud(), **changes)
            train_alone(setting, recorder, recorder.claim(planned_trials(study)[0]))
        saved = [
            (c.kind, c.step, c.value, canonical_digest((read_state if c.kind == "latest" else read_weights)(folder, c)))
            for c in recorder.checkpoints
        ]
        return recorder.measurements, saved, recorder.updates[-1].state

    whole = trained(tmp_path / "whole")
    if name == "fp16":
        skipped = [value for (_, metric), value in whole[0].items() if metric == "batch/skipped_updates"]
        assert len(skipped) == 5
        assert float.fromhex(skipped[0]) > 2
    for stop in ([1], [2], [3], [0, 1, 1, 5]):
        assert trained(tmp_path / str(stop), stop) == whole, f"stopped at {stop}"


class NoGradient(Tiny):
    """Finite losses, and gradients that no scale makes finite."""

    def loss(self, model, batch, point):
        broken = sum((one - one.detach()).sum() for one in model.parameters())
        return super().loss(model, batch, point) + torch.sqrt(broken)


class NoLoss(Tiny):
    def loss(self, model, batch, point):
        return super().loss(model, batch, point) * float("nan")


def test_twenty_skipped_in_a_row_are_divergence(tmp_path):
    study = replace(tiny_study(precision="fp16"), augment=False)
    setting = setting_for(study, tmp_path, NoGradient())
    run = TrialRun(setting, planned_trials(study)[0])
    before = weights(run.model)
    attempts(run, MOST_SKIPPED)
    assert (run.step, run.scale.skipped, run.scale.value) == (0, 20, 2.0**-4)
    assert same(weights(run.model), before)
    assert run.divergence() is None
    run.advance(2)
    assert str(run.divergence()).startswith("diverged at step 1: no finite gradient at scale 2^-4, after 20 skipped")
    recorder = MemoryRecorder()
    last = train_alone(setting, recorder, recorder.claim(planned_trials(study)[0]))
    assert last.state is State.INFEASIBLE
    assert "no finite gradient at scale 2^-4" in last.reason


def test_a_loss_that_is_not_finite_diverges_at_once(tmp_path):
    study = tiny_study(precision="fp16")
    run = TrialRun(setting_for(study, tmp_path, NoLoss()), planned_trials(study)[0])
    run.advance(1)
    assert run.scale.skipped_since == 0
    assert str(run.divergence()) == "diverged at step 1: the loss became nan"


def test_the_norm_is_recorded_unscaled_and_before_clipping():
    space = SearchSpace(
        learning_rate=log_uniform(1e-3, 1e-2), dropout=uniform(0.0, 0.1), label_smoothing=uniform(0.0, 0.1),
        clip_norm=log_uniform(0.04, 0.05),
    )  # fmt: skip
    run, plain = one_run(Mlp(), precision="fp16", space=space), one_run(Mlp(), space=space)
    run.scale.value = 2.0**10
    run.advance(3)
    plain.advance(3)
    assert torch.stack(run.norms).tolist() == pytest.approx(torch.stack(plain.norms).tolist(), rel=0.02)
    assert min(torch.stack(run.norms).tolist()) > 0.05


def test_a_scale_starts_doubles_and_halves():
    scale, weight, loss = LossScale(), nn.Parameter(torch.ones(3)), torch.tensor(1.0)
    assert (scale.value, START) == (65536.0, 65536.0)
    for _ in range(2_000):
        weight.grad = torch.full((3,), 8.0)
        assert scale.made(loss, [weight], 0)
    assert scale.value == 2.0**17
    assert weight.grad.tolist() == [8.0 / 65536] * 3, "divided by the scale that it was computed at"
    weight.grad = torch.tensor([1.0, float("inf"), 1.0])
    assert not scale.made(loss, [weight], 0)
    assert (scale.value, scale.good, scale.skipped) == (2.0**16, 0, 1)
    twin = LossScale()
    twin.load(scale.state())
    assert vars(twin) == vars(scale)


# ---- switches of the process


def switches(device):
    return [getattr(owner, name) for owner, name, _ in precision._switches("float32", device)]


@pytest.mark.parametrize("device", [CPU, CUDA], ids=str)
@pytest.mark.parametrize(("name", "mode"), [("tf32", "tf32"), ("float32", "ieee"), ("bf16", "ieee"), ("fp16", "ieee")])
def test_products_of_float32_are_set_while_a_trial_computes_and_put_back(name, mode, device):
    before = switches(device)
    with updating(name, device), updating(name, device):
        assert switches(device)[:3] == [mode] * 3
    assert switches(device) == before
    with pytest.raises(ValueError, match="broken"), updating(name, device):
        raise ValueError("broken")
    assert switches(device) == before
    with updating("", device):
        assert switches(device) == before


def test_what_torch_inherits_is_inherited_again():
    torch.backends.fp32_precision = "tf32"  # type: ignore[attr-defined]
    try:
        with updating("float32", CUDA):
            assert switches(CUDA)[0] == "ieee"
        assert switches(CUDA)[0] == "tf32"
    finally:
        torch.backends.fp32_precision = "none"  # type: ignore[attr-defined]
    assert switches(CUDA)[0] == "none"


def test_a_trial_computes_with_its_switches_backward_too(monkeypatch):
    seen = []

    class Looking(Mlp):
        def loss(self, model, batch, point):
            value = super().loss(model, batch, point)
            value.register_hook(lambda gradient: seen.append(torch.backends.mkldnn.matmul.fp32_precision))  # type: ignore[attr-defined]
            return value

    run = one_run(Looking(), precision="float32")
    run.advance(2)
    assert seen == ["ieee", "ieee"]
    assert torch.backends.mkldnn.matmul.fp32_precision == "none"  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["bf16", "fp16"])
@pytest.mark.parametrize("slices", [1, 2])
def test_gradients_are_computed_outside_of_autocast(name, slices):
    """A product that a model computes in float32 on purpose has a gradient in float32, too."""
    seen = []

    class Island(Images):
        def model(self, point):
            return nn.Linear(64, 10)

        def loss(self, model, batch, point):
            with torch.autocast("cpu", enabled=False):
                logits = batch[0] @ model.weight.T + model.bias
            logits.register_hook(lambda gradient: seen.append(torch.is_autocast_enabled("cpu")))
            return F.cross_entropy(logits, batch[1])

    run, twin = (one_run(Island(), precision=each, slices=slices) for each in (name, "float32"))
    run.advance(3)
    twin.advance(3)
    assert seen == [False] * 6 * slices
    assert same(weights(run.model), weights(twin.model))


def test_numerics_of_a_declared_precision_do_not_depend_on_how_torch_is_set(monkeypatch):
    monkeypatch.setattr("tuner.training.numerics._of_cuda", lambda device: {"device": "a GPU"})
    ambient, declared = [], []
    try:
        for mode in ("ieee", "tf32"):
            torch.backends.cuda.matmul.fp32_precision = mode
            ambient.append(numerics(CUDA).text)
            declared.append(numerics(CUDA, declared=True).text)
    finally:
        torch.backends.cuda.matmul.fp32_precision = "none"
    assert ambient[0] != ambient[1]
    assert declared[0] == declared[1]


def test_numerics_name_what_a_processor_computes_half_with(monkeypatch):
    """Two that torch calls AVX512 have other kernels for bf16, where one of them has tiles."""
    known = {}
    for name, found in (("with", True), ("without", False)):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda found=found: found)
        known[name] = numerics(CPU, declared=True).values
        assert "half" not in numerics(CPU).values, "of studies that declare no precision they are what they were"
    assert set(known["with"]["half"]) - set(known["without"]["half"]) == {"amx_tile"}


# ---- where the device lacks it


class Gpu:
    """What is asked of a CUDA device."""

    def __init__(self, monkeypatch, capability):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla V100")


def test_a_precision_that_the_device_lacks_is_an_error_with_the_way_out(monkeypatch, tmp_path):
    Gpu(monkeypatch, (7, 0))
    with pytest.raises(InputError, match=r'V100 \(compute capability 7.0\) does not compute in bf16.*precision="fp16"'):
        check_precision_here("bf16", CUDA)
    with pytest.raises(InputError, match=r'tf32.*precision="float32"'):
        check_precision_here("tf32", CUDA)
    for name in ("fp16", "float32", ""):
        check_precision_here(name, CUDA)
    Gpu(monkeypatch, (8, 0))
    for name in ("bf16", "tf32"):
        check_precision_here(name, CUDA)
    for name in ("bf16", "fp16", "float32", ""):
        check_precision_here(name, CPU)
    space = SearchSpace(learning_rate=1e-3, precision=choice("float32", "tf32"))
    study = tiny_study(space=space, num_trials=4)
    with pytest.raises(InputError, match=r"tf32.*changes nothing on a CPU"):
        inspected(setting_for(study, tmp_path), planned_trials(study), Asked())


def test_recurrent_layers_without_a_kernel_name_the_way_out(tmp_path):
    class Read(Tiny):
        def model(self, point):
            model = nn.Sequential(nn.LSTM(6, 4, batch_first=True), nn.Linear(4, 2))
            model.forward = lambda x: model[1](model[0](x[:, None])[0][:, 0])
            return model

        def loss(self, model, batch, point):
            if torch.is_autocast_enabled("cpu"):  # as on processors without fp16
                raise RuntimeError("could not create a primitive descriptor for the LSTM forward propagation primitive")
            return super().loss(model, batch, point)

    study = tiny_study(precision="fp16")
    with pytest.raises(WorkloadError, match='no kernel for LSTM in fp16 on this CPU: write precision="bf16"'):
        check_workload(setting_for(study, tmp_path, Read()), planned_trials(study)[0])


# ---- everything that is tried and priced before


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_every_look_before_training_computes_in_the_precision(name, tmp_path):
    dtypes = {"loss": set(), "metrics": set()}

    class Looking(Tiny):
        def loss(self, model, batch, point):
            dtypes["loss"].add(self._of(model, batch))
            return super().loss(model, batch, point)

        def metrics(self, model, batch):
            dtypes["metrics"].add(self._of(model, batch))
            return super().metrics(model, batch)

        def _of(self, model, batch):
            return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32

    study = tiny_study(precision=name)
    found = inspected(
        setting_for(study, tmp_path, Looking()), planned_trials(study), Asked(price=True, validation_seconds=10.0)
    )
    assert dtypes == {"loss": {precision.AUTOCAST[name], torch.float32}, "metrics": {precision.AUTOCAST[name]}}
    (measured,) = found.price.precisions  # against float32, which is the only loss in it
    assert measured[0] == name
    assert 0 < measured[1] < 1e3


def test_a_searched_precision_is_tried_and_priced_each(tmp_path):
    space = SearchSpace(learning_rate=1e-3, precision=choice("float32", "bf16", "fp16"))
    study = tiny_study(space=space, num_trials=9)
    trials = planned_trials(study)
    setting = setting_for(study, tmp_path)
    assert {setting.precision_of(trial) for trial in trials} == {"float32", "bf16", "fp16"}
    asked = Asked(price=True)
    found = inspected(setting, trials, asked)
    assert {name for name, _ in found.price.precisions} == {"bf16", "fp16"}
    assert {each[-2] for each in asked.known if each[0] == "update"} == {"float32", "bf16", "fp16"}
    assert found.unread == ()
    assert Price(1.0, 1.0, 1, 1).precisions == ()


class Computed(Tiny):
    """Examples that are computed where they are fetched: that is no part of loss and metrics."""

    def data(self):
        x = super().data().validation[0]
        matrix = torch.randn(6, 6, generator=torch.Generator().manual_seed(5))

        class Products(torch.utils.data.Dataset):
            def __len__(self):
                return len(x)

            def __getitem__(self, index):
                return (x[index][None] @ matrix)[0], 0

        return Splits(training=Products(), validation=Products())


@pytest.mark.parametrize("loaded", [0, 1])
def test_data_are_computed_outside_of_the_precision_whoever_loads_them(loaded):
    class Loaded(Computed):
        data_workers = loaded

        def metrics(self, model, batch):
            return super().metrics(model, batch) | {"first": batch[0][:, 0]}

    run = TrialRun(setting_for(tiny_study(precision="bf16"), None, Loaded()), trial_of())
    with run.setup.loading():
        measured = run.evaluate()["validation/first"]
    values = [run.setup.data.validation.dataset[place][0][0].double() for place in range(30)]
    assert values[0].to(torch.bfloat16).double() != values[0]
    assert measured == pytest.approx(float(torch.stack(values).mean()), rel=1e-12)


def test_metrics_alone_and_by_hand_in_bf16_are_the_same():
    run = one_run(Mlp(), precision="bf16")
    run.advance(4)
    split = run.setup.data.validation
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        batch = split.first(split.size)
        logits = run.model.eval()(batch[0])
        expected = F.cross_entropy(logits, batch[1], reduction="none").double().mean()
    assert run.evaluate()["validation/loss"] == float(expected)
    with computing("bf16", CPU):
        assert evaluate(run.setup.workload, run.model, split, batch_size=1024)["validation/loss"] == float(expected)
    assert Path("nowhere") == run.setup.checkpoint_root


def test_300_steps_in_bf16_end_within_one_percent_of_float32():
    losses = {}
    for name in ("float32", "bf16", "fp16"):
        study = tiny_study(
            space=SearchSpace(learning_rate=log_uniform(0.9e-3, 1.1e-3), dropout=uniform(0.1, 0.11),
                              label_smoothing=uniform(0.05, 0.06)),
            budget=StepBudget(300, 300), batch_size=64, precision=name,
        )  # fmt: skip
        run = TrialRun(setting_for(study, Path("nowhere"), Digits()), planned_trials(study)[0])
        run.advance(300)
        measured = run.measure()
        assert run.divergence() is None
        losses[name] = measured["training/loss"], measured["batch/loss"]
    assert losses["bf16"] == pytest.approx(losses["float32"], rel=0.01)
    assert losses["fp16"] == pytest.approx(losses["float32"], rel=0.01)
    assert losses["bf16"] != losses["float32"] != losses["fp16"]
