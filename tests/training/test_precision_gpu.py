"""Precisions and 8-bit optimizer states on an encoder of 50 M parameters, on a GPU: speed, memory, loss, resume.

`pytest -m gpu tests/training/test_precision_gpu.py -s` prints a row for each. The same code runs at a tiny size on the
CPU, so that it stands ready.
"""

import copy

import pytest
import torch
from support.encoders import Sequences, encoder_run, seconds_a_step
from support.gpu import ON_GPU, prepared_gpu

from tuner.errors import NotFusible
from tuner.fused.making import make_group
from tuner.training.checkpoints import canonical_digest
from tuner.training.precision import check_precision_here

CPU = torch.device("cpu")
STEPS = 300
KINDS = [
    ("", "adamw"),
    ("float32", "adamw"),
    ("tf32", "adamw"),
    ("bf16", "adamw"),
    ("fp16", "adamw"),
    pytest.param("bf16", "adamw_8bit", marks=pytest.mark.needs("bitsandbytes")),
]
MEASURED = {}  # (precision, optimizer): (ms, MB of state, loss)


def large():
    return Sequences(layers=16, width=512)  # 50.5 M parameters


def tiny():
    return Sequences(layers=1, width=16, length=8, examples=128, batch_size=16)


def measured(workload, device, precision, optimizer, steps):
    """Milliseconds of a step, peak memory in MB, and the mean loss of the last batches after so many steps."""
    run = encoder_run(workload, device, steps, optimizer, precision=precision)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    took = seconds_a_step(run, steps // 10, steps // 2)
    run.advance(steps)
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    assert run.divergence() is None
    losses = torch.stack(run.losses[-steps // 10 :])
    assert {one.dtype for one in run.parameters} == {torch.float32}
    return 1e3 * took, peak / 1e6, float(losses.mean()), run


def resumed_digests(workload, device, precision, optimizer, steps):
    """The states of a trial that ran through, and of one that was saved and loaded half-way."""
    found = []
    for stops in ((), (steps // 2,)):
        run = encoder_run(workload, device, steps, optimizer, precision=precision)
        for stop in stops:
            run.advance(stop)
            fresh = run.fresh()
            fresh.load(copy.deepcopy(run.state()))
            run = fresh
        run.advance(steps)
        found.append(canonical_digest(run.state()))
    return found


@pytest.fixture
def gpu():
    yield prepared_gpu()
    torch.use_deterministic_algorithms(False)
    torch.cuda.empty_cache()


class TestOnGpu:
    pytestmark = ON_GPU

    @pytest.mark.parametrize(("precision", "optimizer"), KINDS)
    def test_speed_memory_and_loss_after_300_steps(self, gpu, precision, optimizer):
        check_precision_here(precision, gpu)
        took, peak, loss, run = measured(large(), gpu, precision, optimizer, STEPS)
        size = sum(one.numel() for one in run.parameters)
        skipped = "" if run.scale is None else f", {run.scale.skipped_since} skipped updates"
        line = f"{precision or 'as torch is set'}, {optimizer}: {size / 1e6:.1f} M parameters, {took:.1f} ms a step"
        print(f"{line}, {peak:,.0f} MB, loss {loss:.4f} after {STEPS} steps{skipped}")  # noqa: T201
        MEASURED[precision, optimizer] = took, peak, loss
        if ("float32", "adamw") in MEASURED:
            exact = MEASURED["float32", "adamw"]
            assert loss == pytest.approx(exact[2], abs=0.05)
            if precision in ("bf16", "fp16", "tf32"):
                assert took < exact[0]
            if precision in ("bf16", "fp16"):
                assert peak < exact[1]

    @pytest.mark.parametrize(("precision", "optimizer"), KINDS[2:])
    def test_a_resumed_trial_has_the_same_bits(self, gpu, precision, optimizer):
        whole, resumed = resumed_digests(large(), gpu, precision, optimizer, 20)
        assert resumed == whole

    def test_a_group_in_bf16_is_its_trials_alone_or_refused_by_name(self, gpu):
        workload = Sequences(layers=2, width=64, length=16, examples=512, batch_size=32)
        runs, alone = ([encoder_run(workload, gpu, 20, precision="bf16") for _ in range(3)] for _ in range(2))
        try:
            group = make_group(runs)
        except NotFusible as error:
            refused = str(error)
        else:
            refused = ""
        if refused:
            assert "in bf16" in refused
            return
        group.advance(10)
        for run, other in zip(runs, alone, strict=True):
            other.advance(10)
            assert canonical_digest(run.state()) == canonical_digest(other.state())

    def test_tf32_computes_otherwise_than_float32_and_what_was_set_is_put_back(self, gpu):
        before = torch.backends.cuda.matmul.fp32_precision
        losses = {}
        for name in ("float32", "tf32"):
            run = encoder_run(tiny(), gpu, 10, precision=name)
            run.advance(10)
            losses[name] = float(run.losses[-1])
        assert losses["float32"] != losses["tf32"]
        assert losses["float32"] == pytest.approx(losses["tf32"], rel=0.02)
        assert torch.backends.cuda.matmul.fp32_precision == before


@pytest.mark.parametrize(("precision", "optimizer"), [*KINDS[:2], *KINDS[3:]])
def test_the_measures_stand_ready_at_a_tiny_size(precision, optimizer):
    _, _, loss, run = measured(tiny(), CPU, precision, optimizer, 20)
    assert 0 < loss < 5
    assert run.step == 20
    whole, resumed = resumed_digests(tiny(), CPU, precision, optimizer, 6)
    assert resumed == whole


def test_the_encoder_has_50_million_parameters():
    with torch.device("meta"):
        model = large().model({})
    assert sum(one.numel() for one in model.parameters()) == pytest.approx(50e6, rel=0.05)
