"""Adam and its kin: AdamW with decoupled weight decay, NAdam with Nesterov momentum, RAdam with a rectified rate."""

from collections.abc import Callable, Mapping
from typing import Any

from tuner.design.hyperparameters import Range, log_uniform
from tuner.design.optimizers import Groups, OptimizerSetting, OptimizerSpec, torch_groups
from tuner.errors import NotFusible

_SETTINGS = (
    OptimizerSetting("one_minus_beta1"),
    OptimizerSetting("one_minus_beta2"),
    OptimizerSetting("epsilon"),
    OptimizerSetting("weight_decay", family="regularization"),
)
_SWITCH = OptimizerSetting("decoupled_weight_decay", is_number=False)


def _build_adam(groups: Groups, values: Mapping[str, Any], rate: float, fused: bool) -> Any:
    import torch  # noqa: PLC0415

    return torch.optim.Adam(**_arguments(groups, values, rate), fused=fused)


def _build_adamw(groups: Groups, values: Mapping[str, Any], rate: float, fused: bool) -> Any:
    import torch  # noqa: PLC0415

    return torch.optim.AdamW(**_arguments(groups, values, rate), fused=fused)


def _build_nadam(groups: Groups, values: Mapping[str, Any], rate: float, fused: bool) -> Any:
    import torch  # noqa: PLC0415

    return torch.optim.NAdam(
        **_arguments(groups, values, rate),
        momentum_decay=values.get("momentum_decay", 4e-3),
        decoupled_weight_decay=bool(values.get("decoupled_weight_decay", False)),
    )


def _build_radam(groups: Groups, values: Mapping[str, Any], rate: float, fused: bool) -> Any:
    import torch  # noqa: PLC0415

    decoupled = bool(values.get("decoupled_weight_decay", False))
    return torch.optim.RAdam(**_arguments(groups, values, rate), decoupled_weight_decay=decoupled)


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

        group = rows.settings(trial)
        if not group.get("fused"):
            raise NotFusible("the optimizer: its fused kernel needs contiguous floating-point parameters")
        fused_kernel = getattr(torch, kernel)
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


def _ranges(weight_decay: Range, **more: Range) -> dict[str, Range]:
    return {
        "learning_rate": log_uniform(1e-5, 1e-1),
        "one_minus_beta1": log_uniform(0.02, 0.5),
        "one_minus_beta2": log_uniform(1e-4, 0.1),
        "epsilon": log_uniform(1e-10, 1e-2),
        **more,
        "weight_decay": weight_decay,
    }


_COUPLED, _DECOUPLED = log_uniform(1e-6, 1e-2), log_uniform(1e-4, 1.0)  # the second is multiplied by the rate
ADAM = OptimizerSpec(
    name="adam",
    settings=_SETTINGS,
    build=_build_adam,
    slots=_slots,
    counts_steps=True,
    row_update=_row_update_of("_fused_adam_"),
    ranges=_ranges(_COUPLED),
    state="8",
)
ADAMW = OptimizerSpec(
    name="adamw",
    settings=_SETTINGS,
    build=_build_adamw,
    slots=_slots,
    counts_steps=True,
    row_update=_row_update_of("_fused_adamw_"),
    ranges=_ranges(_DECOUPLED),
    state="8",
)
NADAM = OptimizerSpec(
    name="nadam",
    settings=(*_SETTINGS, OptimizerSetting("momentum_decay"), _SWITCH),
    build=_build_nadam,
    ranges=_ranges(_COUPLED, momentum_decay=log_uniform(1e-4, 1e-1)),
    state="8",
)
RADAM = OptimizerSpec(
    name="radam", settings=(*_SETTINGS, _SWITCH), build=_build_radam, ranges=_ranges(_COUPLED), state="8"
)
