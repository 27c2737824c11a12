"""Weights with adapters as other tools take them: merged into the base, or as an adapter in peft's format.

Everything is found by the names in a file of weights: no model and no study file is needed.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from tuner.adapters.low_rank import ATTENTION_TENSORS, OF_EMBEDDING, SCALE, adapter_names, change
from tuner.errors import StorageError

_PREFIX = "base_model.model."  # of every name in peft's files
_OUT = "out_proj"
_INSTEAD = "export merged weights instead (merged)"


@dataclass(frozen=True, slots=True)
class Adapter:
    """The change of one tensor in a file. module: the name of the module that has it; tensor: the tensor's name there.

    a, b, scale: as `tuner.adapters.low_rank.change` takes them.
    """

    module: str
    tensor: str
    embedding: bool
    a: torch.Tensor
    b: torch.Tensor
    scale: torch.Tensor

    @property
    def name(self) -> str:
        """The name of the tensor in the file."""
        return _joined(self.module, self.tensor)

    @property
    def rank(self) -> int:
        """Of each group of a convolution."""
        return self.b.shape[1]

    def names(self) -> tuple[str, ...]:
        """What A, B and the scale are called in the file."""
        return tuple(_joined(self.module, one) for one in adapter_names(self.tensor, embedding=self.embedding))


def _joined(module: str, name: str) -> str:
    return f"{module}.{name}" if module else name


def adapters_in(weights: Mapping[str, torch.Tensor]) -> list[Adapter]:
    """The adapters in a file of weights, sorted by name. Raises StorageError where there is none."""
    found = list(_adapters(weights))
    if not found:
        raise StorageError(
            f"these weights have no adapters: none of their {len(weights)} names is that of one, like head.lora_A. "
            "with_lora in model(point) makes adapters; without one, export the weights as they are"
        )
    return found


def _adapters(weights: Mapping[str, torch.Tensor]) -> Iterator[Adapter]:
    for name in sorted(weights):
        module, _, own = name.rpartition(".")
        if not own.endswith(SCALE):
            continue
        tensor = own.removesuffix(SCALE).removesuffix("_") or "weight"
        for embedding in (False, True):
            a, b, _ = (_joined(module, one) for one in adapter_names(tensor, embedding=embedding))
            if {a, b, _joined(module, tensor)} <= set(weights):
                yield Adapter(module, tensor, embedding, weights[a], weights[b], weights[name])


def merged_weights(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights under the names of the base, W + scale * B A for W. Raises StorageError without adapters."""
    adapters = adapters_in(weights)
    gone = {name for one in adapters for name in one.names()}
    plain = {name: tensor for name, tensor in weights.items() if name not in gone}
    for one in adapters:
        base = weights[one.name]
        plain[one.name] = base + change(base, one.a, one.b, embedding=one.embedding) * one.scale
    return plain


@dataclass(frozen=True, slots=True)
class _Named:
    """What peft has for one module: tensors by its names, a rank and an alpha."""

    module: str
    tensors: dict[str, torch.Tensor]
    rank: int
    alpha: float


