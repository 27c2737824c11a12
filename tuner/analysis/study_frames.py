"""A study as two frames: what every question of `analysis` is asked of, wherever the study was run."""

from dataclasses import dataclass
from html import escape

import pandas as pd

from tuner.design.study import Study


@dataclass(frozen=True, slots=True)
class StudyFrames:
    """`study` and its records.

    trials: one row a trial, sorted by number. Columns: `design.trial.TRIAL_COLUMNS`, which are trial (number), state
        ("complete", ...), reason, origin, seed, data_seed, steps (last recorded step), inherited (those of them taken
        over from another trial), exact (trained under one set of Numerics), attempt, best_value and best_step
        (retrospective selection by the study's objective; NaN and <NA> where no finite value exists), last_value (at
        the last evaluation); then one column for every hyperparameter by canonical name, NaN/None where it does not
        exist in that branch.
    curves: long form, one row a measurement: trial, step, metric, value; sorted by trial, metric, step.
    """

    study: Study
    trials: pd.DataFrame
    curves: pd.DataFrame

    def _repr_html_(self) -> str:
        """How a notebook shows it: what it is, how its trials ended, and the best of them."""
        study = self.study
        states = ", ".join(f"{count} {state}" for state, count in self.trials["state"].value_counts().items())
        ascending = study.objective.direction == "minimize"
        best = self.complete.sort_values("best_value", ascending=ascending, kind="stable").head(5)
        shown = best[["trial", "best_value", "best_step", *self.hyperparameters]]
        return (
            f"<div><b>{escape(study.name)}</b>: {escape(study.goal)}<br>{escape(study.objective.direction)} "
            f"{escape(study.objective.metric)}, {study.budget.max_train_steps:,} steps; {escape(states or 'no trials')}"
            f"{shown.to_html(index=False, escape=True, border=0)}</div>"
        )

    def curve(self, trial: int, metric: str) -> pd.DataFrame:
        """Steps and values of one metric of one trial."""
        mine = self.curves[self.curves["trial"] == trial]
        mine = mine[mine["metric"] == metric]
        return mine[["step", "value"]].reset_index(drop=True)

    @property
    def metrics(self) -> frozenset[str]:
        """What was measured, of any trial."""
        return frozenset(self.curves["metric"].unique())

    @property
    def complete(self) -> pd.DataFrame:
        """Trials that ran their whole budget and have a finite best value: what verdicts speak about (D11)."""
        trials = self.trials
        return trials[(trials["state"] == "complete") & trials["best_value"].notna()]

    @property
    def hyperparameters(self) -> list[str]:
        """Canonical names of what varies, in declared order."""
        return [hyperparameter.name for hyperparameter in self.study.hyperparameters]
