"""Averages of the weights along a training, which are evaluated, kept and exported in place of what is trained.

After each update every average moves by a share towards the weights: average += share x (weights - average). What the
share is at an update is a rule; everything else (state, evaluation, groups) is the same for all rules. Nothing of an
average goes back into training. Buffers are those of the model: the running statistics of BatchNorm, counters.

torch.optim.swa_utils.AveragedModel does the same one tensor at a time; here one call moves all of them.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch

from tuner.errors import WorkloadError
from tuner.training.optimizers import spec_of

_HALF = (torch.float16, torch.bfloat16)  # whose averages are float32: a small share of their difference would be lost


class AverageRule(Protocol):
    """What an average is of the weights that a trial goes through; of its beginning they are the first weights."""

    def share(self, updates: int) -> float:
        """The share of the newest weights in the average after so many updates, 0 to 1; with 1 it is those weights."""


@dataclass(frozen=True, slots=True)
class Exponential:
    """An exponential average over about so many steps: the weights of s steps ago count by (1 - 1/steps)^s.

    Early on the average is over fewer of them, by a decay of (1 + t) / (10 + t) after t updates, as in TensorFlow's
    ExponentialMovingAverage with `num_updates`: so it forgets the first weights.
    """

    steps: int

    def share(self, updates: int) -> float:
        return 1.0 - min(1.0 - 1.0 / self.steps, (1 + updates) / (10 + updates))


class Averages:
    """The averages of the trained parameters of one trial. `values`: in the order of `parameters`.

    A group puts views of its stacks in the place of `values`. Raises WorkloadError for sparse parameters.
    """

    def __init__(self, rule: AverageRule, model: torch.nn.Module) -> None:
        self.rule = rule
        named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        sparse = next((name for name, one in named.items() if one.layout is not torch.strided), "")
        if sparse:
            raise WorkloadError(f"ema_steps averages dense parameters, and {sparse} is sparse; leave ema_steps out")
        self.names = list(named)
        self.parameters: list[torch.Tensor] = list(named.values())
        self.values = [_wide(parameter.detach()).clone() for parameter in self.parameters]
        self._half = any(parameter.dtype in _HALF for parameter in self.parameters)
        self._is_shown = False

    @property
    def num_bytes(self) -> int:
        """Bytes of the averages; as many are needed once more while they are shown."""
        return sum(value.nbytes for value in self.values)

    def take(self, updates: int) -> None:
        """Move towards the weights, which are those after so many updates."""
        share = self.rule.share(updates)
        before = torch.is_grad_enabled()
        torch._C._set_grad_enabled(False)  # as torch.no_grad(), which takes as long as a fifth of the rest
        try:
            weights = [_wide(one) for one in self.parameters] if self._half else self.parameters
            torch._foreach_lerp_(self.values, weights, share)
        finally:
            torch._C._set_grad_enabled(before)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Within the block the parameters have the averages; their own values come back, whatever happens there.

        The values change places, and no tensor does: what holds a parameter, or a view of one, sees the same.
        """
        if self._is_shown:
            yield
            return
        parameters = self.parameters
        trained = [parameter.detach().clone() for parameter in parameters]
        self._is_shown = True
        try:
            with torch.no_grad():
                torch._foreach_copy_(parameters, self.values)
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(parameters, trained)
            self._is_shown = False

    def state(self) -> dict[str, torch.Tensor]:
        """The averages by the names of their parameters, for a checkpoint: no copies."""
        return dict(zip(self.names, self.values, strict=True))

    def load(self, saved: Mapping[str, torch.Tensor] | None) -> bool:
        """Go on from saved averages; without them from the present weights. Returns whether there were some.

        Raises LookupError or ValueError where they are of other parameters.
        """
        with torch.no_grad():
            if saved is None:
                torch._foreach_copy_(self.values, self.parameters)
                return False
            missing = [name for name in self.names if name not in saved]
            if missing:
                raise LookupError(f"the saved state lacks the averages of {', '.join(missing[:3])}")
            for name, value in self.state().items():
                if saved[name].shape != value.shape:
                    raise ValueError(f"the saved average of {name} has the form {tuple(saved[name].shape)}")
                value.copy_(saved[name])
        return True


def averages_of(ema_steps: int, model: torch.nn.Module) -> Averages | None:
    """The averages that a trial keeps of its trained parameters; None where it evaluates the weights themselves."""
    return Averages(Exponential(ema_steps), model) if ema_steps else None


def shown_weights(averages: Averages | None, optimizer: torch.optim.Optimizer) -> AbstractContextManager[None]:
    """Within the block a model has the weights that are evaluated, kept and exported; afterwards the trained ones."""
    if averages is not None:
        return averages.shown()
    shows = spec_of(optimizer).shows
    return nullcontext() if shows is None else shows(optimizer)


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.dtype in _HALF else tensor
