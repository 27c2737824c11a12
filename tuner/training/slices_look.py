"""A look at slices before they are trained on: is their sum the gradient of the batch, and if not, why?

Two slices, the first and the last of the first batch, are compared with one batch of the same examples, in float32,
without augmentation and with dropout off. What differs is not wrong: a batch norm takes its statistics from each slice,
and a contrastive loss sees fewer negatives. But it is another training than that of whole batches, and it is said once.
"""

import copy
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from tuner.errors import WorkloadError
from tuner.training.endings import is_out_of_memory
from tuner.training.first_loss import left_as_it_was
from tuner.training.precision import computing
from tuner.training.randomness import seed_global_generators
from tuner.training.slices import Slices, check_weights, shares_of
from tuner.training.trial_run import TrialRun

logger = logging.getLogger(__name__)
APART = 1e-4  # of the gradients' norms; sums of float32 in another order differ by less
_DROPOUTS = (
    F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout, torch.dropout,
    torch.alpha_dropout, torch.feature_dropout, torch.feature_alpha_dropout,
)  # fmt: skip
_P_OF_ATTENTION = 4  # the place of dropout_p among the arguments of scaled_dot_product_attention


def look_at_slices(run: TrialRun, model: torch.nn.Module) -> None:
    """Warn where slices train another thing than whole batches, naming why. model: a fresh one; it stays as it is."""
    if run.rule.slices == 1:
        return
    numbers = (0, run.rule.slices - 1)
    slices = [run.batches.fetched(0, number) for number in numbers]
    weights = None if run.weigh is None else [run.weigh(batch) for batch in slices]
    if weights is not None and not any(map(float, weights)):
        return  # nothing counts in these two
    shares = [float(share) for share in shares_of(weights, 2, 0).of_each]
    try:
        told = _difference(run, model, [*slices, _as_one(run, numbers)], shares)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        logger.info("two slices do not fit into memory as one batch, so they are not compared with it")
        return
    if told:
        logger.warning(
            "%s in slices is trained otherwise than in whole batches: %s", type(run.setup.workload).__name__, told
        )


def check_slice_weights(run: TrialRun, slices: Slices) -> None:
    """Raise WorkloadError where the weight of a slice of the first batch is none."""
    weights = slices.weights()
    if weights is not None:
        check_weights([_checked(run, weight) for weight in weights], 0)


def _checked(run: TrialRun, weight: Any) -> float:
    is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if not is_number and not (isinstance(weight, torch.Tensor) and weight.dim() == 0 and not weight.is_complex()):
        got = f"a tensor {list(weight.shape)}" if isinstance(weight, torch.Tensor) else repr(weight)
        raise WorkloadError(
            f"{type(run.setup.workload).__name__}.weight must return a number, or a tensor without dimensions, of what "
            f"the loss of the batch is a mean over; got {got:.80}: (batch[1] != IGNORED).sum(), say"
        )
    return float(weight)


def _as_one(run: TrialRun, numbers: Sequence[int]) -> Any:
    """The examples of these slices of the first batch as one batch."""
    wanted = [run.batches.wanted(0, number) for number in numbers]
    return run.batches.split.take(torch.cat([indices for indices, _ in wanted]), wanted[0][1])


@dataclass(frozen=True, slots=True)
class _Gradients:
    """Of two slices and of both as one batch; float64, in a row."""

    slices: Sequence[torch.Tensor]
    whole: torch.Tensor

    def apart(self, by: Sequence[float], shares: Sequence[float]) -> float:
        """How far the slices times `by` are from the batch, beside what the slices add up to by their shares."""
        scale = sum(share * float(one.norm()) for share, one in zip(shares, self.slices, strict=True))
        return float((by[0] * self.slices[0] + by[1] * self.slices[1] - self.whole).norm()) / scale if scale else 0.0

    @property
    def fitting(self) -> list[float]:
        """The two factors with which the slices come nearest to the batch."""
        found = torch.linalg.lstsq(torch.stack(list(self.slices), 1), self.whole[:, None])
        return [float(one) for one in found.solution.flatten()]


