"""RMSprop: the gradient over the root of a running mean of its square, with or without momentum."""

from collections.abc import Mapping
from typing import Any

from tuner.design.hyperparameters import log_uniform
from tuner.design.optimizers import Groups, OptimizerSetting, OptimizerSpec, torch_groups


def _build(groups: Groups, values: Mapping[str, Any], rate: float, fused: bool) -> Any:
    import torch  # noqa: PLC0415

    decay = values.get("weight_decay", 0.0)
    return torch.optim.RMSprop(
        torch_groups(groups, rate, decay),
        lr=rate,
        alpha=1.0 - values.get("one_minus_alpha", 0.01),
        eps=values.get("epsilon", 1e-8),
        momentum=values.get("momentum", 1.0 - values.get("one_minus_momentum", 1.0)),
        centered=bool(values.get("centered", False)),
        weight_decay=decay,
    )


RMSPROP = OptimizerSpec(
    name="rmsprop",
    settings=(
        OptimizerSetting("one_minus_alpha"),
        OptimizerSetting("epsilon"),
        OptimizerSetting("momentum"),
        OptimizerSetting("one_minus_momentum", same_as="momentum"),
        OptimizerSetting("centered", is_number=False),
        OptimizerSetting("weight_decay", family="regularization"),
    ),
    build=_build,
    ranges={
        "learning_rate": log_uniform(1e-5, 1e-2),
        "one_minus_alpha": log_uniform(1e-3, 0.3),
        "epsilon": log_uniform(1e-10, 1e-2),
        "one_minus_momentum": log_uniform(0.05, 1.0),
        "weight_decay": log_uniform(1e-6, 1e-2),
    },
    state="4, and 4 more each with momentum and centered",
)
