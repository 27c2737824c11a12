"""Learning rate schedules on one pair of axes: how a longer round uses its extra steps (A35, A40-A42)."""

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tuner.analysis.study_frames import TOP, StudyFrames, ranked_results
from tuner.budget.schedules import Schedule
from tuner.design.names import Name
from tuner.plots import theme
from tuner.plots.plot import CampaignPlot, Drawn

MOST_STEPS = 2000  # a longer schedule is drawn at this many steps, and at the ends of its pieces
Based = Mapping[str, tuple[Schedule, float]]  # schedules with their base rates, by the label of their line


def base_rate(frames: StudyFrames, trial: int) -> float:
    """The base learning rate of a trial: searched, of the branch that the trial is in, or fixed.

    1 where the point has no learning rate, so that the plot shows fractions of it.
    """
    row = frames.trials[frames.trials["trial"] == trial].iloc[0]
    searched = [row[name] for name in frames.hyperparameters if Name.of(name).short == "learning_rate"]
    branches = {str(Name(str(row["optimizer"]), "learning_rate"))} if "optimizer" in row else set()
    fixed = [one.value for name, one in frames.study.fixed if name in branches | {"learning_rate"}]
    known = [rate for rate in (*searched, *fixed) if isinstance(rate, int | float) and not math.isnan(rate)]
    return float(known[0]) if known else 1.0


def schedules_frame(schedules: Based) -> pd.DataFrame:
    """Long form. Columns: schedule (its label), step (counted from 0), learning_rate."""
    parts = []
    for name, (schedule, base) in schedules.items():
        steps = _steps(schedule)
        rates = [base * schedule.fraction(step) for step in steps]
        parts.append(pd.DataFrame({"schedule": name, "step": steps, "learning_rate": rates}))
    columns = ["schedule", "step", "learning_rate"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def schedules_plot(table: pd.DataFrame, *, title: str = "Learning rate schedules", reason: str = "") -> Figure:
    """One line for each schedule; lines differ by colour and dash. `table`: the frame that `schedules_frame` returns.

    `reason`: the sentence in place of the lines where there are none; without one it is that of the plot's record.
    """
    figure = theme.new_figure(7.0, 3.6, title)
    if table.empty:
        return theme.empty(figure, reason or SCHEDULES.absent)
    axes = figure.add_subplot()
    theme.style(axes, x="step", y="learning rate")
    for place, (name, line) in enumerate(table.groupby("schedule", sort=False)):
        color, dash = theme.SERIES[place % len(theme.SERIES)], theme.DASHES[place % len(theme.DASHES)]
        axes.plot(
            line["step"], line["learning_rate"], color=color, linestyle=dash, linewidth=1.8, label=str(name)
        )  # fmt: skip
    axes.set_ylim(bottom=0.0)
    axes.set_xlim(0.0, float(table["step"].max()) + 1.0)
    theme.legend(axes, above=True, columns=3)
    return figure


def _steps(schedule: Schedule) -> list[int]:
    """Every step; of a long schedule some of them, and the first and last step of each piece."""
    if len(schedule) <= MOST_STEPS:
        return list(range(len(schedule)))
    ends = list(accumulate(piece.steps for piece in schedule.pieces))
    spread = np.linspace(0, len(schedule) - 1, MOST_STEPS).round().astype(int).tolist()
    return sorted({*spread, *(end - 1 for end in ends), *ends[:-1]})


def _draw(rounds: Sequence[StudyFrames]) -> Drawn:
    """The best trials of one study, or the best trial of each of several, with the schedules that were trained."""
    title = f"Learning rate schedules{f' of {rounds[0].study.name}' if len(rounds) == 1 else ''}"
    known = [frames for frames in rounds if not frames.study.schedule.kind.unknown and _follows(frames)]
    if rounds and not known:
        table = schedules_frame({})
        return schedules_plot(table, title=title, reason=_unknown(rounds[-1])), table
    based: dict[str, tuple[Schedule, float]] = {}
    for frames in known:
        for trial in ranked_results(frames)["trial"].head(TOP if len(rounds) == 1 else 1):
            if trial in frames.schedules:
                base, study = base_rate(frames, trial), f"{frames.study.name} " if len(rounds) > 1 else ""
                based[f"{study}trial {trial}: {base:.3g}{_stopped(frames, trial)}"] = frames.schedules[trial], base
    table = schedules_frame(based)
    return schedules_plot(table, title=title), table


def _stopped(frames: StudyFrames, trial: int) -> str:
    """Where the training ended that has this schedule, if that was early."""
    row = frames.trials[(frames.trials["trial"] == trial) & frames.stopped_early()]
    return f", stopped early at {int(row['steps'].iloc[0]):,}" if len(row) else ""


def _follows(frames: StudyFrames) -> bool:
    return frames.promises.follows_schedule


def _unknown(frames: StudyFrames) -> str:
    unknown = frames.study.schedule.kind.unknown
    if not frames.study.source:
        return f"The learning rates of {frames.study.name} are those of the training itself, which are not recorded."
    return f"{frames.study.name} was trained elsewhere, and its learning rate schedule is {unknown}."


SCHEDULES = CampaignPlot(
    name="schedules",
    title="Learning rate schedules",
    caption="The learning rate at each step of the best trial of each round, as it was trained.",
    absent="No complete trial has a schedule yet.",
    place=60,
    draw=_draw,
)
