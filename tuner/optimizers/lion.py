"""Lion: every weight moves by the rate, against the sign of a mean of its gradients (Chen et al. 2023, algorithm 2).

Written here, because torch has none: https://arxiv.org/abs/2302.06675.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from tuner.design.hyperparameters import log_uniform
from tuner.design.optimizers import Groups, OptimizerSetting, OptimizerSpec, torch_groups


@cache
def _lion() -> Any:
    """The class; made by a function, because torch is imported only where something is trained."""
    import torch  # noqa: PLC0415

    class Lion(torch.optim.Optimizer):
        """update = sign(beta1 m + (1 - beta1) g); m = beta2 m + (1 - beta2) g; weight decay apart from the gradient."""

        @torch.no_grad()
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            for group in self.param_groups:
                parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
                if not parameters:
                    continue
                gradients = [parameter.grad for parameter in parameters]
                means = [self._mean(parameter) for parameter in parameters]
                (beta1, beta2), rate = group["betas"], group["lr"]
                if group["weight_decay"]:
                    torch._foreach_mul_(parameters, 1.0 - rate * group["weight_decay"])
                updates = torch._foreach_lerp(means, gradients, 1.0 - beta1)
                torch._foreach_sign_(updates)
                torch._foreach_add_(parameters, updates, alpha=-rate)
                torch._foreach_lerp_(means, gradients, 1.0 - beta2)

        def _mean(self, parameter: Any) -> Any:
            state = self.state[parameter]
            if not state:
                state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            return state["exp_avg"]

    return Lion


def _build(groups: Groups, values: Mapping[str, Any], rate: float, fused: bool) -> Any:
    decay = values.get("weight_decay", 0.0)
    betas = 1.0 - values.get("one_minus_beta1", 0.1), 1.0 - values.get("one_minus_beta2", 0.01)
    return _lion()(torch_groups(groups, rate, decay), {"lr": rate, "betas": betas, "weight_decay": decay})


LION = OptimizerSpec(
    name="lion",
    settings=(
        OptimizerSetting("one_minus_beta1"),
        OptimizerSetting("one_minus_beta2"),
        OptimizerSetting("weight_decay", family="regularization"),
    ),
    build=_build,
    ranges={
        "learning_rate": log_uniform(1e-6, 1e-2),
        "one_minus_beta1": log_uniform(0.02, 0.5),
        "one_minus_beta2": log_uniform(1e-3, 0.1),
        "weight_decay": log_uniform(1e-3, 10.0),
    },
    state="4",
    note="its rate is 3 to 10 times smaller than that of adamw, its weight decay as much larger",
)
