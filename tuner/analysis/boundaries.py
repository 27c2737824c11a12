"""Was the search space large enough? One finding for each hyperparameter with an order (B20, D3, D38-D40)."""

import math
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from tuner.analysis.boundary_words import action_of, caveats_of, summary_of
from tuner.analysis.curves import TOP, ranked_trials
from tuner.analysis.edge_gains import (
    MINIMUM_EACH,
    MINIMUM_TRIALS,
    OUTER,
    TRIALS_PER_DIMENSION,
    EdgeGains,
    axes_of,
    edge_gains,
)
from tuner.analysis.finding import Finding, Strength
from tuner.analysis.positions import Axis
from tuner.analysis.robust_response import FAR, NOISY
from tuner.analysis.scores import Array
from tuner.analysis.study_frames import StudyFrames
from tuner.analysis.widening import closed_because, further
from tuner.analysis.worth import RELATIVE

CONFIDENCE = 0.99  # [P] one-sided, of a gain being real or negligible
CONFIDENCE_AMONG_LUCK = 0.9995  # [P] of a gain, where more than
MANY_SET_ASIDE = 0.25  # [P] of the trials were set aside: which ones is not always certain
NEGLIGIBLE = 0.05  # [P] spreads of the objective: a gain towards an edge surely below it does not matter
AGREEING = 2  # [P] of the best 3 trials, in the half next to an edge that has to move
WORSE = 3.0  # [P] standard deviations by which an edge is worse than the best point: the optimum lies inside
UNSTABLE = 0.5  # [P] share of infeasible trials next to an edge that bounds the space there (D4)
UNSTABLE_OUTER = 0.2  # [P] of the range is "next to an edge" for infeasible trials
UNSTABLE_CHANCE = 0.05  # [P] and the share is higher there than elsewhere, at this level (Fisher's exact test)
# [P] The same of trials that were set aside: some of them lie beside an edge by bad luck.
COLLAPSED, COLLAPSED_CHANCE = 0.8, 0.01

_THRESHOLDS = {
    "outer": OUTER,
    "confidence": CONFIDENCE,
    "negligible_in_spreads": NEGLIGIBLE,
    "worse_in_deviations": WORSE,
    "minimum_trials": MINIMUM_TRIALS,
    "trials_per_dimension": TRIALS_PER_DIMENSION,
    "minimum_of_each_value": MINIMUM_EACH,
    "worth_of_the_best": RELATIVE,
    "luck_noise": NOISY,
    "luck_in_deviations": FAR,
    "unstable": UNSTABLE,
    "unstable_outer": UNSTABLE_OUTER,
    "unstable_chance": UNSTABLE_CHANCE,
    "collapsed": COLLAPSED,
    "collapsed_chance": COLLAPSED_CHANCE,
}


def boundaries_frame(frames: StudyFrames) -> pd.DataFrame:
    """Two rows, "low" and "high", for each hyperparameter with an order and each value whose own best is asked.

    Columns: hyperparameter, edge, where ("optimizer = sgd", or "" for all trials), bound, closed (why the edge cannot
    be moved, or ""), trials (completed ones that have it), gain and error (the fitted objective at the edge against a
    little inside, in spreads), value_gain and value_error (the same in the unit of the metric), beyond (what going on
    to the next bound would gain at this rate), worth (the smallest gain that counts), worthless (surely less), real and
    negligible (that gain, at CONFIDENCE), worse (the edge, surely, than the best point of the fit), top_outer (how many
    of the best 3 lie in the outer part), top_half (in the half next to it), infeasible_outer (share of trials next to
    the edge that are infeasible or set aside), unstable (they bound the space there), next_bound (further out),
    expand (whether the edge has to move).
    """
    return _frame(frames, edge_gains(frames))


def boundary_findings(frames: StudyFrames) -> list[Finding]:
    """One finding for each hyperparameter with an order, as declared; a choice of names has no edges."""
    found = edge_gains(frames)
    table = _frame(frames, found)
    return [
        _finding(frames, axis, table[table["hyperparameter"] == axis.name].reset_index(drop=True), found)
        for axis in axes_of(frames)
    ]


