"""Are most updates clipped (B38)? Then clip_norm sets the size of the steps, and not the learning rate."""

from collections.abc import Hashable, Mapping

import numpy as np
import pandas as pd

from tuner.analysis.finding import Finding, Question, Strength, Verdict
from tuner.analysis.good_trials import good_in_words, good_trials
from tuner.analysis.study_frames import StudyFrames
from tuner.design.names import Name
from tuner.design.objective import CLIPPED_SHARE, GRADIENT_NORM, LARGEST_GRADIENT_NORM

MOST = 0.5  # [S] share of clipped updates above which the learning rate should be lower instead (B38)
PERCENTILE = 0.9  # [S] of the gradient norms: where clip_norm should be (B38)
MANY = 0.5  # [P] share of the good trials whose updates are mostly clipped that needs action
MINIMUM_STRONG = 5  # [P] good trials for a strong answer

_WHY = "where most updates are clipped, clip_norm sets the size of the steps, not the learning rate (B38)."
QUESTION = Question(
    name="clipping",
    sentence="Are most updates clipped?",
    order=135,
    verdicts=(
        Verdict("ok", "fine"),
        Verdict("mostly_clipped", "act", f"Search lower learning rates, or raise clip_norm: {_WHY}"),
        Verdict("inconclusive", "open", "Let trials complete, then ask again."),
    ),
    thresholds={"most": MOST, "percentile": PERCENTILE, "many": MANY},
    ask=lambda frames: clipping_findings(frames),
    plot="curves",
    rules=("B38", "D48"),
    pruned="they take no part here",
)
_RECORDED = [str(CLIPPED_SHARE), str(LARGEST_GRADIENT_NORM), str(GRADIENT_NORM)]
_COLUMNS = ["trial", "best_value", "clip_norm", "clipped", "largest_norm", "usual_norm"]


def clipping_frame(frames: StudyFrames) -> pd.DataFrame:
    """One row a good trial whose clipped updates were counted, best first.

    Columns: trial, best_value, clip_norm (None where it is not declared), clipped (the share of all its updates whose
    gradient was clipped), largest_norm (of all its gradients, before clipping), usual_norm (the 90th percentile of the
    norms before clipping at its evaluations).
    """
    trials, curves = good_trials(frames), frames.curves
    metrics = [*_RECORDED, frames.study.objective.metric]  # the objective is there at every evaluation
    curves = curves[curves["metric"].isin(metrics) & curves["trial"].isin(trials["trial"])]
    by_trial = {int(str(trial)): part for trial, part in curves.groupby("trial")}
    rows = []
    for row in trials.to_dict("records"):
        counted = _counted(by_trial.get(int(row["trial"])))
        if counted is not None:
            rows.append((row["trial"], row["best_value"], _limit(frames, row), *counted))
    return pd.DataFrame(rows, columns=_COLUMNS)


def clipping_findings(frames: StudyFrames) -> list[Finding]:
    """mostly_clipped, ok, or inconclusive while no trial has completed; none where no clipped update was counted."""
    if str(CLIPPED_SHARE) not in frames.metrics:
        return []
    table, good = clipping_frame(frames), len(good_trials(frames))
    if table.empty:
        nothing = "No completed trial has counts of clipped updates."
        return [QUESTION.answer(frames.study.name, "inconclusive", nothing, table)]
    mostly = int((table["clipped"] > MOST).sum())
    verdict = "mostly_clipped" if mostly / good >= MANY else "ok"
    best = table.to_dict("records")[0]
    usual = float(table["usual_norm"].median())
    summary = (
        f"{good_in_words(frames, good)}: {mostly} of them clipped more than {MOST:.0%} of their updates; trial "
        f"{best['trial']} clipped {best['clipped']:.0%}."
    )
    action = ""
    if np.isfinite(usual):
        summary += f" The {100 * PERCENTILE:.0f}th percentile of their gradient norms at evaluations is {usual:.3g}."
        if verdict == "mostly_clipped":
            action = f"Search lower learning rates, or raise clip_norm to about {usual:.2g}: {_WHY}"
    strength: Strength = "strong" if len(table) >= MINIMUM_STRONG else "moderate"
    return [QUESTION.answer(frames.study.name, verdict, summary, table, strength=strength, action=action)]


def _counted(measured: pd.DataFrame | None) -> tuple[float, float, float] | None:
    """Share of clipped updates, largest norm and usual norm of a trial; None where its updates were not counted.

    An evaluation without a count lies in the part of a trial that an older version trained, and is left out.
    """
    if measured is None:
        return None
    table = measured.pivot(index="step", columns="metric", values="value").sort_index()
    if str(CLIPPED_SHARE) not in table:
        return None
    table = table.reindex(columns=_RECORDED)
    updates = np.diff(table.index.to_numpy(dtype=np.float64), prepend=0.0)
    shares, largest, norms = table.to_numpy(dtype=np.float64).T
    known = np.isfinite(shares)
    if not known.any():
        return None
    usual = norms[known & np.isfinite(norms)]
    return (
        float(np.average(shares[known], weights=updates[known])),
        float(np.max(largest[known])),
        float(np.quantile(usual, PERCENTILE)) if len(usual) else np.nan,
    )


def _limit(frames: StudyFrames, row: Mapping[Hashable, object]) -> object:
    """The clip_norm of a trial: searched, in its branch, or the same for all."""
    fixed = {name: constant.value for name, constant in frames.study.fixed}
    for name, value in {**fixed, **{name: row[name] for name in frames.hyperparameters}}.items():
        if Name.of(name).short == "clip_norm" and isinstance(value, int | float) and value == value:
            return value
    return None
