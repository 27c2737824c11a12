"""Is the candidate better than the baseline, in view of the variance of trials? (B31-B34, D41, D42)

Both were trained again with fresh seeds; the run by which the candidate was chosen does not count, because the best of
many is lucky as well as good. The evidence is Welch's interval of the difference of means. With five against five it
keeps its level where the noise is normal, skewed, heavy-tailed or unequal, it finds more than a permutation test or
an interval of ranks when noise is normal, and it gives an interval at any level (`benchmarks/adoption_rates.py`).
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tuner.analysis.finding import Finding, Question, Verdict
from tuner.analysis.frames import study_frames
from tuner.analysis.replicates import LEVEL, Difference, welch_difference, with_interval
from tuner.analysis.round_frames import frames_of_rows
from tuner.analysis.stage_effort import StageEffort, effort_of
from tuner.analysis.study_frames import StudyFrames
from tuner.design.study import Study
from tuner.records.conclusions import Adoption
from tuner.storage.store import Ledger

REPLICATES = 5  # [P] fresh seeds for each side (B32)
KIND: Final = "adoption"  # of studies, and the question

QUESTION = Question(
    name=KIND,
    sentence="Is it better by more than trials vary?",
    order=500,
    scope="campaign",
    verdicts=(
        Verdict("adopt", "fine", "Use the candidate as the new baseline: it is in the log of adoptions."),
        Verdict("keep", "told", "Keep the baseline."),
        Verdict(
            "tie",
            "told",
            "Keep the simpler of the two; without a simpler one, the baseline. More replicates can decide a tie, but "
            "each look at the growing records is another chance to be wrong.",
        ),
        Verdict("inconclusive", "open", "Finish at least two replicates of each: the same command continues."),
    ),
    rules=("B31", "B32", "B33", "B34", "D41", "D42"),
)
_BASELINE = "-baseline"  # ends the name of a baseline's own study
_COLUMNS = ["study", "candidate", "baseline", "verdict", "gain", "low", "high", "level", "replicates", "metric"]


def is_adoption(study: Study) -> bool:
    """Whether a study trained candidate and baseline of a contest."""
    return study.kind == KIND


def is_candidate(number: int) -> bool:
    """Even trials of an adoption study train the candidate, odd ones the baseline, so that both can grow."""
    return number % 2 == 0


def adoption_frame(frames: StudyFrames) -> pd.DataFrame:
    """Two rows, candidate and baseline: from, replicates, diverged, unfinished (failed among them), failed, median,
    mean, sd, worst, best.
    """
    ascending = frames.study.objective.direction == "minimize"
    rows = []
    for side, even in (("candidate", True), ("baseline", False)):
        mine = frames.trials[frames.trials["trial"].map(is_candidate) == even]
        values = _values(frames, even)
        extremes = (np.max, np.min) if ascending else (np.min, np.max)
        worst, best = (float(extreme(values)) if len(values) else math.nan for extreme in extremes)
        rows.append(
            {
                "side": side,
                "from": " trial ".join(frames.study.lineage[0 if even else 1]),
                "replicates": len(values),
                "diverged": int((mine["state"] == "infeasible").sum()),
                "unfinished": int(mine["state"].isin(["waiting", "running", "failed", "cancelled"]).sum()),
                "failed": int((mine["state"] == "failed").sum()),
                "median": float(np.median(values)) if len(values) else math.nan,
                "mean": float(values.mean()) if len(values) else math.nan,
                "sd": float(values.std(ddof=1)) if len(values) > 1 else math.nan,
                "worst": worst,
                "best": best,
            }
        )
    return pd.DataFrame(rows)


def adoption_finding(
    frames: StudyFrames,
    *,
    level: float = LEVEL,
    minimum_gain: float = 0.0,
    efforts: Sequence[StageEffort] = (),
) -> Finding:
    """adopt, keep, tie or inconclusive (B33).

    adopt: the interval of the gain lies above 0, the gain is at least `minimum_gain` (what the candidate's added
    complexity has to gain), and no replicate of the candidate diverged. efforts: the steps of candidate and baseline
    where one of them starts from the weights of an earlier stage.
    """
    table = adoption_frame(frames)
    if efforts:
        table = table.join(pd.DataFrame([one.columns() for one in efforts]))
    candidate, baseline = table.iloc[0], table.iloc[1]
    sign = -frames.study.objective.sign
    known = min(candidate["replicates"], baseline["replicates"]) >= 2 and not frames.copies
    difference = Difference(math.nan, math.nan, math.nan)
    if known:
        difference = welch_difference(sign * _values(frames, True), sign * _values(frames, False), level)
    verdict = _verdict(table, difference, minimum_gain)
    imported = bool(frames.study.source)
    interval = {"gain": difference.gain, "low": difference.low, "high": difference.high}
    found = QUESTION.answer(
        f"{candidate['from']} over {baseline['from']}",
        verdict,
        _summary(frames, table, difference, level) + _efforts_told(efforts),
        table.assign(**{name: [value, math.nan] for name, value in interval.items()}),
        action=_action(verdict, table, imported=imported),
        caveats=(*frames.copies, *_unequal(efforts), *_caveats(table, difference, minimum_gain, imported=imported)),
    )
    return replace(found, thresholds={"level": level, "minimum_gain": minimum_gain})


def _efforts_told(efforts: Sequence[StageEffort]) -> str:
    if not efforts:
        return ""
    candidate, baseline = efforts
    return f" The candidate has {candidate.words}; the baseline {baseline.words}."


def _unequal(efforts: Sequence[StageEffort]) -> tuple[str, ...]:
    """What to know of a comparison of trials that start differently (C5)."""
    equal = efforts[0].equal_to(efforts[1]) if efforts else ""
    if equal == "of their own":
        return ("Equal in their own steps: the price of the inherited ones is not counted (C5)",)
    if equal == "nothing":
        return ("Neither their own nor all steps are equal: the difference may be that of the steps (C5)",)
    return ()


def contest_frames(ledger: Ledger, campaign: str, name: str) -> tuple[StudyFrames, tuple[StageEffort, ...]]:
    """An adoption study as frames, with the study of its baseline where that has one of its own; and the steps behind
    candidate and baseline, which are empty where nothing is inherited.
    """
    row = ledger.study(campaign, name)
    other = next((one for one in ledger.studies(campaign) if one.study.name == baseline_name(name)), None)
    if other is None:
        effort = effort_of(ledger, row)
        return study_frames(ledger, campaign, name), (effort, effort) if effort.inherited else ()
    frames = frames_of_rows(ledger, [row, other])
    declared = replace(row.study, num_trials=row.study.num_trials + other.study.num_trials)
    return replace(frames, study=declared), (effort_of(ledger, row), effort_of(ledger, other))


def baseline_name(name: str) -> str:
    """The study of the baseline of a contest whose sides start, or train, otherwise: one study has one budget (A11)."""
    return f"{name}{_BASELINE}"


def adoption_log(ledger: Ledger, campaign: str) -> pd.DataFrame:
    """The log of adoptions, oldest first (B34): study, candidate, baseline, verdict, gain with low and high, level,
    replicates, metric. Raises StorageError for an unknown campaign.
    """
    found = []
    for row in ledger.studies(campaign):
        concluded = ledger.conclusion(campaign, Adoption, row.study_id) if row.study.kind == KIND else None
        if concluded is not None:
            found.append({"study": row.study.name, **asdict(concluded)})
    return pd.DataFrame(found, columns=_COLUMNS)


def last_adopted(ledger: Ledger, campaign: str) -> tuple[str, int] | None:
    """The study and the number of the trial that was adopted last; None while nothing was."""
    adopted = last_adoption(ledger, campaign)
    return adopted and adopted[0]


def last_adoption(ledger: Ledger, campaign: str) -> tuple[tuple[str, int], tuple[str, int]] | None:
    """What was adopted last and over what, each as study and number of a trial; None while nothing was."""
    log = adoption_log(ledger, campaign)
    adopted = log[log["verdict"] == "adopt"]
    if adopted.empty:
        return None
    sides = (str(adopted[side].iloc[-1]).rpartition(" trial ") for side in ("candidate", "baseline"))
    candidate, baseline = ((study, int(number)) for study, _, number in sides)
    return candidate, baseline


def concluded_findings(ledger: Ledger, campaign: str) -> list[Finding]:
    """The findings behind the log, made again from the records with the level and the gain of each conclusion."""
    found = []
    for row in ledger.studies(campaign):
        concluded = ledger.conclusion(campaign, Adoption, row.study_id) if row.study.kind == KIND else None
        if concluded is not None:
            frames, efforts = contest_frames(ledger, campaign, row.study.name)
            finding = adoption_finding(
                frames, level=concluded.level, minimum_gain=concluded.minimum_gain, efforts=efforts
            )
            found.append(finding)
    return found


def log_entry(frames: StudyFrames, finding: Finding) -> Adoption:
    """What the log keeps of a finding."""
    rows = finding.evidence
    gain, low, high = (float(rows[name].iloc[0]) for name in ("gain", "low", "high"))
    return Adoption(
        candidate=str(rows["from"].iloc[0]),
        baseline=str(rows["from"].iloc[1]),
        verdict=finding.verdict,
        gain=gain if math.isfinite(gain) else None,
        low=low if math.isfinite(low) else None,
        high=high if math.isfinite(high) else None,
        level=finding.thresholds["level"],
        minimum_gain=finding.thresholds["minimum_gain"],
        replicates=int(rows["replicates"].min()),
        metric=f"{frames.study.objective.direction} {frames.study.objective.metric}",
    )


def _values(frames: StudyFrames, even: bool) -> NDArray[np.float64]:
    complete = frames.complete
    return complete[complete["trial"].map(is_candidate) == even]["best_value"].to_numpy(dtype=np.float64)


def _verdict(table: pd.DataFrame, difference: Difference, minimum_gain: float) -> str:
    candidate, baseline = table.iloc[0], table.iloc[1]
    if candidate["diverged"] > baseline["diverged"] + baseline["unfinished"]:
        return "keep"
    if math.isnan(difference.gain) or table["unfinished"].any():
        return "inconclusive"
    if difference.high < 0.0:
        return "keep"
    clear = difference.low > 0.0 and difference.gain >= minimum_gain
    return "adopt" if clear and not candidate["diverged"] else "tie"


_CHOSEN = {False: "the run it was chosen by is not counted", True: "all replicates that were imported are counted"}
_RETRY = "Remove the cause of the FAILED replicates, then the same command with --retry-failed."


def _action(verdict: str, table: pd.DataFrame, *, imported: bool) -> str:
    if imported and verdict == "inconclusive":
        return (
            "Finish the replicates that failed or stopped early, where the study was run, and import it under a new "
            "name: those that continued are the better ones, and no verdict rests on them alone."
        )
    return _RETRY if verdict == "inconclusive" and table["failed"].any() else ""


def _summary(frames: StudyFrames, table: pd.DataFrame, difference: Difference, level: float) -> str:
    metric = frames.study.objective.metric
    runs = "replicates" if frames.study.source else "fresh seeds"
    sides = [
        f"{row['side']} {row['median']:.4g} (median of {row['replicates']} {runs}; sd {row['sd']:.2g})"
        for _, row in table.iterrows()
    ]
    values = f"{metric}: {', '.join(sides)}."
    if math.isnan(difference.gain):
        return values
    compared = with_interval(difference.gain, difference.low, difference.high, level)
    return f"{values} The candidate is {compared}; {_CHOSEN[bool(frames.study.source)]}."


def _caveats(table: pd.DataFrame, difference: Difference, minimum_gain: float, *, imported: bool) -> tuple[str, ...]:
    found = ["If a side was chosen because of one of these runs, it looks better than it is"] if imported else []
    found += [
        f"{row['diverged']} replicates of the {row['side']} diverged; the numbers are those of the others"
        for _, row in table.iterrows()
        if row["diverged"]
    ]
    found += [
        f"{row['failed']} replicates of the {row['side']} FAILED: no verdict rests on the others alone"
        for _, row in table.iterrows()
        if row["failed"]
    ]
    if difference.low > 0.0 and difference.gain < minimum_gain:
        found.append(f"The gain is real, but smaller than the {minimum_gain:g} that the added complexity has to gain")
    return tuple(found)
