"""What a model's state holds besides ordinary tensors: extra state, sparse tensors, types that safetensors lacks.

`get_extra_state` of a module may return anything. It is kept as the bytes that `torch.save` writes, in a tensor, so
that code which copies, stacks, digests and saves tensors needs no other case; and it is read with
`weights_only=True`, so that no code ever comes out of a checkpoint.
"""

import io
from collections.abc import Mapping
from typing import Any

import torch

from tuner.training.compiled import without_compiler
from tuner.training.copy_on_write import same_bits

_ZIP = b"PK\x03\x04"  # how the bytes of torch.save begin
SUFFIX = "_extra_state"  # of torch's own names in a state dict
# What safetensors has names for in each of its versions; other tensors are kept as bytes.
_PLAIN = frozenset(
    {
        torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
        torch.uint8, torch.bool,
    }
)  # fmt: skip


def as_bytes(value: object) -> torch.Tensor:
    """Any value as a tensor of bytes, uint8 [n] on the CPU. Raises what torch.save raises for what has no bytes."""
    file = io.BytesIO()
    torch.save(value, file)
    return torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)


def is_bytes(tensor: torch.Tensor) -> bool:
    """Whether a tensor holds the bytes of a value."""
    return tensor.dtype == torch.uint8 and tensor.dim() == 1 and bytes(tensor[:4].tolist()) == _ZIP


def value_of(tensor: torch.Tensor, device: torch.device) -> Any:
    """The value that a tensor stands for: of its bytes, or itself.

    Raises an error of torch's for bytes of anything but plain containers, numbers, texts and tensors.
    """
    if not is_bytes(tensor):
        return tensor.to(device)
    return torch.load(io.BytesIO(bytes(tensor.cpu().numpy())), map_location=device, weights_only=True)


def dense(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, detached; as bytes where it is sparse or quantized, and cannot be copied, stacked and counted."""
    ordinary = tensor.layout is torch.strided and not tensor.is_quantized
    return tensor.detach() if ordinary else as_bytes(tensor.detach())


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether safetensors can hold a tensor as it is."""
    return tensor.layout is torch.strided and not tensor.is_quantized and tensor.dtype in _PLAIN


def state_dict_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A model's state dict as tensors that safetensors can hold; what is none of them as bytes.

    A model that `torch.compile` made has the names of the model that it was made of.
    """
    return {without_compiler(name): _plain(value) for name, value in model.state_dict().items()}


def _plain(value: object) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return dense(value) if value.dtype in _PLAIN else as_bytes(value.detach())
    return as_bytes(value)


def frozen_in(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The parameters of a model that are not trained, as they are, by all of their names in `state_dict_of`."""
    return {without_compiler(name): one for name, one in frozen_parameters(model).items()}


def frozen_parameters(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The same by the names that the model itself has for them."""
    named = model.named_parameters(remove_duplicate=False)
    return {name: one.detach() for name, one in named if not one.requires_grad}


def load_weights(model: torch.nn.Module, weights: Mapping[str, torch.Tensor], device: torch.device) -> None:
    """Put the weights of a best checkpoint into a model that was built as the one they are of."""
    own = {without_compiler(name): name for name in model.state_dict()}
    named = {own.get(without_compiler(name), name): tensor for name, tensor in weights.items()}
    model.load_state_dict({name: value_of(tensor, device) for name, tensor in named.items()})


def extra_state_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The extra state of each module that declares one, by the module's name, as tensors."""
    said = {name: module.get_extra_state() for name, module in _with_extra_state(model).items()}
    return {name: dense(one) if isinstance(one, torch.Tensor) else as_bytes(one) for name, one in said.items()}


def set_extra_state(model: torch.nn.Module, saved: Mapping[str, torch.Tensor], device: torch.device) -> bool:
    """Give each module its extra state back. Returns whether there was one for each."""
    modules = _with_extra_state(model)
    for name, module in modules.items():
        if name in saved:
            module.set_extra_state(value_of(saved[name], device))
    return modules.keys() <= saved.keys()


def _with_extra_state(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    plain = torch.nn.Module.get_extra_state
    return {name: module for name, module in model.named_modules() if type(module).get_extra_state is not plain}


def tensors_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by name, also those a state dict leaves out; sparse ones as bytes."""
    return {name: dense(tensor) for name, tensor in _all_tensors(model).items()}


def set_tensors(model: torch.nn.Module, saved: Mapping[str, torch.Tensor], device: torch.device) -> None:
    """Give a fresh model the tensors of a saved one. A buffer that took another form in training takes it here.

    Raises LookupError or ValueError where the two models do not have the same tensors.
    """
    own = _all_tensors(model)
    missing = [name for name in own if name not in saved]
    if missing:
        raise LookupError(f"the saved state lacks {', '.join(missing[:3])}")
    with torch.no_grad():
        for name, tensor in saved.items():
            value = value_of(tensor, device) if is_bytes(tensor) else tensor
            mine = own.get(name)
            if mine is not None and _form(mine) == _form(value):
                # What is frozen may lie in one memory with that of the mates of a group: a write would end that.
                if mine.requires_grad or not _has_bits(mine, value):
                    mine.copy_(value)
            else:
                _replace(model, name, value.to(device, copy=True))


def _has_bits(tensor: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether a strided tensor has the values of another one of its form, wherever that lies."""
    strided = tensor.layout is torch.strided
    return strided and same_bits(tensor.contiguous(), value.to(tensor.device).contiguous())


def _all_tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = dict(model.named_parameters())
    return tensors | dict(model.named_buffers())


def _replace(model: torch.nn.Module, name: str, value: torch.Tensor) -> None:
    owner, _, key = name.rpartition(".")
    module = model.get_submodule(owner)
    if key not in module._buffers:
        raise LookupError(f"the model has no buffer {name} of the form {tuple(value.shape)}, {value.dtype}")
    module._buffers[key] = value


def _form(tensor: torch.Tensor) -> object:
    return tensor.shape, tensor.dtype, tensor.layout
