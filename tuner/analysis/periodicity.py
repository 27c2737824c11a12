"""Periodicity in curves hints at a bug: data that are not shuffled, splits that overlap (B43)."""

import numpy as np
import pandas as pd
from scipy import stats

from tuner.analysis.evidence import best_with, split_metrics
from tuner.analysis.finding import Finding
from tuner.analysis.levels import WIDE, Array, running_mean
from tuner.analysis.question import Question
from tuner.analysis.study_frames import StudyFrames

TOP = 10  # [P] best trials whose spectra are averaged
MINIMUM_EVALUATIONS = 40  # [P] fewer resolve no period
CHANCE = 0.0001  # [P] of so strong a peak among all frequencies by chance; slow noise makes it look smaller than it is
AROUND = 6  # [P] frequencies on each side that a peak is compared with
BEGINNING = 0.2  # [P] of the run: the descent there is no noise
MINIMUM_CYCLES = 6  # [P] a period comes at least so many times

_QUESTION = Question(
    "periodicity",
    {"chance": CHANCE, "minimum_evaluations": MINIMUM_EVALUATIONS, "minimum_cycles": MINIMUM_CYCLES},
    {
        "periodic": "Check that examples are shuffled anew in every pass and that splits do not overlap (B43).",
        "inconclusive": f"Evaluate at least {MINIMUM_EVALUATIONS} times a trial.",
    },
    urgent=("periodic",),
)


def periodicity_frame(frames: StudyFrames) -> pd.DataFrame:
    """One row a split that was measured: metric, trials, period (in steps, of the strongest peak), power (over its
    surroundings), chance (of such a peak without a period).
    """
    rows = []
    for metric in split_metrics(frames.study.objective):
        trials, steps, curves = best_with(frames, metric, top=TOP)
        if len(trials) and len(steps) >= MINIMUM_EVALUATIONS:
            rows.append((metric, len(trials), *_peak(curves, float(np.median(np.diff(steps))))))
    return pd.DataFrame(rows, columns=["metric", "trials", "period", "power", "chance"])


def periodicity_finding(frames: StudyFrames) -> Finding:
    """periodic, none or inconclusive."""
    table = periodicity_frame(frames)
    found = table[table["chance"] < CHANCE]
    verdict = "inconclusive" if table.empty else "periodic" if len(found) else "none"
    peaks = "; ".join(f"{row['metric']} every {row['period']:.0f} steps" for row in found.to_dict("records"))
    longest = int((1.0 - BEGINNING) * frames.study.budget.max_train_steps / MINIMUM_CYCLES)
    summary = (
        f"The curves of the best trials repeat: {peaks}." if peaks else f"No period up to {longest:,} steps stands out."
    )
    return _QUESTION.answer(frames, verdict, summary, table)


def _peak(curves: Array, interval: float) -> tuple[float, float, float]:
    rest = curves - running_mean(curves, WIDE)
    rest = rest[:, int(BEGINNING * rest.shape[1]) :]
    rest = rest - rest.mean(axis=1, keepdims=True)
    spread = rest.std(axis=1, keepdims=True)
    rest = np.divide(rest, spread, out=np.zeros_like(rest), where=spread > 0)
    power = (np.abs(np.fft.rfft(rest * np.hanning(rest.shape[1]), axis=1)) ** 2).mean(axis=0)
    places = range(MINIMUM_CYCLES, len(power) - 1)
    near = [_surroundings(power, place) for place in places]
    ratios = np.array([power[place] / max(mean, 1e-12) for place, (mean, _) in zip(places, near, strict=True)])
    best = int(ratios.argmax())
    # Mean powers of noise are gamma variables, two degrees of freedom a spectrum; a tapered neighbour counts half.
    freedom = 2 * len(curves)
    alone = float(stats.f.sf(ratios[best], freedom, 0.5 * freedom * near[best][1]))
    length = rest.shape[1] * interval
    return length / (best + MINIMUM_CYCLES), float(ratios[best]), 1.0 - (1.0 - alone) ** len(ratios)


def _surroundings(power: Array, place: int) -> tuple[float, int]:
    """The mean power around a frequency, without itself and its neighbours, and of how many."""
    near = [*range(max(2, place - AROUND - 1), place - 1), *range(place + 2, min(len(power), place + AROUND + 2))]
    return float(np.mean(power[near])), len(near)
