"""The seam between whoever trains and the supervisor: what an engine promises, and what it must be able to do."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Fusion:
    """How many trials train together as one stacked model, and why.

    ways: how each operation is run. seconds: of one step of one trial; 0 where it was not measured.
    probed: whether the answer holds for other studies with this shape group, too.
    """

    num_trials: int
    reason: str
    ways: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    probed: bool = False
