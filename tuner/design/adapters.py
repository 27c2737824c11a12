"""The words of adapter training: what other tools call them, and what a search space knows about them.

This module does not import torch; `tuner.adapters` makes the adapters.
"""

from collections.abc import Mapping

from tuner.design.hyperparameters import Family

# Names that a search space knows, with their families (A36). A rank is a shape: another rank is another architecture.
ADAPTER_FAMILIES: Mapping[str, Family] = {
    "rank": "architecture",
    "lora_rank": "architecture",
    "alpha": "optimizer",
    "lora_alpha": "optimizer",
}
ALPHAS = ("alpha", "lora_alpha")  # real numbers, also where they are written as whole ones
RANKS = ("rank", "lora_rank")

_TWICE = "call with_lora once for each kind of layer, each call with a rank and an alpha of its own"
# What kohya's trainers call the settings of an adapter, and what is written here.
KOHYA_WORDS: Mapping[str, str] = {
    "network_dim": "write rank, the inner dimension of B A",
    "network_alpha": (
        "write alpha: the change is B A times alpha/rank. There, 0 or nothing in a file means alpha = rank, which is "
        "alpha=None here; a script that is given no alpha takes 1, so that rank 128 is scaled by 1/128"
    ),
    "conv_dim": f"write rank; {_TWICE}",
    "conv_alpha": f"write alpha; {_TWICE}",
    "network_dropout": (
        "write dropout. It is another number: there, values are dropped after the down projection A, here (as in peft) "
        "before it"
    ),
    "network_module": "with_lora makes LoRA; other kinds of adapters are not made here",
    "network_args": "write rank, alpha and dropout",
}
# What peft calls them.
PEFT_WORDS: Mapping[str, str] = {
    "r": "write rank",
    "lora_alpha": "write alpha",
    "lora_dropout": "write dropout; it means the same",
    "target_modules": "the second argument is a pattern of names: with_lora(model, 'blocks.*.attention.*|head', ...)",
    "modules_to_save": "write trained, a pattern of what stays trained besides the adapters",
    "use_rslora": "write scaling='sqrt_rank'",
    "rank_pattern": _TWICE,
    "alpha_pattern": _TWICE,
    "bias": "biases are frozen; write trained='*.bias' to train them",
    "init_lora_weights": "A is drawn by Kaiming's rule and B is zero, always",
}


def foreign_word(name: str) -> str:
    """What to write here for a setting of an adapter that has kohya's name; "" for any other name."""
    return KOHYA_WORDS.get(name.lower(), "")
