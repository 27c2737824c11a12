"""Putting the weights of an earlier stage into a model: which names a pattern means, and what came of the tensors.

A tensor is carried whole or not at all: with its shape, its kind of numbers and its finite values, into memory that the
model really uses. All else is one WorkloadError, so that no trial begins with something other than what was said.
"""

import difflib
import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase

import torch

from tuner.errors import WorkloadError
from tuner.training.copy_on_write import address
from tuner.training.extra_state import SUFFIX, value_of

_CPU = torch.device("cpu")
_NEAREST = 3  # names that an error proposes

Weights = Mapping[str, torch.Tensor]
State = Mapping[str, object]


def parts_of(pattern: str, names: Collection[str]) -> dict[str, set[str]]:
    """The names that each part of a pattern means, which may be several with | between.

    A part is a name, or has * and ? in it, and [0-3]. Where brackets are really in a name, they mean themselves.
    """
    return {part: _meant(part, names) for part in map(str.strip, pattern.split("|")) if part}


def _meant(part: str, names: Collection[str]) -> set[str]:
    if part in names:
        return {part}
    literal = re.sub(r"([\[\]])", r"[\1]", part)
    found = {name for name in names if fnmatchcase(name, literal)}
    return found or {name for name in names if fnmatchcase(name, part)}


def renamed(name: str, beginnings: Mapping[str, str]) -> str:
    """A name whose beginning is another one: the longest that is given; "" is the beginning of every name."""
    for was in sorted(beginnings, key=len, reverse=True):
        if not was or name == was or name.startswith(f"{was}."):
            rest = name[len(was) :].removeprefix(".") if was else name
            return ".".join(part for part in (beginnings[was], rest) if part)
    return name


def no_match(pattern: str, names: Collection[str], what: str = "no tensor of the model") -> WorkloadError:
    """The error about a pattern, or a part of it, that means no name."""
    ordered = sorted(names)
    near = difflib.get_close_matches(pattern, ordered, n=_NEAREST, cutoff=0.3) or ordered[:_NEAREST]
    return WorkloadError(
        f"start_from carries {pattern!r}, and {what} has such a name; the nearest are {', '.join(near)}"
    )


def missing(called: str, source: str, there: Collection[str], words: str) -> WorkloadError:
    """The error about a carried tensor that the earlier stage does not have."""
    near = difflib.get_close_matches(source, list(there), n=_NEAREST, cutoff=0.5)
    has = f"; the nearest there: {', '.join(near)}" if near else ""
    return WorkloadError(
        f"{called} is to be carried from {words}, which has no such tensor{has}. Name what is carried by "
        'parameters="encoder.*", what is not by fresh="head.*", and what has another name there by '
        'renamed={"here": "there"}'
    )


def tied_names(state: State) -> dict[str, str]:
    """By each name of a state the first one of the same memory, which is itself where nothing is tied."""
    first: dict[object, str] = {}
    found = {}
    for name, tensor in state.items():
        if not isinstance(tensor, torch.Tensor) or is_unmade(tensor) or tensor.layout is not torch.strided:
            found[name] = name
            continue
        place = (address(tensor), tensor.shape, tensor.stride()) if tensor.numel() else name
        found[name] = first.setdefault(place, name)
    return found


def is_unmade(tensor: object) -> bool:
    """Whether a tensor gets its shape from the first batch, as those of torch's lazy modules."""
    return isinstance(tensor, torch.nn.UninitializedParameter | torch.nn.UninitializedBuffer)


def carry(model: torch.nn.Module, state: State, there: Weights, names: Mapping[str, str], words: str) -> list[str]:
    """Put tensors into a model: `names` says from which of `there` each of its state takes its values.

    Returns the names whose numbers have another precision here. Raises WorkloadError where one does not fit, or does
    not arrive.
    """
    values = {name: value_of(there[source], _CPU) for name, source in names.items()}
    plain = {name: value for name, value in values.items() if not name.endswith(SUFFIX)}
    found = {name: _fitting(_called(name, names[name]), state[name], value, words) for name, value in plain.items()}
    _refuse_ties(state, found, words)
    with torch.no_grad():
        for name, value in found.items():
            _copy(_called(name, names[name]), state[name], value, words)
    for name in values.keys() - plain.keys():
        owner = name.rpartition(".")[0]
        model.get_submodule(owner).set_extra_state(values[name])
    arrived = model.state_dict()
    for name, value in found.items():
        if not _equal(arrived[name], value):
            raise WorkloadError(
                f"{name} does not hold what was carried into it from {words}: the state_dict() of its module gives "
                f"copies, or values that it computes. Leave it out by fresh={name!r}, and load it in model(point)"
            )
    return [name for name, value in found.items() if value.dtype != plain[name].dtype]


