"""A study's identity: everything besides its declaration that decides the bits of its trials, by part.

The fingerprint covers the user's code, the arguments of the workload and the data; a workload with another fingerprint
is another workload. Initial weights are compared within a study. The versions of installed packages are recorded with
each trial, as Numerics are: a new release of a package does not stop a study.
"""

import hashlib
import json
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tuner.design.hyperparameters import Value
from tuner.errors import StorageError

Alike = Callable[[str, str], bool]
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class InitialWeights:
    """A digest of the model at a point, built from a fixed seed; two are comparable where `made_under` is the same.

    `loss`: the digest of the loss of a first batch under the Numerics `loss_under`; "" where that is not known.
    """

    point: Mapping[str, Value]
    digest: str
    made_under: str = ""
    loss: str = ""
    loss_under: str = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """`code`: file to definition to digest; `arguments`: of the workload; `data`: split to digest; all as text.

    The test split is compared only where it is scored, because it decides no bit of a trial. A test dataset has no
    digest: only the score reads it.
    """

    code: Mapping[str, Mapping[str, str]]
    arguments: Mapping[str, str]
    data: Mapping[str, str]
    packages: Mapping[str, str] = field(default_factory=dict)
    weights: tuple[InitialWeights, ...] = ()

    @property
    def fingerprint(self) -> str:
        """The digest of code, arguments, training and validation data (64 hex digits)."""
        data = {split: digest for split, digest in self.data.items() if split != "test"}
        whole = {"code": self.code, "arguments": self.arguments, "data": data}
        text = json.dumps(whole, sort_keys=True, default=dict)
        return hashlib.sha256(text.encode()).hexdigest()

    def as_json(self) -> dict[str, object]:
        """Plain containers; `identity_from` makes it an Identity again."""
        return {
            "format": _FORMAT,
            "code": {file: dict(definitions) for file, definitions in self.code.items()},
            "arguments": dict(self.arguments),
            "data": dict(self.data),
            "packages": dict(self.packages),
            "weights": [
                {
                    "point": dict(one.point),
                    "digest": one.digest,
                    "made_under": one.made_under,
                    "loss": one.loss,
                    "loss_under": one.loss_under,
                }
                for one in self.weights
            ],
        }


# Of studies whose trials a script asked for and told of (`tuner.asking`): neither code nor data are known.
TRAINED_ELSEWHERE = Identity({}, {"trained_by": "a script that asks (tuner.asking)"}, {})


def was_told(kept: Mapping[str, Any] | None) -> bool:
    """Whether a stored identity is that of a study whose trials were asked for and told of: nothing of them is kept."""
    return kept is not None and TRAINED_ELSEWHERE.arguments.items() <= kept.get("arguments", {}).items()


def identity_from(kept: Mapping[str, Any]) -> Identity:
    """Read a stored identity. Raises StorageError for a newer version, and for content that is no identity."""
    if kept.get("format") != _FORMAT:
        raise StorageError(
            f"the identity of the study has format {kept.get('format')!r}, and this tuner knows format {_FORMAT}: it "
            "was written by a newer version; install that one"
        )
    try:
        weights = tuple(
            InitialWeights(
                dict(one["point"]),
                str(one["digest"]),
                str(one["made_under"]),
                str(one.get("loss", "")),
                str(one.get("loss_under", "")),
            )
            for one in kept["weights"]
        )
        return Identity(kept["code"], kept["arguments"], kept["data"], kept["packages"], weights)
    except (KeyError, TypeError, AttributeError) as error:
        raise StorageError(f"the identity of the study is unreadable in the Ledger: {error!r}") from error


def changes(was: Identity, now: Identity) -> list[str]:
    """The differences in code, arguments and data, each as text with a name: "blocks.py: function net changed"."""
    return [*_changed_code(was.code, now.code), *_changed_arguments(was, now), *_changed_data(was, now)]


def _changed_code(was: Mapping[str, Mapping[str, str]], now: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    for file in sorted(was.keys() | now.keys()):
        if file not in now:
            yield f"{file}: is not used any more"
        elif file not in was:
            yield f"{file}: was not used before"
        else:
            yield from (f"{file}: {words}" for words in _changed_definitions(was[file], now[file]))


def _changed_definitions(was: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    names = [name for name in sorted(was.keys() | now.keys()) if was.get(name) != now.get(name)]
    if len(names) > 1:  # the order follows from what else changed
        names = [name for name in names if name != "order of values"]
    for name in names:
        yield f"{name} {'is gone' if name not in now else 'is new' if name not in was else 'changed'}"


def _changed_arguments(was: Identity, now: Identity) -> Iterator[str]:
    for name in sorted(was.arguments.keys() | now.arguments.keys()):
        before, after = was.arguments.get(name), now.arguments.get(name)
        if before == after:
            continue
        if before is None or after is None:
            yield f"argument {name} {'is new' if before is None else 'is gone'}"
        else:
            shown = f" was {before}, is {after}" if not (is_digest(before) or is_digest(after)) else " changed"
            yield f"argument {name}{shown}"


def _changed_data(was: Identity, now: Identity) -> Iterator[str]:
    for split in ("training", "validation"):
        if was.data.get(split) != now.data.get(split):
            yield f"{split} data changed"


def changed_weights(was: Identity, now: Identity, alike: Alike = operator.eq) -> list[InitialWeights]:
    """The earlier entries whose model starts from other weights now. alike: whether two texts are one machine's."""
    pairs = _pairs(was, now)
    return [one for one, other in pairs if other.digest != one.digest and alike(other.made_under, one.made_under)]


def changed_losses(was: Identity, now: Identity, alike: Alike = operator.eq) -> list[InitialWeights]:
    """The earlier entries whose first batch has another loss now, under the same Numerics."""
    known = [(one, other) for one, other in _pairs(was, now) if one.loss and other.loss]
    return [one for one, other in known if other.loss != one.loss and alike(other.loss_under, one.loss_under)]


def _pairs(was: Identity, now: Identity) -> list[tuple[InitialWeights, InitialWeights]]:
    again = {repr(sorted(one.point.items())): one for one in now.weights}
    pairs = [(one, again.get(repr(sorted(one.point.items())))) for one in was.weights]
    return [(one, other) for one, other in pairs if other is not None]


def changed_packages(was: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The packages whose version is another one than before, each as text."""
    return [
        f"{name} was {was.get(name, 'not used')}, is {now.get(name, 'not used')}"
        for name in sorted(was.keys() | now.keys())
        if was.get(name) != now.get(name)
    ]


def is_digest(text: str) -> bool:
    """Whether a text is a short digest, which means nothing to a reader."""
    return len(text) == 16 and set(text) <= set("0123456789abcdef")
