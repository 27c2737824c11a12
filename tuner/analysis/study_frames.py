"""A study as two frames, from which every question is answered, wherever the study was run."""

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from tuner.budget.schedules import Schedule
from tuner.design.hyperparameters import Choice, Condition, fulfils
from tuner.design.names import EMA_STEPS, Name
from tuner.design.optimizers import is_known, optimizer_of
from tuner.design.study import Study
from tuner.records import STOPPED_EARLY, GroupRecord, Numerics, Promises
from tuner.records.promises import EVERYTHING, SEEDS
from tuner.shown import in_html, shown

PRUNED = "pruned"  # how the reason begins of a cancelled trial that a pruner ended elsewhere


_COPIES = (
    "Seeds have no effect on this training, so trials with fresh seeds are copies of one: nothing tells how much "
    "results vary"
)


@dataclass(frozen=True, slots=True, repr=False)
class StudyFrames:
    """`study` and its records.

    trials: one row a trial, sorted by number. Columns: `design.names.TRIAL_COLUMNS`, which are trial (number), state
        ("complete", ...), reason, origin, seed, data_seed, steps (last recorded step), inherited (those of them taken
        over from another trial), exact (trained under one set of Numerics), attempt, numerics (the place of those that
        it was trained under last in `numerics`, from 1; <NA> where none are known), parameter_groups (in words, empty
        where all parameters are trained alike or nothing was recorded), best_value and best_step
        (retrospective selection by the study's objective; NaN and <NA> where no finite value exists), last_value (at
        the last evaluation); then one column for every hyperparameter by canonical name. Where it does not exist in
        that branch the cell is NaN; None is the value of a choice that has it (`exists` tells the two apart).
    curves: long form, one row a measurement: trial, step, metric, value; sorted by trial, metric, step.
    schedules: the learning rate schedule that each trial was trained with, by number. It is not derived again from
        the declaration: a promoted trial's schedule was carried over, a searched decay differs from trial to trial. An
        imported trial has none where its schedule is not known.
    numerics: the sets of Numerics that trials were trained under, by the number of their first trial.
    promises: what may be relied on for the trials, by the launches that trained them. weaker: what not, and why.
    groups: the groups of each trial's parameters, by number; none where all are trained alike or nothing was recorded.
    """

    study: Study
    trials: pd.DataFrame
    curves: pd.DataFrame
    schedules: Mapping[int, Schedule] = field(default_factory=dict)
    promises: Promises = EVERYTHING
    groups: Mapping[int, tuple[GroupRecord, ...]] = field(default_factory=dict)
    weaker: str = ""
    numerics: tuple[Numerics, ...] = ()
    # What several questions compute from these frames, which do not change; a copy with other frames begins empty.
    memo: dict[Hashable, object] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __repr__(self) -> str:
        """One line: name, length, and how many trials are in which state."""
        states = ", ".join(f"{count} {state}" for state, count in self.trials["state"].value_counts().items())
        return shown(f"<{self.study.name}: {self.study.budget.max_train_steps:,} steps; {states or 'no trials'}>")

    def _repr_html_(self) -> str:
        """How a notebook shows the study: its declaration, how its trials ended, and the best of them."""
        study = self.study
        states = ", ".join(f"{count} {state}" for state, count in self.trials["state"].value_counts().items())
        ascending = study.objective.direction == "minimize"
        best = self.selectable.sort_values("best_value", ascending=ascending, kind="stable").head(5)
        table = best[["trial", "best_value", "best_step", *self.hyperparameters]]
        return (
            f"<div><b>{in_html(study.name)}</b>: {in_html(study.goal)}<br>{in_html(study.objective.direction)} "
            f"{in_html(study.objective.metric)}, {study.budget.max_train_steps:,} steps; "
            f"{in_html(states or 'no trials')}{table_in_html(table)}</div>"
        )

    def curve(self, trial: int, metric: str) -> pd.DataFrame:
        """Steps and values of one metric of one trial."""
        mine = self.curves[self.curves["trial"] == trial]
        mine = mine[mine["metric"] == metric]
        return mine[["step", "value"]].reset_index(drop=True)

    @property
    def metrics(self) -> frozenset[str]:
        """Everything that was measured for any trial."""
        return frozenset(self.curves["metric"].unique())

    @property
    def complete(self) -> pd.DataFrame:
        """Trials that ran their whole budget and have a finite best value: verdicts are about these (D11)."""
        found = self.selectable
        return found[~self.stopped_early(found)]

    @property
    def selectable(self) -> pd.DataFrame:
        """Complete trials with a finite best value, those that stopped early too: the winner is among these (A12)."""
        trials = self.trials
        return trials[(trials["state"] == "complete") & trials["best_value"].notna()]

    def stopped_early(self, rows: pd.DataFrame | None = None) -> pd.Series:
        """Of rows of `trials` (all of them) those that are complete before the end of the budget (`patience_steps`).

        They are censored: a longer training might have improved again, so no verdict about steps rests on them.
        """
        rows = self.trials if rows is None else rows
        return (rows["state"] == "complete") & rows["reason"].astype(str).str.startswith(STOPPED_EARLY)

    @property
    def stops_early(self) -> bool:
        """Whether trials stop early here: so it is declared, or so the records of another storage say."""
        return bool(self.study.patience_steps) or bool(self.stopped_early().any())

    @property
    def unfinished(self) -> int:
        """How many trials are waiting or running."""
        return int(self.trials["state"].isin(["waiting", "running"]).sum())

    @property
    def pruned(self) -> pd.DataFrame:
        """Trials that a pruner ended before the end of the budget."""
        trials = self.trials
        by_pruner = trials["reason"].astype(str).str.startswith(PRUNED)
        return trials[(trials["state"] == "cancelled") & by_pruner]

    def known_schedules(self, trials: Iterable[int]) -> list[Schedule]:
        """The schedules of these trials, as far as they are known."""
        return [self.schedules[trial] for trial in trials if trial in self.schedules]

    def ends_at_zero(self, trials: Iterable[int]) -> bool | None:
        """Whether the rate of some of these trials decays to (almost) zero; None where nothing is known of it."""
        if self.study.schedule.kind.falls:  # trained elsewhere, and its log shows that the rate falls
            return True
        known = self.known_schedules(trials)
        return any(schedule.ends_at_zero for schedule in known) if known else None

    def averages_late(self, trials: Iterable[int]) -> bool:
        """Whether some of these trials evaluate averages over more steps than lie between two evaluations.

        An average is where the weights were, so its best step is late by about as many steps.
        """
        rows = self.trials[self.trials["trial"].isin(list(trials))]
        return any(self._average_steps(row) > self.study.budget.evaluate_every for row in rows.to_dict("records"))

    def _average_steps(self, row: Mapping[Hashable, Any]) -> float:
        """The steps over which a trial averages; infinite where its optimizer averages over all, 0 where none are."""
        study = self.study
        fixed = {Name.of(name): constant.value for name, constant in study.fixed}
        optimizer = row.get("optimizer", fixed.get(Name.of("optimizer"), study.optimizer))
        if isinstance(optimizer, str) and is_known(optimizer) and optimizer_of(optimizer).averages:
            return math.inf
        own = [value for name, value in fixed.items() if name.short == EMA_STEPS and name.branch in ("", optimizer)]
        steps = [study.ema_steps, *own, *(row[h.name] for h in study.hyperparameters if h.short_name == EMA_STEPS)]
        return max((one for one in steps if isinstance(one, int | float) and one > 0), default=0)  # NaN: not there

    def where(self, rows: pd.DataFrame, condition: Condition | None) -> pd.Series:
        """Of rows of `trials` those in which a condition holds; without one all of them."""
        if condition is None:
            return pd.Series(True, index=rows.index)
        column = rows[condition[0]]
        values = column.astype(object).where(column.notna(), None).tolist()
        holds = pd.Series([fulfils(condition, value) for value in values], index=rows.index, dtype=bool)
        return holds & self.exists_in(rows, condition[0])

    def exists_in(self, rows: pd.DataFrame, name: str) -> pd.Series:
        """Of rows of `trials` those that have hyperparameter `name`; None may be a choice, and is one then."""
        mine = next(h for h in self.study.hyperparameters if h.name == name)
        if isinstance(mine.domain, Choice) and None in mine.domain.choices:
            return self.where(rows, mine.condition if mine.condition and mine.condition[0] != name else None)
        return rows[name].notna()

    @property
    def copies(self) -> tuple[str, ...]:
        """What to know where fresh seeds give the same training again; nothing where they give another one."""
        return (_COPIES,) if SEEDS in self.weaker else ()

    @property
    def hyperparameters(self) -> list[str]:
        """Canonical names of what varies, in declared order."""
        return [hyperparameter.name for hyperparameter in self.study.hyperparameters]


