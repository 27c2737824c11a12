"""Functions of a study file that make something for a trial, and what they are given."""

import inspect
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

_BY_PLACE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def is_maker(given: object) -> bool:
    """Whether something is a function that makes it, and not the thing itself, which may be callable, too."""
    return inspect.isfunction(given) or inspect.ismethod(given) or isinstance(given, partial)


def parameters(maker: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The parameters of a function by name; none of a built-in that does not tell."""
    try:
        return inspect.signature(maker).parameters
    except (TypeError, ValueError):
        return {}


def takes_point(maker: Callable[..., Any], by_name: Collection[str]) -> bool:
    """Whether a function has a first parameter without a default, or one named point or, as with `Trainer`, trial.

    by_name: parameters that are given by name, and are not meant.
    """
    found = {name: one for name, one in parameters(maker).items() if name not in by_name}
    needed = any(one.kind in _BY_PLACE and one.default is one.empty for one in found.values())
    return needed or not {"point", "trial"}.isdisjoint(found)
