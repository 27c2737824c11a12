"""What first looks at a loop have shown: what it did in its first steps, and what may be relied on."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tuner.design.hyperparameters import Value
from tuner.records import MeasuredPromises, Price, Promises
from tuner.sources.running import Seen

STEPS = (2, 4)  # [P]
SLOW_SECONDS = 60.0


@dataclass(slots=True)
class FirstSteps:
    """What the loop did in its first steps. `state`: what it kept at the last of them, as a checkpoint holds it.

    curve: (updates, metric) to the value as hexadecimal. weights: a digest of the weights of the modules that it keeps,
    "" of files. read: what it asked the trial for; point_read: and the point. times: seconds at which so many updates
    were made, for each call. seconds: of the whole look. seen: the code that ran.
    """

    curve: dict[tuple[int, str], str] = field(default_factory=dict)
    weights: str = ""
    read: set[str] = field(default_factory=set)
    point_read: set[str] = field(default_factory=set)
    state: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    times: list[tuple[int, float]] = field(default_factory=list)
    latest_bytes: int = 0
    best_bytes: int = 0
    seen: Seen = field(default_factory=Seen)

    @property
    def curve_digest(self) -> str:
        """16 hex digits of the curve."""
        return hashlib.sha256(repr(sorted(self.curve.items())).encode()).hexdigest()[:16]

    @property
    def reported(self) -> set[str]:
        """The names of the metrics that were reported."""
        return {name for _, name in self.curve}


class Looks:
    """What this process knows of the loop of a workload: as a sweep trains (without regularization), and as rounds do.

    taken: by whether regularization is on, and by point. points: where the loop can be looked at, by whether
    regularization is on. measured: what the looks, here or in the process that launched the study, found that may be
    relied on. prices: what a step, an evaluation and a checkpoint cost here. told: missing promises, as
    they were said. rejected: why the loop has rejected each point at which it was tried; "" where it has not.
    steps: the numbers of updates after which a look is evaluated; the last one ends it. slow_seconds: a look that took
    longer is taken once, and not three times more.
    """

    def __init__(self, steps: tuple[int, ...] = STEPS, slow_seconds: float = SLOW_SECONDS) -> None:
        self.steps = steps
        self.slow_seconds = slow_seconds
        self.taken: dict[tuple[bool, str], FirstSteps] = {}
        self.points: dict[bool, Mapping[str, Value]] = {}
        self.measured: dict[bool, MeasuredPromises] = {}
        self.prices: dict[bool, Price] = {}
        self.told: set[tuple[str, ...]] = set()
        self.rejected = ""

    def promises(self, regularized: bool) -> Promises:
        """What may be relied on; nothing before a look."""
        return self.measured[regularized].promises if regularized in self.measured else Promises()
