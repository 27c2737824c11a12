"""How the budget was found: the sweep, the budget of round 1 from it, and where later budgets came from (A18-A31)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tuner.analysis.fit_steps import fit_steps_frame
from tuner.analysis.stage_effort import effort_of
from tuner.analysis.sweep_outcome import sweep_outcome
from tuner.analysis.sweep_records import SweepRecords
from tuner.budget.step_budget import rounded_up
from tuner.plots.sweep import SWEEP
from tuner.records.budget_origin import NOT_RECORDED, BudgetOrigin
from tuner.records.conclusions import BudgetRecord
from tuner.records.sweep_outcomes import PREDICTION, Fitted, Invalid, NotFitted, SweepOutcome
from tuner.report.cards import Card, card_of
from tuner.report.images import Image, image_of
from tuner.report.material import Material, StudyMaterial
from tuner.report.section import Part, Section
from tuner.report.tables import Column, Table
from tuner.report.wording import NOTHING, readable
from tuner.shown import counted


@dataclass(frozen=True, slots=True)
class Link:
    """One number on the way from the sweep to the budget of round 1, with its meaning."""

    value: str
    label: str


@dataclass(frozen=True, slots=True)
class BudgetPage:
    """The content of the section.

    reasons: why no learning rate fitted, each with its weight. earlier: sweeps before the last one, a line each.
    """

    lead: str
    chain: tuple[Link, ...]
    card: Card | None
    reasons: tuple[tuple[str, str], ...]
    plot: Image | None
    caption: str
    rates: Table
    rounds: Table
    stages: Table
    earlier: tuple[str, ...]


def budget(material: Material) -> list[Part]:
    """How long trials train, and why; nothing before the first study."""
    if not material.studies:
        return []
    sweep, by_name = material.sweep, attempts(material.stages)
    judged = next((placed for placed in material.placed if placed.anchor == "sweep-finding"), None)
    fits = judged.finding.evidence if judged else pd.DataFrame()
    shown = sweep.name if sweep else next(reversed(by_name), "")
    outcome = sweep.outcome if sweep else None
    page = BudgetPage(
        lead=_lead(material),
        chain=_chain(material),
        card=card_of(judged) if judged else None,
        reasons=tuple((r.weight, r.because) for r in outcome.reasons) if isinstance(outcome, NotFitted) else (),
        plot=_plot(sweep),
        caption=SWEEP.caption,
        rates=_rates(sweep, fits),
        rounds=rounds_table(material),
        stages=stages_table(by_name.get(shown, ())),
        earlier=tuple(attempt_line(name, stages) for name, stages in by_name.items() if name != shown),
    )
    return [Part("budget", page, "How the budget was found")]


def _lead(material: Material) -> str:
    if material.sweep is None:
        if material.stages:
            left = sum(
                int(study.frames.trials["state"].isin(["waiting", "running"]).sum()) for study in material.stages
            )
            return f"The sweep has not finished ({counted(left, 'trial')} left), so it gives no budget yet."
        if material.rounds and all(study.study.source for study in material.rounds):
            return "The trials were trained elsewhere, and how their number of steps was chosen is not recorded."
        return "No sweep was run. The budgets below were declared, or follow from the production length or each other."
    if isinstance(material.sweep.outcome, Fitted):
        return (
            "A sweep over constant learning rates, without regularization and augmentation, counted the steps that "
            "fitting the training set takes. Round 1 trains longer than that, by a margin (A9, A18)."
        )
    if isinstance(material.sweep.outcome, Invalid):
        return "The sweep's grid ends too early. Its steps are only an upper bound, so no budget follows from it (A25)."
    return "No learning rate of the sweep fitted the training set, so no budget follows from it (A19)."


def _chain(material: Material) -> tuple[Link, ...]:
    """From the fastest trial to the budget of round 1, number by number."""
    sweep = material.sweep
    if sweep is None or not isinstance(sweep.outcome, Fitted):
        return ()
    outcome, steps = sweep.outcome, rounded_up(sweep.margin * sweep.outcome.steps)
    first = next((study.study.budget.max_train_steps for study in material.rounds if study.study.round == 1), steps)
    started = f", which was started with {first:,}" if first != steps else ""
    return (
        Link(f"{outcome.low:,}–{outcome.high:,}", f"steps to fit, fastest trial ({readable(outcome.learning_rate)})"),
        Link(f"{outcome.steps:,}", _seeds_words(outcome)),
        Link(f"× {sweep.margin:g}", "margin: in doubt longer (A9)"),
        Link(f"{steps:,}", f"max_train_steps for round 1{started}"),
    )


def _seeds_words(outcome: Fitted) -> str:
    if not outcome.seed_steps:
        return "the estimate: no fresh seed fitted" if outcome.unfitted_seeds else "the estimate: no other seed trained"
    unfitted = f", {outcome.unfitted_seeds} without a fit" if outcome.unfitted_seeds else ""
    listed = f"median of fresh seeds ({', '.join(f'{steps:,}' for steps in outcome.seed_steps)}{unfitted})"
    if outcome.seed_low is None:
        return listed
    until = f"{outcome.seed_high:,}" if outcome.seed_high is not None else "no upper bound"
    return f"{listed}; {PREDICTION:.0%} of further ones: {outcome.seed_low:,} to {until}"


def _plot(sweep: SweepRecords | None) -> Image | None:
    if sweep is None or sweep.fits.empty:
        return None
    return image_of(SWEEP.draw(sweep)[0], f"{SWEEP.title}. {SWEEP.caption}")


def _rates(sweep: SweepRecords | None, fits: pd.DataFrame) -> Table:
    """Every learning rate of the grid. The fastest is marked and shows its refined interval."""
    if sweep is None:
        return Table((), ())
    criterion = sweep.frames.study.fitted_when
    final = f"final {criterion.metric}" if criterion else "final value"
    numeric = {"learning rate": True, "state": False, "steps to fit": True, final: True, "reason": False}
    rows = [_rate_row(row, sweep.outcome) for row in fits.to_dict("records")]
    silent = not any(row[-1] for row in rows)
    columns = tuple(Column(title, number) for title, number in numeric.items())[: -1 if silent else None]
    fastest = sweep.outcome.learning_rate if isinstance(sweep.outcome, Fitted | Invalid) else None
    marked = {place for place, rate in enumerate(fits["learning_rate"]) if rate == fastest}
    return Table(columns, tuple(row[: len(columns)] for row in rows), frozenset(marked))


def _rate_row(row: Mapping[Any, Any], outcome: SweepOutcome) -> tuple[str, ...]:
    fitted = not pd.isna(row["first_fit"])
    interval = f"{row['last_unfit']:,}–{row['first_fit']:,}" if fitted else NOTHING
    if isinstance(outcome, Fitted) and row["learning_rate"] == outcome.learning_rate:
        interval = f"{outcome.low:,}–{outcome.high:,}"
    state = ("fitted" if fitted else "not fitted") if row["state"] == "complete" else str(row["state"])
    return readable(row["learning_rate"]), state, interval, readable(row["final_value"]), str(row["reason"])


def rounds_table(material: Material) -> Table:
    """One row for each round. The share is that of the longest round: the production length, once trained (A29).

    A control is compared with the round before it, and has no share. Of a stage also the steps that its trials
    inherit, and all together (C5).
    """
    longest = max((study.study.budget.max_train_steps for study in material.main_rounds), default=1)
    epochs = any(study.study.steps_per_epoch for study in material.rounds)
    efforts = {study.anchor: effort_of(material.ledger, study.row) for study in material.rounds}
    staged = any(one.inherited for one in efforts.values())
    columns = (
        Column("round"), Column("max_train_steps", True), *[Column("epochs", True)] * epochs,
        *[Column("inherited steps", True), Column("steps in all", True)] * staged,
        Column("share of the longest", True), Column("trials", True), Column("where it came from"),
    )  # fmt: skip
    rows = tuple(
        (
            study.study.name,
            f"{study.study.budget.max_train_steps:,}",
            *[study.study.in_epochs(study.study.budget.max_train_steps)] * epochs,
            *[f"{efforts[study.anchor].inherited:,}", f"{efforts[study.anchor].total:,}"] * staged,
            NOTHING if study.study.start else f"{study.study.budget.max_train_steps / longest:.0%}",
            f"{len(study.frames.trials):,}",
            _origin(material, study).sentence,
        )
        for study in material.rounds
    )
    return Table(columns, rows)


def _origin(material: Material, study: StudyMaterial) -> BudgetOrigin:
    if study.study.source:
        return BudgetOrigin("elsewhere", words=study.study.source)
    recorded = material.ledger.conclusion(material.campaign, BudgetRecord, study.row.study_id)
    return recorded.origin if recorded is not None else NOT_RECORDED


_STAGES = {
    "probe": "probe: does any rate fit in so many steps?",
    "lowest": "the lowest rates, since all probes diverged",
    "last": "last try around the best probe",
    "grid": "grid: every rate",
    "refined": "the fastest again, evaluated more often",
    "seeds": "the fastest with fresh seeds",
}


def attempts(stages: Sequence[StudyMaterial]) -> dict[str, tuple[StudyMaterial, ...]]:
    """The stages of each sweep by the sweep's name, oldest first."""
    found: dict[str, tuple[StudyMaterial, ...]] = {}
    for stage in stages:
        name = "-".join(stage.study.name.split("-")[:2])
        found[name] = (*found.get(name, ()), stage)
    return found


