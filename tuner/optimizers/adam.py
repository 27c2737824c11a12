"""Adam, and AdamW with decoupled weight decay."""

from collections.abc import Callable, Mapping
from typing import Any

from tuner.design.optimizers import Groups, OptimizerSetting, OptimizerSpec, torch_groups
from tuner.errors import NotFusible

_SETTINGS = (
    OptimizerSetting("one_minus_beta1"),
    OptimizerSetting("one_minus_beta2"),
    OptimizerSetting("epsilon"),
    OptimizerSetting("weight_decay", family="regularization"),
)


def _build_adam(groups: Groups, values: Mapping[str, Any], rate: float, fused: bool) -> Any:
    import torch  # noqa: PLC0415

    return torch.optim.Adam(**_arguments(groups, values, rate), fused=fused)


def _build_adamw(groups: Groups, values: Mapping[str, Any], rate: float, fused: bool) -> Any:
    import torch  # noqa: PLC0415

    return torch.optim.AdamW(**_arguments(groups, values, rate), fused=fused)


def _arguments(groups: Groups, values: Mapping[str, Any], rate: float) -> dict[str, Any]:
    """The groups, the rate and the settings under torch's names."""
    decay = values.get("weight_decay", 0.0)
    return {
        "params": torch_groups(groups, rate, decay),
        "lr": rate,
        "betas": (1.0 - values.get("one_minus_beta1", 0.1), 1.0 - values.get("one_minus_beta2", 0.001)),
        "eps": values.get("epsilon", 1e-8),
        "weight_decay": decay,
    }


def _slots(optimizer: Any) -> tuple[str, ...]:
    return ("exp_avg", "exp_avg_sq")


def _row_update_of(kernel: str) -> Callable[[Any, int], Callable[[Any], None]]:
    """kernel: the name of torch's fused kernel."""

    def row_update(rows: Any, trial: int) -> Callable[[Any], None]:
        import torch  # noqa: PLC0415

        optimizer = rows.optimizers[trial]
        if not optimizer.defaults.get("fused"):
            raise NotFusible("the optimizer: its fused kernel needs contiguous floating-point parameters")
        group, fused_kernel = optimizer.param_groups[0], getattr(torch, kernel)
        tensors: tuple[Any, ...] = (
            rows.values[trial],
            rows.gradients[trial],
            rows.states["exp_avg"][trial],
            rows.states["exp_avg_sq"][trial],
            [],
            rows.counters[trial],
        )
        beta1, beta2 = group["betas"]
        settings = {"beta1": beta1, "beta2": beta2, "weight_decay": group["weight_decay"], "eps": group["eps"]}

        def update(rate: Any) -> None:
            fused_kernel(*tensors, lr=rate, **settings, amsgrad=False, maximize=False)

        return update

    return row_update


ADAM = OptimizerSpec(
    name="adam",
    settings=_SETTINGS,
    build=_build_adam,
    slots=_slots,
    counts_steps=True,
    row_update=_row_update_of("_fused_adam_"),
)
ADAMW = OptimizerSpec(
    name="adamw",
    settings=_SETTINGS,
    build=_build_adamw,
    slots=_slots,
    counts_steps=True,
    row_update=_row_update_of("_fused_adamw_"),
)
