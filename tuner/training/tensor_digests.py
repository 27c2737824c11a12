"""Digests of tensors: of all bytes up to a size that takes a moment, above it of a spread sample and a sum over all."""

import hashlib
from collections.abc import Mapping
from typing import Any, Protocol

import torch

from tuner.training.copy_on_write import pieces

WHOLE_BYTES = 256 * 2**20  # [P] about half a second of hashing; larger tensors are sampled
BLOCKS, BLOCK_BYTES = 256, 2**16  # [P] of a larger tensor: blocks spread over all of it, from its first to its last
_PIECE = 2**26  # bytes summed at a time


class Digest(Protocol):
    """What hashlib's digests can do."""

    def update(self, data: Any, /) -> None: ...


def feed_tensor(digest: Digest, tensor: torch.Tensor) -> None:
    """Add a tensor's type, shape and values to a digest."""
    tensor = tensor.detach()
    digest.update(f"tensor {tensor.dtype} {tuple(tensor.shape)} {tensor.layout}".encode())
    if tensor.layout != torch.strided:
        for part in _parts_of_sparse(tensor):
            feed_tensor(digest, part)
        return
    if tensor.is_quantized or not tensor.numel():
        digest.update(repr(tensor.cpu() if tensor.is_quantized else ()).encode())
        return
    flat = tensor.resolve_conj().resolve_neg().contiguous().flatten().view(torch.uint8)
    if flat.numel() <= WHOLE_BYTES:
        for piece in pieces(flat):
            digest.update(piece)
        return
    last = flat.numel() - BLOCK_BYTES
    for block in range(BLOCKS):
        start = last * block // (BLOCKS - 1)
        digest.update(flat[start : start + BLOCK_BYTES].clone().cpu().numpy().data)
    digest.update(_sum_of(flat).to_bytes(8, "little"))


def _parts_of_sparse(tensor: torch.Tensor) -> list[torch.Tensor]:
    if tensor.layout == torch.sparse_coo:
        whole = tensor.coalesce()
        return [whole.indices(), whole.values()]
    return [tensor.to_dense()]


def _sum_of(flat: torch.Tensor) -> int:
    """The sum of all bytes, eight at a time as one number, modulo 2^64: a change anywhere shows."""
    total = 0
    for start in range(0, flat.numel(), _PIECE):
        piece = flat[start : start + _PIECE]
        even = piece.numel() // 8 * 8
        words = piece[:even].clone().view(torch.int64) if piece.storage_offset() % 8 else piece[:even].view(torch.int64)
        total += int(words.sum()) + int(piece[even:].sum())
    return total % 2**64


def digest_of_tensors(tensors: Mapping[str, torch.Tensor]) -> str:
    """16 hex digits for tensors by name."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"name {name}".encode())
        feed_tensor(digest, tensor)
    return digest.hexdigest()[:16]
