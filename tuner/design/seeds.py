"""Seeds that are functions of names and numbers, the same on every machine and in every version."""

import hashlib

LARGEST_SHORT = 2**32 - 1  # that NumPy, Lightning, Accelerate and transformers take


def derived_seed(*parts: int | str) -> int:
    """A seed in 0..2**63-1 from any sequence of integers and strings."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def short_seed(seed: int) -> int:
    """A seed as a training that is not ours gets it, which most frameworks take: its last 32 bits."""
    return seed & LARGEST_SHORT