def _frame(frames: StudyFrames, found: EdgeGains) -> pd.DataFrame:
    ranked = ranked_trials(frames)
    many_set_aside = len(found.set_aside) > MANY_SET_ASIDE * found.judged
    rows: list[dict[str, Any]] = []
    for axis in axes_of(frames):
        complete = ranked[ranked[axis.name].notna()]
        edges = {edge: _of_edge(frames, axis, edge, found) for edge in ("low", "high")}
        for low, high in zip(found.gains[axis.name, "low"], found.gains[axis.name, "high"], strict=True):
            members = found.members.get(low.where)
            mine = complete if members is None else complete[complete["trial"].isin(members)]
            positions = axis.positions(mine[axis.name])[:TOP]
            pair = []
            for edge, gain in (("low", low), ("high", high)):
                judged = _judged(gain.gain, gain.error, gain.worse, many_set_aside)
                judged |= _in_units(axis, edges[edge], gain.value_gain, gain.value_error, found)
                judged["top_outer"] = int(_beside(positions, edge, OUTER).sum())
                judged["top_half"] = int(_beside(positions, edge, 0.5).sum())
                pair.append({"hyperparameter": axis.name, **edges[edge], "where": gain.where, "trials": len(mine),
                             **judged})  # fmt: skip
            _mark_expand(pair)
            rows += pair
    return pd.DataFrame(rows)


def _of_edge(frames: StudyFrames, axis: Axis, edge: str, found: EdgeGains) -> dict[str, Any]:
    return {
        "edge": edge,
        "bound": axis.bound(edge),
        "closed": closed_because(axis, edge) or "",
        "next_bound": further(axis, edge),
        **_instability(frames, axis, edge, found.set_aside),
    }


def _judged(gain: float, error: float, worse: float, many_set_aside: bool) -> dict[str, Any]:
    critical = float(stats.norm.ppf(CONFIDENCE))
    surely = float(stats.norm.ppf(CONFIDENCE_AMONG_LUCK)) if many_set_aside else critical
    return {
        "gain": gain,
        "error": error,
        "real": gain - surely * error > 0.0 and worse < WORSE,
        "negligible": gain + critical * error < NEGLIGIBLE,
        "worse": worse >= WORSE,
    }


def _in_units(axis: Axis, edge: dict[str, Any], gain: float, error: float, found: EdgeGains) -> dict[str, Any]:
    """The gain in the unit of the metric, and what it makes up to the next bound at the same rate."""
    bound = edge["next_bound"]
    place = axis.scale.unit_of(float(bound))
    further_out = (place - 1.0 if edge["edge"] == "high" else -place) / OUTER
    further_out = further_out if math.isfinite(further_out) else 1.0 / OUTER  # a log scale that is to reach 0
    critical = float(stats.norm.ppf(CONFIDENCE))
    known = math.isfinite(error)
    return {
        "value_gain": gain,
        "value_error": error,
        "beyond": gain * max(1.0, further_out),
        "worth": found.worth.least,
        "worthless": (known and (gain + critical * error) * max(1.0, further_out) < found.worth.least)
        or (found.judged >= MINIMUM_TRIALS and found.span <= found.worth.least),
    }


def _mark_expand(pair: list[dict[str, Any]]) -> None:
    """Exactly one edge of the two still gains, really and enough; where both seem to, the fit is not to be trusted."""
    gaining = [row for row in pair if _is_open(row) and row["real"] and not _too_small(row)]
    for row in pair:
        row["expand"] = (
            len(gaining) == 1 and row is gaining[0] and row["gain"] >= NEGLIGIBLE and row["top_half"] >= AGREEING
        )


def _is_open(row: dict[str, Any]) -> bool:
    return not row["closed"] and not row["unstable"]


def _too_small(row: dict[str, Any]) -> bool:
    """Less than what is worth anything: surely, or a real gain by its size."""
    return bool(row["worthless"] or (row["real"] and row["beyond"] < row["worth"]))


