"""What a boundary finding says: the size of a gain in the metric's unit, why an edge is closed, what to search next."""

from typing import Any

import pandas as pd

from tuner.analysis.curves import TOP
from tuner.analysis.edge_gains import MINIMUM_TRIALS, OUTER, EdgeGains
from tuner.analysis.positions import Axis
from tuner.analysis.widening import wider_choices
from tuner.design.hyperparameters import Choice

_LIMIT = {"low": "lower", "high": "upper"}
_MOST_NAMED = 5


def summary_of(axis: Axis, verdict: str, edges: pd.DataFrame, found: EdgeGains, metric: str) -> str:
    """Verdict and evidence in words."""
    rows: list[dict[str, Any]] = edges.to_dict("records")  # type: ignore[assignment]
    if verdict.startswith("expand"):
        return " ".join(_still_improves(row, metric) for row in rows if row["expand"])
    if verdict == "ok":
        return _ok(axis, rows, found, metric)
    if any(row["error"] == float("inf") for row in rows):
        return (
            f"Not enough evidence to tell whether the best {axis.name} lies outside the range: {rows[0]['trials']} "
            "trials completed, too few for the number of hyperparameters, or without differences between them."
        )
    return f"Not enough evidence to tell whether the best {axis.name} lies outside the range. {_numbers(rows, metric)}"


def action_of(axis: Axis, verdict: str, edges: pd.DataFrame) -> str:
    """What to search next, as it can be declared."""
    if verdict == "ok":
        return "Nothing to do."
    if verdict == "inconclusive":
        completed = edges.groupby("where")["trials"].max().sum()  # of each value that was asked
        return f"Train more points in the same space; {completed} completed trials are not enough."
    moved = {str(row["edge"]): row["next_bound"] for row in edges[edges["expand"]].to_dict("records")}
    if axis.levels:
        return _more_choices(axis, list(moved.values()))
    low, high = moved.get("low", axis.scale.low), moved.get("high", axis.scale.high)
    text = f"Search {axis.name} from {low:g} to {high:g} instead of {axis.scale.low:g} to {axis.scale.high:g}"
    if low < 0 <= axis.scale.low:
        return f'{text}, or declare limits="low" if it cannot be negative.'
    return f"{text}."


def caveats_of(axis: Axis, edges: pd.DataFrame, found: EdgeGains) -> tuple[str, ...]:
    """Ridges, trials that were set aside or pruned, instability, values that were not asked."""
    told = [f"{axis.name} and {partner} trade off along a ridge: move both or fix one." for partner in
            found.partners.get(axis.name, [])]  # fmt: skip
    told += [
        f"{row['infeasible_outer']:.0%} of the trials next to the {_LIMIT[row['edge']]} limit are infeasible or far "
        "worse than their neighbours: instability, not the range, bounds the space there (D4); a warmup may move it "
        "(B36)."
        for row in edges[edges["unstable"]].drop_duplicates("edge").to_dict("records")
    ]
    if found.set_aside:
        told.append(_set_aside(found))
    if found.pruned:
        told.append(
            f"{found.pruned} pruned trials count as at least so bad: each has the value of its rank among the "
            "completed ones at the step where it was stopped."
        )
    few = found.few.get(axis.name, [])
    if few:
        told.append(f"Too few trials to ask what is best for {', '.join(few[:_MOST_NAMED])}.")
    return tuple(told)


def _set_aside(found: EdgeGains) -> str:
    numbers = [str(trial) for trial in sorted(found.set_aside)]
    named = ", ".join(numbers[:_MOST_NAMED]) + (", ..." if len(numbers) > _MOST_NAMED else "")
    are, they = ("is", "it was") if len(numbers) == 1 else ("are", "they were")
    return (
        f"{len(numbers)} of {found.judged} trials {are} far worse than their neighbours; {they} set aside "
        f"(trial{'s' if len(numbers) > 1 else ''} {named})."
    )


