"""The studies of sweeps as a reader wants them: attempts and their stages, not study after study."""

from collections.abc import Sequence

import pandas as pd

from tuner.analysis.fit_steps import fit_steps_frame
from tuner.analysis.sweep_outcome import sweep_outcome
from tuner.records.sweep_outcomes import Fitted, Invalid, SweepOutcome
from tuner.report.material import StudyMaterial
from tuner.report.tables import Column, Table
from tuner.report.wording import readable
from tuner.shown import counted

_STAGES = {
    "probe": "probe: does any rate fit in so many steps?",
    "lowest": "the lowest rates, since all probes diverged",
    "last": "last try around the best probe",
    "grid": "grid: every rate",
    "refined": "the fastest again, evaluated more often",
    "seeds": "the fastest with fresh seeds",
}


def attempts(stages: Sequence[StudyMaterial]) -> dict[str, tuple[StudyMaterial, ...]]:
    """The stages of each sweep by its name, the oldest first."""
    found: dict[str, tuple[StudyMaterial, ...]] = {}
    for stage in stages:
        name = "-".join(stage.study.name.split("-")[:2])
        found[name] = (*found.get(name, ()), stage)
    return found


def stages_table(stages: Sequence[StudyMaterial]) -> Table:
    """What each stage trained, in order."""
    titles = ("stage", "study", "steps each", "trials", "trained steps", "ended")
    columns = tuple(Column(title, numeric=title in titles[2:5]) for title in titles)
    return Table(columns, tuple(_stage_row(stage) for stage in stages))


def _stage_row(stage: StudyMaterial) -> tuple[str, ...]:
    trials, name = stage.frames.trials, stage.study.name
    kind = next((part for part in name.split("-") if part in _STAGES), "")
    return (
        _STAGES.get(kind, name),
        name,
        f"{stage.study.budget.max_train_steps:,}",
        f"{len(trials):,}",
        f"{trained_steps(trials):,}",
        ", ".join(f"{count} {state}" for state, count in trials["state"].value_counts().items()),
    )


def trained_steps(trials: pd.DataFrame) -> int:
    """Steps that the trials of a study trained themselves; the others were taken over."""
    return int(trials["steps"].sum() - trials["inherited"].sum())


def attempt_line(name: str, stages: Sequence[StudyMaterial]) -> str:
    """A sweep that another one followed, in a line: its grid, and what that grid says by itself."""
    trials = sum(len(stage.frames.trials) for stage in stages)
    steps = sum(trained_steps(stage.frames.trials) for stage in stages)
    cost = f"{counted(trials, 'trial')}, {counted(steps, 'step')}"
    rates = sorted({float(rate) for stage in stages for rate in stage.frames.trials["learning_rate"]})
    span = " to ".join(dict.fromkeys(readable(rate) for rate in (*rates[:1], *rates[-1:])))
    grid = f"{counted(len(rates), 'rate')}, {span}" if rates else "no rates"
    return f"{name}: {grid}; {_attempt_outcome(stages)} ({cost})."


def _attempt_outcome(stages: Sequence[StudyMaterial]) -> str:
    telling = next((stage for stage in stages if stage.study.name.endswith("-grid")), None)
    if any(stage.frames.trials["state"].isin(["waiting", "running"]).any() for stage in stages):
        return "it was not brought to its end"
    if telling is None:
        longest = max(stage.study.budget.max_train_steps for stage in stages)
        return f"no rate that was tried fitted in {counted(longest, 'step')}"
    return _outcome_words(sweep_outcome(fit_steps_frame(telling.frames), telling.study.budget.max_train_steps))


def _outcome_words(outcome: SweepOutcome) -> str:
    if isinstance(outcome, Fitted):
        return f"its grid fitted after {outcome.low:,} to {outcome.high:,} steps at {readable(outcome.learning_rate)}"
    if isinstance(outcome, Invalid):
        end = "highest" if outcome.direction == "upper" else "lowest"
        return f"its fastest rate was the {end}, {readable(outcome.learning_rate)}: invalid"
    return f"its grid did not fit in {counted(outcome.max_steps, 'step')}"
