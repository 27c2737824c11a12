"""Isolation: the best over the nuisance hyperparameters for each value of a scientific one (B9-B16, B29).

A continuous scientific hyperparameter is cut into buckets on its sampling scale. Every value is shown with its
count, because the best of many trials beats the best of few without any real difference (D40, F6).
`role_warnings` names what should not be fixed, tuned or compared the way a round declares it (B3, B12, B16).
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from tuner.analysis.finding import Finding, Question, Verdict
from tuner.analysis.noise import Array
from tuner.analysis.ranges import unit_positions
from tuner.analysis.study_frames import StudyFrames
from tuner.design.hyperparameters import Hyperparameter, Range
from tuner.design.names import Name
from tuner.design.optimizers import optimizer_numbers
from tuner.design.study import Study

BUCKETS = 5  # [P] of equal width on the sampling scale, for a continuous hyperparameter
MOST_WHOLE = 8  # [P] a range of whole numbers with no more values is not cut into buckets
MINIMUM_EACH = 5  # [P] completed trials of a value below which its best shows little
# [P] The chance of winning a draw of equally many trials each that makes a value the leader: e^-6, that of missing the
# best six of many, so that no less than those six are better than all others. For two equal values: 2 / 2^6 = 3 %.
LEADS = 0.9975
CHANCES_FLOOR = 0.0025  # [P] a value that wins less often is surely not the best
MOST_NODES = 8  # of the integral: exact for ties of 15 values

QUESTION = Question(
    name="isolation",
    sentence="Which value is best?",
    order=240,
    verdicts=(
        Verdict("leads"),
        Verdict(
            "tie",
            "told",
            "Keep the simplest of the values that are not behind, or narrow the nuisance space and run again.",
        ),
        Verdict("inconclusive", "open", f"Complete at least {MINIMUM_EACH} trials of every value (B15, B16)."),
    ),
    thresholds={
        "buckets": BUCKETS,
        "minimum_each": MINIMUM_EACH,
        "leads": LEADS,
        "surely_not_best": CHANCES_FLOOR,
    },
    needs=("search",),
    ask=lambda frames: isolation_findings(frames),
    title="Which {subject} is best?",
    plot="isolation",
    rules=("A30", "B11", "B15", "B16", "B29", "B32", "B33", "D40"),
    uneven="values that looked worse at first got fewer trials",
    pruned="values with many pruned trials completed fewer",
    weakened=True,
)


def scientific_names(frames: StudyFrames) -> list[str]:
    """The scientific hyperparameters, in declared order."""
    return [name for name in frames.hyperparameters if name in frames.study.scientific]


def isolation_frame(frames: StudyFrames, name: str) -> pd.DataFrame:
    """One row a value or bucket of hyperparameter `name`, in order; empty ones are there too.

    Columns: hyperparameter, value (as text), low and high (of a bucket, NaN for a single value), trials (complete and
    infeasible), complete, best_value, best_trial (<NA> without one), chance (of being best when equally many trials
    of each value are drawn again from these).
    """
    hyperparameter = next(h for h in frames.study.hyperparameters if h.name == name)
    labels, lows, highs = _values(hyperparameter)
    finished = frames.trials[frames.trials["state"].isin(["complete", "infeasible"])]
    place = _places(hyperparameter, finished[name]).where(frames.exists_in(finished, name), -1)
    sign = frames.study.objective.sign
    counted = (finished["state"] == "complete") & finished["best_value"].notna()
    scores = [sign * finished.loc[counted & (place == i), "best_value"] for i in range(len(labels))]
    winners: list[Any] = [one.idxmin() if len(one) else None for one in scores]
    best: Any = finished[["best_value", "trial"]]
    return pd.DataFrame(
        {
            "hyperparameter": name,
            "value": labels,
            "low": lows,
            "high": highs,
            "trials": [int((place == i).sum()) for i in range(len(labels))],
            "complete": [len(one) for one in scores],
            "best_value": [np.nan if w is None else float(best.at[w, "best_value"]) for w in winners],
            "best_trial": pd.array([None if w is None else int(best.at[w, "trial"]) for w in winners], "Int64"),
            "chance": best_chances([one.to_numpy(dtype=np.float64) for one in scores]),
        }
    )


def with_pruned_of_each(frames: StudyFrames, name: str) -> pd.DataFrame:
    """`isolation_frame`, and of each value how many trials were pruned, with the best value they reached until then."""
    table = isolation_frame(frames, name)
    hyperparameter = next(h for h in frames.study.hyperparameters if h.name == name)
    pruned = frames.pruned
    place = _places(hyperparameter, pruned[name]).where(frames.exists_in(pruned, name), -1)
    reached = [pruned.loc[place == row, "best_value"] for row in range(len(table))]
    least = frames.study.objective.direction == "minimize"
    bests = [(one.min() if least else one.max()) if len(one) else np.nan for one in reached]
    return table.assign(pruned=[len(one) for one in reached], pruned_best=np.array(bests, dtype=np.float64))


def best_of_each_value(frames: StudyFrames) -> pd.DataFrame:
    """trial, best_value and value ("activation = relu") of the best trial of each scientific value."""
    parts = [isolation_frame(frames, name) for name in scientific_names(frames)]
    if not parts:
        return pd.DataFrame({"trial": pd.Series(dtype=np.int64), "best_value": pd.Series(dtype=float), "value": []})
    table = pd.concat(parts, ignore_index=True)
    table = table[table["best_trial"].notna()]
    table["trial"] = table["best_trial"].astype(np.int64)
    table["value"] = table["hyperparameter"] + " = " + table["value"]
    return table[["trial", "best_value", "value"]].reset_index(drop=True)


def isolation_findings(frames: StudyFrames) -> list[Finding]:
    """For each scientific hyperparameter: leads, tie or inconclusive, with what the conclusion is limited to (B11)."""
    return [_finding(frames, name, isolation_frame(frames, name)) for name in scientific_names(frames)]


def _finding(frames: StudyFrames, name: str, table: pd.DataFrame) -> Finding:
    verdict, summary = _verdict(table)
    first = table.sort_values("chance", ascending=False)["value"].iloc[0]
    confirm = (
        f"Before you adopt {first}, train its best trial and the best of another value again with fresh seeds, "
        "equally often: a later round with promote=2 does (B32, B33)."
    )
    return QUESTION.answer(
        name,
        verdict,
        summary,
        table,
        strength="weak",
        action=confirm if verdict == "leads" else "",
        caveats=fixed_caveats(frames),
    )


def _verdict(table: pd.DataFrame) -> tuple[str, str]:
    there = table[table["complete"] > 0].sort_values("chance", ascending=False)
    bests = "Best values: " + "; ".join(
        f"{row['value']} {row['best_value']:.4g} in {row['complete']} trials" for row in table.to_dict("records")
    )
    if len(there) < 2 or table["complete"].min() < MINIMUM_EACH:
        return (
            "inconclusive",
            f"Not every value has {MINIMUM_EACH} completed trials, which a comparison takes. {bests}.",
        )
    first, second = there.iloc[0], there.iloc[1]
    if first["chance"] >= LEADS:
        draws = "nearly every draw" if first["chance"] > 0.9995 else f"{first['chance']:.1%} of draws"
        return "leads", f"{first['value']} leads: it is best in {draws} of equally many trials. {bests}."
    behind = there.loc[there["chance"] < CHANCES_FLOOR, "value"].tolist()
    rest = f" {', '.join(behind)} {'is' if len(behind) == 1 else 'are'} surely behind." if behind else ""
    return "tie", f"The trials do not tell {first['value']} and {second['value']} apart.{rest} {bests}."


def fixed_caveats(frames: StudyFrames) -> list[str]:
    """What a conclusion is limited to: everything that was fixed, and the length of training (A30, B11)."""
    study = frames.study
    fixed = [f"{name} = {constant.value}" for name, constant in study.fixed]
    if study.optimizer and not any(h.name == "optimizer" for h in study.hyperparameters):
        fixed.append(f"optimizer = {study.optimizer}")
    held = f"Valid for {', '.join(fixed)}. " if fixed else ""
    return [f"{held}Concluded at {study.budget.max_train_steps:,} steps; unconfirmed at any other length (A30, B11)."]


def _values(hyperparameter: Hyperparameter) -> tuple[list[str], list[float], list[float]]:
    domain = hyperparameter.domain
    if not isinstance(domain, Range):
        none = [float("nan")] * len(domain.choices)
        return [str(value) for value in domain.choices], none, none
    if _is_whole(domain):
        whole = list(range(int(domain.low), int(domain.high) + 1))
        return [str(value) for value in whole], [float("nan")] * len(whole), [float("nan")] * len(whole)
    scale = np.geomspace if domain.log else np.linspace
    edges = scale(domain.low, domain.high, BUCKETS + 1).tolist()
    labels = [f"{low:.3g} to {high:.3g}" for low, high in pairwise(edges)]
    return labels, edges[:-1], edges[1:]


def _places(hyperparameter: Hyperparameter, values: pd.Series) -> pd.Series:
    """The row of each value; -1 where the hyperparameter does not exist."""
    domain = hyperparameter.domain
    if not isinstance(domain, Range):
        known = {repr(choice): place for place, choice in enumerate(domain.choices)}
        found = [known.get(repr(value), -1) for value in values]
        return pd.Series(found, index=values.index)
    numbers = values.astype(float)
    if _is_whole(domain):
        return (numbers - domain.low).fillna(-1).astype(int)
    cut = np.floor(unit_positions(numbers, domain) * BUCKETS).clip(0, BUCKETS - 1)
    return pd.Series(np.where(numbers.isna(), -1, cut), index=values.index).astype(int)


def _is_whole(domain: Range) -> bool:
    return domain.integer and domain.high - domain.low < MOST_WHOLE


def best_chances(scores: list[Array]) -> list[float]:
    """How often each value is best when as many trials of each are drawn, with replacement, as the fewest have.

    scores: of each value, less is better. Exact: the best of n draws lies above x with chance (share above x)^n. Who is
    level with k others wins in one of k + 1 cases, which is the integral of t^k.
    """
    there = [i for i, one in enumerate(scores) if len(one)]
    chances = [0.0] * len(scores)
    if not there:
        return chances
    count = min(len(scores[i]) for i in there)
    values = np.unique(np.concatenate([scores[i] for i in there]))
    above, at = np.empty((len(there), len(values))), np.empty((len(there), len(values)))
    for row, i in enumerate(there):
        ordered = np.sort(scores[i])
        lower, upper = (np.searchsorted(ordered, values, side=side) for side in ("left", "right"))
        above[row] = (1.0 - upper / len(ordered)) ** count
        at[row] = (1.0 - lower / len(ordered)) ** count - above[row]
    won = np.zeros(len(there))
    for node, weight in zip(*np.polynomial.legendre.leggauss(min(MOST_NODES, len(there))), strict=True):
        others = _products_of_others(above + 0.5 * (node + 1.0) * at)
        won += 0.5 * weight * (at * others).sum(axis=1)
    for row, i in enumerate(there):
        chances[i] = float(won[row])
    return chances


def _products_of_others(factors: Array) -> Array:
    """For each row the product of all others, column by column."""
    one = np.ones((1, factors.shape[1]))
    before = np.cumprod(np.vstack([one, factors[:-1]]), axis=0)
    after = np.cumprod(np.vstack([one, factors[:0:-1]]), axis=0)[::-1]
    return np.asarray(before * after)


def role_warnings(study: Study) -> list[str]:
    """Warnings about a round whose goal is to compare values; B3 holds for every round."""
    return list(dict.fromkeys(_warnings(study)))


def _warnings(study: Study) -> Iterator[str]:
    searched = {h.short_name for h in study.hyperparameters}
    nuisances = [h for h in study.hyperparameters if h.name not in study.scientific]
    alone = study.scientific == ("batch_size",) and "learning_rate" not in searched
    if alone or any(h.name == "batch_size" for h in nuisances):
        yield (
            "batch_size sets the speed of training and is not tuned for validation performance; compare batch sizes "
            "only with optimizer and regularization tuned again for each (B3)"
        )
    if study.scientific:
        yield from _fixed_warnings(study)
        yield from _kind_warnings(study, nuisances)


def _fixed_warnings(study: Study) -> Iterator[str]:
    families = {h.family for h in study.hyperparameters if h.name in study.scientific}
    fixed = {Name.of(name).short for name, _ in study.fixed}
    if "learning_rate" in fixed and families & {"architecture", "optimizer"}:
        yield (
            "learning_rate is fixed while architecture or optimizer is compared: the comparison favours what suits "
            "that rate; make it a nuisance (B12)"
        )
    if "weight_decay" in fixed and "architecture" in families:
        yield "weight_decay is fixed while the architecture is compared; larger models want other strengths (B12)"


def _kind_warnings(study: Study, nuisances: Sequence[Hyperparameter]) -> Iterator[str]:
    for hyperparameter in nuisances:
        if hyperparameter.name == "optimizer" or hyperparameter.family == "architecture":
            yield f"{hyperparameter.name} is usually scientific or fixed, not a nuisance (B12)"
    for name in study.scientific:
        if Name.of(name).short in optimizer_numbers():
            yield f"{name} is usually a nuisance: its best value depends on everything else (B12)"
