"""What a workload is, part by part, so that a change can be named: architecture, loss, augmentation, data (A16).

The identity of a study (`design.identity`) decides whether its trials can be compared; these parts say what a budget
was chosen under that is different by now.
"""

import hashlib
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from torch import nn

from tuner.design.identity import Identity
from tuner.design.workload import Workload
from tuner.sources.reached import STUDY_FILE
from tuner.training.weaker_identity import normalized_source

_METHODS = {"model": "architecture", "loss": "loss", "augment": "augmentation"}
_DECLARED = ("batch_size", "select_by", "fitted_when")  # told apart by name elsewhere, or no matter of training


def workload_parts(workload: Workload, identity: Identity) -> dict[str, str]:
    """Part to short digest, or to the value itself where it is a plain attribute of the class or the instance."""
    parts = {part: _code(getattr(type(workload), method)) for method, part in _METHODS.items()}
    modules = [_code(kind) for kind in _modules(workload)]
    parts["architecture"] = _short("".join([parts["architecture"], *modules]))
    parts |= {f"{split} data": identity.data[split] for split in ("training", "validation")}
    made_with = {f"attribute {name}": text for name, text in identity.arguments.items()}
    return parts | dict(_attributes(workload)) | made_with | dict(_helpers(identity))


def _helpers(identity: Identity) -> Iterator[tuple[str, str]]:
    """What else the workload uses: every definition of other files, and the functions of the study file."""
    for file, definitions in identity.code.items():
        for name, digest in definitions.items():
            if file != STUDY_FILE or name.startswith("function "):
                yield f"code {file} {name}", digest


def _attributes(workload: Workload) -> Iterator[tuple[str, str]]:
    """Plain values that the class declares: width = 64."""
    for kind in reversed(type(workload).__mro__):
        if issubclass(kind, Workload) and kind is not Workload:
            for name, value in vars(kind).items():
                if name not in _DECLARED and not name.startswith("_") and isinstance(value, int | float | str | bool):
                    yield f"attribute {name}", repr(value)


def _modules(workload: Workload) -> list[type]:
    """The torch modules that are defined beside the workload, by name."""
    found: dict[str, type] = {}
    for kind in type(workload).__mro__:
        module = sys.modules.get(kind.__module__)
        if issubclass(kind, Workload) and kind is not Workload and isinstance(module, ModuleType):
            found |= {name: value for name, value in vars(module).items() if _is_defined_in(value, module)}
    return [found[name] for name in sorted(found)]


def _is_defined_in(value: Any, module: ModuleType) -> bool:
    return isinstance(value, type) and issubclass(value, nn.Module) and value.__module__ == module.__name__


def _code(thing: Callable[..., Any] | type) -> str:
    """Digest of what the code means to Python; of its bytecode where there is no source to read."""
    try:
        return _short(normalized_source(textwrap.dedent(inspect.getsource(thing))))
    except (OSError, TypeError, SyntaxError):
        code = getattr(thing, "__code__", None)
        return _short(repr((code.co_code, code.co_names)) if code else getattr(thing, "__qualname__", ""))


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
