"""Which trials were trained under which Numerics, and what a comparison between them is worth."""

from collections.abc import Iterable, Sequence

from tuner.analysis.study_frames import StudyFrames
from tuner.records import Numerics, TrialRecord
from tuner.shown import counted

_CROSSES = "a comparison between them crosses machines, where rounding alone may move a result as another seed does"


def numerics_sets(records: Iterable[TrialRecord]) -> tuple[tuple[Numerics, ...], list[int | None]]:
    """The sets of Numerics in the order of the records, and of each record the number of its set, from 1.

    None: of a trial that was not trained, or elsewhere. What one of two does not say is no difference between them.
    """
    sets: list[Numerics] = []
    known: dict[str, int] = {}
    numbers: list[int | None] = []
    for record in records:
        if record.numerics is None:
            numbers.append(None)
            continue
        text = record.numerics.canonical
        if text not in known:
            same = (place for place, one in enumerate(sets, 1) if not one.differences(record.numerics))
            known[text] = next(same, len(sets) + 1)
            sets += [record.numerics] * (known[text] > len(sets))
        numbers.append(known[text])
    return tuple(sets), numbers


def crossing_words(frames: StudyFrames) -> str:
    """How many trials of a study were trained under which Numerics, as words behind "trained"; "" under one set."""
    return _words(frames.numerics, frames.trials["numerics"].dropna().tolist())


def crossing_of(records: Iterable[TrialRecord]) -> str:
    """The same of trials of several studies."""
    sets, numbers = numerics_sets(records)
    return _words(sets, [number for number in numbers if number is not None])


def _words(sets: Sequence[Numerics], numbers: Sequence[int]) -> str:
    if len(sets) < 2:
        return ""
    told = [f"{counted(numbers.count(1), 'trial')} under set 1"]
    for number, one in enumerate(sets[1:], 2):
        told.append(f"{numbers.count(number)} under set {number} ({'; '.join(one.differences(sets[0]))})")
    return f"under {len(sets)} sets of Numerics, {', '.join(told)}: {_CROSSES}"


def other_than_before(before: StudyFrames, frames: StudyFrames) -> str:
    """What is new in the Numerics of a study against those of the study before, in words; "" for nothing."""
    return _new(before.numerics, frames.numerics)


def _new(before: Sequence[Numerics], now: Sequence[Numerics]) -> str:
    for one in now if before else ():
        different = [one.differences(other) for other in before]
        if all(different):
            return min(map("; ".join, different), key=len)
    return ""
