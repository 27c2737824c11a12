"""What a workload is, in digests: part by part, so that a change can be named, and as tuner 0.1 made them.

The identity of a study (`design.identity`) decides whether its trials can be compared; the parts show what a budget
was chosen under that has changed since.
"""

import ast
import hashlib
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from tuner.design.identity import Identity
from tuner.design.workload import Trainable, Workload, own_kinds
from tuner.sources.definitions import DECIDES_NO_BITS, sets_no_bits
from tuner.sources.reached import STUDY_FILE
from tuner.training.batches import Split
from tuner.training.setup import Data


def weaker_fingerprint(workload: Workload, data: Data, settings: Mapping[str, str]) -> str:
    """Hex digest of the workload's code, its `plain_settings`, and its training and validation data."""
    text = repr(dict(settings)) if settings else ""
    digest = hashlib.sha256((_code_digest(workload) + text).encode())
    for split in (data.training, data.validation):
        digest.update(_data_digest(split).encode())
    return digest.hexdigest()


def _code_digest(workload: Workload) -> str:
    """Digest of the workload's module without comments, docstrings and the declaration of campaigns.

    So neither a remark nor another round makes it another workload. Imported helpers are not followed.
    """
    module = sys.modules.get(type(workload).__module__)
    path = getattr(module, "__file__", None)
    if path and Path(path).is_file():
        source = Path(path).read_text(encoding="utf-8")
    else:
        try:
            source = inspect.getsource(type(workload))
        except (OSError, TypeError):  # typed into an interpreter
            source = f"{type(workload).__qualname__} = {sorted(vars(type(workload)))!r}"
    return hashlib.sha256(normalized_source(source).encode()).hexdigest()


def plain_settings(workload: Trainable) -> dict[str, str]:
    """The plain values an instance was made with, `Net(width=64, dropout=0.1)`: they make it another workload too.

    Call this before the workload is used, since its methods may count or remember in attributes. Tensors, modules and
    the like are left out: they are data, or come from these values.
    """
    held = sorted(vars(workload).items())
    return {name: repr(value) for name, value in held if _is_plain(value) and name not in DECIDES_NO_BITS}


def _is_plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(_is_plain(key) and _is_plain(held) for key, held in value.items())
    if isinstance(value, list | tuple):
        return all(_is_plain(held) for held in value)
    return value is None or isinstance(value, bool | int | float | str)


@lru_cache(maxsize=8)
def normalized_source(source: str) -> str:
    """What the code means to Python: no comments, docstrings, formatting, `Campaign(...)`, nor what decides no bits."""
    tree = ast.parse(source)
    tree.body = [statement for statement in tree.body if not _declares_a_campaign(statement)]
    for node in ast.walk(tree):
        body: Any = getattr(node, "body", None)
        if isinstance(body, list) and body and _is_docstring(body[0]):
            node.body = body[1:] or [ast.Pass()]  # type: ignore[attr-defined]
        if isinstance(node, ast.ClassDef):
            node.body = [one for one in node.body if not sets_no_bits(one)] or [ast.Pass()]
    return ast.dump(tree)


def _is_docstring(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _declares_a_campaign(statement: ast.stmt) -> bool:
    value = getattr(statement, "value", None)
    if not isinstance(statement, ast.Assign | ast.AnnAssign) or not isinstance(value, ast.Call):
        return False
    called = value.func
    return (called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")) == "Campaign"


def _data_digest(split: Split) -> str:
    """Digest of all values of tensors in memory; of the length and the first examples of a dataset."""
    digest = hashlib.sha256(f"{split.name} {split.num_examples}".encode())
    for leaf in _leaves(split.tensors if split.tensors is not None else split.first(8)):
        if isinstance(leaf, torch.Tensor):
            flat = leaf.detach().cpu().contiguous()
            digest.update(f"{flat.dtype} {tuple(flat.shape)}".encode())
            digest.update(flat.flatten().view(torch.uint8).numpy().tobytes())
        else:
            digest.update(repr(leaf).encode())
    return digest.hexdigest()


def _leaves(batch: Any) -> Iterator[Any]:
    """What a batch holds, in dicts and sequences of any depth."""
    if isinstance(batch, dict):
        batch = [batch[key] for key in sorted(batch)]
    if isinstance(batch, tuple | list):
        for part in batch:
            yield from _leaves(part)
    else:
        yield batch


_METHODS = {"model": "architecture", "loss": "loss", "augment": "augmentation"}
_HOOKS = {  # parts where a workload declares them
    "parameter_groups": "optimizer parameter groups", "collate": "collate", "lengths": "batches by length",
}  # fmt: skip
_DECLARED = ("batch_size", "select_by", "fitted_when", *DECIDES_NO_BITS)  # told apart elsewhere, or no matter of it


def workload_parts(workload: Trainable, identity: Identity) -> dict[str, str]:
    """Part to short digest, or to the value itself where it is a plain attribute of the class or the instance."""
    parts = _hooks(workload, identity) if isinstance(workload, Workload) else {}
    made_with = {f"attribute {name}": text for name, text in identity.arguments.items()}
    return parts | dict(_attributes(workload)) | made_with | dict(_helpers(identity))


def _hooks(workload: Workload, identity: Identity) -> dict[str, str]:
    parts = {part: _code(getattr(type(workload), method)) for method, part in _METHODS.items()}
    parts |= {part: _code(getattr(type(workload), hook)) for hook, part in _HOOKS.items() if workload.declares(hook)}
    modules = [_code(kind) for kind in _modules(workload)]
    parts["architecture"] = _short("".join([parts["architecture"], *modules]))
    return parts | {f"{split} data": identity.data[split] for split in ("training", "validation")}


def _helpers(identity: Identity) -> Iterator[tuple[str, str]]:
    """What else the workload uses: every definition of other files, and the functions of the study file."""
    for file, definitions in identity.code.items():
        for name, digest in definitions.items():
            if file != STUDY_FILE or name.startswith("function "):
                yield f"code {file} {name}", digest


def _attributes(workload: Trainable) -> Iterator[tuple[str, str]]:
    """Plain values that the class declares: width = 64."""
    for kind in reversed(own_kinds(workload)):
        for name, value in vars(kind).items():
            if name not in _DECLARED and not name.startswith("_") and isinstance(value, int | float | str | bool):
                yield f"attribute {name}", repr(value)


def _modules(workload: Trainable) -> list[type]:
    """The torch modules that are defined in the file of the workload, by name."""
    found: dict[str, type] = {}
    for kind in own_kinds(workload):
        module = sys.modules.get(kind.__module__)
        if isinstance(module, ModuleType):
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
