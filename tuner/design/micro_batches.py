"""Slices and micro-batches: what a workload may declare of them, and what a study keeps.

Slices are part of what a trial is: each has its own dropout and its own backward pass. A micro-batch is how many
examples are computed at a time, on this machine, today.
"""

from collections.abc import Iterable, Sequence

from tuner.design.hyperparameters import Choice, Constant, Hyperparameter
from tuner.design.names import Name
from tuner.design.points import Point
from tuner.design.space import SearchSpace
from tuner.design.study import Study
from tuner.design.workload import Workload
from tuner.design.workload_checks import check_count
from tuner.errors import DeclarationError, StudyChanged


def check_slices(workload: Workload, spaces: Iterable[SearchSpace]) -> None:
    """Raise DeclarationError for slices and micro-batches that do not divide each batch size into equal parts."""
    words = [word for word in ("slices", "micro_batch_size") if getattr(workload, word) is not None]
    for word in words:
        check_count(f"{type(workload).__name__}.{word}", getattr(workload, word))
    if not words:
        return
    sizes = [workload.batch_size]
    for space in spaces:
        sizes += _sizes(tuple(space), space.fixed, words[0])
    for batch_size in dict.fromkeys(sizes):
        _check_batch_size(workload, batch_size)


def _check_batch_size(workload: Workload, batch_size: int) -> None:
    name, slices, micro = type(workload).__name__, workload.slices, workload.micro_batch_size
    if slices is not None and batch_size % slices:
        raise DeclarationError(
            f"batch_size = {batch_size} cannot be cut into {name}.slices = {slices} equal parts; let each batch size "
            "be a multiple of slices"
        )
    if micro is None:
        return
    if micro > batch_size:
        raise DeclarationError(
            f"{name}.micro_batch_size = {micro} is larger than batch_size = {batch_size}, and says how much of a "
            "batch is computed at a time; leave it out where a whole batch fits into memory"
        )
    each = batch_size // slices if slices else 0
    if each and micro % each:
        raise DeclarationError(
            f"{name}.micro_batch_size = {micro} is no multiple of {each}, the examples of one of the {slices} slices "
            f"of batch_size = {batch_size}; whole slices are computed at a time"
        )
    if not each and batch_size % micro:
        raise DeclarationError(
            f"batch_size = {batch_size} is no multiple of {name}.micro_batch_size = {micro}; a batch is cut into equal "
            "parts, so choose a divisor of each batch size"
        )


def check_micro_batches(study: Study, micro: int | None) -> None:
    """Raise StudyChanged where what is computed at a time is not made of whole slices of a study's batches.

    A study keeps its slices, because they decide what its trials compute. micro: examples at a time; None: any.
    """
    if micro is None:
        return
    sizes = _sizes(study.hyperparameters, study.fixed, "micro_batch_size") or [study.batch_size]
    for batch_size in sizes:
        slices = study.slices_of(Point.of({"batch_size": batch_size}))
        each = batch_size // slices
        if micro % each == 0:
            continue
        begun = f"slices of {each} examples" if slices > 1 else f"whole batches of {each} examples"
        raise StudyChanged(
            f"{study.name} computes {begun}, and micro_batch_size = {micro} is no multiple of that; what a trial "
            f"computes depends on its slices, so they stay as they were when the campaign began. Write "
            f"micro_batch_size = {each} or a multiple, or train on a machine with more memory. Where smaller machines "
            f"shall be able to go on with a campaign, its class says slices = {_slices_for(batch_size, micro)} from "
            "the beginning: give this one another name"
        )


def _slices_for(batch_size: int, micro: int) -> int:
    """The fewest slices that fit into a micro-batch."""
    return next(count for count in range(1, batch_size + 1) if batch_size % count == 0 and batch_size // count <= micro)


def _sizes(hyperparameters: Sequence[Hyperparameter], fixed: Sequence[tuple[str, Constant]], word: str) -> list[int]:
    """The batch sizes that a space has; none where the workload says it. Raises DeclarationError for a range."""
    found = [int(str(one.value)) for name, one in fixed if Name.of(name).short == "batch_size"]
    for one in hyperparameters:
        if one.short_name != "batch_size":
            continue
        if not isinstance(one.domain, Choice):
            raise DeclarationError(
                f"batch_size is searched as a range, and {word} cuts each batch into equal parts: search a choice, "
                "batch_size=choice(64, 128, 256)"
            )
        found += [int(str(value)) for value in one.domain.choices]
    return found