def peft_adapter(
    weights: Mapping[str, torch.Tensor], frozen: Collection[str] | None = None
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors of `adapter_model.safetensors` and the content of `adapter_config.json`, as peft reads them.

    frozen: the names that were not trained; modules with anything else are saved whole (`modules_to_save`). None: all
    but the adapters. Raises StorageError without adapters, and for what peft's format cannot hold.
    """
    adapters = adapters_in(weights)
    modules = _as_modules(adapters, weights)
    tensors = {f"{_PREFIX}{name}": tensor.contiguous() for one in modules for name, tensor in one.tensors.items()}
    saved = _saved_modules(weights, adapters, frozen) if frozen is not None else []
    for module in saved:
        inside = {name: each for name, each in weights.items() if name.startswith(f"{module}.")}
        tensors |= {f"{_PREFIX}{name}": each.contiguous() for name, each in inside.items()}
    rank = Counter(one.rank for one in modules).most_common(1)[0][0]
    alpha = Counter(one.alpha for one in modules).most_common(1)[0][0]
    config = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "use_rslora": False,
        "target_modules": "|".join(re.escape(one.module) for one in modules),
        "rank_pattern": {f"^{re.escape(one.module)}": one.rank for one in modules if one.rank != rank},
        "alpha_pattern": {f"^{re.escape(one.module)}": one.alpha for one in modules if one.alpha != alpha},
        "modules_to_save": saved or None,
    }
    return tensors, config


def _as_modules(adapters: list[Adapter], weights: Mapping[str, torch.Tensor]) -> list[_Named]:
    """The adapters by the modules that peft puts them into. Raises StorageError."""
    made = []
    for one in adapters:
        outer, _, last = one.module.rpartition(".")
        if not one.module:
            raise StorageError(
                f"peft's names are those of modules inside a model, and {one.name} is of the model itself: {_INSTEAD}"
            )
        if last == _OUT and any(_joined(outer, each) in weights for each in ATTENTION_TENSORS):
            raise StorageError(
                f"peft (0.21 at least) adds an adapter of {one.module}, the output of nn.MultiheadAttention, twice "
                f"(huggingface/peft pull request 3774), so that it would compute something else: {_INSTEAD}"
            )
        if one.tensor not in ("weight", ATTENTION_TENSORS[0]):
            raise StorageError(f"peft has no adapter of a bare tensor like {one.name}: {_INSTEAD}")
        made.append(_as_module(one) if one.tensor == "weight" else _as_attention(one, weights))
    return made


def _as_module(one: Adapter) -> _Named:
    a, b = one.a, one.b
    if one.embedding:
        names = {f"{one.module}.lora_{OF_EMBEDDING}_A": a, f"{one.module}.lora_{OF_EMBEDDING}_B": b}
    else:
        a = _without_groups(a, one.rank)
        names = {f"{one.module}.lora_A.weight": a, f"{one.module}.lora_B.weight": b}
    return _Named(one.module, names, a.shape[0], _alpha(one.scale, one.rank) * (a.shape[0] // one.rank))


def _without_groups(a: torch.Tensor, rank: int) -> torch.Tensor:
    """A of a convolution in groups as one of all channels, zero between groups: peft's has no groups."""
    groups = a.shape[0] // rank
    if groups == 1:
        return a
    whole = a.new_zeros(a.shape[0], groups * a.shape[1], *a.shape[2:])
    for group in range(groups):
        rows, channels = slice(group * rank, (group + 1) * rank), slice(group * a.shape[1], (group + 1) * a.shape[1])
        whole[rows, channels] = a[rows]
    return whole


def _as_attention(one: Adapter, weights: Mapping[str, torch.Tensor]) -> _Named:
    """Attention, where peft always has an adapter of the output too, of the same rank and alpha: here it is zero."""
    output = weights[f"{one.module}.{_OUT}.weight"]
    inner = f"{one.module}.base_layer.{_OUT}"
    tensors = {
        f"{one.module}.lora_A.weight": one.a,
        f"{one.module}.lora_B.weight": one.b,
        f"{inner}.lora_A.weight": one.a.new_zeros(one.rank, output.shape[1]),
        f"{inner}.lora_B.weight": one.b.new_zeros(output.shape[0], one.rank),
    }
    return _Named(one.module, tensors, one.rank, _alpha(one.scale, one.rank))


def _alpha(scale: torch.Tensor, rank: int) -> float:
    """The shortest number that gives the scale when it is divided by the rank, as a file would have it."""
    for digits in range(1, 17):
        alpha = float(f"{float(scale) * rank:.{digits}g}")
        if torch.equal(torch.tensor(alpha / rank, dtype=scale.dtype), scale.cpu()):
            return int(alpha) if alpha == int(alpha) else alpha
    return float(scale) * rank


def _saved_modules(weights: Mapping[str, torch.Tensor], adapters: list[Adapter], frozen: Collection[str]) -> list[str]:
    """Modules that were trained besides, running means too. Raises StorageError for what peft cannot save."""
    adapted = {one.module for one in adapters}
    known = {*frozen, *(name for one in adapters for name in one.names())}
    found: dict[str, None] = {}
    for name in sorted(weights):
        module, tensor = name.rpartition(".")[0], weights[name]
        if name in known or any(_is_alias(tensor, weights[one]) for one in frozen if one in weights):
            continue
        if not module or any(each == module or each.startswith(f"{module}.") for each in adapted):
            raise StorageError(
                f"{name} was trained besides the adapters, and peft saves whole modules without adapters only: "
                f"{_INSTEAD}"
            )
        found[module] = None
    return [one for one in found if not any(one.startswith(f"{other}.") for other in found)]


def _is_alias(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether a tensor is another one under a second name: files have tied weights under each."""
    return one.shape == other.shape and one.dtype == other.dtype and one.numel() > 1 and torch.equal(one, other)
