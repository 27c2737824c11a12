"""The newest stability study of a campaign, as frames: rates at and above the best one, then warmups (B36, B37)."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np
import pandas as pd

from tuner.analysis.frames import study_frames
from tuner.analysis.loss_rises import LossCurve, Signs, Yardstick, signs_of, yardstick
from tuner.analysis.noise import Array
from tuner.analysis.study_frames import StudyFrames
from tuner.design.objective import STEP_LOSS, STEP_NORM, Objective
from tuner.design.origin import promoted_from
from tuner.design.study import Study
from tuner.errors import StorageError
from tuner.records.conclusions import StabilityStudies
from tuner.storage.store import Ledger

KIND: Literal["stability"] = "stability"  # of its studies
SAME_RATE = 1e-9  # relative: rates that differ by less are one
PERCENTILE = 0.9  # [S] of the gradient norms: where clip_norm should be (B38)
RECENT = 0.5  # [P] of a trial at the best rate: its last part, whose norms are recent
FEWEST_NORMS = 20  # [P] that show which share of them is above a limit
EARLY = 0.1  # [S] of max_train_steps: the longest warmup that is tried (B37); what rises later, no warmup mends
_DIVERGED = re.compile(r"diverged at step (\d+)")


@dataclass(frozen=True, slots=True, eq=False)
class StabilityRecords:
    """What a stability study has trained.

    source: whose point it trained, like "round-1 trial 7". study: the study of that trial. best_rate: its rate.
    present_warmup: its warmup in steps. trials: one row a trial: part ("rate" or "warmup"), study, trial, rate,
    multiple (of the best rate), warmup_steps, seed, state, sign, onset (step), height. curves: one row an update:
    part, multiple, warmup_steps, seed, trial, step, loss, norm (NaN where it was not recorded).
    present_clip: clip_norm of the point; None where it has none.
    num_rates: so many rates were planned, with num_seeds each. against: what the curves were measured against; None
    where no trial at the best rate has finite losses.
    """

    source: str
    study: Study
    best_rate: float
    present_warmup: int
    trials: pd.DataFrame
    curves: pd.DataFrame
    num_rates: int
    num_seeds: int
    against: Yardstick | None
    present_clip: float | None = None

    @property
    def max_train_steps(self) -> int:
        """The budget of the trial whose point was trained."""
        return self.study.budget.max_train_steps

    @property
    def objective(self) -> Objective:
        return self.study.objective

    @property
    def longest_warmup(self) -> int:
        """A tenth of the budget: a longer warmup is not tried."""
        return int(EARLY * self.max_train_steps)

    @property
    def by_rate(self) -> pd.DataFrame:
        """One row a rate, ascending: multiple, rate, seeds, unstable (of the seeds), signs, onset (median), height."""
        return _grouped(self.trials[self.trials["part"] == "rate"], ["multiple", "rate"])

    @property
    def by_warmup(self) -> pd.DataFrame:
        """One row a warmup, the shortest first, with the columns of `by_rate`."""
        return _grouped(self.trials[self.trials["part"] == "warmup"], ["warmup_steps", "multiple", "rate"])

    @property
    def unfinished(self) -> int:
        """Trials that wait, train, or FAILED."""
        return int((~self.trials["state"].isin(["complete", "infeasible"])).sum())

    @property
    def unstable(self) -> pd.Series | None:
        """The lowest rate that is unstable with more than half of its seeds, as a row of `by_rate`.

        Where the loss rises at the best rate and no higher one makes that worse, the data are the reason, not the rate.
        """
        rates = self.by_rate
        mostly = rates[rates["unstable"] > rates["seeds"] / 2]
        return None if mostly.empty or self.rises_at_all_rates else mostly.iloc[0]

    @property
    def rises_at_all_rates(self) -> bool:
        """Whether the loss goes up at the best rate, with most seeds, and no more than that at each higher one."""
        rates = self.by_rate
        mostly = rates[rates["unstable"] > rates["seeds"] / 2]
        best = len(mostly) == 1 and abs(float(mostly.iloc[0]["multiple"]) - 1.0) < SAME_RATE
        return best and "diverged" not in str(mostly.iloc[0]["signs"]) and len(rates) == self.num_rates > 1

    @property
    def is_early(self) -> bool:
        """Whether the lowest unstable rate rises within the steps that a warmup may take."""
        row = self.unstable
        return row is not None and row["onset"] <= max(self.longest_warmup, 1)

    @property
    def shortest_warmup(self) -> int | None:
        """The shortest warmup with which no seed shows a sign of instability."""
        table = self.by_warmup
        calm = table[(table["unstable"] == 0) & (table["seeds"] >= self.num_seeds)]
        return None if calm.empty else int(calm.iloc[0]["warmup_steps"])

    def norms(self, multiple: float, until: float = np.inf) -> Array:
        """The gradient norms at a rate, before clipping, that are finite and of steps below `until`."""
        mine = self.curves[(self.curves["part"] == "rate") & _same(self.curves["multiple"], multiple)]
        norms = mine.loc[mine["step"] < until, "norm"].to_numpy(dtype=np.float64)
        return np.asarray(norms[np.isfinite(norms)])

    @property
    def recent_norms(self) -> Array:
        """Those of the last half of the steps at the best rate."""
        mine = self.curves[(self.curves["part"] == "rate") & _same(self.curves["multiple"], 1.0)]
        last = mine["step"] > (1.0 - RECENT) * (mine["step"].max() if len(mine) else 0)
        norms = mine.loc[last, "norm"].to_numpy(dtype=np.float64)
        return np.asarray(norms[np.isfinite(norms)])

    @property
    def clip_norm(self) -> float | None:
        """The 90th percentile of recent norms (B38); None where no norms were recorded."""
        return clip_norm_for(self.recent_norms)

    @property
    def next_clip_norm(self) -> float | None:
        """The limit to try next: `clip_norm`, or half of the present one where that is no higher (B38)."""
        limit, present = self.clip_norm, self.present_clip
        return limit if limit is None or present is None or present > limit else present / 2.0

    @property
    def clipped_above(self) -> float | None:
        """Of the updates at the lowest unstable rate, before it went up, the share above `next_clip_norm`."""
        limit, row = self.next_clip_norm, self.unstable
        if limit is None or row is None:
            return None
        norms = self.norms(float(row["multiple"]), float(row["onset"]))
        return float((norms > limit).mean()) if len(norms) >= FEWEST_NORMS else None


def clip_norm_for(norms: Array) -> float | None:
    """A limit that clips a tenth of gradients with these norms; None where there are too few."""
    return float(np.quantile(norms, PERCENTILE)) if len(norms) >= FEWEST_NORMS else None


def stability_records(ledger: Ledger, campaign: str) -> StabilityRecords:
    """The newest stability study of a campaign. Raises StorageError where none was trained."""
    concluded = ledger.conclusion(campaign, StabilityStudies)
    if concluded is None:
        raise StorageError(f"no stability study of {campaign!r} was trained yet; run: tuner stability STUDY_FILE")
    parts = [study_frames(ledger, campaign, name) for name in (concluded.rates, *concluded.warmups)]
    name, trial = parts[0].study.lineage[0]
    source = ledger.study(campaign, name)
    record = ledger.trial(source.study_id, int(trial.removeprefix("trial ")))
    warmup = record.schedule.warmup_steps if record.schedule else 0
    found = records_of(parts, source.study, f"{name} {trial}", record.point.number("learning_rate"), warmup)
    return replace(found, present_clip=record.point.number("clip_norm") if "clip_norm" in record.point else None)


def records_of(
    parts: Sequence[StudyFrames], source: Study, named: str, best_rate: float, present_warmup: int = 0
) -> StabilityRecords:
    """The records of a study of rates and of those of warmups."""
    traces = [_Trace(number, frames, best_rate) for number, frames in enumerate(parts)]
    rows = [row for trace in traces for row in trace.rows()]
    reference = [row.curve for row in rows if row.is_best_rate]
    try:
        against = yardstick(reference)
    except ValueError:
        against = None
    curves = [row.points() for row in rows]
    beside = {row.seed: row for row in rows if row.is_best_rate}
    rates = {row.multiple for row in rows if row.part == "rate"}
    seeds = {row.seed for row in rows if row.part == "rate"}
    return StabilityRecords(
        source=named,
        study=source,
        best_rate=best_rate,
        present_warmup=present_warmup,
        trials=pd.DataFrame([row.as_row(against, beside.get(row.seed)) for row in rows]),
        curves=pd.concat(curves, ignore_index=True),
        num_rates=len(rates),
        num_seeds=len(seeds),
        against=against,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Trained:
    """One trial: where it belongs, and its curve."""

    part: str
    study: str
    trial: int
    rate: float
    multiple: float
    warmup_steps: int
    seed: int
    state: str
    curve: LossCurve
    norms: Array

    @property
    def is_best_rate(self) -> bool:
        """Whether it trained at the best rate, against which the others are measured."""
        return self.part == "rate" and abs(self.multiple - 1.0) < SAME_RATE

    def signs(self, against: Yardstick | None, beside: Self | None = None) -> Signs:
        """beside: the trial at the best rate with the same seeds, which may be this one."""
        if against is not None and self.state in ("complete", "infeasible"):
            return signs_of(self.curve, against, None if beside is None or self.is_best_rate else beside.curve)
        diverged = self.curve.diverged_at
        return Signs("diverged", diverged, np.inf) if diverged is not None else Signs()

    def as_row(self, against: Yardstick | None, beside: Self | None = None) -> dict[str, object]:
        found = self.signs(against, beside)
        return {
            "part": self.part, "study": self.study, "trial": self.trial, "rate": self.rate, "multiple": self.multiple,
            "warmup_steps": self.warmup_steps, "seed": self.seed, "state": self.state, "sign": found.sign,
            "onset": np.nan if found.onset is None else float(found.onset), "height": found.height,
        }  # fmt: skip

    def points(self) -> pd.DataFrame:
        table = pd.DataFrame({"step": self.curve.steps, "loss": self.curve.losses, "norm": self.norms})
        return table.assign(
            part=self.part, multiple=self.multiple, warmup_steps=self.warmup_steps, seed=self.seed, trial=self.trial
        )[["part", "multiple", "warmup_steps", "seed", "trial", "step", "loss", "norm"]]


@dataclass(frozen=True, slots=True, eq=False)
class _Trace:
    """A study of the stability study; number 0 is that of the rates."""

    number: int
    frames: StudyFrames
    best_rate: float

    def rows(self) -> Iterator[_Trained]:
        frames = self.frames
        loss, sign = training_loss(frames)
        curves = dict(iter(frames.curves.groupby(["trial", "metric"], observed=True)))
        nothing, seeds = frames.curves.head(0), list(dict.fromkeys(frames.trials["seed"]))
        for row in frames.trials.to_dict("records"):
            number = int(row["trial"])
            losses, norms = (curves.get((number, name), nothing) for name in (loss, str(STEP_NORM)))
            steps = losses["step"].to_numpy(dtype=np.float64)
            by_step = norms.set_index("step")["value"]
            origin, schedule = promoted_from(str(row["origin"])), frames.schedules.get(number)
            multiple = origin.rate if origin else np.nan
            diverged = _DIVERGED.match(str(row["reason"]))
            at = int(diverged[1]) if diverged else int(row["steps"]) if row["state"] == "infeasible" else None
            yield _Trained(
                part="warmup" if self.number else "rate",
                study=frames.study.name,
                trial=number,
                rate=multiple * self.best_rate,
                multiple=multiple,
                warmup_steps=schedule.warmup_steps if schedule else 0,
                seed=seeds.index(row["seed"]),
                state=str(row["state"]),
                curve=LossCurve(steps, sign * losses["value"].to_numpy(dtype=np.float64), at),
                norms=np.asarray(by_step.reindex(steps).to_numpy(dtype=np.float64)),
            )


def training_loss(frames: StudyFrames) -> tuple[str, float]:
    """The metric that shows the training loss, and the sign that makes less of it better.

    The loss of each update; of a loop that trains itself what it reports of the training split: "training/loss", or
    the metric that trials are selected by.
    """
    selected = frames.study.objective.measured.on("training")
    for metric in (str(STEP_LOSS), "training/loss"):
        if metric in frames.metrics:
            return metric, 1.0
    return str(selected), frames.study.objective.sign


def _same(multiples: pd.Series, multiple: float) -> pd.Series:
    return (multiples - multiple).abs() <= SAME_RATE * multiple


def _grouped(trials: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    finished = trials[trials["state"].isin(["complete", "infeasible"])]
    rows = []
    for values, mine in finished.groupby(keys, sort=True):
        named = dict(zip(keys, values if isinstance(values, tuple) else (values,), strict=True))
        shown = mine[mine["sign"] != ""]
        rows.append({
            **named, "seeds": len(mine), "unstable": len(shown), "signs": ", ".join(sorted(set(shown["sign"]))),
            "onset": float(shown["onset"].median()) if len(shown) else np.nan, "height": float(mine["height"].max()),
        })  # fmt: skip
    return pd.DataFrame(rows, columns=[*keys, "seeds", "unstable", "signs", "onset", "height"])
