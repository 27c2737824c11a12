"""Training curves of the best trials (B24), as frames."""

import pandas as pd

from tuner.analysis.study_frames import StudyFrames
from tuner.design.objective import metric_from

TOP = 3


def ranked_trials(frames: StudyFrames) -> pd.DataFrame:
    """Completed trials, best first; equal values keep the order of their numbers."""
    ascending = frames.study.objective.direction == "minimize"
    return frames.complete.sort_values("best_value", ascending=ascending, kind="stable").reset_index(drop=True)


def pruned_curves_frame(frames: StudyFrames, *, most: int = 40) -> pd.DataFrame:
    """The validation curves of `most` pruned trials, as rows of `top_curves_frame` without a rank."""
    name, _, validation = _selecting(frames)
    trials = frames.pruned["trial"].head(most)
    curves = frames.curves[(frames.curves["metric"] == validation) & frames.curves["trial"].isin(trials)]
    table = curves.assign(rank=pd.array([pd.NA] * len(curves), "Int64"), split="pruned", metric=name, chosen=False)
    return table[["rank", "trial", "split", "metric", "step", "value", "chosen"]].reset_index(drop=True)


def top_curves_frame(frames: StudyFrames, *, top: int = TOP) -> pd.DataFrame:
    """Training and validation curves of the `top` best trials.

    Columns: rank (1 is best), trial, split, metric (without its split), step, value, chosen (the step that
    retrospective selection picked). Only the metric that selects, on both splits.
    """
    best = ranked_trials(frames).head(top)
    name, *metrics = _selecting(frames)
    curves = frames.curves[frames.curves["metric"].isin(metrics)]
    places = pd.DataFrame({"trial": best["trial"], "rank": range(1, len(best) + 1), "best_step": best["best_step"]})
    table = places.merge(curves, on="trial")
    table["split"] = table["metric"].astype(str).map(lambda text: metric_from(text).split)
    table["metric"] = name
    table["chosen"] = table["step"] == table["best_step"]
    columns = ["rank", "trial", "split", "metric", "step", "value", "chosen"]
    return table[columns].sort_values(["rank", "split", "step"]).reset_index(drop=True)


def _selecting(frames: StudyFrames) -> tuple[str, str, str]:
    """The name of the selecting metric, and the metric on the training and on the validation split."""
    metric = frames.study.objective.measured
    return metric.name, str(metric.on("training")), str(metric.on("validation"))
