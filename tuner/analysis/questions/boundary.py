"""Was the search space large enough? One finding for each hyperparameter with an order (B20, D3, D38-D40)."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from tuner.analysis.edge_gains import (
    MINIMUM_EACH,
    MINIMUM_TRIALS,
    OUTER,
    RELATIVE,
    TRIALS_PER_DIMENSION,
    EdgeGains,
    axes_of,
    edge_gains,
)
from tuner.analysis.elsewhere import more_trials, number, search_line
from tuner.analysis.finding import Finding, Question, Strength, Verdict
from tuner.analysis.noise import Array
from tuner.analysis.pooled_gains import CONFIDENCE
from tuner.analysis.ranges import Axis, closed_because, further, wider_choices
from tuner.analysis.robust_response import FAR, NOISY
from tuner.analysis.study_frames import TOP, StudyFrames, ranked_trials
from tuner.design.adapters import RANKS
from tuner.design.hyperparameters import Choice, Range
from tuner.design.names import Name
from tuner.design.stages import START_FROM

CONFIDENCE_AMONG_LUCK = 0.9995  # [P] one-sided, of a gain being real, where more than
MANY_SET_ASIDE = 0.25  # [P] of the trials were set aside: which ones is not always certain
NEGLIGIBLE = (
    0.05  # [P] standard deviations of the trials: a gain towards an edge that is surely smaller does not matter
)
AGREEING = 2  # [P] of the best 3 trials, in the half next to an edge that has to move
WORSE = 3.0  # [P] standard deviations by which an edge is worse than the best point: the optimum lies inside
UNSTABLE = 0.5  # [P] share of infeasible trials next to an edge that bounds the space there (D4)
UNSTABLE_OUTER = 0.2  # [P] of the range is "next to an edge" for infeasible trials
UNSTABLE_CHANCE = 0.05  # [P] and the share is higher there than elsewhere, at this level (Fisher's exact test)
# [P] The same for trials that were set aside: some of them lie next to an edge by bad luck.
COLLAPSED, COLLAPSED_CHANCE = 0.8, 0.01

QUESTION = Question(
    name="boundary",
    sentence="Was the range wide enough?",
    order=100,
    verdicts=(
        Verdict("ok", "fine"),
        Verdict("expand_low", "act"),
        Verdict("expand_high", "act"),
        Verdict("inconclusive", "open"),
    ),
    thresholds={
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
    },
    needs=("search",),
    ask=lambda frames: boundary_findings(frames),
    title="{subject}",
    plot="axes",
    rules=("B20", "B36", "D3", "D4", "D38", "D39", "D40"),
    uneven="few trials lie far from the best ones, so less is known there",
    pruned="each counts as at least as bad as the completed trial that had its rank when it was ended",
    weakened=True,
    elsewhere=lambda frames, finding: _in_own_code(frames, finding),
)


def boundaries_frame(frames: StudyFrames) -> pd.DataFrame:
    """Two rows, "low" and "high", for each hyperparameter with an order and each value with a best of its own.

    Columns: hyperparameter, edge, where ("optimizer = sgd", or "" for all trials), bound, closed (why the edge
    cannot be moved, or ""), trials (completed ones that have it), gain and error (the fitted objective at the edge
    against a little inside, in standard deviations), value_gain and value_error (the same in the unit of the
    metric), beyond (what moving the edge to the next bound would gain at this rate), worth (the smallest gain that
    counts), worthless (surely less), real and negligible (that gain, at CONFIDENCE), worse (the edge, surely, than
    the best point of the fit), top_outer (how many of the best 3 lie in the outer part), top_half (in the half next
    to it), infeasible_outer (share of trials next to the edge that are infeasible or set aside), unstable (they
    bound the space there), next_bound (further out), expand (whether the edge has to move).
    """
    return _frame(frames, edge_gains(frames))


def boundary_findings(frames: StudyFrames) -> list[Finding]:
    """One finding for each hyperparameter with an order, as declared; choices of names and of candidates have none."""
    found = edge_gains(frames)
    table = _frame(frames, found)
    return [
        _finding(frames, axis, table[table["hyperparameter"] == axis.name].reset_index(drop=True), found)
        for axis in _judged_axes(frames)
    ]


def _judged_axes(frames: StudyFrames) -> list[Axis]:
    """The axes that may be widened: candidates of an earlier stage are counted by it, and have no range."""
    return [axis for axis in axes_of(frames) if Name.of(axis.name).short != START_FROM]


def _frame(frames: StudyFrames, found: EdgeGains) -> pd.DataFrame:
    ranked = ranked_trials(frames)
    many_set_aside = len(found.set_aside) > MANY_SET_ASIDE * found.judged
    rows: list[dict[str, Any]] = []
    for axis in _judged_axes(frames):
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
    """An edge moves where it alone still gains enough; where both seem to gain, the fit is not reliable."""
    gaining = [row for row in pair if _is_open(row) and row["real"] and not _too_small(row)]
    for row in pair:
        row["expand"] = (
            len(gaining) == 1 and row is gaining[0] and row["gain"] >= NEGLIGIBLE and row["top_half"] >= AGREEING
        )


def _is_open(row: dict[str, Any]) -> bool:
    return not row["closed"] and not row["unstable"]


def _too_small(row: dict[str, Any]) -> bool:
    """Whether the gain is too small to matter: surely, or a real gain by its size."""
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
    """Whether at least `share` of the trials next to an edge are bad, and surely more than elsewhere."""
    if not bad[beside].any() or bad[beside].mean() < share:
        return False
    counts = [[int((part & state).sum()) for state in (bad, ~bad)] for part in (beside, ~beside)]
    return bool(stats.fisher_exact(counts, alternative="greater").pvalue < level)


def _beside(positions: Array, edge: str, part: float) -> NDArray[np.bool_]:
    return positions <= part + 1e-9 if edge == "low" else positions >= 1.0 - part - 1e-9


def _finding(frames: StudyFrames, axis: Axis, edges: pd.DataFrame, found: EdgeGains) -> Finding:
    verdicts = {str(where): _verdict(part) for where, part in edges.groupby("where", sort=False)}
    verdict = _joint(list(verdicts.values()), edges)
    return QUESTION.answer(
        axis.name,
        verdict,
        _summary(axis, verdict, edges, found, frames.study.objective.metric),
        edges,
        strength=_strength(verdict, edges),
        action=_action(axis, verdict, edges),
        caveats=_caveats(axis, edges, found),
    )


def _verdict(edges: pd.DataFrame) -> str:
    """Of one value with a best of its own, or of all trials."""
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
    """Over all values with a best of their own: the edge where most is gained; ok where all are."""
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


_LIMIT = {"low": "lower", "high": "upper"}
_MOST_NAMED = 5


def _summary(axis: Axis, verdict: str, edges: pd.DataFrame, found: EdgeGains, metric: str) -> str:
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


def _action(axis: Axis, verdict: str, edges: pd.DataFrame) -> str:
    """What to search next, as it can be declared."""
    if verdict == "ok":
        return ""
    if verdict == "inconclusive":
        completed = edges.groupby("where")["trials"].max().sum()  # of each value that was judged
        return f"Train more configurations in the same space; {completed} completed trials are not enough."
    moved = {str(row["edge"]): row["next_bound"] for row in edges[edges["expand"]].to_dict("records")}
    if axis.levels:
        return _more_choices(axis, list(moved.values()))
    low, high = moved.get("low", axis.scale.low), moved.get("high", axis.scale.high)
    text = f"Search {axis.name} from {low:g} to {high:g} instead of {axis.scale.low:g} to {axis.scale.high:g}"
    if low < 0 <= axis.scale.low:
        return f'{text}, or declare limits="low" if it cannot be negative.'
    return f"{text}."


def _caveats(axis: Axis, edges: pd.DataFrame, found: EdgeGains) -> tuple[str, ...]:
    """Ridges, trials that were set aside or pruned, instability, values with too few trials."""
    found_caveats = [f"{axis.name} and {partner} trade off along a ridge: move both or fix one." for partner in
            found.partners.get(axis.name, [])]  # fmt: skip
    found_caveats += [
        f"{row['infeasible_outer']:.0%} of the trials next to the {_LIMIT[row['edge']]} limit are infeasible or far "
        "worse than their neighbours: instability, not the range, bounds the space there (D4); a warmup may move it "
        "(B36)."
        for row in edges[edges["unstable"]].drop_duplicates("edge").to_dict("records")
    ]
    if found.set_aside:
        found_caveats.append(_set_aside(found))
    if found.pruned:
        found_caveats.append(
            f"{found.pruned} pruned trials count as at least this bad: each has the value of its rank among the "
            "completed trials at the step where it was stopped."
        )
    few = found.few.get(axis.name, [])
    if few:
        found_caveats.append(f"Too few trials to tell what is best for {', '.join(few[:_MOST_NAMED])}.")
    return tuple(found_caveats)


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
        f"deviations of the trials). At this rate, moving the limit to {row['next_bound']:g} would gain about "
        f"{row['beyond']:.2g}. {top} there."
    )


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _ok(axis: Axis, rows: list[dict[str, Any]], found: EdgeGains, metric: str) -> str:
    closed = {row["edge"]: row["closed"] for row in rows if row["closed"]}
    unstable = {row["edge"] for row in rows if row["unstable"] and not row["closed"]}
    reasons = list(dict.fromkeys(closed.values()))
    reasons += [f"instability bounds the {_LIMIT[edge]} limit" for edge in ("low", "high") if edge in unstable]
    open_rows = [row for row in rows if row["edge"] not in closed and row["edge"] not in unstable]
    if open_rows and found.judged >= MINIMUM_TRIALS and found.span <= found.worth.least:
        return (
            f"The results of all {found.judged} trials differ by at most {found.span:.2g} of {metric}, less than "
            f"{found.worth.because}: no limit of the range hides a gain that matters. If all trials are at the level "
            "of guessing, the whole space may lie in the wrong place."
        )
    because = "; ".join(reasons)
    if not open_rows:
        return f"The range needs no change: {because}."
    parts = [_no_gain(open_rows, found, metric)]
    if because:
        parts.append(f"{because[0].upper()}{because[1:]}.")
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
            f"Beyond the limits {metric} can improve by at most {max(most, 0.0):.2g}, less than {found.worth.because}."
        )
    if inside:
        return f"The best lies inside: {metric} is surely worse at the {' and the '.join(inside)} limit."
    limits = " and the ".join(dict.fromkeys(_LIMIT[row["edge"]] for row in rows))
    return f"Nothing is gained towards the {limits} limit."


def _numbers(rows: list[dict[str, Any]], metric: str) -> str:
    """How the metric changes near the limits, for each value with a best of its own."""
    sentences = []
    for where in dict.fromkeys(row["where"] for row in rows):
        mine = [row for row in rows if row["where"] == where]
        changes = ", ".join(f"near the {_LIMIT[row['edge']]} limit {_change(row)}" for row in mine)
        outer = ", ".join(f"{row['top_outer']} near the {_LIMIT[row['edge']]}" for row in mine)
        sentences.append(f"{_with(mine[0])}{metric} {changes}; of the top {TOP} trials {outer}.")
    return " ".join(sentences)


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
    end = ", as far as the smaller side of each layer allows" if axis.hyperparameter.short_name in RANKS else ""
    return f"Add {named} to the choices of {axis.name}: {', '.join(map(str, choices))}{end}."


def _in_own_code(frames: StudyFrames, finding: Finding) -> str:
    """The next step for the owner of an imported study."""
    if finding.verdict == "inconclusive":
        return f"Train more trials in the same ranges, spread evenly: {more_trials(frames)}."
    return _wider(frames, finding) if finding.verdict.startswith("expand") else finding.action


def _wider(frames: StudyFrames, finding: Finding) -> str:
    hyperparameter = next(h for h in frames.study.hyperparameters if h.name == finding.subject)
    domain, edges = hyperparameter.domain, finding.evidence
    if not isinstance(domain, Range):
        return finding.action
    moved = {row["edge"]: row["next_bound"] for row in edges[edges["expand"]].to_dict("records")}
    bounds = {"low": domain.low, "high": domain.high} | moved
    was = f"{number(domain.low, domain.integer)} to {number(domain.high, domain.integer)}"
    wider = f"{number(bounds['low'], domain.integer)} to {number(bounds['high'], domain.integer)}"
    line = search_line(frames.study, hyperparameter, replace(domain, low=bounds["low"], high=bounds["high"]))
    return f"Search {finding.subject} from {wider} instead of {was}: {line}."