def _called(name: str, source: str) -> str:
    return name if source == name else f"{name} (there {source})"


def _fitting(called: str, here: object, there: object, words: str) -> torch.Tensor:
    """The values as the model takes them. Raises WorkloadError for another shape, and where numbers would change."""
    leave_out = f"leave it out by fresh={called.partition(' ')[0]!r}"
    if not isinstance(here, torch.Tensor) or not isinstance(there, torch.Tensor):
        raise WorkloadError(f"{called} is to be carried from {words}, and is no tensor in both: {leave_out}")
    if is_unmade(here):
        raise WorkloadError(
            f"{called} is to be carried from {words}, and has no shape yet: it is of a lazy module. Give its sizes in "
            f"model(point), or {leave_out}"
        )
    if there.shape != here.shape:
        raise WorkloadError(
            f"{called} is to be carried from {words} and has the shape {tuple(here.shape)} here, "
            f"{tuple(there.shape)} there: build the same module, or {leave_out}"
        )
    value = there.to(here.dtype) if _kind(here) == _kind(there) else None
    if value is None or not _keeps(value, there):
        raise WorkloadError(
            f"{called} is to be carried from {words} and is {here.dtype} here, {there.dtype} there, which cannot hold "
            f"its values: build it with the type that it has there, or {leave_out}"
        )
    return value


def _kind(tensor: torch.Tensor) -> str:
    if tensor.is_quantized or tensor.dtype is torch.bool:
        return str(tensor.dtype)
    return "complex" if tensor.is_complex() else "float" if tensor.is_floating_point() else "integer"


def _keeps(value: torch.Tensor, was: torch.Tensor) -> bool:
    """Whether numbers of another type are the same: whole ones to the bit, others but for their precision."""
    if value.dtype == was.dtype:
        return True
    if value.is_floating_point() or value.is_complex():
        return torch.equal(_finite(value), _finite(was))
    return torch.equal(value.to(was.dtype), was)


def _finite(tensor: torch.Tensor) -> torch.Tensor:
    return torch.isfinite(tensor if tensor.is_complex() else tensor.double())


def _refuse_ties(state: State, found: Weights, words: str) -> None:
    """Raise WorkloadError where one memory would get two values."""
    ties = tied_names(state)
    together: dict[str, list[str]] = defaultdict(list)
    for name in found:
        together[ties[name]].append(name)
    for first, *others in together.values():
        for other in others:
            if not _equal(found[first], found[other]):
                raise WorkloadError(
                    f"{first} and {other} are one tensor in the model, and have different values in what is carried "
                    f"from {words}: do not tie them in model(point), or leave one out by fresh={other!r}"
                )


def _copy(called: str, here: object, value: torch.Tensor, words: str) -> None:
    assert isinstance(here, torch.Tensor)  # noqa: S101 - `_fitting` has refused all else
    try:
        here.copy_(value)
    except RuntimeError as error:  # a tensor whose elements share memory, as after `expand`
        raise WorkloadError(f"{called} cannot be carried from {words} into the model: {error}") from error


def _equal(one: object, other: torch.Tensor) -> bool:
    """Whether both have the same values; NaN is equal to itself."""
    if not isinstance(one, torch.Tensor) or one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.layout is not torch.strided or one.is_quantized:
        return torch.equal(one, other) if one.is_quantized else torch.equal(one.to_dense(), other.to_dense())
    if torch.equal(one, other):
        return True
    if not (one.is_floating_point() or one.is_complex()):
        return False
    return bool(((one == other) | (torch.isnan(one) & torch.isnan(other))).all())
