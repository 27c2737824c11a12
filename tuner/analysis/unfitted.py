"""What to do where no learning rate of a sweep fitted the training set (A19, A37, D8).

Validation is judged first: where it was best long before the end, neither more steps nor other rates help, whatever the
training metric still gains. Otherwise a criterion that cannot be reached (label noise, a small model) is distinguished
from one that needs more steps. Every proposal is a line of the study file with its number.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from tuner.analysis.sweep_outcome import extended_grid
from tuner.budget.step_budget import MINIMUM_EVALUATIONS, rounded_up
from tuner.design.study import Study
from tuner.records.sweep_outcomes import NotFitted, Reason

STILL = 0.75  # [P] of the steps: validation that was best after that may still improve
LENGTHENED = 1.5  # [P] times the projected steps, since progress slows down
FURTHER = 2  # and at least this many times the steps that were not enough
MOST_FURTHER = 16  # [P] times those steps are too many to train for a criterion
ROUND_MARGIN = 2.0  # times the steps at which validation stopped improving is the length of round 1 (A9)

Validation = Literal["unknown", "worse", "flat", "improving"]


@dataclass(frozen=True, slots=True)
class Proposal:
    """A line to write, where it belongs, and why; without `code` something else to do, in words."""

    code: str
    place: str
    why: str

    @property
    def words(self) -> str:
        return f"write `{self.code}` in {self.place} ({self.why})" if self.code else self.why


@dataclass(frozen=True, slots=True)
class Unfitted:
    """A sweep that fitted nothing, with what its trials saw. `study`: names of metrics and the criterion."""

    outcome: NotFitted
    fits: pd.DataFrame
    study: Study | None

    @property
    def alive(self) -> pd.DataFrame:
        """Trials that ended with a finite training metric, the nearest to a fit first."""
        fits = self.fits[(self.fits["state"] == "complete") & self.fits["shortfall"].notna()]
        return fits.sort_values("shortfall", kind="stable")

    @property
    def seen(self) -> pd.DataFrame:
        """Those of them whose validation is known, the best of validation first."""
        if self.study is None or "validation_best" not in self.fits or self.alive.empty:
            return self.fits.iloc[:0]
        known = self.alive[self.alive["validation_best"].notna()]
        return known.sort_values("validation_best", ascending=self.minimizes, kind="stable")

    @property
    def minimizes(self) -> bool:
        return self.study is None or self.study.objective.direction == "minimize"

    @property
    def validation(self) -> Validation:
        """By the trial that was best on validation; worse only where the one that fitted best got worse, too."""
        if self.seen.empty:
            return "unknown"
        best, nearest = self.seen.iloc[0], self.alive.iloc[0]
        if bool(best["overfits"]) and nearest["overfits"] is not pd.NA and bool(nearest["overfits"]):
            return "worse"
        return "improving" if best["validation_step"] > STILL * self.outcome.max_steps else "flat"

    @property
    def projected_steps(self) -> float:
        """Where the nearest trial would fit at its pace; 0 where that is not known."""
        nearest = self.alive.iloc[0] if len(self.alive) else pd.Series(dtype=object)
        known = nearest.get("projected_steps", pd.NA)
        return 0.0 if pd.isna(known) else float(known)

    @property
    def level(self) -> float:
        """What the nearest trial kept of the criterion's metric at its end; NaN where nothing is known."""
        nearest = self.alive.iloc[0] if len(self.alive) else pd.Series(dtype=object)
        kept = float(nearest.get("training_end", math.nan))
        reached = self.outcome.best_value
        return reached if math.isnan(kept) and reached is not None else kept

    @property
    def any_overfits(self) -> bool:
        return not self.seen.empty and bool(self.seen["overfits"].any())


