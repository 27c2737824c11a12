"""Whether a group trains with the bits of the ordinary trainer: a few updates both ways, then everything compared."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from tuner.errors import NotFusible
from tuner.fused.group import Group
from tuner.fused.obstacles import other_bits
from tuner.training.trial_run import TrialRun

UPDATES = 2  # the second one is of another batch, so that whatever a recording froze shows
SAMPLE = 8  # trials of a group that are compared
ROUNDING = 1e-3  # of a loss: two updates apart by rounding, Adam's first steps included
Difference = Callable[[TrialRun, TrialRun], str | None]


def exact_group(runs: Sequence[TrialRun]) -> Group:
    """The trials stacked, by a way that keeps their bits. Raises NotFusible when there is none."""
    difference = None
    for care in range(3):
        group = Group(runs, care=care)
        difference = first_difference(group)
        if difference is None:
            return group
    raise NotFusible(other_bits(runs[0], str(difference)))


def first_difference(group: Group, difference_of: Difference | None = None) -> str | None:
    """What differs first between the group and its trials alone; None when nothing does. Changes nothing."""
    runs = group.runs
    chosen = [runs[len(runs) * place // SAMPLE] for place in range(SAMPLE)] if len(runs) > SAMPLE else runs
    updates = min(UPDATES, *(len(run.rates) - run.step for run in runs))
    alone = [_trained_alone(run, updates) for run in chosen]
    kept = group.snapshot()
    setting, group.setting = group.setting, replace(group.setting, stop=lambda: False)
    try:
        group.advance(updates)
        differences = [(difference_of or _difference)(run, other) for run, other in zip(chosen, alone, strict=True)]
    finally:
        group.setting = setting
        group.restore(kept)
    return next((difference for difference in differences if difference), None)


def far_from_alone(group: Group) -> str | None:
    """What differs between the group and its trials alone by more than rounding does; None when nothing. As above."""
    return first_difference(group, _far)


def _far(fused: TrialRun, alone: TrialRun) -> str | None:
    for mine, other in zip(fused.losses[-UPDATES:], alone.losses[-UPDATES:], strict=True):
        if not torch.allclose(mine, other, rtol=ROUNDING, atol=ROUNDING, equal_nan=True):
            return f"trial {fused.trial.number}: the loss, {float(mine)!r} instead of {float(other)!r}"
    return None


def _trained_alone(run: TrialRun, updates: int) -> TrialRun:
    """A copy of a trial, some updates later."""
    copy = TrialRun(replace(run.setting, stop=lambda: False), run.trial)
    copy.batches = run.batches
    copy.load(run.state())
    copy.optimizer.load_state_dict(_cloned(copy.optimizer.state_dict()))
    copy.advance(run.step + updates)
    return copy


def _cloned(state: object) -> dict[str, object]:
    def clone(value: object) -> object:
        if isinstance(value, torch.Tensor):
            return value.clone()
        return {key: clone(item) for key, item in value.items()} if isinstance(value, dict) else value

    return clone(state)  # type: ignore[return-value]


def _difference(fused: TrialRun, alone: TrialRun) -> str | None:
    """Names of what is not the same bits: a loss, a gradient, a parameter or buffer, the optimizer's state."""
    number = f"trial {fused.trial.number}"
    pairs = zip(fused.losses[-UPDATES:], alone.losses[-UPDATES:], strict=True)
    for mine, other in pairs:
        if not _same(mine, other):
            return f"{number}: the loss, {float(mine)!r} instead of {float(other)!r}"
    return _model_difference(number, fused.model, alone.model) or _optimizer_difference(
        number, fused.optimizer, alone.optimizer
    )


def _model_difference(number: str, fused: torch.nn.Module, alone: torch.nn.Module) -> str | None:
    for (name, mine), other in zip(fused.named_parameters(), alone.parameters(), strict=True):
        if (mine.grad is None) != (other.grad is None):
            return f"{number}: whether {name} has a gradient"
        if mine.grad is not None and other.grad is not None and not _same(mine.grad, other.grad):
            return f"{number}: the gradient of {name}"
        if not _same(mine, other):
            return f"{number}: {name} after the step"
    for (name, buffer), twin in zip(fused.named_buffers(), alone.buffers(), strict=True):
        if not _same(buffer, twin):
            return f"{number}: the buffer {name}"
    return None


def _optimizer_difference(number: str, fused: torch.optim.Optimizer, alone: torch.optim.Optimizer) -> str | None:
    pairs = zip(_states(fused), _states(alone), strict=True)
    for mine, other in pairs:
        if mine.keys() != other.keys():
            return f"{number}: which state the optimizer keeps"
        for name, value in mine.items():
            if not _same(value, other[name]):
                return f"{number}: the optimizer's {name}"
    return None


def _states(optimizer: torch.optim.Optimizer) -> Sequence[dict[str, torch.Tensor]]:
    return [optimizer.state.get(parameter, {}) for parameter in optimizer.param_groups[0]["params"]]


def _same(mine: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal bits, but that any NaN is as good as another."""
    return mine.shape == other.shape and torch.equal(mine.nan_to_num(7e33), other.nan_to_num(7e33))
