"""`with_lora` and `merged`, the words of a study file about adapters. Torch is imported when they are called."""

import math
from collections.abc import Mapping
from importlib import import_module
from numbers import Real
from typing import Literal, TypeVar

from tuner.design.adapters import KOHYA_WORDS, PEFT_WORDS
from tuner.design.parameter_groups import check_pattern
from tuner.errors import WorkloadError

Model = TypeVar("Model")  # a torch.nn.Module
SMALLEST, LARGEST = 2.0**-126, 2.0**127  # of a scale: normal numbers of float32
Scaling = Literal["rank", "sqrt_rank"]


def with_lora(  # noqa: PLR0913 - the words of an adapter
    model: Model,
    pattern: str,
    *,
    rank: int | None = None,
    alpha: float | None = None,
    dropout: float = 0.0,
    scaling: Scaling = "rank",
    trained: str = "",
    **foreign: object,
) -> Model:
    """The model itself, frozen, with trained changes W + alpha/rank * B A of the weights that the pattern names (LoRA).

    `with_lora(self.base(), "blocks.*.attention.*|head", rank=point["rank"], alpha=point["alpha"])`, in `model(point)`.
    B is zero at the start, so the model computes what it computed before. Each weight [d_out, d_in] gets
    rank * (d_in + d_out) trained numbers, `lora_A` and `lora_B` beside it; it keeps its own name. Everything else is
    frozen: weights, biases and norms. Running means of batch norms are no parameters and still move in train mode.

    pattern: of names of modules or parameters, as in `matching`: `*` also stands for dots, `|` joins several. Linear,
    Conv1d/2d/3d (each group by itself), Embedding, and MultiheadAttention with its bare tensors can be named; norms,
    biases and dropouts under a wildcard are passed over. Another bare tensor is named by its last part, without a
    wildcard: "blocks.*.qkv". Call it again for other weights with another rank.

    rank: a whole number up to the smaller of d_in and d_out; has to be given. Another rank is another architecture.
    alpha: above 0; None means alpha = rank, a scale of 1. At fixed A and B, twice the alpha is twice the change.
    dropout: of what goes into A, as peft's `lora_dropout`; not for an embedding, nor for tensors that are read without
    calling their module. scaling: "rank" for alpha/rank, "sqrt_rank" for alpha/sqrt(rank), as rsLoRA.
    trained: a pattern of parameters or modules that are trained besides, "head.*" say.

    Sources: arXiv:2106.09685 (LoRA), arXiv:2312.03732 (rsLoRA). Raises WorkloadError, before anything is changed.
    """
    _check_words(foreign)
    if rank is None:
        raise WorkloadError('with_lora needs a rank: with_lora(model, "head", rank=8), or rank=point["rank"]')
    _check_numbers(rank, alpha, dropout, scaling)
    check_pattern("with_lora", pattern)
    if trained:
        check_pattern("trained= of with_lora", trained)
    scale = float(rank if alpha is None else alpha) / (rank if scaling == "rank" else math.sqrt(rank))
    if not SMALLEST <= scale <= LARGEST:
        raise WorkloadError(
            f"alpha of with_lora: {alpha!r} at rank {rank} is a scale of {scale:g}, which float32 does not hold "
            f"({SMALLEST:.3g} to {LARGEST:.3g})"
        )
    import_module("tuner.adapters.making").make_adapters(model, pattern, rank, scale, dropout, trained)
    return model


def merged(model: Model) -> Model:
    """A copy of the model with plain modules, whose weights are W + scale * B A; nothing of the adapters is left.

    It computes what the model computes in eval mode, up to rounding. Of tied weights each one that has an adapter
    becomes a weight of its own. Raises WorkloadError for a model without adapters.
    """
    copied: Model = import_module("tuner.adapters.low_rank").merged_copy(model)
    return copied


def _check_words(foreign: Mapping[str, object]) -> None:
    """Raise WorkloadError for a keyword that with_lora does not know, with the right word for kohya's and peft's."""
    for name, value in foreign.items():
        for tool, words in (("kohya's trainers", KOHYA_WORDS), ("peft", PEFT_WORDS)):
            if name in words:
                raise WorkloadError(f"with_lora({name}={value!r}): {name} is the word of {tool}; {words[name]}")
        raise WorkloadError(
            f"with_lora has no {name}: it takes the model, a pattern, rank, alpha, dropout, scaling and trained"
        )


def _check_numbers(rank: object, alpha: object, dropout: object, scaling: object) -> None:
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise WorkloadError(
            f"rank of with_lora is a whole number of at least 1, got {rank!r}; in a search space write "
            "rank=choice(2, 4, 8), integers(1, 16) or a number"
        )
    if alpha is not None:
        if isinstance(alpha, bool) or not isinstance(alpha, Real) or not math.isfinite(alpha):
            raise WorkloadError(f"alpha of with_lora is a number above 0, or None for alpha = rank, got {alpha!r}")
        if alpha <= 0:
            kohya = ": kohya's 0 means alpha = rank" if alpha == 0 else ""
            raise WorkloadError(
                f"alpha of with_lora is above 0, got {alpha!r}, which would switch the adapter off or turn its sign; "
                f"write alpha=None for alpha = rank{kohya}"
            )
    if isinstance(dropout, bool) or not isinstance(dropout, Real) or not 0 <= float(dropout) < 1:
        raise WorkloadError(f"dropout of with_lora is a share from 0 to below 1, got {dropout!r}")
    if scaling not in ("rank", "sqrt_rank"):
        raise WorkloadError(
            f"scaling of with_lora is 'rank' (alpha/rank) or 'sqrt_rank' (alpha/sqrt(rank)), got {scaling!r}"
        )
