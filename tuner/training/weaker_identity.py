"""The fingerprint of tuner 0.1, by which the studies that it started are still recognized.

It knows the study file, plain arguments, tensors, and the first examples of a dataset. What a study file imports,
other arguments and initial weights are not in it, so nothing of such a study is taken over by another one.
"""

import ast
import hashlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from tuner.design.workload import Workload
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


def plain_settings(workload: Workload) -> dict[str, str]:
    """The plain values an instance was made with, `Net(width=64, dropout=0.1)`: they make it another workload too.

    To be asked before the workload is used, since its methods may count or remember in attributes. Tensors, modules and
    the like are left out: they are data, or come from these values.
    """
    return {name: repr(value) for name, value in sorted(vars(workload).items()) if _is_plain(value)}


def _is_plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(_is_plain(key) and _is_plain(held) for key, held in value.items())
    if isinstance(value, list | tuple):
        return all(_is_plain(held) for held in value)
    return value is None or isinstance(value, bool | int | float | str)


@lru_cache(maxsize=8)
def normalized_source(source: str) -> str:
    """What the code means to Python: no comments, no docstrings, no formatting, no `Campaign(...)`."""
    tree = ast.parse(source)
    tree.body = [statement for statement in tree.body if not _declares_a_campaign(statement)]
    for node in ast.walk(tree):
        body: Any = getattr(node, "body", None)
        if isinstance(body, list) and body and _is_docstring(body[0]):
            node.body = body[1:] or [ast.Pass()]  # type: ignore[attr-defined]
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
