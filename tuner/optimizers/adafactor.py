"""Adafactor as torch has it: of a matrix it keeps the means of rows and columns of the squared gradient only."""

from collections.abc import Mapping
from typing import Any

from tuner.design.hyperparameters import log_uniform, uniform
from tuner.design.optimizers import Groups, OptimizerSetting, OptimizerSpec, torch_groups


def _build(groups: Groups, values: Mapping[str, Any], rate: float, fused: bool) -> Any:
    import torch  # noqa: PLC0415

    decay = values.get("weight_decay", 0.0)
    return torch.optim.Adafactor(
        torch_groups(groups, rate, decay),
        lr=rate,
        beta2_decay=values.get("beta2_decay", -0.8),
        eps=(values.get("epsilon"), values.get("epsilon2", 1e-3)),
        d=values.get("clip_threshold", 1.0),
        weight_decay=decay,
    )


ADAFACTOR = OptimizerSpec(
    name="adafactor",
    settings=(
        OptimizerSetting("beta2_decay"),
        OptimizerSetting("epsilon"),
        OptimizerSetting("epsilon2"),
        OptimizerSetting("clip_threshold"),
        OptimizerSetting("weight_decay", family="regularization"),
    ),
    build=_build,
    ranges={
        "learning_rate": log_uniform(1e-3, 1e-1),
        "beta2_decay": uniform(-1.0, -0.5),
        "epsilon": log_uniform(1e-10, 1e-5),
        "epsilon2": log_uniform(1e-4, 1e-2),
        "clip_threshold": uniform(1.0, 2.0, limits="low"),
        "weight_decay": log_uniform(1e-4, 1.0),
    },
    state="4 (rows + columns) / (rows x columns) of a matrix, 4 of a vector",
    note="its step is the smaller of the rate and 1/sqrt(step), times the size of the weights",
)