def _difference(run: TrialRun, model: torch.nn.Module, batches: Sequence[Any], shares: Sequence[float]) -> str:
    """What makes the gradient of two slices another than that of the batch; "" where it is the same, or random.

    Where there are batch norms, what they do is told apart from the rest: that is compared with them at rest.
    """
    losses = {float(_loss(run, copy.deepcopy(model), batches[-1], seed).detach()) for seed in (1, 2)}
    if len(losses) > 1:
        return ""  # it draws random numbers besides dropout, so that there is nothing to compare
    found = _gradients(run, model, batches)
    if not found.apart(shares, shares) > APART:
        return ""
    norms = [name for name, module in model.named_modules() if isinstance(module, _BatchNorm)]
    by_norms = ""
    if norms:
        at_rest = _gradients(run, model, batches, norms_at_rest=True)
        by_norms = "" if torch.equal(found.whole, at_rest.whole) else _because_of_norms(run, norms)
        if not at_rest.apart(shares, shares) > APART:
            return by_norms
        found = at_rest
    fitting = found.fitting
    if found.apart(fitting, shares) <= APART:
        told = _because_of_weight(run, shares, fitting)
    else:
        told = _across(run, found.apart(shares, shares))
    return f"{told}. Besides, {by_norms}" if by_norms else told


def _because_of_norms(run: TrialRun, norms: Sequence[str]) -> str:
    return (
        f"batch norms ({', '.join(norms[:3])}) take their statistics from each slice of {run.batches.slice_size} "
        f"examples, and not from the batch of {run.batches.batch_size}. That trains, too (ghost batch norm); with "
        "GroupNorm or LayerNorm nothing depends on the slices"
    )


def _because_of_weight(run: TrialRun, shares: Sequence[float], fitting: Sequence[float]) -> str:
    name = type(run.setup.workload).__name__
    if all(math.isclose(one, 1.0, rel_tol=1e-2) for one in fitting):
        return f"{name}.loss is a sum over the batch; return a mean, so that the rate does not depend on the slices"
    says = f"{name}.weight() gives" if run.setup.workload.declares("weight") else "by their examples"
    return (
        f"the loss is a mean over something else than its weights: {says} two slices the shares {shares[0]:.3g} and "
        f"{shares[1]:.3g}, and as one batch they have {fitting[0]:.3g} and {fitting[1]:.3g}. Let weight(self, batch) "
        "return what the loss divides by: (batch[1] != IGNORED).sum() of a mean over tokens"
    )


def _across(run: TrialRun, apart: float) -> str:
    drawn = ", or collate() draws at random" if run.setup.workload.declares("collate") else ""
    return (
        f"the gradients of two slices are {apart:.1%} apart from that of both as one batch, with any weights. The loss "
        f"looks across the examples of a batch (in-batch negatives, statistics of a batch){drawn}: each example is "
        f"compared with {run.batches.slice_size - 1} others then, and not with {run.batches.batch_size - 1}"
    )


def _gradients(
    run: TrialRun, model: torch.nn.Module, batches: Sequence[Any], *, norms_at_rest: bool = False
) -> _Gradients:
    *slices, whole = (_gradient(run, model, batch, norms_at_rest=norms_at_rest) for batch in batches)
    return _Gradients(slices, whole)


def _gradient(run: TrialRun, model: torch.nn.Module, batch: Any, *, norms_at_rest: bool = False) -> torch.Tensor:
    """The gradient of all parameters in a row, float64 on the CPU; zeros where the loss does not depend on one."""
    copied = copy.deepcopy(model)
    parameters = [parameter for parameter in copied.parameters() if parameter.requires_grad]
    loss = _loss(run, copied, batch, 1, norms_at_rest=norms_at_rest)
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    pairs = zip(parameters, gradients, strict=True)
    rows = [torch.zeros_like(parameter) if one is None else one.to_dense() for parameter, one in pairs]
    return torch.cat([row.detach().flatten().to("cpu", torch.float64) for row in rows])


def _loss(run: TrialRun, copied: torch.nn.Module, batch: Any, seed: int, *, norms_at_rest: bool = False) -> Any:
    """The loss of a batch without dropout; it may change the model, which is a copy."""
    copied.train()
    for module in copied.modules():
        if isinstance(module, torch.nn.RNNBase):
            module.dropout = 0.0
        if norms_at_rest and isinstance(module, _BatchNorm):
            module.eval()
    seed_global_generators(seed, run.setup.device)
    with computing("float32", run.setup.device), left_as_it_was(run.setup.workload), _Undropped():
        return run.setup.workload.loss(copied, batch, run.point)


class _Undropped(TorchFunctionMode):
    """Within it dropout gives what it is given, also that of attention."""

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        keywords = dict(kwargs or {})
        if func in _DROPOUTS:
            return args[0] if args else keywords["input"]
        if func is F.scaled_dot_product_attention:
            args = args[:_P_OF_ATTENTION] + (0.0,) * (len(args) > _P_OF_ATTENTION) + args[_P_OF_ATTENTION + 1 :]
            keywords |= {"dropout_p": 0.0} if "dropout_p" in keywords else {}
        if func is F.multi_head_attention_forward:
            keywords["training"] = False
        return func(*args, **keywords)