def unfitted_summary(unfitted: Unfitted) -> str:
    """What was reached, what validation did, and why the criterion was not met."""
    outcome = unfitted.outcome
    reached = ""
    if outcome.best_value is not None:
        criterion = unfitted.study.fitted_when if unfitted.study is not None else None
        metric = f"{criterion.metric} " if criterion else ""
        wanted = f" ({criterion.side.replace('_', ' ')} {criterion.threshold:g} was wanted)" if criterion else ""
        reached = (
            f"; the best trial, at {outcome.best_learning_rate:g}, reached {metric}{outcome.best_value:.4g}{wanted}"
        )
    reasons = "; ".join(f"{reason.because} ({reason.weight})" for reason in outcome.reasons)
    return (
        f"No learning rate fitted the training set within {outcome.max_steps:,} steps{reached}, so no number is given "
        f"(A19, D8). {_validation_words(unfitted)}Why: {reasons}."
    )


def unfitted_action(unfitted: Unfitted) -> str:
    """What to write, the likeliest to help first."""
    words = " Or: ".join(f"{proposal.words}." for proposal in proposals(unfitted))
    return words[:1].upper() + words[1:]


def proposals(unfitted: Unfitted) -> tuple[Proposal, ...]:
    """Lines of the study file, the likeliest to help first; each once."""
    found = {proposal.code or proposal.why: proposal for proposal in reversed(tuple(_proposals(unfitted)))}
    return tuple(reversed(found.values()))


def unfitted_caveats(unfitted: Unfitted) -> tuple[str, ...]:
    """About regularization: worth trying where validation got worse, hardly where it did not (A5, A37)."""
    if unfitted.any_overfits:
        rates = ", ".join(f"{rate:g}" for rate in sorted(unfitted.seen.loc[unfitted.seen["overfits"], "learning_rate"]))
        return (
            f"Validation got worse while training improved at the learning rates {rates}: the model overfits although "
            "it did not reach the fit criterion, so regularization can help (A5).",
        )
    if unfitted.seen.empty:
        return ("Validation was not recorded, so whether regularization can help is not known (A37).",)
    return (
        "Validation did not get worse at any learning rate and the training set is not fitted, so regularization is "
        "unlikely to help much (A37).",
    )


def wider_rates(unfitted: Unfitted, reason: Reason) -> tuple[float, ...]:
    """All rates that were tried and more beyond the end that asks for them: below, where everything diverged."""
    grid = tuple(float(rate) for rate in unfitted.fits["learning_rate"].drop_duplicates())
    if not grid:
        return ()
    lower = reason.reason == "all_diverged" or unfitted.outcome.best_learning_rate == grid[0]
    return extended_grid(grid, "lower" if lower else "upper")


def _validation_words(unfitted: Unfitted) -> str:
    state = unfitted.validation
    if state == "unknown" or unfitted.study is None:
        return ""
    best, metric = unfitted.seen.iloc[0], unfitted.study.objective.metric
    where = f"{metric} was best ({best['validation_best']:.4g}) at {best['learning_rate']:g} after"
    at = f"{best['validation_step']:,} of {unfitted.outcome.max_steps:,} steps"
    if state == "worse":
        return (
            f"{where} {at}, and had got worse by the end ({best['validation_end']:.4g}): more steps fit the training "
            "set better and help nothing else. "
        )
    if state == "improving":
        return f"{where} {at}, so it may still improve. "
    return f"{where} {at} and did not improve after that. "


def _proposals(unfitted: Unfitted) -> Iterator[Proposal]:
    """The likeliest to help first."""
    outcome = unfitted.outcome
    names = [reason.reason for reason in outcome.reasons]
    if not names or names[0] in ("never_finite", "not_trained"):
        yield _without_trials(names)
    elif unfitted.validation == "worse":
        yield from _where_validation_was_best(unfitted)
    else:
        for reason in outcome.reasons:
            if reason.reason in ("learning_rates", "all_diverged"):
                yield _other_rates(unfitted, reason)
            elif reason.reason == "too_few_steps":
                yield from _longer(unfitted, reason)
            else:
                yield from _reached(unfitted)


