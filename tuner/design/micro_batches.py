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
from tuner.errors import DeclarationError, InputError, StudyChanged


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


def check_declared_gang(workload: Workload, gang: int, space: SearchSpace | None = None) -> None:
    """Raise InputError where the ranks of a gang cannot share the slices that a class declares.

    Where their number follows from the batch size, this looks at each size of `space`, and `check_gang` at those of a
    study.
    """
    if gang == 1:
        return
    if workload.micro_batch_size is None and workload.slices in (None, 1):
        raise InputError(_whole_batches(gang, type(workload).__name__))
    if workload.slices is not None and workload.slices % gang:
        raise InputError(_undivided(gang, workload.slices, f"{type(workload).__name__}.slices = {workload.slices}"))
    if workload.slices is None and workload.micro_batch_size is not None and space is not None:
        sizes = _sizes(tuple(space), space.fixed, "micro_batch_size") or [workload.batch_size]
        _check_shares(sizes, workload.micro_batch_size, gang, "round-1")


def check_gang(study: Study, gang: int) -> None:
    """Raise InputError where some trial of a study cannot share its slices among so many ranks."""
    if gang == 1:
        return
    if not study.slice_size:
        if study.slices == 1:
            raise InputError(_whole_batches(gang, "the workload's class"))
        if study.slices % gang:
            raise InputError(_undivided(gang, study.slices, f"the {study.slices} slices of {study.name}"))
        return
    sizes = _sizes(study.hyperparameters, study.fixed, "micro_batch_size") or [study.batch_size]
    _check_shares(sizes, study.slice_size, gang, study.name)


def _check_shares(sizes: Iterable[int], slice_size: int, gang: int, named: str) -> None:
    for batch_size in sizes:
        slices = batch_size // slice_size
        if slices % gang:
            count = f"{slices} slice{'s' * (slices > 1)}"
            where = f"the {count} of {slice_size} examples of batch_size = {batch_size} in {named}"
            raise InputError(_undivided(gang, slices, where))


def _whole_batches(gang: int, named: str) -> str:
    return (
        f"--gang {gang} shares the slices of each batch among {gang} processes, and a batch is one slice here: write "
        f"slices = {max(8, gang)} in {named}. That changes the bits of its trials once, for any number of processes, "
        "so begin a campaign of another name with it"
    )


def _undivided(gang: int, slices: int, where: str) -> str:
    """That the ranks cannot have as many slices each; and how many ranks could."""
    largest = slices & -slices  # the largest power of two that divides them
    fewer = f"--gang {largest}" if largest > 1 else "no --gang"
    return (
        f"--gang {gang} does not divide {where}, and each rank computes as many: say {fewer}, or declare a multiple of "
        f"{gang} slices in a campaign of another name, since the bits of a trial depend on its slices"
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
