"""Adagrad: each weight's rate falls with the sum of its squared gradients. Takes sparse gradients as they are."""

from collections.abc import Callable, Mapping
from typing import Any

from tuner.design.hyperparameters import log_uniform
from tuner.design.optimizers import Groups, OptimizerSetting, OptimizerSpec, torch_groups
from tuner.errors import NotFusible


def _build(groups: Groups, values: Mapping[str, Any], rate: float, fused: bool) -> Any:
    import torch  # noqa: PLC0415

    decay = values.get("weight_decay", 0.0)
    on_cpu = all(parameter.device.type == "cpu" for group in groups for parameter in group["params"])
    return torch.optim.Adagrad(
        torch_groups(groups, rate, decay),
        lr=rate,
        initial_accumulator_value=values.get("initial_accumulator", 0.0),
        eps=values.get("epsilon", 1e-10),
        weight_decay=decay,
        fused=fused and on_cpu,  # elsewhere torch has no such kernel
    )


def _settle_sparse(optimizer: Any, parameters: list[Any]) -> None:
    """Coalesced, and from then on torch's unfused code, which changes the rows of the batch alone.

    That is the whole update of the dense gradient: a row without a gradient stays as it is. With weight decay it does
    not, and the gradient is made dense.
    """
    sparse = set(map(id, parameters))
    for group in optimizer.param_groups:
        own = [parameter for parameter in group["params"] if id(parameter) in sparse]
        for parameter in own:
            parameter.grad = parameter.grad.to_dense() if group["weight_decay"] else parameter.grad.coalesce()
        if own and not group["weight_decay"]:
            group["fused"] = False  # a checkpoint has it, so that a resumed trial takes the same code


def _row_update(rows: Any, trial: int) -> Callable[[Any], None]:
    import torch  # noqa: PLC0415

    group = rows.settings(trial)
    if not group["fused"]:
        raise NotFusible("the optimizer: torch has its fused kernel for contiguous parameters on the CPU")
    tensors = rows.values[trial], rows.gradients[trial], rows.states["sum"][trial], rows.counters[trial]
    settings = {name: group[name] for name in ("lr_decay", "weight_decay", "eps", "maximize")}

    def update(rate: Any) -> None:
        torch._fused_adagrad_(*tensors, lr=rate, **settings)

    return update


ADAGRAD = OptimizerSpec(
    name="adagrad",
    settings=(
        OptimizerSetting("initial_accumulator"),
        OptimizerSetting("epsilon"),
        OptimizerSetting("weight_decay", family="regularization"),
    ),
    build=_build,
    slots=lambda optimizer: ("sum",),
    counts_steps=True,
    settle_sparse=_settle_sparse,
    row_update=_row_update,
    ranges={
        "learning_rate": log_uniform(1e-3, 1.0),
        "initial_accumulator": log_uniform(1e-3, 1.0),
        "epsilon": log_uniform(1e-10, 1e-4),
        "weight_decay": log_uniform(1e-6, 1e-2),
    },
    state="4",
    note="its rate falls by itself, like 1/sqrt(step)",
)
