"""Infeasible trials: how many, and where in the search space (B22)."""

from dataclasses import replace

import numpy as np
import pandas as pd

from tuner.analysis.finding import Finding, Question, Verdict
from tuner.analysis.ranges import unit_positions
from tuner.analysis.study_frames import StudyFrames
from tuner.design.hyperparameters import Range
from tuner.design.names import Name

MANY = 0.5  # [P] a larger share of infeasible trials needs another space (B22)
MINIMUM_FINISHED = 5  # [P] finished trials below which a share of them shows nothing
FEWEST_ALIKE = 3  # [P] trials that all ended alike show a common cause
APART = 10.0  # [P] rates that differ by this factor do not diverge at the same place because of the rate
EARLY = 10  # [P] steps within which rates that are all far too high may diverge together
UNRELATED = 0.3  # [P] Kendall's tau of rate and step of divergence above minus this: the rate is not the cause
SEPARATED = 0.5  # [P] |P(infeasible above feasible) - 1/2| * 2 beyond this names where they lie

_LAUNCH_AGAIN, _IMPORT_AGAIN = "then launch again", "train again in your own code, and import"

QUESTION = Question(
    name="infeasible",
    sentence="Did too many configurations fail to train?",
    order=120,
    verdicts=(
        Verdict("ok", "fine"),
        Verdict("many_infeasible", "act", "Shrink or reparameterize the space, or look for a bug (B22)."),
        Verdict("inconclusive", "open", f"Finish at least {MINIMUM_FINISHED} trials, then ask again."),
    ),
    thresholds={"many": MANY, "minimum_finished": MINIMUM_FINISHED, "separated": SEPARATED},
    needs=("search",),
    ask=lambda frames: infeasible_finding(frames),
    plot="axes",
    rules=("B22", "D44"),
    pruned="whether they would have diverged is not known",
    elsewhere=lambda frames, finding: finding.action.replace(_LAUNCH_AGAIN, _IMPORT_AGAIN),
)


def infeasible_frame(frames: StudyFrames, state: str = "infeasible") -> pd.DataFrame:
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
            bad, good = values[there["state"] == state], values[there["state"] == "complete"]
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
    """ok, many_infeasible or inconclusive. Failed and cancelled trials show nothing about the space (D44), except those
    that ran out of memory: their point was too large for the machine.
    """
    states = frames.trials["state"]
    silent = (states == "complete") & frames.trials["best_value"].isna()  # of versions that called such trials complete
    bad, finished = int(((states == "infeasible") | silent).sum()), int(states.isin(["infeasible", "complete"]).sum())
    starved = frames.trials[(states == "failed") & ran_out_of_memory(frames.trials)]
    spoiled = spoiled_by_data(frames)
    table = infeasible_frame(frames)
    tried = finished + len(starved)
    share = (bad + len(starved)) / tried if tried else 0.0
    verdict = "inconclusive" if tried < MINIMUM_FINISHED else "many_infeasible" if share > MANY else "ok"
    verdict = "many_infeasible" if spoiled else verdict
    where = _where(table) if bad else ""
    summary = (
        f"{bad} of {finished} finished trials are infeasible{f' ({bad / finished:.0%})' if finished else ''}{where}."
    )
    too_large = int(((states == "infeasible") & ran_out_of_memory(frames.trials)).sum())
    summary += f" {too_large} of them ran out of memory." if too_large else ""
    found = QUESTION.answer(
        frames.study.name,
        verdict,
        f"{summary} {_out_of_memory(frames, starved, tried)}{spoiled}".strip(),
        table,
        strength="moderate" if tried < 4 * MINIMUM_FINISHED or (verdict == "ok" and len(starved)) else "strong",
    )
    if spoiled:
        return replace(found, action="Correct the data or the loss, then launch again; the space may be right.")
    if len(starved) or too_large:
        return replace(found, action=f"{_MORE_MEMORY} {found.action if found.needs_action else ''}".strip())
    known = found.needs_action and where
    return replace(found, action=f"Shrink or reparameterize the space{where} (B22).") if known else found


def ran_out_of_memory(trials: pd.DataFrame) -> pd.Series:
    """Which trials ended because their point was too large for the machine, by what was recorded of their end."""
    return trials["reason"].astype(str).str.contains(_MEMORY)


_MEMORY = r"(?i)out ?of ?memory|MemoryError|allocate memory|ALLOC_FAILED|\bOOM\b"
_MORE_MEMORY = (
    "Leave out of the space what does not fit into memory, or take a smaller batch or a larger machine for it, and "
    "train those trials again."
)
MOST_NAMED = 5  # trials


