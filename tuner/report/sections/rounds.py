"""One section for each round: its declaration, its plots, its trials."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import pandas as pd

from tuner.analysis.numerics_sets import crossing_words, other_than_before
from tuner.analysis.replicates import transfer_pairs
from tuner.analysis.round_frames import WIDENING_NUMBERS
from tuner.analysis.stage_effort import StageEffort, effort_of
from tuner.analysis.study_frames import ranked_results
from tuner.design.hyperparameters import Hyperparameter, Range, condition_words
from tuner.design.study import Study
from tuner.plots.catalog import PLOTS
from tuner.plots.plot import Plot, RoundPlot, StudyPlot
from tuner.report.images import Image, image_of
from tuner.report.material import Material, StudyMaterial
from tuner.report.section import Part, Section
from tuner.report.tables import Column, Table, table_of
from tuner.report.wording import NOTHING, domain_words, readable, scale_words, schedule_words
from tuner.shown import counted

MOST_TRIALS = 200  # rows of a table; `tuner trials -f csv` lists all
_STOPPED = "stopped early at"  # a column of steps, where a trial of the round did
_UNCOUNTED = ("failed", "infeasible", "complete", "running", "waiting", "cancelled")  # most urgent first


@dataclass(frozen=True, slots=True)
class PagePlot:
    """A plot in the page. Without an image, the record's sentence for an absent plot stands in its place."""

    anchor: str
    plot: Plot
    image: Image | None


@dataclass(frozen=True, slots=True)
class StudyPage:
    """Everything about one round.

    promoted: its configurations were chosen from an earlier round. uncounted: trials that no verdict rests on, with
    their reasons.
    """

    study: Study
    facts: tuple[tuple[str, str], ...]
    space: Table
    promoted: bool
    plots: tuple[PagePlot, ...]
    num_trials: int
    complete: Table
    uncounted: Table


def studies(material: Material) -> list[Part]:
    """One part for each round, in the order of their start."""
    rounds = material.rounds
    pages = [_page(one, material.before(one), effort_of(material.ledger, one.row)) for one in rounds]
    return [Part(one.anchor, page, one.study.name) for one, page in zip(rounds, pages, strict=True)]


def _page(material: StudyMaterial, before: StudyMaterial | None, effort: StageEffort) -> StudyPage:
    study, frames = material.study, material.frames
    ranked = ranked_results(frames)
    return StudyPage(
        study=study,
        facts=(*_facts(material), *_behind(material, effort), *_widenings(material), *_steps(material, before)),
        space=_space(study),
        promoted=material.promoted,
        plots=(*_study_plots(material), *_round_plots(material, before)),
        num_trials=len(frames.trials),
        complete=_complete(material, ranked),
        uncounted=_uncounted(material),
    )


def _facts(material: StudyMaterial) -> list[tuple[str, str]]:
    frames, study, budget = material.frames, material.study, material.study.budget
    by = material.trained_by
    of_the_loop = by.get("schedule", _not_said(by))
    scheduled = not by or frames.promises.follows_schedule
    return [
        (
            "Budget",
            f"{study.trains_in_words}, evaluated every {counted(budget.evaluate_every, 'step')}",
        ),
        ("Schedule", schedule_words(study.schedule, frames.schedules.values()) if scheduled else of_the_loop),
        ("Optimizer", study.optimizer or _optimizer(material)),
        ("Batch size", _batches(study) if study.batch_size else by.get("batch size", _not_said(by))),
        *([("Precision", study.precision)] if study.precision else []),
        ("Selected by", f"{study.objective.direction} {study.objective.metric}, best over training"),
        ("Configurations", _points(study)),
    ]


def _behind(material: StudyMaterial, effort: StageEffort) -> Iterator[tuple[str, str]]:
    """The steps behind a trial of a stage (C5)."""
    if material.study.start:
        yield "Control", f"{effort.words}, and nothing of an earlier stage (C5)"
    elif effort.inherited:
        yield "Steps of a trial", ("at most " if material.study.patience_steps else "") + effort.words


def _optimizer(material: StudyMaterial) -> str:
    """The optimizer of a study that declares none: searched, unknown, or that of the loop."""
    if material.study.source:
        return "unknown"
    by = material.trained_by
    return by.get("optimizer", "searched" if material.study.space.optimizers or not by else _not_said(by))


def _batches(study: Study) -> str:
    """Like "256", or "256, in 8 slices of 32 examples"."""
    cut = study.slices_in_words
    return f"{study.batch_size:,}{', in ' if cut else ''}{cut}"


def _not_said(by: Mapping[str, str]) -> str:
    """What is not known because a training of the user's own decides it."""
    return f"that of {by['who']}" if by else "unknown"


