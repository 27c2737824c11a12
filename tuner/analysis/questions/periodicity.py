"""Periodicity in curves hints at a bug: data that are not shuffled, splits that overlap (B43).

Trials that share the order of their examples share their noise. So the common part of their curves counts as one curve,
and only the rest counts once for each trial.
"""

import numpy as np
import pandas as pd
from scipy import stats

from tuner.analysis.finding import Finding, Question, Verdict
from tuner.analysis.levels import WIDE, running_mean
from tuner.analysis.noise import Array, without_spikes
from tuner.analysis.study_frames import StudyFrames
from tuner.analysis.trial_curves import best_with, split_metrics
from tuner.design.objective import metric_from

TOP = 10  # [P] best trials whose spectra are averaged
ENOUGH_EVALUATIONS = 40  # [P] of a trial; fewer do not resolve a period
CHANCE = 0.0001  # [P] that chance alone makes so strong a peak, where its period fits an epoch
UNDENIABLE = 1e-5  # [P] the same where it does not, or the length of an epoch is not known
PER_EPOCH = (0.25, 1 / 3, 0.5, 1.0, 2.0)  # [P] periods, in epochs, that fit one
FITS = 0.05  # [P] of the period: how exactly
AROUND = 6  # [P] frequencies on each side that a peak is compared with
BEGINNING = 0.2  # [P] of the run, which is left out: the descent there is not noise
MINIMUM_CYCLES = 6  # [P] times that a period has to repeat

QUESTION = Question(
    name="periodicity",
    sentence="Do the curves repeat?",
    order=210,
    verdicts=(
        Verdict("none", "fine"),
        Verdict(
            "periodic",
            "act",
            "Compare the period with the length of an epoch: check that examples are shuffled again in every epoch, "
            "and that splits do not overlap (B43). A learning rate that rises and falls repeats, too.",
        ),
        Verdict("inconclusive", "open", f"Evaluate each trial at least {ENOUGH_EVALUATIONS} times to see periods."),
    ),
    thresholds={
        "chance": CHANCE,
        "undeniable": UNDENIABLE,
        "minimum_evaluations": ENOUGH_EVALUATIONS,
        "minimum_cycles": MINIMUM_CYCLES,
    },
    needs=("curves",),
    ask=lambda frames: periodicity_finding(frames),
    plot="curves",
    rules=("B43",),
    pruned="they take no part here",
)


def periodicity_frame(frames: StudyFrames) -> pd.DataFrame:
    """One row a split that was measured: metric, trials, period (in steps, of the strongest peak), power (over its
    surroundings), chance (of such a peak without a period), epoch (in steps; NaN where it is not known), periodic.
    """
    rows = []
    for metric in split_metrics(frames.study.objective):
        trials, curves = best_with(frames, metric, top=TOP)
        if len(trials) and curves.steps.size >= ENOUGH_EVALUATIONS:
            calm = without_spikes(curves.values, curves.noise)
            period, power, chance = _peak(calm, float(np.median(np.diff(curves.steps))))
            epoch = _epoch(frames)
            fits = any(abs(period / epoch - one) <= FITS * one for one in PER_EPOCH)
            periodic = chance < (CHANCE if fits else UNDENIABLE)
            rows.append((metric, len(trials), period, power, chance, epoch, periodic))
    columns = ["metric", "trials", "period", "power", "chance", "epoch", "periodic"]
    return pd.DataFrame(rows, columns=columns)


def periodicity_finding(frames: StudyFrames) -> Finding:
    """periodic, none or inconclusive."""
    table = periodicity_frame(frames)
    found = table[table["periodic"].astype(bool)]
    verdict = "inconclusive" if table.empty else "periodic" if len(found) else "none"
    peaks = "; ".join(f"{row['metric']} every {row['period']:.0f} steps" for row in found.to_dict("records"))
    longest = int((1.0 - BEGINNING) * frames.study.budget.max_train_steps / MINIMUM_CYCLES)
    if table.empty:
        return QUESTION.answer(
            frames.study.name, verdict, f"No trial was evaluated {ENOUGH_EVALUATIONS} times over the whole run.", table
        )
    epoch = float(found["epoch"].iloc[0]) if len(found) else float("nan")
    known = f" An epoch has about {epoch:.0f} steps." if np.isfinite(epoch) else ""
    summary = (
        f"The curves of the best trials repeat: {peaks}.{known}"
        if peaks
        else f"No period up to {longest:,} steps stands out."
    )
    return QUESTION.answer(frames.study.name, verdict, summary, table)


def _epoch(frames: StudyFrames) -> float:
    """The steps of an epoch, where epochs were logged with the steps; NaN where they were not, or differ."""
    names = [name for name in frames.metrics if metric_from(name).name.rpartition("/")[2] == "epoch"]
    lengths = []
    for _, part in frames.curves[frames.curves["metric"].isin(names)].groupby("trial"):
        epochs = part["value"].to_numpy(dtype=np.float64)
        steps = part["step"].to_numpy(dtype=np.float64)
        if np.isfinite(epochs).all() and np.ptp(epochs) >= 1.0:
            lengths.append(float(np.polyfit(epochs, steps, 1)[0]))
    alike = lengths and max(lengths) - min(lengths) <= FITS * max(lengths)
    return float(np.median(lengths)) if alike else float("nan")


def _peak(curves: Array, interval: float) -> tuple[float, float, float]:
    """The strongest peak: its period in steps, its power over the surroundings, the chance of it without a period."""
    rest = curves - running_mean(curves, WIDE)
    rest = rest[:, int(BEGINNING * rest.shape[1]) :]
    rest = rest - rest.mean(axis=1, keepdims=True)
    spread = rest.std(axis=1, keepdims=True)
    rest = np.divide(rest, spread, out=np.zeros_like(rest), where=spread > 0)
    common = rest.mean(axis=0, keepdims=True)
    found = [_strongest(common, 2)]
    if len(rest) > 1:
        found.append(_strongest(rest - common, 2 * (len(rest) - 1)))
    place, ratio, chance = min(found, key=lambda one: one[2])
    return rest.shape[1] * interval / place, ratio, min(1.0, len(found) * chance)


def _strongest(rest: Array, freedom: int) -> tuple[int, float, float]:
    """Of the mean spectrum of some curves: frequency, power over its surroundings, and the chance of it.

    Mean powers of noise are gamma variables, `freedom` degrees in all; a tapered neighbour counts half.
    """
    power = (np.abs(np.fft.rfft(rest * np.hanning(rest.shape[1]), axis=1)) ** 2).mean(axis=0)
    places = range(MINIMUM_CYCLES, len(power) - 1)
    near = [_surroundings(power, place) for place in places]
    ratios = np.array([power[place] / max(mean, 1e-12) for place, (mean, _) in zip(places, near, strict=True)])
    best = int(ratios.argmax())
    alone = float(stats.f.sf(ratios[best], freedom, 0.5 * freedom * near[best][1]))
    return best + MINIMUM_CYCLES, float(ratios[best]), 1.0 - (1.0 - alone) ** len(ratios)


def _surroundings(power: Array, place: int) -> tuple[float, int]:
    """The mean power around a frequency, without itself and its neighbours, and of how many."""
    near = [*range(max(2, place - AROUND - 1), place - 1), *range(place + 2, min(len(power), place + AROUND + 2))]
    return float(np.mean(power[near])), len(near)
