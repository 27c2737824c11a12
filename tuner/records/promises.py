"""What may be relied on for trials, whoever trained them: the promises of an engine, as a launch records them."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from tuner.records.recorder import Price
from tuner.shown import in_html


@dataclass(frozen=True, slots=True)
class Promises:
    """What may be relied on for the trials of an engine. What an engine does not state is not promised.

    exact_resume: a trial that is stopped and resumed has the bits of one that ran through.
    prefixes: a saved state is a function of its `PrefixKey`, so that other trials may start from it.
    fusing: trials may be trained together as one stacked model.
    follows_schedule: the learning rate of each step is the one that the trial declares.
    deterministic: trained again from its seeds, a trial has the same curves.
    """

    exact_resume: bool = False
    prefixes: bool = False
    fusing: bool = False
    follows_schedule: bool = False
    deterministic: bool = False

    @property
    def missing(self) -> tuple[str, ...]:
        """What is not promised, in words."""
        return self.missing_of(_NOT_PROMISED)

    def missing_of(self, names: Iterable[str]) -> tuple[str, ...]:
        """Of the promises with these names those that are not given, in words."""
        return tuple(_NOT_PROMISED[name] for name in names if not getattr(self, name))

    @property
    def why_inexact(self) -> str:
        """How trials were trained that are not exact, in words that follow "trials" or "it was"."""
        if self.exact_resume:
            return "trained under more than one set of Numerics"
        return "trained by an engine that does not promise exact resume"

    def to_data(self) -> dict[str, bool]:
        """Plain data, by name."""
        return asdict(self)


SEEDS = "seeds change nothing"  # no promise, but with a reason like theirs: fresh seeds repeat the same training


@dataclass(frozen=True, slots=True)
class MeasuredPromises:
    """What may be relied on, and why not more: what was seen, in words, by the name of each promise not given."""

    promises: Promises = field(default_factory=Promises)
    why: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """What is not promised, by name. Not said: no loop trains as a stacked model."""
        missing = [name for name, given in asdict(self.promises).items() if not given and name != "fusing"]
        return (*missing, *[SEEDS] * (SEEDS in self.why))

    @property
    def weaker(self) -> str:
        """What follows for trials and why, in words; "" where nothing is to be said."""
        following: dict[str, list[str]] = {}
        for name in self.names:
            words = following.setdefault(self.why.get(name, ""), [])
            words.append(_NOT_PROMISED.get(name, name))
        return "; ".join(": ".join(filter(None, [_listed(words), why])) for why, words in following.items())

    def to_data(self) -> dict[str, Any]:
        """Plain data; `measured_from` reads it."""
        return {"promises": self.promises.to_data(), "why": dict(self.why)}


def measured_from(data: Mapping[str, Any]) -> MeasuredPromises:
    """The value that `MeasuredPromises.to_data` wrote."""
    return MeasuredPromises(promises_from(data["promises"]), dict(data["why"]))


def _listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


_NOT_PROMISED = {
    "exact_resume": "a resumed trial may differ from one that ran through",
    "prefixes": "trials share no first steps",
    "fusing": "trials are trained one by one",
    "follows_schedule": "the engine, not the study, decides the learning rate of each step",
    "deterministic": "the same seeds may give other curves",
}

EVERYTHING = Promises(**dict.fromkeys(_NOT_PROMISED, True))  # of launches that recorded none: our own trainer made them


def promises_from(data: object) -> Promises:
    """The promises that a launch recorded; all of them where it recorded none."""
    if not isinstance(data, Mapping):
        return EVERYTHING
    return Promises(**{field.name: data.get(field.name) is True for field in fields(Promises)})


def common_promises(given: Iterable[Promises]) -> Promises:
    """What all of these promise; everything where there are none."""
    every = list(given)
    return Promises(**{name: all(getattr(one, name) for one in every) for name in _NOT_PROMISED})


_GIVEN = {
    "deterministic": "the same seeds give the same curve",
    "exact_resume": "stopped and resumed, a trial has the curve of one that ran through",
    "prefixes": "longer trials may start from the first steps of shorter ones",
    "follows_schedule": "it trains at the learning rates of the study",
    "fusing": "trials may be trained together as one model",
}


@dataclass(frozen=True, slots=True, repr=False)
class EngineCheck:
    """What a check of a training has found, as `tuner.testing.check_engine` returns it.

    name: of the workload. promises: what may be relied on. why: why not more, by the name of what is not promised.
    problem: what is wrong, so that no study could be trained; "" where nothing is. unread: hyperparameters of the space
    that it never reads. price: of a step and an evaluation (milliseconds) and a checkpoint (bytes); None where it was
    not measured. seconds: that the check took. steps: updates of each look; 0 where nothing was trained.
    """

    name: str
    promises: Promises
    why: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""
    unread: tuple[str, ...] = ()
    price: Price | None = None
    seconds: float = 0.0
    steps: int = 0

    @property
    def ok(self) -> bool:
        """Whether a study of it can be trained; what is not promised only makes some answers weaker."""
        return not self.problem

    def require(self, *names: str) -> None:
        """Raise AssertionError where something is wrong, or one of these promises is not given, with the reason."""
        unknown = [name for name in names if name not in _GIVEN]
        if unknown:
            raise ValueError(f"there is no promise {unknown[0]!r}; there are {', '.join(_GIVEN)}")
        missing = [name for name in names if not getattr(self.promises, name)]
        if self.problem or missing:
            raise AssertionError("\n".join([self.problem] if self.problem else [self._line(name) for name in missing]))

    def __repr__(self) -> str:
        """As a terminal shows it: a line for each promise."""
        if self.problem:
            return f"{self.name}: checked in {self.seconds:.1f} s, and it cannot be trained\n  {self.problem}"
        price = self.price
        cost = "" if price is None else (
            f"; a step takes {price.step_ms:.3g} ms, an evaluation {price.evaluation_ms:.3g} ms, a checkpoint "
            f"{price.latest_bytes / 1e6:.3g} MB"
        )  # fmt: skip
        more = [f"  note: nothing reads the hyperparameter {name}" for name in self.unread]
        more += [f"  note: {self.why[SEEDS]}"] if SEEDS in self.why else []
        if self.steps:
            more.append(
                f"  note: seen in {self.steps} updates; what goes wrong later, as in a second epoch, is seen with "
                "check_engine(..., steps=400), more than an epoch has"
            )
        lines = [self._line(name) for name in _GIVEN if name != "fusing" or self.promises.fusing]
        return "\n".join([f"{self.name}: checked in {self.seconds:.1f} s{cost}", *lines, *more])

    def _repr_html_(self) -> str:
        """How a notebook shows it."""
        return f"<pre>{in_html(repr(self))}</pre>"

    def _line(self, name: str) -> str:
        given = bool(getattr(self.promises, name))
        words = _GIVEN[name] if given else ": ".join(filter(None, [_NOT_PROMISED[name], self.why.get(name)]))
        return f"  {'yes' if given else 'NO '}  {name:<16}  {words}"
