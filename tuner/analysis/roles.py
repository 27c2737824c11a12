"""Rules of thumb about roles: what should not be fixed, tuned or compared the way it is (B3, B12, B16)."""

from collections.abc import Iterator, Sequence

from tuner.design.hyperparameters import Hyperparameter
from tuner.design.names import Name
from tuner.design.optimizers import optimizer_numbers
from tuner.design.study import Study


def role_warnings(study: Study) -> list[str]:
    """Warnings about a round whose goal is to compare values; B3 holds for every round."""
    return list(dict.fromkeys(_warnings(study)))


def _warnings(study: Study) -> Iterator[str]:
    searched = {h.short_name for h in study.hyperparameters}
    nuisances = [h for h in study.hyperparameters if h.name not in study.scientific]
    alone = study.scientific == ("batch_size",) and "learning_rate" not in searched
    if alone or any(h.name == "batch_size" for h in nuisances):
        yield (
            "batch_size sets the speed of training and is not tuned for validation performance; compare batch sizes "
            "only with optimizer and regularization tuned again for each (B3)"
        )
    if study.scientific:
        yield from _fixed_warnings(study)
        yield from _kind_warnings(study, nuisances)


def _fixed_warnings(study: Study) -> Iterator[str]:
    families = {h.family for h in study.hyperparameters if h.name in study.scientific}
    fixed = {Name.of(name).short for name, _ in study.fixed}
    if "learning_rate" in fixed and families & {"architecture", "optimizer"}:
        yield (
            "learning_rate is fixed while architecture or optimizer is compared: the comparison favours what suits "
            "that rate; make it a nuisance (B12)"
        )
    if "weight_decay" in fixed and "architecture" in families:
        yield "weight_decay is fixed while the architecture is compared; larger models want other strengths (B12)"


def _kind_warnings(study: Study, nuisances: Sequence[Hyperparameter]) -> Iterator[str]:
    for hyperparameter in nuisances:
        if hyperparameter.name == "optimizer" or hyperparameter.family == "architecture":
            yield f"{hyperparameter.name} is usually scientific or fixed, not a nuisance (B12)"
    for name in study.scientific:
        if Name.of(name).short in optimizer_numbers():
            yield f"{name} is usually a nuisance: its best value depends on everything else (B12)"
