"""Is the best learning rate at the edge of the divergent region (B23, D4)? Then instability limits it (B36)."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tuner.analysis.finding import Finding, Question, Verdict
from tuner.analysis.learning_rates import is_learning_rate
from tuner.analysis.noise import Array
from tuner.analysis.questions.infeasible import ran_out_of_memory
from tuner.analysis.study_frames import StudyFrames, ranked_trials
from tuner.design.hyperparameters import Range

NEAR = 5.0  # [P] the best learning rate within this factor of the first divergent one (B23)
DIVERGENT = 0.8  # [P] share of infeasible trials at and above the first divergent learning rate
CHANCE = 0.01  # [P] that trials which crash anywhere make so large a region: above it there is none
DRAWS = 499  # orders drawn at random that the real one is compared with
MINIMUM_INFEASIBLE = 2  # [P] infeasible trials that make a region

QUESTION = Question(
    name="instability",
    sentence="Is the best learning rate at the edge of stability?",
    order=130,
    verdicts=(
        Verdict("ok", "fine"),
        Verdict(
            "likely_instability",
            "act",
            "Train the best configuration at rates above its own, and find the shortest warmup that is stable: `tuner "
            "stability STUDY_FILE`. Then try gradient clipping or a more stable architecture, before a lower learning "
            "rate (B36-B39).",
        ),
        Verdict("inconclusive", "open", "Search a learning rate, and complete more trials just above the best one."),
    ),
    thresholds={
        "near": NEAR,
        "divergent_share": DIVERGENT,
        "chance": CHANCE,
        "minimum_infeasible": MINIMUM_INFEASIBLE,
    },
    needs=("search",),
    ask=lambda frames: instability_finding(frames),
    plot="axes",
    rules=("B23", "B36", "B37", "B38", "B39", "D4"),
    uneven="few trials lie where trials diverge",
    pruned="whether they would have diverged is not known",
)
_MORE_ABOVE = "Complete more trials at learning rates just above the best one, then ask again."
_COLUMNS = [
    "hyperparameter", "best", "divergent_from", "ratio", "ratio_low", "infeasible", "trials_above", "sure",
]  # fmt: skip


def instability_frame(frames: StudyFrames) -> pd.DataFrame:
    """One row a learning rate (one a branch): where it diverges, and how far above the best that is.

    Columns: hyperparameter, best (of the best trial that has it), divergent_from (the lowest learning rate above it
    from which on nearly all trials are infeasible; NaN where there is no such region), ratio (of the two, above 1),
    ratio_low (of the highest rate that completed below it: the edge lies between), infeasible and trials_above (counts
    in that region), sure (that trials which crash anywhere would seldom make so large a region).
    """
    return pd.DataFrame(list(_rows(frames)), columns=_COLUMNS)


def instability_finding(frames: StudyFrames) -> Finding:
    """likely_instability, ok, or inconclusive where no learning rate is searched or nothing completed."""
    table = instability_frame(frames)
    sure = table["sure"].astype(bool)
    known = table[table["best"].notna()]
    verdict = "ok" if len(known) else "inconclusive"
    if (sure & (table["ratio"] <= NEAR)).any():
        verdict = "likely_instability"
    elif (table["ratio_low"] <= NEAR).any():
        verdict = "inconclusive"
    found = QUESTION.answer(frames.study.name, verdict, _summary(table), table)
    return replace(found, action=_MORE_ABOVE) if verdict == "inconclusive" and len(table) else found


def _rows(frames: StudyFrames) -> Iterator[tuple[object, ...]]:
    ranked = ranked_trials(frames)
    finished = frames.trials[frames.trials["state"].isin(["complete", "infeasible"])]
    finished = finished[~ran_out_of_memory(finished)]  # too large for the machine: no divergence
    for hyperparameter in frames.study.hyperparameters:
        name = hyperparameter.name
        if not isinstance(hyperparameter.domain, Range) or not is_learning_rate(name):
            continue
        mine, best = finished[finished[name].notna()], ranked.loc[ranked[name].notna(), name]
        top = float(best.iloc[0]) if len(best) else float("nan")
        rates, infeasible = mine[name].to_numpy(dtype=np.float64), (mine["state"] == "infeasible").to_numpy()
        start, bad, above, sure = _region(rates, infeasible, top)
        stable = rates[~infeasible & (rates < start)]
        yield name, top, start, start / top, (stable.max() if len(stable) else start) / top, bad, above, sure


def _region(rates: Array, infeasible: NDArray[np.bool_], best: float) -> tuple[float, int, int, bool]:
    """The lowest rate above `best` from which on nearly all are infeasible, how many are, of how many, and whether that
    is sure. NaN where the highest rates are not infeasible.
    """
    order = np.argsort(-rates, kind="stable")
    crashed = infeasible[order]
    above = rates[order] > best if np.isfinite(best) else np.full(len(rates), True)
    last = int(_ends(crashed[None, :] & above)[0])
    if last < 0:
        return float("nan"), 0, 0, False
    size = last + 1
    in_region = int(crashed[:size].sum())
    sure = in_region >= MINIMUM_INFEASIBLE and _chance(infeasible, in_region) < CHANCE
    return float(rates[order][last]), in_region, size, bool(sure)


def _ends(crashed: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Of each row, from the highest rate down, the last place of a region of crashes; -1 where there is none."""
    shares = np.cumsum(crashed, axis=1) / np.arange(1, crashed.shape[1] + 1)
    fits = crashed & (shares >= DIVERGENT)
    last = crashed.shape[1] - 1 - fits[:, ::-1].argmax(axis=1) if crashed.shape[1] else np.zeros(len(crashed), np.intp)
    return np.asarray(np.where(fits.any(axis=1), last, -1))


def _chance(infeasible: NDArray[np.bool_], in_region: int) -> float:
    """The chance of a region with so many crashes, if as many trials crashed whatever their rate."""
    drawn = np.random.default_rng(0).permuted(np.tile(infeasible, (DRAWS, 1)), axis=1)
    ends = _ends(drawn)
    inside = np.where(ends >= 0, np.cumsum(drawn, axis=1)[np.arange(DRAWS), ends], 0)
    return float((inside >= in_region).sum() + 1) / (DRAWS + 1)


def _summary(table: pd.DataFrame) -> str:
    if table["best"].notna().sum() == 0:
        return "No completed trial has a learning rate that was searched."
    parts = []
    for row in table[table["best"].notna()].to_dict("records"):
        if np.isnan(row["ratio"]) or not (row["sure"] or row["ratio_low"] <= NEAR):
            parts.append(
                f"no {row['hyperparameter']} up to {NEAR:g} times the best, {row['best']:.3g}, makes trials diverge"
            )
        else:
            parts.append(
                f"the best {row['hyperparameter']}, {row['best']:.3g}, lies a factor of {row['ratio']:.3g} below "
                f"{row['divergent_from']:.3g}, from where {row['infeasible']} of {row['trials_above']} trials diverge"
            )
    text = "; ".join(parts)  # begins with a word of ours, never with a name
    return text[0].upper() + text[1:] + "."