def _without_trials(names: Sequence[str]) -> Proposal:
    if "never_finite" in names:
        return Proposal("", "", "correct the training metric of fitted_when: a value that is not finite never fits")
    return Proposal("", "", "see `tuner status` for why no trial was finished, and run the sweep again")


def _other_rates(unfitted: Unfitted, reason: Reason) -> Proposal:
    rates = ", ".join(f"{rate:g}" for rate in wider_rates(unfitted, reason))
    why = "lower rates" if reason.reason == "all_diverged" else "rates beyond the end that was reached"
    return Proposal(f"Sweep(learning_rate=({rates}))", "Campaign", why)


def _where_validation_was_best(unfitted: Unfitted) -> Iterator[Proposal]:
    """A criterion that was met when validation was best, or a length from there: more steps would buy nothing."""
    best = unfitted.seen.iloc[0]
    step = int(best["validation_step"])
    criterion = _criterion(unfitted, float(best["training_then"]))
    if criterion:
        yield Proposal(criterion, "the workload", f"reached after {step:,} steps, where validation was best")
    yield _length(step)


def _length(step: int) -> Proposal:
    """Round 1 as long as validation improved, with a margin."""
    steps = rounded_up(ROUND_MARGIN * step)
    why = f"{ROUND_MARGIN:g} times the {step:,} steps after which validation stopped improving"
    if steps < MINIMUM_EVALUATIONS:
        steps, why = MINIMUM_EVALUATIONS, f"{why}, and not fewer than {MINIMUM_EVALUATIONS}, one for each evaluation"
    return Proposal(f"max_train_steps={steps}", "the first Round", why)


def _longer(unfitted: Unfitted, reason: Reason) -> Iterator[Proposal]:
    """More steps than were not enough: beyond what the pace projects, unless that is out of reach."""
    most = unfitted.outcome.max_steps
    projected = unfitted.projected_steps
    if projected > MOST_FURTHER * most:
        yield from _reached(unfitted)
        return
    steps = rounded_up(max(FURTHER * most, LENGTHENED * projected))
    still = ""
    if unfitted.validation == "flat":
        still = f"; but validation gained nothing after {int(unfitted.seen.iloc[0]['validation_step']):,} steps"
    pace = f"at its pace a fit takes about {projected:,.0f} steps" if projected else f"{most:,} steps were not enough"
    yield Proposal(f"Sweep(max_steps={steps})", "Campaign", pace + still)
    if unfitted.validation == "improving" and reason.weight == "likely":
        yield Proposal(
            f"production_steps={steps}",
            "Campaign",
            "or as many steps as you can afford: validation still improves, too",
        )


def _reached(unfitted: Unfitted) -> Iterator[Proposal]:
    """A criterion that was reached, a larger model, or a length that is chosen without one."""
    level = unfitted.level
    criterion = _criterion(unfitted, level)
    if criterion:
        yield Proposal(criterion, "the workload", "a level that was reached; a larger model may reach a lower one")
    else:
        yield Proposal("", "", "loosen fitted_when, or take a larger model")
    if unfitted.validation == "flat":
        yield _length(int(unfitted.seen.iloc[0]["validation_step"]))
    else:
        steps = unfitted.outcome.max_steps
        yield Proposal(f"production_steps={steps}", "Campaign", "or as many steps as you can afford")


def _criterion(unfitted: Unfitted, level: float) -> str:
    """`fitted_when` at a level that was reached, rounded to two digits on the side where it was; "" without one."""
    declared = unfitted.study.fitted_when if unfitted.study is not None else None
    if declared is None or not math.isfinite(level):
        return ""
    value = _rounded_towards(level, upwards=declared.side == "at_most")
    return "" if declared.met(value) else f'fitted_when = {declared.side}("{declared.metric}", {value:g})'


def _rounded_towards(value: float, *, upwards: bool) -> float:
    if value == 0.0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(abs(value))) - 1)
    count = value / unit
    return float(f"{(math.ceil(count - 1e-9) if upwards else math.floor(count + 1e-9)) * unit:.6g}")
