"""Where on a hyperparameter's range the good trials lie, and whether two rounds agree about it (A30, A36, D25)."""

from dataclasses import dataclass

import numpy as np

from tuner.analysis.evidence import MINIMUM_COMPLETE
from tuner.analysis.good_trials import good_trials
from tuner.analysis.positions import unit_positions
from tuner.analysis.study_frames import StudyFrames
from tuner.design.hyperparameters import Range

WIDE = 0.60  # [P] of the range: good trials lie everywhere, the hyperparameter hardly matters


@dataclass(frozen=True, slots=True)
class Region:
    """The values of the good trials, from `low` to `high`, and of the best; positions are in units of the range."""

    low: float
    high: float
    best: float
    positions: tuple[float, float, float]

    @property
    def is_wide(self) -> bool:
        return self.positions[1] - self.positions[0] > WIDE

    @property
    def words(self) -> str:
        return f"{self.low:.3g} to {self.high:.3g}, best at {self.best:.3g}"


def best_region(frames: StudyFrames, name: str, domain: Range) -> Region | None:
    """The region of the good trials, in units of `domain`; None where too few trials have completed."""
    if name not in frames.trials or frames.complete[name].notna().sum() < MINIMUM_COMPLETE:
        return None
    good = good_trials(frames)
    good = good[good[name].notna()]
    if good.empty or frames.complete[name].nunique() < MINIMUM_COMPLETE:
        return None
    values = good[name].to_numpy(dtype=np.float64)
    units = unit_positions(good[name], domain)
    place = (float(units.min()), float(units.max()), float(units[0]))
    return Region(float(values.min()), float(values.max()), float(values[0]), place)


def agreement(before: Region, after: Region) -> str:
    """confirmed: each round's best lies in the other's region; rejected: the regions do not meet."""
    (low, high, best), (later_low, later_high, later_best) = before.positions, after.positions
    if later_low > high or later_high < low:
        return "rejected"
    inside = low <= later_best <= high and later_low <= best <= later_high
    return "confirmed" if inside else "unconfirmed"
