"""The best weights of a model with adapters, written as other tools take them."""

import json
import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal

import safetensors.torch
import torch

from tuner.adapters.files import merged_weights, peft_adapter
from tuner.errors import InputError, StorageError
from tuner.records import Checkpoint
from tuner.security import make_private_folder
from tuner.stores.places import StoredPath
from tuner.training.checkpoints import ExportedWeights, frozen_names, read_weights, write_weights_to
from tuner.training.extra_state import is_bytes
from tuner.training.tensor_digests import digest_of_tensors

ExportForm = Literal["merged", "peft"]
_log = logging.getLogger(__name__)
_OF_ENCODER = ("self_attn.in_proj_weight", "linear1.weight", "linear2.weight", "norm1.weight", "norm2.weight")
_TENSORS, _CONFIG = "adapter_model.safetensors", "adapter_config.json"  # peft's names


def export_as(root: StoredPath, checkpoint: Checkpoint, target: Path, form: ExportForm) -> ExportedWeights:
    """Write the weights of a best checkpoint whose model has adapters.

    "merged": a safetensors file with the names of the base, adapters added to its weights. "peft": a new folder
    `target`, without ".safetensors", with an adapter that `peft.PeftModel.from_pretrained(base, target)` loads.
    Raises InputError for another form, StorageError for weights without adapters and for what the form cannot hold,
    CorruptCheckpoint.
    """
    weights = read_weights(root, checkpoint)
    if form == "merged":
        return write_weights_to(merged_weights(weights), target)
    if form != "peft":
        raise InputError(f"weights with adapters are exported as 'merged' or 'peft', got {form!r}")
    frozen = frozen_names(root, checkpoint) or None  # files of older versions do not say
    return write_peft(weights, target.with_suffix("") if target.suffix == ".safetensors" else target, frozen)


def write_peft(
    weights: Mapping[str, torch.Tensor], folder: Path, frozen: Collection[str] | None = None
) -> ExportedWeights:
    """Write a new folder with an adapter in peft's format; weights, frozen: see `peft_adapter`. Raises StorageError."""
    tensors, config = peft_adapter({name: one for name, one in weights.items() if not is_bytes(one)}, frozen)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StorageError(
            f"an adapter in peft's format is a folder, and {folder} is there already; name a folder that is not: "
            f"--export {folder}-2"
        )
    base = {name: one for name, one in weights.items() if "lora_" not in name.rpartition(".")[2]}
    layers = _with_fast_path(base, [name for name in weights if name not in base])
    if layers:
        _log.warning(
            "%s has the names of an nn.TransformerEncoderLayer: in eval mode without gradients torch runs that in a "
            "way of its own, which reads the weights of the base past peft's adapters. Call "
            "torch.backends.mha.set_fastpath_enabled(False) where the adapter is used, or export merged weights",
            layers[0],
        )
    make_private_folder(folder)
    about = {"format": "pt", "base_digest": digest_of_tensors(base)}
    (folder / _TENSORS).write_bytes(safetensors.torch.save(tensors, metadata=about))
    (folder / _CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return ExportedWeights(folder, tensors, files=(_CONFIG, _TENSORS))


def _with_fast_path(base: Collection[str], adapters: Collection[str]) -> list[str]:
    """Encoder layers of torch's, by the names of their weights, of which something has an adapter."""
    found = [name.removesuffix(_OF_ENCODER[0]) for name in base if name.endswith(_OF_ENCODER[0])]
    whole = [one for one in found if all(f"{one}{name}" in base for name in _OF_ENCODER)]
    return [one.strip(".") or "the model" for one in whole if any(name.startswith(one) for name in adapters)]
