"""Captions that change while a model trains: words in another order, words or whole captions left out.

Both functions take a batch of captions in one of two forms: padded words, whole numbers [captions, words] with
`padding` behind the last word of each, or lists of tags, a list of texts for each caption. This module does not import
torch: tensors are `Any` here, and random numbers are drawn by their methods.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from tuner.design.hyperparameters import SHARES_OF_CAPTIONS
from tuner.errors import WorkloadError

_SHUFFLE, _DROPOUT, _TAG_DROPOUT = SHARES_OF_CAPTIONS
_WHOLE = {f"torch.int{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (64, 32, 16, 8)}
_WHOLE["torch.uint8"] = (0, 255)
_BEHIND = 2.0  # a key above all that are drawn


def shuffled(words: Any, generator: Any, *, share: float = 1.0, keep: int = 0, padding: int = 0) -> Any:
    """The captions, each with probability `share` in another order of its words, all orders equally likely.

    words: whole numbers [captions, words], or lists of tags. generator: the one that `Workload.augment` gets; nothing
    else is drawn from, and nothing is drawn at share 0. keep: the first so many words stay where they are. padding: the
    number that is no word; it stays where it is. This is `shuffle_caption`, with `keep_tokens`, of other trainers.

    Raises WorkloadError for captions of different lengths without padding, numbers that are not whole, a share outside
    0..1, and a `keep` that is negative or not whole.
    """
    given = _checked(words, generator, share, keep, padding)
    if share == 0:
        return words
    look = _LOOK.get()
    chosen, keys = given.drawn(given.width_of(1)) < _share(look, share), given.drawn(given.width)
    changed = given.in_order(chosen, keys)
    return changed if look is None else look.called(_SHUFFLE, words, changed)


def dropped(words: Any, generator: Any, *, share: float, each: bool = False, keep: int = 0, padding: int = 0) -> Any:
    """The captions, each with probability `share` empty; with `each=True` without each word with that probability.

    words, generator, keep, padding: as `shuffled` takes them. An empty caption is all padding, or an empty list. What
    remains of a caption closes up, so that padding stays behind it. The first form is `caption_dropout` of other
    trainers (a model that is to work without captions, too), the second one `caption_tag_dropout`.

    Raises WorkloadError as `shuffled` does.
    """
    given = _checked(words, generator, share, keep, padding)
    if share == 0:
        return words
    look = _LOOK.get()
    gone = given.drawn(given.width if each else given.width_of(1)) < _share(look, share)
    changed = given.without(gone)
    return changed if look is None else look.called(_TAG_DROPOUT if each else _DROPOUT, words, changed)


@dataclass(slots=True)
class CaptionLook:
    """A look at what captions do: call number `acting` of `shuffled` and `dropped` changes all captions, others none.

    All of them draw what they would draw. calls: the hyperparameter that each stands for, of those with a share above
    0, in order. changed: whether the acting one made other captions.
    """

    acting: int | None = None
    calls: list[str] = field(default_factory=list)
    changed: bool = False

    def called(self, hyperparameter: str, words: Any, changed: Any) -> Any:
        """What the next call returns."""
        self.calls.append(hyperparameter)
        if len(self.calls) - 1 != self.acting:
            return words
        self.changed = changed != words if isinstance(changed, list) else bool((changed != words).any())
        return changed


_LOOK: ContextVar[CaptionLook | None] = ContextVar("the look at captions that is under way", default=None)


@contextmanager
def looking_at_captions(acting: int | None = None) -> Iterator[CaptionLook]:
    """Have one call of `shuffled` or `dropped` act alone, or none: so a look before training sees what it changes."""
    look = CaptionLook(acting)
    before = _LOOK.set(look)
    try:
        yield look
    finally:
        _LOOK.reset(before)


def _share(look: CaptionLook | None, share: float) -> float:
    return float(share) if look is None else 1.0


class _Words:
    """Padded words [captions, words]. place: the number of each word in its caption. free: whether it may change."""

    def __init__(self, words: Any, generator: Any, keep: int, padding: int) -> None:
        self.words, self.generator, self.padding = words, generator, padding
        self.present = words != padding
        self.place = (self.present.cumsum(1) - 1).clamp(min=0)
        self.free = self.present & (self.place >= keep)
        self.width = tuple(words.shape)

    def width_of(self, words: int) -> tuple[int, int]:
        return self.width[0], words

    def drawn(self, shape: tuple[int, ...]) -> Any:
        """Numbers in [0, 1), float64."""
        return self.words.new_empty(shape).double().uniform_(generator=self.generator)

    def in_order(self, chosen: Any, keys: Any) -> Any:
        """The free words of chosen captions by their keys."""
        keys = keys.where(self.free & chosen, self.place.double() - self.width[1])
        return self._at_their_places(self.words, keys.masked_fill(~self.present, _BEHIND))

    def without(self, gone: Any) -> Any:
        gone = gone & self.free
        keys = (gone | ~self.present).double()
        return self._at_their_places(self.words.masked_fill(gone, self.padding), keys)

    def _at_their_places(self, words: Any, keys: Any) -> Any:
        """The words by their keys, at the places where there are words."""
        ordered = words.gather(1, keys.argsort(dim=1, stable=True))
        return ordered.gather(1, self.place).where(self.present, self.words)


class _Tags:
    """Lists of tags, with the draws that padded words of the same captions get."""

    def __init__(self, captions: Sequence[Sequence[str]], generator: Any, keep: int) -> None:
        self.captions, self.generator, self.keep = captions, generator, keep
        self.width = len(captions), max((len(one) for one in captions), default=0)

    def width_of(self, words: int) -> tuple[int, int]:
        return self.width[0], words

    def drawn(self, shape: tuple[int, ...]) -> Any:
        """Numbers in [0, 1), float64."""
        like = self.generator.get_state()  # a tensor that is at hand
        return like.new_empty(shape, device=self.generator.device).double().uniform_(generator=self.generator)

    def in_order(self, chosen: Any, keys: Any) -> list[list[str]]:
        """The free tags of chosen captions by their keys."""
        found = []
        for tags, (takes,), of_tags in zip(self.captions, chosen.tolist(), keys.tolist(), strict=True):
            places = range(self.keep, len(tags))
            order = sorted(places, key=of_tags.__getitem__) if takes else places
            found.append([*tags[: self.keep], *(tags[place] for place in order)])
        return found

    def without(self, gone: Any) -> list[list[str]]:
        rows = gone.expand(self.width).tolist()
        return [
            [tag for place, tag in enumerate(tags) if place < self.keep or not row[place]]
            for tags, row in zip(self.captions, rows, strict=True)
        ]


def _checked(words: Any, generator: Any, share: float, keep: int, padding: int) -> _Words | _Tags:
    """The captions in one of both forms. Raises WorkloadError for everything that is none."""
    if not _is_number(share) or not 0 <= float(share) <= 1:
        raise WorkloadError(
            f"share is the part of the captions that change, from 0 to 1, got {share!r:.60}; give the hyperparameter a "
            "range within that, uniform(0, 1)"
        )
    if type(keep) is not int or keep < 0:
        raise WorkloadError(
            f"keep is the number of first words that stay, whole and from 0 on, got {keep!r:.60}; a hyperparameter of "
            "such values is integers(0, 2)"
        )
    if type(padding) is not int:
        raise WorkloadError(f"padding is the whole number that stands behind the words, got {padding!r:.60}")
    if not hasattr(generator, "initial_seed"):
        raise WorkloadError(
            f"captions are changed by a torch.Generator, got {type(generator).__name__}; pass on the generator that "
            "augment(batch, point, generator) gets"
        )
    if isinstance(words, list | tuple):
        return _tags(words, generator, keep)
    return _padded(words, generator, keep, padding)


def _is_number(share: Any) -> bool:
    return hasattr(share, "__float__") and not getattr(share, "shape", ())


def _padded(words: Any, generator: Any, keep: int, padding: int) -> _Words:
    kind = str(getattr(words, "dtype", ""))
    if getattr(words, "is_nested", False):
        raise WorkloadError(f"{_FORMS}; got a nested tensor: {_PAD}")
    if not kind.startswith("torch."):
        raise WorkloadError(f"{_FORMS}; got {type(words).__name__}: {_PAD}")
    shape = tuple(words.shape)
    if kind not in _WHOLE or len(shape) != 2:
        raise WorkloadError(
            f"{_FORMS}; got {kind.removeprefix('torch.')} {list(shape)}: change words before they are embedded, "
            "a whole batch at a time"
        )
    if words.device.type != generator.device.type:
        raise WorkloadError(
            f"the words are on {words.device} and the generator is on {generator.device}: change what augment "
            "gets, on the device where it is"
        )
    least, most = _WHOLE[kind]
    if not least <= padding <= most:
        raise WorkloadError(
            f"padding={padding} is no number of {kind.removeprefix('torch.')}, which the words are: give the number "
            "that stands behind the words"
        )
    return _Words(words, generator, keep, padding)


def _tags(captions: Sequence[Any], generator: Any, keep: int) -> _Tags:
    for one in captions:
        if hasattr(one, "dtype"):
            lengths = sorted({len(one) if one.shape else 0 for one in captions if hasattr(one, "shape")})
            raise WorkloadError(
                f"{_FORMS}; got a list of tensors of {' and '.join(map(str, lengths[:3]))} words: {_PAD}"
            )
        if isinstance(one, str):
            raise WorkloadError(
                f"a caption is a list of tags, got the text {one!r:.60}: take texts apart first, "
                "[text.split(', ') for text in texts]"
            )
        if not isinstance(one, list | tuple):
            raise WorkloadError(f"a caption is a list of tags, got {type(one).__name__}: {_FORMS}")
        if not all(isinstance(tag, str) for tag in one):
            raise WorkloadError(f"{_FORMS}; got a list of {type(one[0]).__name__} for each caption: {_PAD}")
    return _Tags(captions, generator, keep)


_FORMS = "captions are whole numbers [captions, words] in one tensor, or a list of tags for each"
_PAD = "make one tensor of captions of different lengths with padded([...], value=padding), in collate() or in data()"
