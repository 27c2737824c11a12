"""A weight with a low-rank change beside it: W + scale * B A, where W is frozen and A and B are trained.

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models" (arXiv:2106.09685); scale = alpha/rank there, and
alpha/sqrt(rank) in Kalajdzievski 2023 (arXiv:2312.03732).

A module becomes one of an adapted class, in its place: it stays the same object, its parameters keep their names, and
`lora_A`, `lora_B` and the number `lora_scale` stand beside them. Where torch's own `forward` runs, the change is a
branch: x goes through A and then through B, and no matrix as large as W is made. `module.weight` is the changed weight,
W + scale * B A, for whoever reads it without calling the module: `nn.MultiheadAttention`, the fast path of
`nn.TransformerEncoderLayer`, a tied output layer.
"""

import copy
import math
from collections.abc import Iterator
from functools import cache
from typing import Any, ClassVar, TypeVar

import torch
import torch.nn.functional as F
from torch import nn

from tuner.errors import WorkloadError

Model = TypeVar("Model", bound=nn.Module)

A, B, SCALE, DROPOUT = "lora_A", "lora_B", "lora_scale", "lora_dropout"
OF_EMBEDDING = "embedding"  # in the names of an embedding's A and B, as peft has them: its A stands on the other side
_CONVOLUTIONS = {nn.Conv1d: F.conv1d, nn.Conv2d: F.conv2d, nn.Conv3d: F.conv3d}
_LAYERS = (nn.Linear, *_CONVOLUTIONS, nn.Embedding)
ATTENTION_TENSORS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


def adapter_names(tensor: str, *, embedding: bool = False) -> tuple[str, str, str]:
    """What A, B and the scale of a tensor are called in its module: lora_A, in_proj_weight_lora_A, lora_embedding_A."""
    prefix = "" if tensor == "weight" else f"{tensor}_"
    names = [one.replace("lora_", f"lora_{OF_EMBEDDING}_") if embedding else one for one in (A, B)]
    return f"{prefix}{names[0]}", f"{prefix}{names[1]}", f"{prefix}{SCALE}"


def change(weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, *, embedding: bool = False) -> torch.Tensor:
    """B A in the form of the weight, without its scale.

    weight [out, in], a [rank, in], b [out, rank]. Of an embedding: weight [rows, width], a [rank, rows], b [width,
    rank]. Of a convolution in g groups: weight [out, in / g, *kernel], a [g * rank, in / g, *kernel], b [out, rank, 1,
    ...]; each group has its own product. Of any other tensor the first dimension is `out` and the rest is `in`.
    """
    if embedding:
        return (b @ a).t()
    groups = a.shape[0] // b.shape[1]
    product = b.reshape(groups, -1, b.shape[1]) @ a.reshape(groups, b.shape[1], -1)
    return product.reshape(weight.shape)


