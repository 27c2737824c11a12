"""Schedule-free AdamW, that of the package schedulefree: an average of the steps in place of a decay of the rate.

Defazio et al. 2024, https://arxiv.org/abs/2405.15682. It trains weights y = (1 - beta1) z + beta1 x: z makes the steps
of AdamW, and x, their average, is what is evaluated, kept and exported. Of the three it keeps y and z. x is computed
from them where it is shown, and y is put back from a copy: computed back, as the package does it, it would be y but
for rounding, and how often a trial is evaluated would change its weights.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tuner.design.hyperparameters import log_uniform
from tuner.design.optimizers import Groups, OptimizerSetting, OptimizerSpec, package_of, torch_groups
from tuner.errors import WorkloadError

_NAME, _PACKAGE, _EXTRA = "schedule_free_adamw", "schedulefree", "schedulefree"


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


def _build(groups: Groups, values: Mapping[str, Any], rate: float, fused: bool) -> Any:
    library, decay = package_of(_PACKAGE, _EXTRA, _NAME), values.get("weight_decay", 0.0)
    beta1 = 1.0 - values.get("one_minus_beta1", 0.1)
    if not 0.0 < beta1 < 1.0:
        raise ValueError(f"one_minus_beta1 lies between 0 and 1, got {1.0 - beta1:g}: a division by beta1 gives x")
    made = library.AdamWScheduleFree(
        torch_groups(groups, rate, decay),
        lr=rate,
        betas=(beta1, 1.0 - values.get("one_minus_beta2", 0.001)),
        eps=values.get("epsilon", 1e-8),
        weight_decay=decay,
    )
    for group in made.param_groups:  # its train(), which would make an empty state of each parameter
        group["train_mode"] = True
    return made


@contextmanager
def _shows(optimizer: Any) -> Iterator[None]:
    import torch  # noqa: PLC0415

    begun = [
        (parameter, optimizer.state[parameter]["z"], 1.0 - 1.0 / group["betas"][0])
        for group in optimizer.param_groups
        for parameter in group["params"]
        if "z" in optimizer.state.get(parameter, {})
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
    package=_PACKAGE,
    extra=_EXTRA,
    ranges={
        "learning_rate": log_uniform(1e-4, 1e-1),
        "one_minus_beta1": log_uniform(0.01, 0.3),
        "one_minus_beta2": log_uniform(1e-4, 0.1),
        "epsilon": log_uniform(1e-10, 1e-2),
        "weight_decay": log_uniform(1e-4, 1.0),
    },
    state="8",
    note=f"needs `tuner[{_EXTRA}]`, `schedule=constant()` and a model without BatchNorm; an average is evaluated",
)
