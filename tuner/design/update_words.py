"""The words of a campaign about how an update is computed: slices and micro-batches, precision, averages of weights."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol

from tuner.design.hyperparameters import Choice, Constant, Domain, Range, Value
from tuner.design.micro_batches import check_slices
from tuner.design.names import EMA_STEPS, Name
from tuner.design.optimizers import optimizer_of
from tuner.design.round import checked_steps
from tuner.design.space import SearchSpace
from tuner.design.workload import Trainable, Workload
from tuner.errors import DeclarationError

# Precisions by name. "tf32": float32 whose products have ten bits of mantissa, on GPUs that have it.
PRECISIONS = ("float32", "tf32", "bf16", "fp16")
_MEANT = {
    **dict.fromkeys(("bfloat16", "bf16-mixed", "torch.bfloat16"), "bf16"),
    **dict.fromkeys(("float16", "half", "16", "16-mixed", "fp16-mixed", "torch.float16"), "fp16"),
    **dict.fromkeys(("fp32", "32", "full", "single", "32-true", "torch.float32"), "float32"),
    **{name: name for name in PRECISIONS},  # in capitals
}
_DECAYS = ("emadecay", "modelemadecay", "ema", "emamomentum", "emarate")  # how other tools say it, in letters


class _Round(Protocol):
    @property
    def space(self) -> SearchSpace | None: ...


class _Declared(Protocol):
    """What is read of a campaign here."""

    @property
    def workload(self) -> Trainable: ...

    @property
    def precision(self) -> str | None: ...

    @property
    def ema_steps(self) -> int | None: ...

    @property
    def optimizer(self) -> Any: ...

    @property
    def rounds(self) -> Sequence[_Round]: ...


def check_updates(campaign: _Declared, searched: Collection[str]) -> None:
    """Raise DeclarationError for words about updates that cannot be followed. searched: names in the search spaces."""
    if campaign.precision is not None:
        check_precision(campaign.precision)
    if campaign.ema_steps is not None:
        checked_steps(EMA_STEPS, campaign.ema_steps)
    for name in ("precision", "ema_steps"):
        if getattr(campaign, name) is not None and name in searched:
            raise DeclarationError(
                f"{name} = {getattr(campaign, name)!r} of the campaign and {name} of a search space both say it; give "
                "one of them"
            )
    if isinstance(campaign.workload, Workload):
        check_slices(campaign.workload, [one.space for one in campaign.rounds if one.space is not None])
        _check_averages(campaign)


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


def refuse_decay(words: Mapping[str, object]) -> None:
    """Raise DeclarationError where averages of the weights are declared by their decay, as in other tools."""
    for name, value in words.items():
        if name.replace("_", "").lower() in _DECAYS:
            decay = next((one for one in values_of(value) if isinstance(one, float) and 0.0 < one < 1.0), 0.999)
            raise DeclarationError(
                f"{name} is no word of ours: averages of the weights are declared in steps, because a decay means "
                f"another part of a longer training; ema_steps = {round(1.0 / (1.0 - decay))} is what {name} "
                f"{decay:g} means"
            )


def values_of(declared: object) -> Sequence[object]:
    """What a declaration can be: the ends of a range, the choices, or one value."""
    if isinstance(declared, Range):
        return declared.low, declared.high
    if isinstance(declared, Choice):
        return declared.choices
    return (declared.value if isinstance(declared, Constant) else declared,)


def _check_averages(campaign: _Declared) -> None:
    spaces = [one.space for one in campaign.rounds if one.space is not None]
    chosen = {str(name) for space in spaces for name in space.optimizers}
    if not spaces or not all(space.optimizers for space in spaces):
        chosen.add(str(campaign.optimizer))
    if campaign.ema_steps is not None:
        _check_no_other_average(f"{EMA_STEPS} = {campaign.ema_steps}", chosen)
    for space in spaces:
        refuse_decay({name.short: domain for name, domain in _declared_in(space)})
        for name, domain in _declared_in(space):
            if name.short == EMA_STEPS:
                _check_steps(domain)
                _check_no_other_average(str(name), {name.branch} if name.branch in chosen else chosen)


def _declared_in(space: SearchSpace) -> Iterator[tuple[Name, Domain | Constant]]:
    yield from ((Name.of(one.name), one.domain) for one in space)
    yield from ((Name.of(name), constant) for name, constant in space.fixed)


def _check_steps(declared: Domain | Constant) -> None:
    values: Sequence[Value] = values_of(declared)  # type: ignore[assignment]
    whole = not isinstance(declared, Range) or declared.integer
    wrong = [one for one in values if one is not None and not (whole and type(one) is int and one >= 1)]
    if wrong:
        raise DeclarationError(
            f"{EMA_STEPS} is a number of steps, whole and at least 1, or None for no averages, got {wrong[0]!r}; "
            "declare integers(50, 500, log=True), choice(None, 100, 400), or one number"
        )


def _check_no_other_average(what: str, optimizers: Collection[str]) -> None:
    for name in sorted(optimizers):
        if optimizer_of(name).averages:
            raise DeclarationError(
                f"{name} evaluates an average of its own, so {what} cannot average its weights too: leave ema_steps "
                "out, or declare it in the branches of the other optimizers"
            )
