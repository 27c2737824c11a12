"""AdamW of bitsandbytes: its two running means are kept in 8 bits, in blocks of 256 values with a scale each (C11).

Dettmers et al. 2022, https://arxiv.org/abs/2110.02861. A tensor of fewer than 4,096 values keeps its means in float32.
Weights and gradients stay as they are.
"""

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tuner.design.hyperparameters import log_uniform
from tuner.design.optimizers import Groups, OptimizerSetting, OptimizerSpec, package_of, torch_groups

_NAME, _PACKAGE, _EXTRA = "adamw_8bit", "bitsandbytes", "bnb"
_ITS_LOGGER = "bitsandbytes.backends.cpu.ops"  # which warns of a kernel that no optimizer uses
_DOWNLOADS = "kernels"  # a package: bitsandbytes asks it at import for a kernel, which it fetches from a hub


def _build(groups: Groups, values: Mapping[str, Any], rate: float, fused: bool) -> Any:
    with _nothing_fetched():
        library = package_of(_PACKAGE, _EXTRA, _NAME)
    decay = values.get("weight_decay", 0.0)
    return library.optim.AdamW8bit(
        torch_groups(groups, rate, decay),
        lr=rate,
        betas=(1.0 - values.get("one_minus_beta1", 0.1), 1.0 - values.get("one_minus_beta2", 0.001)),
        eps=values.get("epsilon", 1e-8),
        weight_decay=decay,
    )


@contextmanager
def _nothing_fetched() -> Iterator[None]:
    """Within the block the first import of bitsandbytes fetches nothing, and does not warn that it did not."""
    if _PACKAGE in sys.modules:
        yield
        return
    logger, missing = logging.getLogger(_ITS_LOGGER), object()
    level, module = logger.level, sys.modules.get(_DOWNLOADS, missing)
    logger.setLevel(logging.ERROR)
    sys.modules[_DOWNLOADS] = None  # type: ignore[assignment] # its import fails, which bitsandbytes expects
    try:
        yield
    finally:
        logger.setLevel(level)
        if module is missing:
            del sys.modules[_DOWNLOADS]
        else:
            sys.modules[_DOWNLOADS] = module  # type: ignore[assignment]


ADAMW_8BIT = OptimizerSpec(
    name=_NAME,
    settings=(
        OptimizerSetting("one_minus_beta1"),
        OptimizerSetting("one_minus_beta2"),
        OptimizerSetting("epsilon"),
        OptimizerSetting("weight_decay", family="regularization"),
    ),
    build=_build,
    package=_PACKAGE,
    extra=_EXTRA,
    slow="bitsandbytes has kernels for GPUs; elsewhere it unpacks the 8 bits, computes, and packs them again",
    ranges={
        "learning_rate": log_uniform(1e-5, 1e-1),
        "one_minus_beta1": log_uniform(0.02, 0.5),
        "one_minus_beta2": log_uniform(1e-4, 0.1),
        "epsilon": log_uniform(1e-10, 1e-2),
        "weight_decay": log_uniform(1e-4, 1.0),
    },
    state="2.03, 8 in a tensor of fewer than 4,096 values",
    note=f"needs `tuner[{_EXTRA}]`; slow on a CPU",
)
