"""The words of a campaign about how an update is computed: slices and micro-batches, precision, averages of weights."""

from collections.abc import Collection
from typing import Any, Protocol

from tuner.design.hyperparameters import Choice
from tuner.design.micro_batches import check_slices
from tuner.design.names import Name
from tuner.design.space import SearchSpace
from tuner.design.workload import Trainable, Workload
from tuner.design.workload_checks import check_count
from tuner.errors import DeclarationError

# Precisions by name. "tf32": float32 whose products have ten bits of mantissa, on GPUs that have it.
PRECISIONS = ("float32", "tf32", "bf16", "fp16")
_MEANT = {
    **dict.fromkeys(("bfloat16", "bf16-mixed", "torch.bfloat16"), "bf16"),
    **dict.fromkeys(("float16", "half", "16", "16-mixed", "fp16-mixed", "torch.float16"), "fp16"),
    **dict.fromkeys(("fp32", "32", "full", "single", "32-true", "torch.float32"), "float32"),
}


class _Declared(Protocol):
    """What is read of a campaign here."""

    @property
    def workload(self) -> Trainable: ...

    @property
    def precision(self) -> str | None: ...

    @property
    def ema_steps(self) -> int | None: ...

    @property
    def rounds(self) -> Any: ...


def check_updates(campaign: _Declared, searched: Collection[str]) -> None:
    """Raise DeclarationError for words about updates that cannot be followed. searched: names in the search spaces."""
    if campaign.precision is not None:
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
        spaces = [one.space for one in campaign.rounds if one.space is not None]
        check_slices(campaign.workload, spaces)


def check_updates_in(space: SearchSpace, workload: Trainable) -> None:
    """Raise DeclarationError for words about updates in a search space that cannot be followed."""
    if not isinstance(workload, Workload):
        return  # who trains in code of their own may call anything a precision
    for name, constant in space.fixed:
        if Name.of(name).short == "precision":
            check_precision(constant.value, name)
    for one in space:
        if one.short_name != "precision":
            continue
        if not isinstance(one.domain, Choice):
            raise DeclarationError(
                f'{one.name} is the name of a precision and no number: choice("float32", "bf16"), of '
                f"{', '.join(PRECISIONS)}"
            )
        for value in one.domain.choices:
            check_precision(value, one.name)


def check_precision(precision: Any, name: str = "precision") -> None:
    """Raise DeclarationError for what is no name of a precision."""
    if precision in PRECISIONS:
        return
    meant = _MEANT.get(str(precision).lower())
    raise DeclarationError(
        f"{name} is one of {', '.join(PRECISIONS)}, got {precision!r}{f'; did you mean {meant!r}?' if meant else ''}"
    )
