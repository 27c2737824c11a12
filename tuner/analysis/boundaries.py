"""Was the search space large enough? One finding for each numeric hyperparameter (B20, D3, D38-D40)."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from tuner.analysis.curves import TOP, ranked_trials
from tuner.analysis.edge_gains import MINIMUM_TRIALS, OUTER, TRIALS_PER_DIMENSION, edge_gains
from tuner.analysis.finding import Finding, Strength
from tuner.analysis.positions import unit_positions
from tuner.analysis.response import Array
from tuner.analysis.study_frames import StudyFrames
from tuner.analysis.widening import next_bound
from tuner.design.hyperparameters import Range

CONFIDENCE = 0.99  # [P] one-sided, of a gain being real or negligible
NEGLIGIBLE = 0.05  # [P] spreads of the objective: a gain towards an edge surely below it does not matter
WORSE = 3.0  # [P] standard deviations by which an edge is worse than the best point: the optimum lies inside
UNSTABLE = 0.5  # [P] share of infeasible trials next to an edge that bounds the space there (D4)
UNSTABLE_OUTER = 0.2  # [P] of the range is "next to an edge" for infeasible trials
UNSTABLE_CHANCE = 0.05  # [P] and the share is higher there than elsewhere, at this level (Fisher's exact test)

_THRESHOLDS = {
    "outer": OUTER,
    "confidence": CONFIDENCE,
    "negligible_in_spreads": NEGLIGIBLE,
    "worse_in_deviations": WORSE,
    "minimum_trials": MINIMUM_TRIALS,
    "trials_per_dimension": TRIALS_PER_DIMENSION,
    "unstable": UNSTABLE,
    "unstable_outer": UNSTABLE_OUTER,
    "unstable_chance": UNSTABLE_CHANCE,
}


def boundaries_frame(frames: StudyFrames) -> pd.DataFrame:
    """Two rows a numeric hyperparameter: its edges, "low" and "high".

    Columns: hyperparameter, edge, bound, physical (a declared limit), trials (completed ones that have it), gain and
    error (the fitted objective at the edge against a little inside, in spreads), real and negligible (that gain, at
    CONFIDENCE), worse (the edge, surely, than the best point of the fit), top_outer (how many of the best 3 lie in
    the outer part), infeasible_outer (share of infeasible trials next to the edge), unstable (infeasible trials
    bound the space there), next_bound (further out).
    """
    gains = edge_gains(frames)
    ranked = ranked_trials(frames)
    critical = float(stats.norm.ppf(CONFIDENCE))
    rows = []
    for hyperparameter in frames.study.hyperparameters:
        name, domain = hyperparameter.name, hyperparameter.domain
        if not isinstance(domain, Range):
            continue
        complete = ranked[ranked[name].notna()]
        positions = unit_positions(complete[name], domain)
        for edge in ("low", "high"):
            gain, error, worse = gains[name, edge]
            rows.append(
                {
                    "hyperparameter": name,
                    "edge": edge,
                    "bound": domain.low if edge == "low" else domain.high,
                    "physical": domain.limits in (edge, "both"),
                    "trials": len(complete),
                    "gain": gain,
                    "error": error,
                    "real": gain - critical * error > 0.0 and worse < WORSE,
                    "negligible": gain + critical * error < NEGLIGIBLE,
                    "worse": worse >= WORSE,
                    "top_outer": int(_beside(positions[:TOP], edge, OUTER).sum()),
                    **_instability(frames, name, domain, edge),
                    "next_bound": next_bound(domain, edge),
                }
            )
    return pd.DataFrame(rows)


def boundary_findings(frames: StudyFrames) -> list[Finding]:
    """One finding for each numeric hyperparameter, in declared order; choices have no edges."""
    table = boundaries_frame(frames)
    return [
        _finding(h.name, h.domain, table[table["hyperparameter"] == h.name].reset_index(drop=True))
        for h in frames.study.hyperparameters
        if isinstance(h.domain, Range)
    ]


def _instability(frames: StudyFrames, name: str, domain: Range, edge: str) -> dict[str, object]:
    finished = frames.trials[frames.trials["state"].isin(["complete", "infeasible"])]
    finished = finished[finished[name].notna()]
    infeasible = (finished["state"] == "infeasible").to_numpy()
    beside = _beside(unit_positions(finished[name], domain), edge, UNSTABLE_OUTER)
    share = float(infeasible[beside].mean()) if beside.any() else 0.0
    counts = [[int((part & state).sum()) for state in (infeasible, ~infeasible)] for part in (beside, ~beside)]
    chance = float(stats.fisher_exact(counts, alternative="greater").pvalue) if infeasible.any() else 1.0
    return {"infeasible_outer": share, "unstable": share >= UNSTABLE and chance < UNSTABLE_CHANCE}


def _beside(positions: Array, edge: str, part: float) -> NDArray[np.bool_]:
    return positions <= part if edge == "low" else positions >= 1.0 - part


def _finding(name: str, domain: Range, edges: pd.DataFrame) -> Finding:
    verdict, reason = _verdict(edges)
    return Finding(
        question="boundary",
        subject=name,
        verdict=verdict,
        strength=_strength(verdict, edges),
        summary=f"{reason} {_numbers(edges)}",
        evidence=edges,
        thresholds=_THRESHOLDS,
        action=_action(name, domain, edges, verdict),
        needs_action=verdict.startswith("expand"),
        caveats=_caveats(edges),
    )


def _verdict(edges: pd.DataFrame) -> tuple[str, str]:
    open_edges = edges[~edges["physical"] & ~edges["unstable"]]
    if open_edges.empty:
        return "ok", "Both edges are bounded, by declared limits or by instability."
    if open_edges["error"].max() == float("inf"):
        return "inconclusive", "Too few completed trials, or no differences between them, for the number of dimensions."
    real = open_edges[open_edges["real"]]
    if len(real) == 1 and not real["negligible"].iloc[0]:
        row = real.iloc[0]
        verdict = f"expand_{row['edge']}"
        return verdict, f"The objective still improves towards the {row['edge']} edge, {row['bound']:g}."
    if (open_edges["negligible"] | open_edges["worse"]).all() and real.empty:
        return "ok", _inside(edges, open_edges)
    return "inconclusive", "The trials do not say whether the objective still improves towards an edge."


def _inside(edges: pd.DataFrame, open_edges: pd.DataFrame) -> str:
    """Why no edge has to move; what is gained towards a closed one needs its reason beside it."""
    gaining = open_edges[open_edges["gain"] > NEGLIGIBLE]["edge"].tolist()
    if gaining:
        reason = f"The optimum lies inside: its value is surely better than at the {' and the '.join(gaining)} edge"
    else:
        reason = (
            f"Nothing is gained towards {'an' if len(open_edges) == 2 else 'the ' + open_edges['edge'].iloc[0]} edge"
        )
    closed = [
        f"the {row['edge']} edge is {'a declared limit' if row['physical'] else 'bounded by instability'}"
        for row in edges[edges["physical"] | edges["unstable"]].to_dict("records")
    ]
    return f"{'; '.join([reason, *closed])}."


def _numbers(edges: pd.DataFrame) -> str:
    if edges["error"].max() == float("inf"):  # nothing was fitted
        return f"{int(edges['trials'].iloc[0])} trials completed."
    gains = ", ".join(f"{row['edge']} {row['gain']:+.2f} ± {row['error']:.2f}" for row in edges.to_dict("records"))
    outer = ", ".join(f"{row['top_outer']} at the {row['edge']}" for row in edges.to_dict("records"))
    return f"Gain over the outer {OUTER:.0%} in spreads: {gains}; of the best {TOP} points {outer} edge."


def _strength(verdict: str, edges: pd.DataFrame) -> Strength:
    """How far the best observed points agree with the fit."""
    if verdict == "inconclusive":
        return "none"
    if verdict == "ok":
        return "strong" if edges["top_outer"].max() < 2 else "moderate"
    seen = int(edges.loc[edges["edge"] == verdict.removeprefix("expand_"), "top_outer"].iloc[0])
    return ("weak", "moderate", "strong", "strong")[seen]


def _action(name: str, domain: Range, edges: pd.DataFrame, verdict: str) -> str:
    if verdict == "ok":
        return "Nothing to do."
    if verdict == "inconclusive":
        return f"Train more points in the same space; {edges['trials'].iloc[0]} completed trials do not decide."
    row = edges[edges["edge"] == verdict.removeprefix("expand_")].iloc[0]
    low, high = (row["next_bound"], domain.high) if row["edge"] == "low" else (domain.low, row["next_bound"])
    text = f"Search {name} from {low:g} to {high:g} instead of {domain.low:g} to {domain.high:g}"
    if low < 0 <= domain.low:
        return f'{text}, or declare limits="low" if it cannot be negative.'
    return f"{text}."


def _caveats(edges: pd.DataFrame) -> tuple[str, ...]:
    return tuple(
        f"{row['infeasible_outer']:.0%} of the trials next to the {row['edge']} edge are infeasible: instability, not "
        "the range, bounds the space there (D4); a warmup may move it (B36)."
        for row in edges[edges["unstable"]].to_dict("records")
    )
