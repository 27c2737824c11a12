"""Words of other tools, and words that stand in the wrong place, with what to write instead."""

from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from tuner.design.names import EMA_STEPS, is_of_portions, is_of_stopping, letters_of
from tuner.errors import DeclarationError

_IN_PORTIONS = "micro_batch_size = 32 in the class of the workload, where a whole batch does not fit into memory"
_STOPPING = "patience_steps=500 in the last Round, one that promotes and compares nothing (A11)"
_AVERAGES = f"{EMA_STEPS}=50 in Campaign: an average in steps, about 1 / (1 - decay) of them"
_CLIPPING = "clip_norm=1.0 in the SearchSpace"
_COMPILING = "torch.compile(...) in model(point)"
_RECOMPUTING = "torch.utils.checkpoint in the forward of the model"
_EIGHT_BITS = 'optimizer="adamw_8bit" in Campaign'
_SPACE = "a range of it in the SearchSpace"
_ROUND = "it in a Round"
_CAMPAIGN = "it in Campaign"
_CLASS = "it in the class of the workload"

# What to write, by the letters of a word.
_INSTEAD: dict[str, str] = {
    **dict.fromkeys(
        ("precision", "bf16", "amp", "useamp", "mixedprecision", "autocast", "dtype", "torchdtype", "usebf16"),
        'precision="bf16" in Campaign, or precision=choice("float32", "bf16") in the SearchSpace',
    ),
    **dict.fromkeys(
        ("fp16", "usefp16", "half", "halfprecision", "gradscaler", "lossscale", "initscale", "fp16optlevel"),
        'precision="fp16" in Campaign, whose loss is scaled by itself',
    ),
    **dict.fromkeys(("tf32", "allowtf32", "matmulprecision"), 'precision="tf32" in Campaign'),
    **dict.fromkeys(
        ("emasteps", "emadecay", "ema", "useema", "modelema", "modelemadecay", "emamomentum", "emarate", "emabeta",
         "swa", "swastart", "useswa", "swalr", "polyak", "averageweights", "weightaveraging",
         "stochasticweightaveraging"),
        _AVERAGES,
    ),
    **dict.fromkeys(("use8bit", "use8bitadam", "adam8bit", "optimizer8bit", "loadin8bit"), _EIGHT_BITS),
    **dict.fromkeys(
        ("clipnorm", "gradclip", "gradclipnorm", "gradientclip", "gradientclipval", "maxgradnorm", "clipgradnorm"),
        _CLIPPING,
    ),
    **dict.fromkeys(("compile", "torchcompile", "usecompile", "compilemodel"), _COMPILING),
    **dict.fromkeys(
        ("gradientcheckpointing", "gradcheckpointing", "activationcheckpointing", "gradcheckpoint"), _RECOMPUTING
    ),
    **dict.fromkeys(("learningrate", "lr", "weightdecay"), _SPACE),
    **dict.fromkeys(("space", "trials", "promote", "maxtrainsteps", "scientific"), _ROUND),
    **dict.fromkeys(("batchsize", "evaluationbatchsize", "dataworkers", "numworkers"), _CLASS),
    **dict.fromkeys(
        ("optimizer", "schedule", "sweep", "warmup", "warmupsteps", "productionsteps", "evaluations", "evaluateevery",
         "keepbest", "startfrom"),
        _CAMPAIGN,
    ),
}  # fmt: skip


def instead_of(name: str) -> str:
    """What to write for a word of another tool, or of another place; "" for one that is not known."""
    if is_of_portions(name):
        return _IN_PORTIONS
    return _STOPPING if is_of_stopping(name) else _INSTEAD.get(letters_of(name), "")


def refuse_unknown(kind: Any, words: Mapping[str, object]) -> None:
    """Raise DeclarationError for a keyword that `kind`, a dataclass of a study file, does not have, with what to write.

    In place of the TypeError of Python, which names neither our word nor the place where it stands.
    """
    known = [one.name for one in fields(kind) if one.init]
    for name in words:
        if name in known:
            continue
        if written := instead_of(name):
            told = f"write {written}"
        elif alike := get_close_matches(name, known, n=1, cutoff=0.75):
            told = f"did you mean {alike[0]}?"
        else:
            told = f"it has {', '.join(known)}"
        raise DeclarationError(f"{kind.__name__} has no {name!r}; {told}")