def _out_of_memory(frames: StudyFrames, starved: pd.DataFrame, tried: int) -> str:
    """How many failed trials ran out of memory, which, and where in the space they lie."""
    if starved.empty:
        return ""
    numbers = starved["trial"].tolist()
    named = ", ".join(map(str, numbers[:MOST_NAMED])) + (" ..." if len(numbers) > MOST_NAMED else "")
    as_infeasible = frames.trials["state"].where(~frames.trials["trial"].isin(numbers), "starved")
    where = _where(infeasible_frame(replace(frames, trials=frames.trials.assign(state=as_infeasible)), "starved"))
    return (
        f"{len(numbers)} more ran out of memory and count as failed{where}: trial {named}. "
        f"Together {len(numbers) / tried:.0%} of the {tried} trials did not fit into memory. "
    )


def spoiled_by_data(frames: StudyFrames) -> str:
    """What points at the data or the loss, where all trials ended alike whatever their point; empty otherwise.

    Either no trial ever measured a finite value of the objective, or all diverged: each at a batch that holds a value
    which is not finite; at the same examples, as trials do that share their order; or no sooner at a higher rate.
    """
    ended = frames.trials[frames.trials["state"].isin(["infeasible", "complete"])]
    ended = ended[~ended["reason"].astype(str).str.contains(_MEMORY)]
    if len(ended) < FEWEST_ALIKE:
        return ""
    metric = frames.study.objective.metric
    diverged = ended[ended["reason"].str.match(_DIVERGED)]
    if diverged.empty and ended["best_value"].isna().all() and _measured(frames):
        return f"{len(ended)} of {len(ended)} trials measured no finite {metric}: {_NOT_THE_SPACE} {_LOOK_AT_METRICS}"
    if len(diverged) < len(ended):
        return ""
    steps = diverged["reason"].str.extract(_DIVERGED)[0].astype(int)
    named = diverged["reason"].str.extract(_EXAMPLE)
    if not (
        named[0].notna().all() or _at_the_same_examples(frames, diverged, steps) or _any_rate(frames, diverged, steps)
    ):
        return ""
    least, most = steps.min(), steps.max()
    where = f"at step {least}" if least == most else f"at steps {least} to {most}"
    examples = [f"Training example {number} has {held}." for number, held in named.dropna().to_numpy()]
    look = examples[0] if examples else _LOOK_AT_BATCH
    return f"{len(ended)} of {len(ended)} trials diverged {where}{_whatever(frames)}: {_NOT_THE_SPACE} {look}"


_DIVERGED = r"diverged at step (\d+)"
_EXAMPLE = r"training example (\d+), which has (.+)$"
_NOT_THE_SPACE = "the cause is probably the data or the loss, not the space."
_LOOK_AT_BATCH = "Look at the examples of that batch, and at what the loss does with them."
_LOOK_AT_METRICS = "Look at the validation examples, and at what metrics() does with them."


def _measured(frames: StudyFrames) -> bool:
    return bool((frames.curves["metric"] == frames.study.objective.metric).any())


def _rates(frames: StudyFrames) -> pd.Series:
    """The learning rate of each trial, whatever its optimizer; NaN where it is not among the hyperparameters."""
    names = [name for name in frames.hyperparameters if Name.of(name).short == "learning_rate"]
    return frames.trials[names].astype(float).max(axis=1) if names else pd.Series(np.nan, frames.trials.index)


def _whatever(frames: StudyFrames) -> str:
    rates = _rates(frames).dropna()
    if rates.nunique() < 2:
        return ""
    return f", whatever the learning rate ({rates.min():.3g} to {rates.max():.3g})"


def _at_the_same_examples(frames: StudyFrames, diverged: pd.DataFrame, steps: pd.Series) -> bool:
    """Whether one place in a common order of the examples lies in the batch at which each trial diverged.

    Rates that are all far too high may diverge in the same early step, too: those have to be far apart.
    """
    if not frames.promises.prefixes:  # which examples a batch held is known of our own trainer alone
        return False
    sizes = diverged["batch_size"].astype(float) if "batch_size" in diverged else float(frames.study.batch_size)
    together = diverged["data_seed"].nunique() == 1 and ((steps - 1) * sizes).max() < (steps * sizes).min()
    return bool(together and (steps.min() == 1 or steps.min() > EARLY or _spread(frames) >= APART))


def _any_rate(frames: StudyFrames, diverged: pd.DataFrame, steps: pd.Series) -> bool:
    """Whether trials of rates that are far apart diverge as late at the higher rates as at the lower ones.

    Only where each trial has its own order of the examples: in a common order all would meet an example together.
    """
    rates = _rates(frames)[steps.index]
    in_common = diverged["data_seed"].nunique() < len(diverged)
    if in_common or len(steps) < MINIMUM_FINISHED or _spread(frames) < APART or rates.isna().any():
        return False
    later = np.sign(np.subtract.outer(rates.to_numpy(), rates.to_numpy()) * np.subtract.outer(*[steps.to_numpy()] * 2))
    return bool(later.sum() >= -UNRELATED * len(steps) * (len(steps) - 1))


def _spread(frames: StudyFrames) -> float:
    rates = _rates(frames).dropna()
    return float(rates.max() / rates.min()) if len(rates) and rates.min() > 0 else 1.0


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
