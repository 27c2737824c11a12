"""The words of a campaign about how an update is computed: slices and micro-batches, precision, averages of weights."""

from collections.abc import Collection
from typing import Any, Protocol

from tuner.design.workload import Trainable, Workload
from tuner.design.workload_checks import check_count
from tuner.errors import DeclarationError

# Precisions by name. "tf32": float32 whose products have ten bits of mantissa, on GPUs that have it.
PRECISIONS = ("float32", "tf32", "bf16", "fp16")


class _Declared(Protocol):
    """What is read of a campaign here."""

    @property
    def workload(self) -> Trainable: ...

    @property
    def precision(self) -> str | None: ...

    @property
    def ema_steps(self) -> int | None: ...


def check_updates(campaign: _Declared, searched: Collection[str]) -> None:
    """Raise DeclarationError for words about updates that cannot be followed. searched: names in the search spaces."""
    check_precision(campaign.precision)
    if campaign.ema_steps is not None:
        check_count("ema_steps", campaign.ema_steps)
    for name in ("precision", "ema_steps"):
        if getattr(campaign, name) is not None and name in searched:
            raise DeclarationError(
                f"{name} = {getattr(campaign, name)!r} of the campaign and {name} of a search space both say it; give "
                "one of them"
            )
    if isinstance(campaign.workload, Workload):
        _check_slices(campaign.workload)


def check_precision(precision: Any) -> None:
    """Raise DeclarationError for what is no name of a precision."""
    if precision is not None and precision not in PRECISIONS:
        raise DeclarationError(f"precision is one of {', '.join(PRECISIONS)}, got {precision!r}")


def _check_slices(workload: Workload) -> None:
    name = type(workload).__name__
    for word in ("slices", "micro_batch_size"):
        if getattr(workload, word) is not None:
            check_count(f"{name}.{word}", getattr(workload, word))
