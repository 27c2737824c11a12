"""The optimizers that the trainer knows, and which of their settings a search space may vary."""

from tuner.design.hyperparameters import Choice
from tuner.design.names import Name
from tuner.design.space import SearchSpace
from tuner.errors import DeclarationError

OPTIMIZERS = ("sgd", "adam", "adamw")
_ADAMS = ("adam", "adamw")
READ_BY = {  # settings that only some of them have
    "momentum": ("sgd",),
    "one_minus_momentum": ("sgd",),
    "nesterov": ("sgd",),
    "one_minus_beta1": _ADAMS,
    "one_minus_beta2": _ADAMS,
    "epsilon": _ADAMS,
}


def check_optimizer(name: object) -> None:
    """Raise DeclarationError for an optimizer the trainer does not know."""
    if name not in OPTIMIZERS:
        raise DeclarationError(f"optimizer is one of {', '.join(OPTIMIZERS)}, got {name!r}")


def space_optimizers(space: SearchSpace) -> list[object]:
    """The optimizers that a space fixes or varies; none where it leaves that to the campaign."""
    declared: list[object] = [constant.value for name, constant in space.fixed if name == "optimizer"]
    for hyperparameter in space:
        if hyperparameter.name == "optimizer" and isinstance(hyperparameter.domain, Choice):
            declared += hyperparameter.domain.choices
    return declared


def check_settings(space: SearchSpace, optimizer: str) -> None:
    """Raise DeclarationError for a setting that no optimizer of the space reads, and for a momentum given twice."""
    used = space_optimizers(space) or [optimizer]
    names = [hyperparameter.name for hyperparameter in space] + [name for name, _ in space.fixed]
    for name in names:
        branch, short = Name.of(name).branch, Name.of(name).short
        trained = [branch] if branch in OPTIMIZERS else used
        readers = READ_BY.get(short, OPTIMIZERS)
        if not any(each in readers for each in trained):
            raise DeclarationError(
                f"{name} would change nothing: it is read by {' and '.join(readers)} only, and the trials train with "
                f"{', '.join(map(str, trained))}; leave it out, or give it another name if the workload reads it"
            )
        other = str(Name(branch, "momentum"))
        if short == "one_minus_momentum" and other in names:
            raise DeclarationError(f"{other} and {name} say the same of one optimizer; declare one of them")
