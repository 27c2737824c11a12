"""Stochastic gradient descent, with or without momentum."""

from collections.abc import Callable, Mapping
from typing import Any

from tuner.design.hyperparameters import log_uniform
from tuner.design.optimizers import Groups, OptimizerSetting, OptimizerSpec, torch_groups
from tuner.errors import NotFusible


def _build(groups: Groups, values: Mapping[str, Any], rate: float, fused: bool) -> Any:
    import torch  # noqa: PLC0415

    return torch.optim.SGD(
        torch_groups(groups, rate, values.get("weight_decay", 0.0)),
        lr=rate,
        momentum=values.get("momentum", 1.0 - values.get("one_minus_momentum", 1.0)),
        nesterov=bool(values.get("nesterov", False)),
        weight_decay=values.get("weight_decay", 0.0),
        fused=fused,
    )


def _slots(optimizer: Any) -> tuple[str, ...]:
    return ("momentum_buffer",) if optimizer.defaults["momentum"] else ()


def _settle_sparse(optimizer: Any, parameters: list[Any]) -> None:
    """Coalesced, and from then on torch's unfused kernel, which changes the rows of the batch alone.

    With momentum or weight decay every row changes in every step: there a gradient is made dense, and the update is
    that of the dense gradient.
    """
    sparse = set(map(id, parameters))
    for group in optimizer.param_groups:
        every_row = bool(group["momentum"]) or bool(group["weight_decay"])
        own = [parameter for parameter in group["params"] if id(parameter) in sparse]
        for parameter in own:
            parameter.grad = parameter.grad.to_dense() if every_row else parameter.grad.coalesce()
        if own and not every_row:
            group["fused"] = False  # a checkpoint has it, so that a resumed trial takes the same kernel


def _row_update(rows: Any, trial: int) -> Callable[[Any], None]:
    import torch  # noqa: PLC0415

    group = rows.settings(trial)
    if not group.get("fused"):
        raise NotFusible("the optimizer: its fused kernel needs contiguous floating-point parameters")
    buffers = rows.states["momentum_buffer"][trial] if group["momentum"] else []
    settings = {name: group[name] for name in ("weight_decay", "momentum", "dampening", "nesterov")}

    def update(rate: Any) -> None:
        first = bool(group["momentum"]) and not rows.begun[trial]
        torch._fused_sgd_(
            rows.values[trial],
            rows.gradients[trial],
            buffers,
            lr=rate,
            **settings,
            maximize=False,
            is_first_step=first,
        )

    return update


SGD = OptimizerSpec(
    name="sgd",
    settings=(
        OptimizerSetting("momentum"),
        OptimizerSetting("one_minus_momentum", same_as="momentum"),
        OptimizerSetting("nesterov", is_number=False),
        OptimizerSetting("weight_decay", family="regularization"),
    ),
    build=_build,
    slots=_slots,
    settle_sparse=_settle_sparse,
    row_update=_row_update,
    ranges={
        "learning_rate": log_uniform(1e-3, 10.0),
        "one_minus_momentum": log_uniform(0.01, 1.0),
        "weight_decay": log_uniform(1e-6, 1e-2),
    },
    state="none, 4 with momentum",
)
