"""Ends of a hyperparameter beyond which there is nothing, by what it is called (B20).

A best dropout of 0 or a best momentum near 1 says nothing about the range, though nobody declared a limit: above all
in studies that were run elsewhere, whose declarations know no limits.
"""

import re
from collections.abc import Sequence

_ANY_SIGN = {"log", "log2", "log10", "ln", "exp", "exponent", "power", "offset", "shift", "delta", "bias"}
# Of the name without separators.
_FRACTIONS = (
    "dropout", "droppath", "dropconnect", "dropblock", "droprate", "dropprob", "keeprate", "keepprob", "maskrate",
    "maskratio", "stochasticdepth", "labelsmoothing", "momentum", "oneminus", "emadecay", "subsample", "colsample",
    "warmupratio", "warmuppct", "pctstart", "replacementrate", "mutationrate", "crossoverrate", "discount",
)  # fmt: skip
_FRACTION_WORDS = {"drop", "prob", "probs", "probability", "fraction", "frac", "proportion", "quantile", "rho", "betas"}
_BETAS = re.compile(r"(?:adam)?(?:beta|b)[12]")
_NOT_NEGATIVE = (
    "weightdecay", "learningrate", "baserate", "regularization", "mixup", "cutmix", "clipnorm", "gradclip", "warmup",
    "patience", "decay", "penalty", "noise", "temperature", "epsilon", "jitter", "smoothing", "strength",
)  # fmt: skip
_NOT_NEGATIVE_WORDS = {
    "lr", "wd", "eta", "l1", "l2", "reg", "lambda", "alpha", "eps", "std", "sigma", "scale", "weight", "rate",
    "coef", "coefficient",
}  # fmt: skip
# Numbers of things, which may be given as real ones; no things are none. Whole ranges need no name.
_COUNTED = {"layers", "layer", "depth", "width", "units", "hidden", "heads", "channels", "filters", "blocks", "batch"}


def known_end(name: str, edge: str) -> float | None:
    """The least ("low") or greatest ("high") value that a hyperparameter of this name can have; None: not known."""
    words = _words(name)
    joined = "".join(words)
    if _ANY_SIGN & set(words):
        return None
    if _is_fraction(joined, words):
        return 0.0 if edge == "low" else 1.0
    if edge == "low" and (
        any(part in joined for part in _NOT_NEGATIVE) or (_NOT_NEGATIVE_WORDS | _COUNTED) & set(words)
    ):
        return 0.0
    return None


def counts_things(name: str) -> bool:
    """Whether a hyperparameter of this name is a number of layers, units, examples of a batch ...: at least 1."""
    return bool(_COUNTED & set(_words(name)))


def _is_fraction(joined: str, words: Sequence[str]) -> bool:
    if any(part in joined for part in _FRACTIONS) or _FRACTION_WORDS & set(words):
        return True
    return any(_BETAS.fullmatch(part) for part in ("".join(words[-2:]), "".join(words[-3:]), words[-1]))


def _words(name: str) -> list[str]:
    """hiddenDropout_prob and hidden-dropout.prob are hidden, dropout, prob; digits stay with their word."""
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return re.findall(r"[a-z0-9]+", split.lower()) or [""]