def _widenings(material: StudyMaterial) -> Iterator[tuple[str, str]]:
    """Which ranges were widened, and how many trials lie in the new regions (B20)."""
    for place, (before, after) in enumerate(pairwise(material.rows), 1):
        old = {h.name: h.domain for h in before.study.hyperparameters}
        wider = [
            f"{h.name} from {domain_words(old[h.name])} to {domain_words(h.domain)}"
            for h in after.study.hyperparameters
            if old.get(h.name, h.domain) != h.domain
        ]
        trained = int((material.frames.trials["trial"] // WIDENING_NUMBERS == place).sum())
        trials = f"{counted(trained, 'trial')} in the new region" if trained else "planned, not trained yet"
        yield "Widened", f"{'; '.join(wider)}: {trials} ({after.study.name})"


def _steps(material: StudyMaterial, before: StudyMaterial | None) -> list[tuple[str, str]]:
    """How many steps were trained, how many were inherited, and whether all trials are exact."""
    trials = material.frames.trials
    saved, inexact = int(trials["inherited"].sum()), int((~trials["exact"].astype(bool)).sum())
    share = saved / max(int(trials["steps"].sum()), 1)
    taken = f"; {counted(saved, 'step')} ({share:.0%}) inherited from trials with the same prefix" if saved else ""
    facts = [("Steps", f"{counted(material.trained_steps, 'step')} trained{taken}")]
    if inexact:
        facts.append(("Not exact", f"{counted(inexact, 'trial')} {material.frames.promises.why_inexact}"))
    if crossing := crossing_words(material.frames):
        facts.append(("Numerics", f"trained {crossing}"))
    if before and (new := other_than_before(before.frames, material.frames)):
        facts.append(("Numerics", f"other ones than those of {before.study.name}: {new}"))
    if material.frames.weaker:
        facts.append(("Promises less", material.frames.weaker))
    return facts


def _points(study: Study) -> str:
    if study.source:
        return f"{study.num_trials:,}, trained elsewhere: {study.source}"
    chosen = "; ".join(f"{name} {trial}" for name, trial in study.lineage)
    return f"{study.num_trials:,}, {f'those of {chosen}' if chosen else f'quasi-random, seed {study.seed}'}"


def _space(study: Study) -> Table:
    titles = ("hyperparameter", "searched", "scale", "family", "off", "exists where")
    varied = [_searched_row(hyperparameter) for hyperparameter in study.hyperparameters]
    fixed = [
        (name, readable(constant.value), "fixed", constant.family or NOTHING, NOTHING, NOTHING)
        for name, constant in study.fixed
    ]
    return Table(tuple(Column(title) for title in titles), (*varied, *fixed))


def _searched_row(hyperparameter: Hyperparameter) -> tuple[str, ...]:
    domain, condition = hyperparameter.domain, hyperparameter.condition
    physical = isinstance(domain, Range) and domain.limits != "none"
    limits = f" (physical limit: {domain.limits})" if isinstance(domain, Range) and physical else ""
    return (
        hyperparameter.name,
        domain_words(domain) + limits,
        scale_words(domain),
        hyperparameter.family or NOTHING,
        readable(domain.off),
        condition_words(condition) if condition else "everywhere",
    )


def _study_plots(material: StudyMaterial) -> Iterator[PagePlot]:
    """Every plot of a study whose record asks for a place on the page."""
    for plot in PLOTS:
        if isinstance(plot, StudyPlot) and plot.on_page and not (plot.needs_search and material.promoted):
            figure, table = plot.draw(material.frames)
            description = f"{plot.title} of {material.study.name}. {plot.caption}"
            image = None if table.empty else image_of(figure, description)
            yield PagePlot(f"{material.anchor}-{plot.name}", plot, image)


def _round_plots(material: StudyMaterial, before: StudyMaterial | None) -> Iterator[PagePlot]:
    """Plots that compare a round with the one before, where a configuration was promoted from that one."""
    if before is None or transfer_pairs(before.frames, material.frames).empty:
        return
    for plot in PLOTS:
        if isinstance(plot, RoundPlot):
            figure, table = plot.draw(before.frames, material.frames)
            image = None if table.empty else image_of(figure, f"{plot.title}. {plot.caption}")
            yield PagePlot(f"{material.anchor}-{plot.name}", plot, image)


def _complete(material: StudyMaterial, ranked: pd.DataFrame) -> Table:
    names = material.frames.hyperparameters
    stopped = material.frames.stopped_early(ranked)
    ranked = ranked.assign(**{_STOPPED: ranked["steps"].where(stopped).astype("Int64")})
    columns = ["trial", "best_value", "best_step", "last_value", *[_STOPPED] * bool(stopped.any()), *names, "seed"]
    titles = {"best_value": f"best {material.study.objective.metric}", "last_value": "last"}
    return table_of(ranked[columns], most=MOST_TRIALS, marked=[0], titles=titles, names=names)


def _uncounted(material: StudyMaterial) -> Table:
    frames, names = material.frames, material.frames.hyperparameters
    rest = frames.trials[~frames.trials["trial"].isin(frames.selectable["trial"])]
    places = {state: place for place, state in enumerate(_UNCOUNTED)}
    rest = rest.assign(place=rest["state"].map(places)).sort_values(["place", "trial"], kind="stable")
    silent = (rest["state"] == "complete") & (rest["reason"] == "")
    rest.loc[silent, "reason"] = f"no finite value of {frames.study.objective.metric}"
    columns = ["trial", "state", "reason", "steps", "best_value", *names]
    titles = {"best_value": "best value (not counted)"}
    return table_of(rest[columns], most=MOST_TRIALS, titles=titles, names=names)


ROUNDS = Section(name="rounds", place=90, make=studies, template="study")