def _instability(frames: StudyFrames, axis: Axis, edge: str, set_aside: set[int]) -> dict[str, object]:
    finished = frames.trials[frames.trials["state"].isin(["complete", "infeasible"])]
    finished = finished[finished[axis.name].notna()]
    beside = _beside(axis.positions(finished[axis.name]), edge, UNSTABLE_OUTER)
    infeasible = (finished["state"] == "infeasible").to_numpy(dtype=bool)
    bad = infeasible | finished["trial"].isin(set_aside).to_numpy(dtype=bool)
    unstable = _more_there(infeasible, beside, UNSTABLE, UNSTABLE_CHANCE)
    unstable = unstable or _more_there(bad, beside, COLLAPSED, COLLAPSED_CHANCE)
    return {"infeasible_outer": float(bad[beside].mean()) if beside.any() else 0.0, "unstable": unstable}


def _more_there(bad: NDArray[np.bool_], beside: NDArray[np.bool_], share: float, level: float) -> bool:
    """Whether at least a share of the trials beside an edge are bad, and surely more than elsewhere."""
    if not bad[beside].any() or bad[beside].mean() < share:
        return False
    counts = [[int((part & state).sum()) for state in (bad, ~bad)] for part in (beside, ~beside)]
    return bool(stats.fisher_exact(counts, alternative="greater").pvalue < level)


def _beside(positions: Array, edge: str, part: float) -> NDArray[np.bool_]:
    return positions <= part + 1e-9 if edge == "low" else positions >= 1.0 - part - 1e-9


def _finding(frames: StudyFrames, axis: Axis, edges: pd.DataFrame, found: EdgeGains) -> Finding:
    verdicts = {str(where): _verdict(part) for where, part in edges.groupby("where", sort=False)}
    verdict = _joint(list(verdicts.values()), edges)
    return Finding(
        question="boundary",
        subject=axis.name,
        verdict=verdict,
        strength=_strength(verdict, edges),
        summary=summary_of(axis, verdict, edges, found, frames.study.objective.metric),
        evidence=edges,
        thresholds=_THRESHOLDS,
        action=action_of(axis, verdict, edges),
        needs_action=verdict.startswith("expand"),
        caveats=caveats_of(axis, edges, found),
    )


def _verdict(edges: pd.DataFrame) -> str:
    """Of one value whose best is asked, or of all trials."""
    rows = [row for row in edges.to_dict("records") if _is_open(row)]  # type: ignore[arg-type]
    moved = [row for row in rows if row["expand"]]
    if moved:
        return f"expand_{moved[0]['edge']}"
    if all(_too_small(row) for row in rows):  # type: ignore[arg-type]
        return "ok"
    if any(not math.isfinite(row["error"]) for row in rows):
        return "inconclusive"
    decided = [_too_small(row) or row["worse"] or (row["negligible"] and not row["real"]) for row in rows]  # type: ignore[arg-type]
    return "ok" if all(decided) else "inconclusive"


def _joint(verdicts: list[str], edges: pd.DataFrame) -> str:
    """Of all values whose best is asked: the edge where most is gained; ok where all are."""
    moved = edges[edges["expand"]].sort_values("gain", ascending=False, kind="stable")
    if len(moved):
        return f"expand_{moved['edge'].iloc[0]}"
    return "ok" if all(verdict == "ok" for verdict in verdicts) else "inconclusive"


def _strength(verdict: str, edges: pd.DataFrame) -> Strength:
    """How far the best observed points agree with the fit."""
    if verdict == "inconclusive":
        return "none"
    if verdict == "ok":
        open_ones = edges[(edges["closed"] == "") & ~edges["unstable"]]
        if len(open_ones) and not np.isfinite(open_ones["error"]).all():
            return "weak"
        return "strong" if open_ones.empty or open_ones["top_outer"].max() < 2 else "moderate"
    moved = edges[edges["expand"] & (edges["edge"] == verdict.removeprefix("expand_"))]
    return ("weak", "moderate", "strong", "strong")[int(moved["top_outer"].max())]
