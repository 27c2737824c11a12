"""Infeasible trials: how many, and where in the search space (B22)."""

from dataclasses import replace

import numpy as np
import pandas as pd

from tuner.analysis.finding import Finding
from tuner.analysis.positions import unit_positions
from tuner.analysis.question import Question
from tuner.analysis.study_frames import StudyFrames
from tuner.design.hyperparameters import Range

MANY = 0.5  # [P] a larger share of infeasible trials asks for another space (B22)
MINIMUM_FINISHED = 5  # [P] fewer finished trials have no share worth the name
SEPARATED = 0.5  # [P] |P(infeasible above feasible) - 1/2| * 2 beyond this names where they lie


_QUESTION = Question(
    "infeasible",
    {"many": MANY, "minimum_finished": MINIMUM_FINISHED, "separated": SEPARATED},
    {
        "inconclusive": f"Finish at least {MINIMUM_FINISHED} trials, then ask again.",
        "many_infeasible": "Shrink or reparameterize the space, or look for a bug (B22).",
    },
    urgent=("many_infeasible",),
)


def infeasible_frame(frames: StudyFrames) -> pd.DataFrame:
    """One row a numeric hyperparameter: where infeasible and feasible trials lie.

    Columns: hyperparameter, infeasible (count), feasible (count), infeasible_low and infeasible_high (10 % and 90 %
    quantiles of their values), feasible_low, feasible_high, separation (-1: all infeasible ones below the
    feasible, 0: no difference, 1: all above).
    """
    rows = []
    for hyperparameter in frames.study.hyperparameters:
        if isinstance(hyperparameter.domain, Range):
            there = frames.trials[frames.trials[hyperparameter.name].notna()]
            values = there[hyperparameter.name].astype(float)
            bad, good = values[there["state"] == "infeasible"], values[there["state"] == "complete"]
            rows.append(
                {
                    "hyperparameter": hyperparameter.name,
                    "infeasible": len(bad),
                    "feasible": len(good),
                    "infeasible_low": bad.quantile(0.1),
                    "infeasible_high": bad.quantile(0.9),
                    "feasible_low": good.quantile(0.1),
                    "feasible_high": good.quantile(0.9),
                    "separation": _separation(
                        unit_positions(bad, hyperparameter.domain), unit_positions(good, hyperparameter.domain)
                    ),
                }
            )
    columns = ["hyperparameter", "infeasible", "feasible", "infeasible_low", "infeasible_high"]
    return pd.DataFrame(rows, columns=[*columns, "feasible_low", "feasible_high", "separation"])


def infeasible_finding(frames: StudyFrames) -> Finding:
    """ok, many_infeasible or inconclusive; failed and cancelled trials say nothing about the space (D44)."""
    states = frames.trials["state"]
    bad, finished = int((states == "infeasible").sum()), int(states.isin(["infeasible", "complete"]).sum())
    table = infeasible_frame(frames)
    share = bad / finished if finished else 0.0
    verdict = "inconclusive" if finished < MINIMUM_FINISHED else "many_infeasible" if share > MANY else "ok"
    where = _where(table) if bad else ""
    found = _QUESTION.answer(
        frames,
        verdict,
        f"{bad} of {finished} finished trials are infeasible ({share:.0%}){where}.",
        table,
        strength="strong" if finished >= 4 * MINIMUM_FINISHED else "moderate",
    )
    known = found.needs_action and where
    return replace(found, action=f"Shrink or reparameterize the space{where} (B22).") if known else found


def _where(table: pd.DataFrame) -> str:
    parts = []
    for row in table[table["separation"].abs() >= SEPARATED].to_dict("records"):
        side, edge = ("above", "infeasible_low") if row["separation"] > 0 else ("below", "infeasible_high")
        parts.append(f"{row['hyperparameter']} {side} about {row[edge]:.3g}")
    return f", mostly at {' and '.join(parts)}" if parts else ""


def _separation(infeasible: np.ndarray, feasible: np.ndarray) -> float:
    if not len(infeasible) or not len(feasible):
        return float("nan")
    return float(np.sign(infeasible[:, None] - feasible[None, :]).mean())
