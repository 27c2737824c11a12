"""Schedule-free AdamW: an average over the steps in place of a decay of the rate (Defazio et al. 2024).

https://arxiv.org/abs/2405.15682. It trains weights y = (1 - beta1) z + beta1 x: z makes the steps of AdamW, and x,
their average, is what is evaluated, kept and exported. Each step counts in the average by the square of the largest
rate so far, so those of a warmup count less.

Written here with the operations of the authors' package schedulefree 1.4.1, whose bits it has in float32. That package
itself cannot be used: it divides the gradients in place, whose norms are recorded after a step, and it goes from x back
to y by a formula, which is y but for rounding, so that how often a trial is evaluated would change its weights. Here y
is put back from a copy.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

from tuner.design.hyperparameters import log_uniform
from tuner.design.optimizers import Groups, OptimizerSetting, OptimizerSpec, torch_groups
from tuner.errors import WorkloadError

_NAME = "schedule_free_adamw"


def _check_model(groups: Groups, model: Any) -> Groups:
    """Refuse running statistics: they would be those of y, and what is evaluated is x."""
    import torch  # noqa: PLC0415

    kinds = torch.nn.modules.batchnorm._NormBase  # instance norms, too, where they keep running statistics
    for name, module in () if model is None else model.named_modules():
        if isinstance(module, kinds) and module.track_running_stats:
            raise WorkloadError(
                f"{_NAME} evaluates other weights than it trains, and the running statistics of {name or 'the model'} "
                f"({type(module).__name__}) would be those of the weights that it trains: use nn.GroupNorm or "
                "nn.LayerNorm, or another optimizer"
            )
    return groups


def _next_share(group: dict[str, Any]) -> float:
    """What the coming step counts in the average."""
    group["lr_max"] = max(group["lr"], group["lr_max"])
    weight = group["lr_max"] ** 2
    group["weight_sum"] += weight
    return weight / group["weight_sum"] if group["weight_sum"] else 0.0


@cache
def _schedule_free_adamw() -> Any:
    """The class; made by a function, because torch is imported only where something is trained."""
    import torch  # noqa: PLC0415

    class ScheduleFreeAdamW(torch.optim.Optimizer):
        """Each group counts its steps (k), and has the sum of their weights and its largest rate so far."""

        @torch.no_grad()
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            for group in self.param_groups:
                share = _next_share(group)
                trained = [parameter for parameter in group["params"] if parameter.grad is not None]
                if trained:
                    self._update(group, trained, share)
                group["k"] += 1

        def _update(self, group: dict[str, Any], trained: list[Any], share: float) -> None:
            (beta1, beta2), rate = group["betas"], group["lr"]
            states = [self._state(parameter) for parameter in trained]
            z, squares = [state["z"] for state in states], [state["exp_avg_sq"] for state in states]
            gradients = [parameter.grad for parameter in trained]
            torch._foreach_mul_(squares, beta2)
            torch._foreach_addcmul_(squares, gradients, gradients, value=1 - beta2)
            roots = torch._foreach_div(squares, 1 - beta2 ** (group["k"] + 1))
            torch._foreach_sqrt_(roots)
            torch._foreach_add_(roots, group["eps"])
            updates = torch._foreach_div(gradients, roots)
            if group["weight_decay"] != 0:
                torch._foreach_add_(updates, trained, alpha=group["weight_decay"])
            # y without computing x: y + share (z - y) - rate (1 - beta1 (1 - share)) update
            torch._foreach_lerp_(trained, z, weight=share)
            torch._foreach_add_(trained, updates, alpha=rate * (beta1 * (1 - share) - 1))
            torch._foreach_sub_(z, updates, alpha=rate)

        def _state(self, parameter: Any) -> dict[str, Any]:
            state: dict[str, Any] = self.state[parameter]
            if not state:
                state["z"] = torch.clone(parameter, memory_format=torch.preserve_format)
                state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            return state

    return ScheduleFreeAdamW


def _build(groups: Groups, values: Mapping[str, Any], rate: float, fused: bool) -> Any:
    decay, beta1 = values.get("weight_decay", 0.0), 1.0 - values.get("one_minus_beta1", 0.1)
    if not 0.0 < beta1 < 1.0:
        raise ValueError(f"one_minus_beta1 lies between 0 and 1, got {1.0 - beta1:g}: x is computed as y over beta1")
    defaults = {
        "lr": rate,
        "betas": (beta1, 1.0 - values.get("one_minus_beta2", 0.001)),
        "eps": values.get("epsilon", 1e-8),
        "weight_decay": decay,
        "k": 0,
        "weight_sum": 0.0,
        "lr_max": 0.0,
    }
    return _schedule_free_adamw()(torch_groups(groups, rate, decay), defaults)


@contextmanager
def _shows(optimizer: Any) -> Iterator[None]:
    """Within the block x stands in the parameters."""
    import torch  # noqa: PLC0415

    begun = [
        (parameter, optimizer.state[parameter]["z"], 1.0 - 1.0 / group["betas"][0])
        for group in optimizer.param_groups
        for parameter in group["params"]
        if parameter in optimizer.state
    ]
    kept = [parameter.detach().clone() for parameter, *_ in begun]
    try:
        with torch.no_grad():
            for parameter, z, share in begun:
                parameter.lerp_(z, share)
        yield
    finally:
        with torch.no_grad():
            for (parameter, *_), y in zip(begun, kept, strict=True):
                parameter.copy_(y)


SCHEDULE_FREE_ADAMW = OptimizerSpec(
    name=_NAME,
    settings=(
        OptimizerSetting("one_minus_beta1"),
        OptimizerSetting("one_minus_beta2"),
        OptimizerSetting("epsilon"),
        OptimizerSetting("weight_decay", family="regularization"),
    ),
    build=_build,
    divide=_check_model,
    shows=_shows,
    averages=True,
    only_constant="it evaluates an average over its steps, and that average is the decay of the rate",
    ranges={
        "learning_rate": log_uniform(1e-4, 1e-1),
        "one_minus_beta1": log_uniform(0.01, 0.3),
        "one_minus_beta2": log_uniform(1e-4, 0.1),
        "epsilon": log_uniform(1e-10, 1e-2),
        "weight_decay": log_uniform(1e-4, 1.0),
    },
    state="8",
    note="an average of its steps is evaluated; needs `schedule=constant()` and a model without BatchNorm",
)