class Adapted(nn.Module):
    """What all adapted modules have; mixed in before their own class."""

    adapted_from: ClassVar[type[nn.Module]]  # the class as it was before
    adapted: ClassVar[tuple[str, ...]]  # names of its own parameters that have a change
    branches: ClassVar[bool]  # whether `forward` sends x through A and B; else it reads the changed tensors

    def is_embedding(self, tensor: str) -> bool:
        """Whether A and B of a tensor are those of an embedding."""
        return tensor == "weight" and isinstance(self, nn.Embedding)

    def adapter_of(self, tensor: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """A, B and the scale of one of its tensors."""
        a, b, scale = adapter_names(tensor, embedding=self.is_embedding(tensor))
        return getattr(self, a), getattr(self, b), getattr(self, scale)

    def changed(self, tensor: str) -> torch.Tensor:
        """W + scale * B A, in the form of W."""
        held: dict[str, torch.Tensor] | None = self.__dict__.get("_held")
        if held is not None and tensor in held:
            return held[tensor]
        weight: Any = self._parameters[tensor]
        a, b, scale = self.adapter_of(tensor)
        value: torch.Tensor = weight + change(weight, a, b, embedding=self.is_embedding(tensor)) * scale
        if held is not None:
            held[tensor] = value
        return value


class _Reading(Adapted):
    """A module whose own `forward` reads the changed tensors; each is computed once a call."""

    def forward(self, *args: Any, **named: Any) -> Any:
        if "_held" in self.__dict__:  # a forward that calls itself
            return super().forward(*args, **named)
        self.__dict__["_held"] = {}
        try:
            return super().forward(*args, **named)  # of the class that this is mixed into
        finally:
            del self.__dict__["_held"]


class _LinearBranch(Adapted):
    def forward(self: Any, input: torch.Tensor) -> torch.Tensor:
        base = F.linear(input, self._parameters["weight"], self.bias)
        low = F.linear(self.lora_dropout(input), self.lora_A) * self.lora_scale
        out: torch.Tensor = base + F.linear(low, self.lora_B)
        return out


class _ConvolutionBranch(Adapted):
    def forward(self: Any, input: torch.Tensor) -> torch.Tensor:
        base = self._conv_forward(input, self._parameters["weight"], self.bias)
        low = self._conv_forward(self.lora_dropout(input), self.lora_A, None) * self.lora_scale
        convolve = next(function for kind, function in _CONVOLUTIONS.items() if isinstance(self, kind))
        out: torch.Tensor = base + convolve(low, self.lora_B, groups=self.groups)
        return out


class _EmbeddingBranch(Adapted):
    def forward(self: Any, input: torch.Tensor) -> torch.Tensor:
        named = {"padding_idx": self.padding_idx, "scale_grad_by_freq": self.scale_grad_by_freq}
        base = F.embedding(input, self._parameters["weight"], **named)
        low = F.embedding(input, self.lora_embedding_A.t(), **named) * self.lora_scale
        return base + F.linear(low, self.lora_embedding_B)


def layer_of(module: nn.Module) -> type[nn.Module] | None:
    """Which of the layers that can be adapted a module is: nn.Linear, a convolution, nn.Embedding; None: none."""
    return next((kind for kind in _LAYERS if isinstance(module, kind)), None)


def can_branch(module: nn.Module) -> bool:
    """Whether torch's own `forward` runs when the module is called: a subclass may have another, and read `weight`."""
    layer, kind = layer_of(module), type(module)
    if layer is None or kind.forward is not layer.forward:
        return False
    return getattr(kind, "_conv_forward", None) is getattr(layer, "_conv_forward", None)


def _branch_of(layer: type[nn.Module] | None) -> type[Adapted]:
    if layer is nn.Linear:
        return _LinearBranch
    return _EmbeddingBranch if layer is nn.Embedding else _ConvolutionBranch


def _property_of(tensor: str) -> property:
    return property(lambda module: module.changed(tensor))


@cache
def _class_of(kind: Any, tensors: tuple[str, ...], branch: Any) -> Any:
    """The adapted class of a class; made once, so that models of one kind have modules of one class."""
    own: dict[str, Any] = {tensor: _property_of(tensor) for tensor in tensors}
    own |= {"adapted_from": kind, "adapted": tensors, "branches": branch is not _Reading, "__module__": __name__}
    return type(f"{kind.__name__}WithLora", (branch, kind), own)


def adapt(module: nn.Module, tensor: str, rank: int, scale: float, dropout: float) -> None:
    """Give a tensor of a module a change of this rank; A is drawn from torch's generator, B is zero.

    A is uniform in +-1/sqrt(inputs), which is Kaiming's rule with a = sqrt(5), as a fresh nn.Linear is. One entry of a
    one-hot input is not zero, so an embedding counts as one input: its A is uniform in +-1, and zero in the row of
    `padding_idx`, which therefore never changes.
    """
    weight: Any = module._parameters[tensor]
    before = (*module.adapted,) if isinstance(module, Adapted) else ()
    kind: Any = module.adapted_from if isinstance(module, Adapted) else type(module)
    is_embedding = isinstance(module, nn.Embedding) and tensor == "weight"
    branches = tensor == "weight" and can_branch(module)
    a, b = _fresh(module, weight, rank, embedding=is_embedding)
    names = adapter_names(tensor, embedding=is_embedding)
    mixed_in: Any = _branch_of(layer_of(module)) if branches else _Reading
    module.__class__ = _class_of(kind, (*before, tensor), mixed_in)
    module.register_parameter(names[0], nn.Parameter(a))
    module.register_parameter(names[1], nn.Parameter(b))
    exact = torch.promote_types(weight.dtype, torch.float32)
    module.register_buffer(names[2], torch.tensor(scale, dtype=exact, device=weight.device))
    if branches and not is_embedding:
        module.add_module(DROPOUT, nn.Dropout(dropout))


def _fresh(module: nn.Module, weight: torch.Tensor, rank: int, *, embedding: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """A and B as they are at the start."""
    made: dict[str, Any] = {"dtype": weight.dtype, "device": weight.device}
    if embedding:
        a = torch.empty(rank, weight.shape[0], **made).uniform_(-1.0, 1.0)
        padding = module.padding_idx
        if isinstance(padding, int):
            a[:, padding] = 0.0
        return a, torch.zeros(weight.shape[1], rank, **made)
    ones = (1,) * (weight.dim() - 2) if layer_of(module) in _CONVOLUTIONS else ()
    a = torch.empty(_groups(module) * rank, *weight.shape[1:], **made)
    nn.init.kaiming_uniform_(a, a=math.sqrt(5))
    return a, torch.zeros(weight.shape[0], rank, *ones, **made)


def smaller_dimension(module: nn.Module, weight: torch.Tensor) -> int:
    """The largest rank that a change of the weight can have (of each group of a convolution)."""
    return min(weight.shape[0] // _groups(module), math.prod(weight.shape[1:]))


def _groups(module: Any) -> int:
    return module.groups if layer_of(module) in _CONVOLUTIONS else 1


def adapted_modules(model: nn.Module) -> Iterator[tuple[str, Adapted]]:
    """The modules that have a change, each once, with their names."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, Adapted))


def adapter_tensors(model: nn.Module) -> tuple[set[str], set[str]]:
    """The names in a model's state dict of every A and B, and those of the scales, which follow from the point."""
    trained, scales = set(), set()
    for name, module in model.named_modules(remove_duplicate=False):
        for tensor in module.adapted if isinstance(module, Adapted) else ():
            a, b, scale = adapter_names(tensor, embedding=module.is_embedding(tensor))
            inside = f"{name}." if name else ""
            trained |= {f"{inside}{a}", f"{inside}{b}"}
            scales.add(f"{inside}{scale}")
    return trained, scales


def merged_copy(model: Model) -> Model:
    """See `tuner.adapters.lora.merged`."""
    if not isinstance(model, nn.Module):
        raise WorkloadError(f"merged takes a torch.nn.Module, got {type(model).__name__}")
    plain = copy.deepcopy(model)
    found = list(adapted_modules(plain))
    if not found:
        raise WorkloadError(f"merged: {type(model).__name__} has no adapters, so there is nothing to merge")
    with torch.no_grad():
        for _, module in found:
            _merge(module)
    return plain


def _merge(module: Any) -> None:
    """module: an `Adapted`, which becomes one of the class that it had."""
    names = [name for one in module.adapted for name in adapter_names(one, embedding=module.is_embedding(one))]
    values = {one: module.changed(one) for one in module.adapted}
    trained = {one: module._parameters[one].requires_grad for one in module.adapted}
    module.__class__ = module.adapted_from
    for one in names:
        module._parameters.pop(one, None)
        module._buffers.pop(one, None)
    module._modules.pop(DROPOUT, None)
    for one, value in values.items():
        module._parameters[one] = nn.Parameter(value, requires_grad=trained[one])