WITHOUT_STOPPING = "The rounds before answer it; to ask it of this round, leave patience_steps out."


def stopping_words(frames: StudyFrames) -> str:
    """Why no verdict about steps rests on the trials of a study with early stopping, as the begin of a sentence."""
    stopped = int(frames.stopped_early().sum())
    patience = frames.study.patience_steps
    return (
        f"{stopped} of {len(frames.selectable)} completed trials stopped early"
        f"{f' (patience_steps={patience:,})' if patience else ''}: trials of this round are not equally long, and what "
        "more steps would have given is not known"
    )


def table_in_html(frame: pd.DataFrame) -> str:
    """A frame as a notebook shows it, whatever its names and cells hold."""
    plain = frame.map(lambda value: shown(value) if isinstance(value, str) else value)
    return str(plain.rename(columns=lambda name: shown(str(name))).to_html(index=False, escape=True, border=0))


TOP = 3


def ranked_trials(frames: StudyFrames) -> pd.DataFrame:
    """Completed trials, best first; equal values keep the order of their numbers. For verdicts: see `ranked_results`"""
    return _ranked(frames, frames.complete)


def ranked_results(frames: StudyFrames) -> pd.DataFrame:
    """The same with the trials that stopped early: for what is selected, listed and drawn."""
    return _ranked(frames, frames.selectable)


def _ranked(frames: StudyFrames, rows: pd.DataFrame) -> pd.DataFrame:
    ascending = frames.study.objective.direction == "minimize"
    return rows.sort_values("best_value", ascending=ascending, kind="stable").reset_index(drop=True)


MINIMUM_COMPLETE = 5  # [P] completed trials below which a study shows nothing as a whole
