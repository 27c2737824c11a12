"""Does any searched hyperparameter matter? Judged by how much of the differences between trials they explain.

The noise of one evaluation does not answer this: two seeds of one configuration may differ by many times as much.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from tuner.analysis.finding import Finding, Question, Verdict
from tuner.analysis.good_trials import evaluation_noise, noise_in_words
from tuner.analysis.noise import NORMAL_QUARTILES, Array
from tuner.analysis.ranges import unit_positions
from tuner.analysis.replicates import replicate_spread
from tuner.analysis.response import fitted_response
from tuner.analysis.study_frames import MINIMUM_COMPLETE, StudyFrames
from tuner.design.hyperparameters import Range

CHANCE = 0.01  # [P] that chance alone makes so close a relation: below it the results are sensitive
NO_RELATION = 0.10  # [P] a relation that chance alone makes more often than this counts as none
MINIMUM_TRIALS = 20  # [P] with fewer trials a missing relation may be chance
EXPLAINED = 0.10  # [P] of the differences between trials: hyperparameters that explain more matter
SAME = 1.0  # [P] times the evaluation noise: where all trials differ by less, nothing can matter
DRAWS = 999  # orders drawn at random that the real one is compared with
MOST = 200  # [P] trials that are compared, spread evenly over the ranking
WIDTH = 0.25  # [P] of the range: how far apart trials may lie to be neighbours

QUESTION = Question(
    name="insensitivity",
    sentence="Does any searched hyperparameter matter?",
    order=220,
    verdicts=(
        Verdict("sensitive"),
        Verdict(
            "insensitive",
            "act",
            "Nothing that was searched matters at this length: fix it at the simplest values, and search other "
            "hyperparameters or wider ranges.",
        ),
        Verdict(
            "inconclusive",
            "open",
            "Complete more trials, or train one configuration again with fresh seeds to learn how much of the "
            "differences the seeds alone explain (B31).",
        ),
    ),
    thresholds={
        "chance": CHANCE,
        "no_relation": NO_RELATION,
        "explained": EXPLAINED,
        "same_in_noises": SAME,
        "minimum_trials": MINIMUM_TRIALS,
    },
    needs=("search", "curves"),
    ask=lambda frames: insensitivity_finding(frames),
    plot="axes",
    rules=("B31",),
    uneven="such trials differ less than evenly chosen ones",
    pruned="the completed ones differ less than all would",
    weakened=True,
)


@dataclass(frozen=True, slots=True)
class _Relation:
    """chance: of so close a relation without any. explained: of the differences between completed trials, NaN where
    too few completed. names: the hyperparameters that are related by themselves, the closest first.
    """

    chance: float
    explained: float
    names: tuple[str, ...]


def insensitivity_frame(frames: StudyFrames) -> pd.DataFrame:
    """One row: trials, spread (of the best values of all completed trials, by their quartiles), good_spread (of the
    better half), noise (the evaluation noise), ratio (spread over noise), replicates (trials that repeat a
    configuration), seed_spread (their standard deviation within configurations), explained (share of the differences
    that the hyperparameters predict of trials left out), chance (of so close a relation without any).
    """
    values = frames.complete["best_value"].to_numpy(dtype=np.float64)
    sign = frames.study.objective.sign
    better = np.sort(sign * values)[: max(2, len(values) // 2)]
    noise, spread = evaluation_noise(frames), _spread(values)
    ratio = spread / noise if noise > 0 else math.nan
    seeds = replicate_spread(frames)
    relation = _relation(frames)
    repeated, seed_spread = (seeds.trials, seeds.sd) if seeds else (0, math.nan)
    seen = (len(values), spread, _spread(better), noise, ratio)
    row = (*seen, repeated, seed_spread, relation.explained, relation.chance)
    columns = ["trials", "spread", "good_spread", "noise", "ratio", "replicates", "seed_spread", "explained", "chance"]
    table = pd.DataFrame([row], columns=columns)
    table.attrs["names"] = relation.names
    return table


def insensitivity_finding(frames: StudyFrames) -> Finding:
    """insensitive, sensitive or inconclusive."""
    table = insensitivity_frame(frames)
    verdict = _verdict(table.iloc[0])
    caveats = () if verdict != "sensitive" or table["replicates"].iloc[0] else _NO_REPLICATES
    return QUESTION.answer(frames.study.name, verdict, _summary(table, verdict), table, caveats=caveats)


_NO_REPLICATES = (
    "No configuration was trained twice, so how much of the rest the seeds alone explain is not known (B31).",
)


def _verdict(row: pd.Series) -> str:
    if row["trials"] < MINIMUM_COMPLETE or np.isnan(row["chance"]):
        return "inconclusive"
    if row["chance"] <= CHANCE:
        return "sensitive"
    explains = row["explained"] > EXPLAINED
    if row["chance"] > NO_RELATION and not explains and row["trials"] >= MINIMUM_TRIALS:
        return "insensitive"
    return "insensitive" if row["ratio"] <= SAME and not explains and row["chance"] > NO_RELATION else "inconclusive"


def _summary(table: pd.DataFrame, verdict: str) -> str:
    row, names = table.iloc[0], table.attrs["names"]
    if row["trials"] < MINIMUM_COMPLETE:
        return f"{int(row['trials'])} completed trials are not enough ({MINIMUM_COMPLETE} are needed)."
    if np.isnan(row["chance"]):
        return "The completed trials do not differ in what was searched, or have one value."
    share = "" if np.isnan(row["explained"]) else f" (they predict {max(0.0, row['explained']):.0%} of the differences)"
    answer = {
        "sensitive": f"The results depend on {', '.join(names) or 'the hyperparameters together'}{share}.",
        "insensitive": f"The results do not depend on anything that was searched{share}.",
    }.get(verdict, f"Whether the results depend on what was searched is not clear{share}.")
    seeds = (
        f" Trainings of one configuration differ by {row['seed_spread']:.2g} (standard deviation of "
        f"{int(row['replicates'])} repeated trials)."
        if row["replicates"]
        else ""
    )
    return (
        f"{answer} The best values of {int(row['trials'])} completed trials spread by {row['spread']:.2g} (the better "
        f"half by {row['good_spread']:.2g}).{seeds}{noise_in_words(row['noise'])}"
    )


def _relation(frames: StudyFrames) -> _Relation:
    """Between where trials lie and how good they are; those that diverged are the worst of all."""
    trials = frames.trials[frames.trials["state"].isin(["complete", "infeasible"])]
    trials = trials[(trials["state"] == "infeasible") | trials["best_value"].notna()]
    sign = frames.study.objective.sign
    scores = np.where(trials["state"] == "infeasible", np.inf, sign * trials["best_value"].to_numpy(dtype=np.float64))
    order = np.argsort(scores, kind="stable")
    if len(order) > MOST:
        order = order[np.linspace(0, len(order) - 1, MOST).round().astype(int)]
    trials, scores = trials.iloc[np.sort(order)], scores[np.sort(order)]
    kernels = _kernels(frames, trials)
    if len(trials) < MINIMUM_COMPLETE or not kernels or len(np.unique(scores)) < 2:
        return _Relation(math.nan, math.nan, ())
    ranks = stats.norm.ppf((stats.rankdata(scores) - 0.5) / len(scores))
    together = [sum(kernels.values()), np.prod([1.0 + kernel for kernel in kernels.values()], axis=0)]
    chance, alone = _chances(ranks - ranks.mean(), [*kernels.values(), *together])
    names = [name for name, _ in sorted(zip(kernels, alone, strict=False), key=lambda one: one[1])]
    close = [name for name, one in zip(kernels, alone, strict=False) if one <= CHANCE]
    return _Relation(chance, _explained(frames, trials), tuple(name for name in names if name in close))


def _kernels(frames: StudyFrames, trials: pd.DataFrame) -> dict[str, Array]:
    """How near the trials [trials, trials] lie in each hyperparameter that varies among them."""
    found = {}
    for hyperparameter in frames.study.hyperparameters:
        column = trials[hyperparameter.name]
        if isinstance(hyperparameter.domain, Range):
            places = np.nan_to_num(unit_positions(column, hyperparameter.domain), nan=-1.0)
            near = np.exp(-0.5 * ((places[:, None] - places[None, :]) / WIDTH) ** 2)
        else:
            texts = np.array(column.map(repr).tolist())
            near = (texts[:, None] == texts[None, :]).astype(np.float64)
        if len(near) and np.ptp(near) > 1e-9:
            found[hyperparameter.name] = near
    return found


def _chances(scores: Array, kernels: Sequence[Array]) -> tuple[float, list[float]]:
    """The chance of so much likeness of neighbours in any of the kernels, and in each alone, in a random order."""
    rng = np.random.default_rng(0)
    drawn = np.vstack([scores, rng.permuted(np.tile(scores, (DRAWS, 1)), axis=1)])
    likeness = np.array([((drawn @ _centered(kernel)) * drawn).sum(axis=1) for kernel in kernels])
    spread = likeness[:, 1:].std(axis=1, keepdims=True)
    scaled = (likeness - likeness[:, 1:].mean(axis=1, keepdims=True)) / np.maximum(spread, 1e-12)
    most = scaled.max(axis=0)
    alone = [float((one[1:] >= one[0]).sum() + 1) / (DRAWS + 1) for one in scaled]
    return float((most[1:] >= most[0]).sum() + 1) / (DRAWS + 1), alone


def _centered(kernel: Array) -> Array:
    rows = kernel - kernel.mean(axis=0, keepdims=True)
    return np.asarray(rows - rows.mean(axis=1, keepdims=True))


def _explained(frames: StudyFrames, trials: pd.DataFrame) -> float:
    """The share of the squared differences between completed trials that the fit predicts of each trial left out."""
    done = trials[trials["state"] == "complete"]
    columns = []
    for hyperparameter in frames.study.hyperparameters:
        column = done[hyperparameter.name]
        if isinstance(hyperparameter.domain, Range):
            columns.append(np.nan_to_num(unit_positions(column, hyperparameter.domain), nan=0.5))
        else:
            texts = np.array(column.map(repr).tolist())
            columns += [(texts == repr(choice)).astype(np.float64) for choice in hyperparameter.domain.choices[1:]]
    values = done["best_value"].to_numpy(dtype=np.float64)
    if len(done) < 2 * MINIMUM_COMPLETE or not columns or np.quantile(values, 0.75) <= values.min():
        return math.nan
    sign = frames.study.objective.sign
    response = fitted_response(np.column_stack(columns), sign * values)
    left_out = response.weights / np.diag(response.inverse)  # the error of the fit without each trial, in closed form
    return float(1.0 - np.mean(left_out**2))


def _spread(values: Array) -> float:
    """The standard deviation by the quartiles, which a few bad trials do not change."""
    if len(values) < 2:
        return float("nan")
    low, high = np.quantile(values, [0.25, 0.75])
    return float((high - low) / NORMAL_QUARTILES)
