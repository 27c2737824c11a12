"""The scale of losses in fp16, whose small gradients would be zero without it, and the updates that it skips.

A gradient below 6e-8 is zero in fp16, and one above 65,504 is infinite. So the loss is multiplied by a scale before it
goes backward, and the gradients, which are float32, are divided by it. Where one of them is not finite, the update is
skipped: nothing is changed but the scale, which is halved, and the same step is tried again with the same batch and
the same random numbers. So a skipped update is no step: rates and batches stay functions of the step. As
`torch.amp.GradScaler` does it, but for that (Micikevicius et al., 2018, "Mixed precision training").
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from tuner.training.copy_on_write import kept_as_it_is, same_bits
from tuner.training.extra_state import extra_state_of, set_extra_state
from tuner.training.stability import Divergence, dense_values

START = 2.0**16
GROWTH_AFTER = 2_000  # updates in a row; then the scale is doubled
MOST_SKIPPED = 20  # in a row; where the next one would be skipped too, a trial has diverged
_LARGEST = 2.0**127
_LARGE = 16 * 2**20  # bytes of a buffer


class LossScale:
    """The scale of a trial, and how its last updates went. Powers of two, so that no bit of a gradient is lost.

    good: updates since the scale last changed. skipped: updates skipped in a row. skipped_since: those since the last
    evaluation. given_up: the step, counted from 1, that had no finite gradient at any scale; 0 for none.
    """

    def __init__(self) -> None:
        self.value = START
        self.good = 0
        self.skipped = 0
        self.skipped_since = 0
        self.given_up = 0

    def scaled(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss to go backward from, in float32 or more."""
        return (loss if loss.dtype in (torch.float32, torch.float64) else loss.float()) * self.value

    def made(self, loss: torch.Tensor, parameters: Iterable[torch.Tensor], step: int) -> bool:
        """Divide the gradients by the scale and set it for the next update; False where this one is to be skipped.

        Waits for the device once: which batch comes next depends on it. A loss that is not finite itself is no matter
        of the scale; its update is made, and the trial diverges.
        """
        if self._unscaled(loss, parameters):
            self._grow()
            return True
        if self.skipped == MOST_SKIPPED:
            self.given_up = self.given_up or step + 1
            return True
        self.skipped += 1
        self.skipped_since += 1
        self.value, self.good = self.value / 2, 0
        return False

    def _unscaled(self, loss: torch.Tensor, parameters: Iterable[torch.Tensor]) -> bool:
        gradients = [_real(dense_values(one.grad)) for one in parameters if one.grad is not None]
        found = torch.zeros(1, dtype=torch.float32, device=loss.device)  # whatever torch's default is
        if gradients:
            torch._amp_foreach_non_finite_check_and_unscale_(gradients, found, torch.full_like(found, 1 / self.value))
        return not bool((found > 0) & torch.isfinite(loss))

    def _grow(self) -> None:
        self.skipped = 0
        self.good += 1
        if self.good == GROWTH_AFTER:
            self.value, self.good = min(2 * self.value, _LARGEST), 0

    def divergence(self) -> Divergence | None:
        """The step at which no scale gave a finite gradient."""
        if not self.given_up:
            return None
        scale = f"2^{math.log2(self.value):g}"
        return Divergence(
            self.given_up,
            f"no finite gradient at scale {scale}, after {MOST_SKIPPED} skipped updates in a row; fp16 has no numbers "
            'above 65,504: precision="bf16" has the range of float32',
        )

    def state(self) -> dict[str, Any]:
        """Plain numbers."""
        return dict(vars(self))

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        for name, now in list(vars(self).items()):
            setattr(self, name, type(now)(state[name]))


def _real(gradient: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(gradient) if gradient.is_complex() else gradient


class Untouched:
    """What user code may write into, as it is before a pass: what is not finished leaves it as it was.

    These are buffers and extra state, and parameters: a teacher that follows the student, weights that are clipped.
    Parameters are copied only where something writes into them; or at once where they have to stay in their place;
    or not at all. Then large buffers are copied like that, too: an evaluation seldom writes into them.
    """

    def __init__(self, model: torch.nn.Module, *, in_place: bool = False, parameters: bool = True) -> None:
        self._model = model
        self._buffers = [
            (module, name, buffer, None if buffer is None else _copied(buffer, whole=parameters))
            for module in model.modules()
            for name, buffer in module._buffers.items()
        ]
        self._extra = {name: one.clone() for name, one in extra_state_of(model).items()}
        keep = torch.Tensor.clone if in_place else kept_as_it_is
        self._parameters = [(one, keep(one.detach())) for one in model.parameters()] if parameters else []

    def put_back(self) -> None:
        """As it was."""
        with torch.no_grad():
            for module, name, buffer, values in self._buffers:
                module._buffers[name] = buffer
                if buffer is not None and values is not None:
                    buffer.copy_(values)
            for parameter, values in self._parameters:
                if not same_bits(parameter.detach(), values):
                    parameter.copy_(values)
        if self._extra:
            device = next((one.device for one in self._model.parameters()), torch.device("cpu"))
            set_extra_state(self._model, self._extra, device)


def _copied(buffer: torch.Tensor, *, whole: bool) -> torch.Tensor:
    is_small = buffer.layout is not torch.strided or buffer.nbytes <= _LARGE  # a sparse one has no bytes to count
    return buffer.clone() if whole or is_small else kept_as_it_is(buffer)


@contextmanager
def unchanged_by_half(model: torch.nn.Module) -> Iterator[None]:
    """An evaluation within the block that does not reach its end leaves the model as it was: it is made again."""
    before = Untouched(model, parameters=False)
    try:
        yield
    except BaseException:
        before.put_back()
        raise