def stages_table(stages: Sequence[StudyMaterial]) -> Table:
    """One row for each stage, in order."""
    epochs = any(stage.study.steps_per_epoch for stage in stages)
    titles = ("part", "study", "steps each", *["epochs"] * epochs, "trials", "trained steps", "ended")
    columns = tuple(Column(title, numeric=title not in ("part", "study", "ended")) for title in titles)
    return Table(columns, tuple(_stage_row(stage, epochs=epochs) for stage in stages))


def _stage_row(stage: StudyMaterial, *, epochs: bool) -> tuple[str, ...]:
    trials, name = stage.frames.trials, stage.study.name
    kind = next((part for part in name.split("-") if part in _STAGES), "")
    return (
        _STAGES.get(kind, name),
        name,
        f"{stage.study.budget.max_train_steps:,}",
        *[stage.study.in_epochs(stage.study.budget.max_train_steps)] * epochs,
        f"{len(trials):,}",
        f"{stage.trained_steps:,}",
        ", ".join(f"{count} {state}" for state, count in trials["state"].value_counts().items()),
    )


def attempt_line(name: str, stages: Sequence[StudyMaterial]) -> str:
    """An earlier sweep in one line: its grid, and the outcome of that grid."""
    trials = sum(len(stage.frames.trials) for stage in stages)
    steps = sum(stage.trained_steps for stage in stages)
    cost = f"{counted(trials, 'trial')}, {counted(steps, 'step')}"
    rates = sorted({float(rate) for stage in stages for rate in stage.frames.trials["learning_rate"]})
    span = " to ".join(dict.fromkeys(readable(rate) for rate in (*rates[:1], *rates[-1:])))
    grid = f"{counted(len(rates), 'rate')}, {span}" if rates else "no rates"
    return f"{name}: {grid}; {_attempt_outcome(stages)} ({cost})."


def _attempt_outcome(stages: Sequence[StudyMaterial]) -> str:
    telling = next((stage for stage in stages if stage.study.name.endswith("-grid")), None)
    if any(stage.frames.trials["state"].isin(["waiting", "running"]).any() for stage in stages):
        return "it did not finish"
    if telling is None:
        longest = max(stage.study.budget.max_train_steps for stage in stages)
        return f"no rate that was tried fitted in {counted(longest, 'step')}"
    return _outcome_words(sweep_outcome(fit_steps_frame(telling.frames), telling.study.budget.max_train_steps))


def _outcome_words(outcome: SweepOutcome) -> str:
    if isinstance(outcome, Fitted):
        return f"its grid fitted after {outcome.low:,} to {outcome.high:,} steps at {readable(outcome.learning_rate)}"
    if isinstance(outcome, Invalid):
        end = "highest" if outcome.direction == "upper" else "lowest"
        return f"its fastest rate was the {end}, {readable(outcome.learning_rate)}: invalid"
    return f"its grid did not fit in {counted(outcome.max_steps, 'step')}"


BUDGET = Section(name="budget", place=70, make=budget, template="budget")
