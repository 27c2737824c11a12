"""What first looks at a loop have shown: what it did in its first steps, and what may be relied on."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

from tuner.records import Promises
from tuner.sources.running import Seen


@dataclass(slots=True)
class FirstSteps:
    """What the loop did in its first steps. `state`: what it kept at the last of them, as a checkpoint holds it.

    curve: (updates, metric) to the value as hexadecimal. weights: a digest of what it kept of weights. read: what it
    asked the trial for; point_read: and the point. seconds: of the whole look.
    """

    curve: dict[tuple[int, str], str] = field(default_factory=dict)
    weights: str = ""
    read: set[str] = field(default_factory=set)
    point_read: set[str] = field(default_factory=set)
    state: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    step_seconds: float = 0.0
    latest_bytes: int = 0
    best_bytes: int = 0
    seen: Seen = field(default_factory=Seen)

    @property
    def curve_digest(self) -> str:
        """16 hex digits of the curve."""
        return hashlib.sha256(repr(sorted(self.curve.items())).encode()).hexdigest()[:16]


class Looks:
    """What this process knows of the loop of a workload: as a sweep trains (without regularization), and as rounds do.

    taken: by whether regularization is on, and by point. measured: what the looks, here or in the process that
    launched the study, found that may be relied on.
    """

    def __init__(self) -> None:
        self.taken: dict[tuple[bool, str], FirstSteps] = {}
        self.measured: dict[bool, Promises] = {}

    def promises(self, regularized: bool) -> Promises:
        """What may be relied on; nothing before a look."""
        return self.measured.get(regularized, Promises())
