"""Parameter groups in the words of a study file: which parameters have another learning rate or another weight decay.

A word chooses parameters by their names or by their number of dimensions, and gives them multiples: of the learning
rate of each step, and of `weight_decay`. The first word that chooses a parameter has it; parameters that no word
chooses keep both. This module knows parameters by name only and does not import torch.
"""

import difflib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from numbers import Real

from tuner.errors import WorkloadError

OTHERS = "all others"
_NEAREST = 3  # names that an error proposes
_ALIKE = 0.5  # as difflib measures it


@dataclass(frozen=True, slots=True)
class NamedParameter:
    """A parameter of a model. names: all that lead to it, that of `named_parameters` first; tied ones have several."""

    names: tuple[str, ...]
    num_dimensions: int
    trained: bool = True

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def is_vector(self) -> bool:
        """Whether it has fewer than two dimensions: a bias, the weight of a norm, a single number."""
        return self.num_dimensions < 2


@dataclass(frozen=True, slots=True)
class NamedGroup:
    """Parameters that are trained alike.

    label: what a table calls them. places: of the parameters in their model, each with the names by which it was
    chosen; no name where it was chosen without one. decay: None where the study file gives none: then it is 1.
    """

    label: str
    rate: float
    decay: float | None
    places: Mapping[int, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Vectors:
    """See `vectors`."""

    rate: float = 1.0
    decay: float | None = None

    def chosen(self, parameters: Sequence[NamedParameter]) -> list[NamedGroup]:
        """The vectors among the parameters; there may be none."""
        found: dict[int, tuple[str, ...]] = {place: () for place, one in enumerate(parameters) if one.is_vector}
        return [NamedGroup("vectors", self.rate, self.decay, found)]


@dataclass(frozen=True, slots=True)
class Matching:
    """See `matching`."""

    pattern: str
    rate: float = 1.0
    decay: float | None = None

    def __str__(self) -> str:
        return f'matching("{self.pattern}")'

    def chosen(self, parameters: Sequence[NamedParameter]) -> list[NamedGroup]:
        """The parameters whose names match. Raises WorkloadError where one of the patterns matches none."""
        return [NamedGroup(self.pattern, self.rate, self.decay, _matching(str(self), self.pattern, parameters))]


@dataclass(frozen=True, slots=True)
class ByDepth:
    """See `by_depth`."""

    pattern: str
    factor: float
    before: str = ""
    rate: float = 1.0
    decay: float | None = None

    def __str__(self) -> str:
        return f'by_depth("{self.pattern}")'

    def chosen(self, parameters: Sequence[NamedParameter]) -> list[NamedGroup]:
        """What stands before the blocks, then the blocks from the first to the last. Raises WorkloadError."""
        found = self._blocks(parameters)
        if not found:
            raise _no_match(str(self), self.pattern, parameters)
        last = len(found) - 1
        made = []
        if self.before:
            made.append(self._at(f"before {self.pattern}", last + 1, self._ahead(parameters, found)))
        for depth, (number, places) in enumerate(sorted(found.items())):
            made.append(self._at(self.pattern.replace("{}", str(number)), last - depth, places))
        return made

    def _blocks(self, parameters: Sequence[NamedParameter]) -> dict[int, dict[int, tuple[str, ...]]]:
        """The places of the parameters of each block, by its number, with the names that match."""
        found: dict[int, dict[int, tuple[str, ...]]] = {}
        for place, one in enumerate(parameters):
            for name in one.names:
                number = self._block_of(name)
                if number is not None:
                    block = found.setdefault(number, {})
                    block[place] = (*block.get(place, ()), name)
        return found

    def _ahead(
        self, parameters: Sequence[NamedParameter], blocks: Mapping[int, Mapping[int, object]]
    ) -> dict[int, tuple[str, ...]]:
        """What `before` matches outside of the blocks. Raises WorkloadError where that is nothing."""
        word = f'before="{self.before}" of {self}'
        inside = {place for places in blocks.values() for place in places}
        ahead = _matching(word, self.before, parameters)
        left = {place: names for place, names in ahead.items() if place not in inside}
        if not left:
            name = parameters[next(iter(ahead))].name
            raise WorkloadError(f"{word} matches parameters of the blocks only ({name}, ...): name what stands before")
        return left

    def _at(self, label: str, distance: int, places: Mapping[int, tuple[str, ...]]) -> NamedGroup:
        """distance: in blocks, from the last one."""
        rate = self.rate * self.factor**distance
        return NamedGroup(label, as_multiple(rate, "rate", f"{self}, {label},"), self.decay, places)

    def _block_of(self, name: str) -> int | None:
        """The number in a name that stands where the pattern has {}; the first where several do."""
        for digits in re.findall(r"\d+", name):
            block = self.pattern.replace("{}", digits)
            if fnmatchcase(name, block) or fnmatchcase(name, f"{block}.*"):
                return int(digits)
        return None


Word = Vectors | Matching | ByDepth


def vectors(*, rate: float = 1.0, decay: float | None = None) -> Vectors:
    """Parameters with fewer than two dimensions: biases, the weights of norms, single numbers.

    `vectors(decay=0.0)` leaves them out of weight decay. rate, decay: multiples of the learning rate of each step and
    of `weight_decay`. Raises WorkloadError for a multiple that cannot be.
    """
    return Vectors(*_multiples("vectors(...)", rate, decay))


def matching(pattern: str, *, rate: float = 1.0, decay: float | None = None) -> Matching:
    """Parameters whose names match a pattern: `matching("head.*", rate=10.0)`, `matching("*.bias|*.scale", decay=0.0)`.

    pattern: as for file names (`*`, `?`, `[ab]`), where `*` also stands for dots; several are joined by `|`. The names
    are those of `model.named_parameters()`; a tied parameter has all of its names. rate, decay: multiples of the
    learning rate of each step and of `weight_decay`. Raises WorkloadError for a multiple that cannot be.
    """
    check_pattern("matching", pattern)
    return Matching(pattern, *_multiples(f'matching("{pattern}")', rate, decay))


def by_depth(
    pattern: str, factor: float, *, before: str = "", rate: float = 1.0, decay: float | None = None
) -> ByDepth:
    """Rates that fall with the distance from the last block: `by_depth("blocks.{}", 0.8, before="embed.*")`.

    pattern: the name of a block, with {} for its number. The last block has the multiple `rate`, each block before it
    `factor` times that of the next: of n blocks the i-th (from 0) has rate * factor ** (n - 1 - i). before: what stands
    before the first block, at rate * factor ** n; a pattern as in `matching`. decay: the multiple of `weight_decay` of
    all of them. Raises WorkloadError for a number that cannot be.
    """
    check_pattern("by_depth", pattern)
    if pattern.count("{}") != 1:
        raise WorkloadError(
            f'by_depth("{pattern}") does not say where the number of a block stands: write {{}} there, once, as in '
            '"blocks.{}"'
        )
    if before:
        check_pattern("before= of by_depth", before)
    word = f'by_depth("{pattern}")'
    return ByDepth(pattern, as_multiple(factor, "factor", word), before, *_multiples(word, rate, decay))


def _multiples(word: str, rate: float, decay: float | None) -> tuple[float, float | None]:
    return as_multiple(rate, "rate", word), None if decay is None else as_multiple(decay, "decay", word)


_MULTIPLE_OF = {
    "rate": "a multiple of the learning rate of each step",
    "decay": "a multiple of weight_decay",
    "factor": "how many times the rate of a block that of the block before it is",
}


def as_multiple(value: object, what: str, whose: str) -> float:
    """A multiple as a float. Raises WorkloadError, which names it, for anything but a finite number of 0 or more.

    what: "rate", "decay" or "factor"; a rate or a factor is not 0.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise WorkloadError(f"{what} of {whose} must be a number, {_MULTIPLE_OF[what]}, got {value!r}")
    number = float(value)
    if not math.isfinite(number) or number < 0.0:
        raise WorkloadError(
            f"{what} of {whose} must be finite and not negative: it is {_MULTIPLE_OF[what]}; got {value!r}"
        )
    if number == 0.0 and what != "decay":
        raise WorkloadError(
            f"{what} of {whose} is 0, so that its parameters would not be trained: freeze them in model(), by "
            "requires_grad_(False)"
        )
    return number


def check_pattern(word: str, pattern: object) -> None:
    """Raise WorkloadError for what is no pattern of names."""
    if not isinstance(pattern, str) or not all(one.strip() for one in pattern.split("|")):
        raise WorkloadError(
            f"{word} takes names of parameters as text, with * for any letters and | for or ('head.*', "
            f"'*.bias|*.scale'), got {pattern!r}"
        )


def _matching(word: str, pattern: str, parameters: Sequence[NamedParameter]) -> dict[int, tuple[str, ...]]:
    """The places of the parameters that match, with the names that do. Raises WorkloadError."""
    found: dict[int, tuple[str, ...]] = {}
    for one in [each.strip() for each in pattern.split("|")]:
        mine = {
            place: names
            for place, parameter in enumerate(parameters)
            if (names := tuple(name for name in parameter.names if fnmatchcase(name, one)))
        }
        if not mine:
            raise _no_match(word, one, parameters)
        found |= {place: tuple(dict.fromkeys((*found.get(place, ()), *names))) for place, names in mine.items()}
    return found


def _no_match(word: str, pattern: str, parameters: Sequence[NamedParameter]) -> WorkloadError:
    """What to raise where a pattern matches no name: it proposes the nearest names."""
    return no_match(word, pattern, [name for parameter in parameters for name in parameter.names])


def no_match(word: str, pattern: str, names: Sequence[str], kind: str = "parameter") -> WorkloadError:
    """What to raise where a pattern matches no name that it could: it proposes the nearest names.

    word: where the pattern was given. names: those of parameters; kind: what it should have matched.
    """
    inside = f"{pattern}.*"
    if any(fnmatchcase(name, inside) for name in names):
        near = [inside]
    else:
        modules = dict.fromkeys(f"{name.rpartition('.')[0]}.*" for name in names if "." in name)
        near = difflib.get_close_matches(pattern, [*modules, *names], n=_NEAREST, cutoff=_ALIKE)
    told = f"did you mean {' or '.join(near)}?" if near else f"the model has {', '.join(names[:_NEAREST])}, ..."
    return WorkloadError(f"{word}: no {kind} of the model matches {pattern!r}; {told}")


def divided(
    parameters: Sequence[NamedParameter],
    choices: Sequence[tuple[str, Sequence[NamedGroup]]],
    *,
    vectors_decay: bool = True,
) -> list[NamedGroup]:
    """Each trained parameter in the first group that chooses it, what is left in a last one; groups without any go.

    choices: for each word (as an error calls it) what it chose. vectors_decay: False takes the vectors out of weight
    decay, in every group; they then are a group of their own. Raises WorkloadError for a word that is left without a
    trained parameter, and for a tied parameter that two words choose under different names.
    """
    owner: dict[int, tuple[str, tuple[str, ...]]] = {}
    made: list[NamedGroup] = []
    for word, shares in choices:
        had = len(owner)
        for share in shares:
            mine = dict(_taken(word, share, parameters, owner))
            owner |= {place: (word, names) for place, names in mine.items()}
            made.append(replace(share, places=mine))
        if len(owner) == had:
            _refuse_empty(word, shares, parameters, owner)
    left: dict[int, tuple[str, ...]] = {
        place: () for place, one in enumerate(parameters) if one.trained and place not in owner
    }
    made.append(NamedGroup(OTHERS, 1.0, None, left))
    if not vectors_decay:
        made = [part for group in made for part in _without_decay(group, parameters)]
    return [group for group in made if group.places]


def _taken(
    word: str, share: NamedGroup, parameters: Sequence[NamedParameter], owner: Mapping[int, tuple[str, tuple[str, ...]]]
) -> Iterator[tuple[int, tuple[str, ...]]]:
    """What of a choice no word before it has, frozen parameters left out."""
    for place, names in share.places.items():
        if not parameters[place].trained:
            continue
        if place not in owner:
            yield place, names
            continue
        other, before = owner[place]
        if names and before and not set(names) & set(before):
            raise WorkloadError(
                f"{before[0]} and {names[0]} are one parameter (tied): {other} chooses it under the first name and "
                f"{word} under the second, and it can have one rate and one decay; let one pattern match both names"
            )


def _refuse_empty(
    word: str,
    shares: Sequence[NamedGroup],
    parameters: Sequence[NamedParameter],
    owner: Mapping[int, tuple[str, tuple[str, ...]]],
) -> None:
    """Raise WorkloadError for a word that chooses nothing that is trained and free. `vectors` may be without."""
    wanted = [place for share in shares for place in share.places]
    if not wanted or not any(names for share in shares for names in share.places.values()):
        return
    trained = [place for place in wanted if parameters[place].trained]
    name = parameters[wanted[0]].name
    if not trained:
        raise WorkloadError(
            f"{word} chooses frozen parameters only ({name}, ...: requires_grad is False), which have no rate; leave "
            "this group out, or do not freeze them in model()"
        )
    words = " and ".join(dict.fromkeys(owner[place][0] for place in trained))
    raise WorkloadError(
        f"{word} is left without a parameter: {words} stands before it and has all that it chooses "
        f"({parameters[trained[0]].name}, ...), and the first group that chooses a parameter has it; put {word} first"
    )


def _without_decay(group: NamedGroup, parameters: Sequence[NamedParameter]) -> list[NamedGroup]:
    """The group, and its vectors as a group without weight decay. Raises WorkloadError where its decay is none's."""

    def part(is_vector: bool) -> dict[int, tuple[str, ...]]:
        return {place: names for place, names in group.places.items() if parameters[place].is_vector is is_vector}

    others, mine = part(False), part(True)
    if not mine:
        return [group]
    if not others and group.decay:
        raise WorkloadError(
            f'no_decay = "vectors" takes all of the group {group.label} out of weight decay, which gives it '
            f"decay={group.decay:g}: leave out one of the two"
        )
    label = group.label if not others else f"{group.label}, vectors"
    return [replace(group, places=others), replace(group, label=label, decay=0.0, places=mine)]
