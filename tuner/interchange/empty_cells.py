"""Empty cells of a history: not measured there, or how a tool writes the NaN of a run that diverged (D27).

Loggers put the metrics of training and validation into rows of their own, and leave the other cells empty. pandas
writes NaN as an empty cell. Beside finite values an empty cell is no measurement; where a curve ends in nothing but
empty cells, both can be true, and only the person who made the table knows.
"""

import numpy as np
import pandas as pd

from tuner.errors import DeclarationError
from tuner.shown import counted

READINGS = ("not-measured", "diverged")
MOST = 0.5  # of the runs: where more curves end in empty cells, the reading decides what the study says


def without_empty(
    curves: pd.DataFrame, metric: str, reading: str | None, notes: list[str], *, known: bool = False
) -> pd.DataFrame:
    """`curves` (run, step, metric, value, empty) without its empty cells; those that mean a divergence become NaN.

    `metric` is the one that selects. `reading`: one of READINGS, or None for where nobody said. `known`: a logger
    wrote the table that writes nan where it means it. Raises DeclarationError where only the user can know.
    """
    if reading is not None and reading not in READINGS:
        raise DeclarationError(f"--empty is one of {', '.join(READINGS)}, got {reading!r:.80}")
    empty = curves["empty"].to_numpy(dtype=bool)
    if not empty.any():
        return curves
    ending = _ending(curves) & ~(known and reading is None)
    mine = curves["metric"] == metric
    doubtful = curves.loc[ending & mine, "run"].nunique()
    if reading is None and doubtful > MOST * curves.loc[mine, "run"].nunique():
        raise DeclarationError(
            f"{doubtful} of {curves.loc[mine, 'run'].nunique()} curves of {metric} end in empty cells, and an empty "
            "cell can mean that nothing was measured or that the value was NaN; say which: --empty not-measured or "
            "--empty diverged"
        )
    diverged = ending if reading == "diverged" else ending & False
    dropped = curves["empty"] & ~diverged
    if dropped.any():
        notes.append(f"{counted(int(dropped.sum()), 'empty cell')} left out, as not measured")
    if diverged.any():
        notes.append(
            f"{counted(int(diverged.sum()), 'empty cell')} at the ends of curves taken as NaN (--empty diverged)"
        )
    elif doubtful and reading is None:
        notes.append(
            f"the curves of {counted(doubtful, 'trial')} end in empty cells, taken as not measured; --empty diverged "
            "takes such cells as NaN"
        )
    return curves[~dropped].reset_index(drop=True)


def _ending(curves: pd.DataFrame) -> pd.Series:
    """The empty cells with which a curve ends although it was due: at least one of its own intervals after its last
    value, while nothing else of the run was measured to be finite.
    """
    keys = [curves["run"], curves["metric"]]
    measured = curves["step"].where(~curves["empty"])
    last = measured.groupby(keys).transform("max").fillna(-1)
    interval = _longest_gap(curves)
    due = last + interval
    alive = curves["step"].where(np.isfinite(curves["value"])).groupby(curves["run"]).transform("max").fillna(-1)
    farthest = curves["step"].where(curves["empty"]).groupby(keys).transform("max")
    return curves["empty"] & (curves["step"] > last) & (farthest >= due) & (alive < due)


def _longest_gap(curves: pd.DataFrame) -> pd.Series:
    """For every row the longest distance of measurements of its curve; that of the metric where it has only one."""
    there = curves[~curves["empty"]].sort_values("step", kind="stable")
    gaps = there.groupby(["run", "metric"])["step"].diff()
    longest = gaps.groupby([there["run"], there["metric"]]).max().rename("gap").reset_index()
    of_metric = longest.groupby("metric")["gap"].median().rename("usual")
    found = curves[["run", "metric"]].merge(longest, how="left", on=["run", "metric"])
    gap = found["gap"].fillna(found["metric"].map(of_metric)).fillna(1.0)
    return pd.Series(gap.to_numpy(), index=curves.index)
