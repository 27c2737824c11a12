"""Adam, and AdamW with decoupled weight decay."""

from collections.abc import Callable, Mapping
from typing import Any

from tuner.design.optimizers import OptimizerSetting, OptimizerSpec
from tuner.errors import NotFusible

_SETTINGS = (
    OptimizerSetting("one_minus_beta1"),
    OptimizerSetting("one_minus_beta2"),
    OptimizerSetting("epsilon"),
    OptimizerSetting("weight_decay", family="regularization"),
)


def _build_adam(parameters: list[Any], values: Mapping[str, Any], rate: float, fused: bool) -> Any:
    import torch  # noqa: PLC0415

    return torch.optim.Adam(parameters, lr=rate, fused=fused, **_named(values))


def _build_adamw(parameters: list[Any], values: Mapping[str, Any], rate: float, fused: bool) -> Any:
    import torch  # noqa: PLC0415

    return torch.optim.AdamW(parameters, lr=rate, fused=fused, **_named(values))


def _named(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings under torch's names."""
    return {
        "betas": (1.0 - values.get("one_minus_beta1", 0.1), 1.0 - values.get("one_minus_beta2", 0.001)),
        "eps": values.get("epsilon", 1e-8),
        "weight_decay": values.get("weight_decay", 0.0),
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