def _still_improves(row: dict[str, Any], metric: str) -> str:
    there = {0: f"None of the top {TOP} trials is", TOP: f"All of the top {TOP} trials are"}
    top = there.get(row["top_outer"], f"{row['top_outer']} of the top {TOP} trials {_are(row['top_outer'])}")
    return (
        f"{_with(row)}{metric} still improves near the {_LIMIT[row['edge']]} limit, {row['bound']:g}: by "
        f"{_size(row)} over the last {OUTER:.0%} of the range ({row['gain']:.2f} ± {row['error']:.2f} standard "
        f"deviations of the trials). Going on to {row['next_bound']:g} would gain about {row['beyond']:.2g} of "
        f"{metric} at this rate. {top} there."
    )


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _ok(axis: Axis, rows: list[dict[str, Any]], found: EdgeGains, metric: str) -> str:
    closed = {row["edge"]: row["closed"] for row in rows if row["closed"]}
    unstable = {row["edge"] for row in rows if row["unstable"] and not row["closed"]}
    said = list(dict.fromkeys(closed.values()))
    said += [f"instability bounds the {_LIMIT[edge]} limit" for edge in ("low", "high") if edge in unstable]
    open_rows = [row for row in rows if row["edge"] not in closed and row["edge"] not in unstable]
    if open_rows and found.judged >= MINIMUM_TRIALS and found.span <= found.worth.least:
        return (
            f"All {found.judged} trials lie within {found.span:.2g} of {metric}, less than {found.worth.because}: no "
            "limit of the range holds back a gain that counts. Where all of them are at the level of guessing, the "
            "whole space may lie in the wrong place."
        )
    reasons = "; ".join(said)
    if not open_rows:
        return f"The range needs no change: {reasons}."
    parts = [_no_gain(open_rows, found, metric)]
    if reasons:
        parts.append(f"{reasons[0].upper()}{reasons[1:]}.")
    if not any(row["error"] == float("inf") for row in rows):
        parts.append(_numbers(rows, metric))
    return " ".join(parts)


def _no_gain(rows: list[dict[str, Any]], found: EdgeGains, metric: str) -> str:
    """Why no open edge has to move."""
    inside = list(dict.fromkeys(_LIMIT[row["edge"]] for row in rows if row["worse"]))
    small = [row for row in rows if not row["worse"] and not row["negligible"]]
    if small:
        most = max(row["beyond"] for row in small)
        return (
            f"Beyond the limits at most {max(most, 0.0):.2g} of {metric} is to gain, less than {found.worth.because}."
        )
    if inside:
        return f"The best lies inside: {metric} is surely worse at the {' and the '.join(inside)} limit."
    limits = " and the ".join(dict.fromkeys(_LIMIT[row["edge"]] for row in rows))
    return f"Nothing is gained towards the {limits} limit."


def _numbers(rows: list[dict[str, Any]], metric: str) -> str:
    """How the metric changes near the limits, for each value whose own best was asked."""
    told = []
    for where in dict.fromkeys(row["where"] for row in rows):
        mine = [row for row in rows if row["where"] == where]
        changes = ", ".join(f"near the {_LIMIT[row['edge']]} limit {_change(row)}" for row in mine)
        outer = ", ".join(f"{row['top_outer']} near the {_LIMIT[row['edge']]}" for row in mine)
        told.append(f"{_with(mine[0])}{metric} {changes}; of the top {TOP} trials {outer}.")
    return " ".join(told)


def _with(row: dict[str, Any]) -> str:
    return f"With {row['where']}, " if row["where"] else ""


def _change(row: dict[str, Any]) -> str:
    """An edge that is surely worse than the best point may still rise again in the last part of the range."""
    if row["worse"] and row["value_gain"] > 0:
        return "is worse than at the best point"
    return f"{'improves' if row['value_gain'] > 0 else 'worsens'} by {_size(row)}"


def _size(row: dict[str, Any]) -> str:
    return f"{abs(row['value_gain']):.2g} ± {row['value_error']:.1g}"


def _more_choices(axis: Axis, added: list[float]) -> str:
    domain = axis.hyperparameter.domain
    choices = wider_choices(domain, *added) if isinstance(domain, Choice) else ()
    named = " and ".join(f"{value:g}" for value in added)
    return f"Add {named} to the choices of {axis.name}: {', '.join(map(str, choices))}."
