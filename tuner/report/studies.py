"""A section for each round: what was declared, its plots, its trials."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import pandas as pd

from tuner.analysis.replicates import transfer_pairs
from tuner.analysis.round_frames import WIDENING_NUMBERS
from tuner.analysis.study_frames import StudyFrames, ranked_trials
from tuner.design.hyperparameters import Hyperparameter, Range, condition_words
from tuner.design.study import Study
from tuner.plots.catalog import PLOTS
from tuner.plots.transfer import transfer_frame, transfer_plot
from tuner.report.images import Image, image_of
from tuner.report.material import Material, StudyMaterial
from tuner.report.section import Section
from tuner.report.sweeps import trained_steps
from tuner.report.tables import Column, Table, table_of
from tuner.report.wording import NOTHING, domain_words, readable, scale_words, schedule_words
from tuner.shown import counted

MOST_TRIALS = 200  # rows of a table; `tuner trials -f csv` has them all
_SEARCHED = ("axes", "best-of-n", "isolation")  # plots of a round that searched its points
_UNCOUNTED = ("failed", "infeasible", "complete", "running", "waiting", "cancelled")  # what asks for a look comes first


@dataclass(frozen=True, slots=True)
class Shown:
    """A plot with its heading, how to read it, and what to say where there is nothing to draw."""

    title: str
    caption: str
    absent: str


_SHOWN: Mapping[str, Shown] = {
    "best-steps": Shown(
        "Best steps",
        "When each good trial was at its best, as a share of the budget. All in the lower band: the budget is too "
        "long. Nearly all in the upper band: maybe too short (A13-A15).",
        "No complete trial has a best step yet.",
    ),
    "axes": Shown(
        "Hyperparameter axes",
        "Best value over training against each hyperparameter, on the scale it was sampled on. Good points crowding "
        "at a dashed bound ask for a wider range (B20); crosses are infeasible trials, hollow squares pruned ones; "
        "neither stretches the axis.",
        "No trial has finished yet, or nothing varies.",
    ),
    "best-of-n": Shown(
        "Best of n trials",
        "How good the best of fewer trials would have been, drawn anew from these: what of the best value is luck "
        "(B21).",
        "Too few completed trials.",
    ),
    "isolation": Shown(
        "Best over the nuisances",
        "The best value over all other hyperparameters, for each value or slice; the number beside a mark is how many "
        "trials it is the best of (B29, D40).",
        "No trial has finished yet, or nothing varies.",
    ),
    "curves": Shown(
        "Training curves of the best trials",
        "Training and validation over steps; the diamond is the checkpoint that retrospective selection chose (A12).",
        "No complete trial has a curve yet.",
    ),
}


_TRANSFER = Shown(
    "From the round before",
    "Left: the promoted points' values at both lengths; hollow and dashed with the seed of their first training, which "
    "confirms nothing. Right: the best value so far over steps, dotted for the shorter trials (A30, A32).",
    "No promoted trial is complete yet.",
)


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot as it is shown; without an image `absent` says why there is none."""

    anchor: str
    title: str
    caption: str
    absent: str
    image: Image | None


@dataclass(frozen=True, slots=True)
class StudyPage:
    """Everything about one study.

    promoted: its points were chosen and not searched. uncounted: the trials no verdict speaks of, with their reasons.
    """

    study: Study
    facts: tuple[tuple[str, str], ...]
    space: Table
    promoted: bool
    plots: tuple[Plot, ...]
    num_trials: int
    complete: Table
    uncounted: Table


def studies(material: Material) -> list[Section]:
    """One section a round, in the order of their start."""
    rounds = material.rounds
    pages = [_page(one, rounds[place - 1] if place else None) for place, one in enumerate(rounds)]
    return [Section("study", one.anchor, page, one.study.name) for one, page in zip(rounds, pages, strict=True)]


def _page(material: StudyMaterial, before: StudyMaterial | None) -> StudyPage:
    study, frames = material.study, material.frames
    ranked = ranked_trials(frames)
    return StudyPage(
        study=study,
        facts=(*_facts(frames), *_widenings(material), *_steps(frames)),
        space=_space(study),
        promoted=material.promoted,
        plots=tuple(
            _plot(material, kind, shown)
            for kind, shown in _SHOWN.items()
            if kind not in _SEARCHED or not material.promoted
        )
        + _transfer_plots(material, before),
        num_trials=len(frames.trials),
        complete=_complete(material, ranked),
        uncounted=_uncounted(material),
    )


def _facts(frames: StudyFrames) -> list[tuple[str, str]]:
    study, budget = frames.study, frames.study.budget
    return [
        (
            "Budget",
            f"{counted(budget.max_train_steps, 'step')}, evaluated every {counted(budget.evaluate_every, 'step')}",
        ),
        ("Schedule", schedule_words(study.schedule, frames.schedules.values())),
        ("Optimizer", study.optimizer or ("unknown" if study.source else "searched")),
        ("Batch size", f"{study.batch_size:,}" if study.batch_size else "unknown"),
        ("Selected by", f"{study.objective.direction} {study.objective.metric}, best over training"),
        ("Points", _points(study)),
    ]


def _widenings(material: StudyMaterial) -> Iterator[tuple[str, str]]:
    """What was widened after the first points, and how many trials lie where that is new (B20)."""
    for place, (before, after) in enumerate(pairwise(material.rows), 1):
        old = {h.name: h.domain for h in before.study.hyperparameters}
        wider = [
            f"{h.name} from {domain_words(old[h.name])} to {domain_words(h.domain)}"
            for h in after.study.hyperparameters
            if old.get(h.name, h.domain) != h.domain
        ]
        trained = int((material.frames.trials["trial"] // WIDENING_NUMBERS == place).sum())
        trials = f"{counted(trained, 'trial')} where that is new" if trained else "planned, not trained yet"
        yield "Widened", f"{'; '.join(wider)}: {trials} ({after.study.name})"


def _steps(frames: StudyFrames) -> list[tuple[str, str]]:
    """What was trained, what was taken over from trials that began alike, and whether all of it is exact."""
    trials = frames.trials
    saved, inexact = int(trials["inherited"].sum()), int((~trials["exact"].astype(bool)).sum())
    share = saved / max(int(trials["steps"].sum()), 1)
    taken = f"; {counted(saved, 'step')} ({share:.0%}) taken over from trials that began alike" if saved else ""
    facts = [("Steps", f"{counted(trained_steps(trials), 'step')} trained{taken}")]
    if inexact:
        facts.append(("Not exact", f"{counted(inexact, 'trial')} trained under more than one set of Numerics"))
    return facts


def _points(study: Study) -> str:
    if study.source:
        return f"{study.num_trials:,}, trained elsewhere: {study.source}"
    chosen = "; ".join(f"{name} {trial}" for name, trial in study.lineage)
    return f"{study.num_trials:,}, {f'those of {chosen}' if chosen else f'from seed {study.seed}'}"


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


def _plot(material: StudyMaterial, kind: str, shown: Shown) -> Plot:
    figure, drawn = PLOTS[kind](material.frames)
    description = f"{shown.title} of {material.study.name}. {shown.caption}"
    image = None if drawn.empty else image_of(figure, description)
    return Plot(f"{material.anchor}-{kind}", shown.title, shown.caption, shown.absent, image)


def _transfer_plots(material: StudyMaterial, before: StudyMaterial | None) -> tuple[Plot, ...]:
    """The promoted points at both lengths; nothing where none came from the round before."""
    if before is None or transfer_pairs(before.frames, material.frames).empty:
        return ()
    drawn, shown = transfer_frame(before.frames, material.frames), _TRANSFER
    figure = transfer_plot(drawn, material.study.objective.metric)
    image = None if drawn.empty else image_of(figure, f"{shown.title}. {shown.caption}")
    return (Plot(f"{material.anchor}-transfer", shown.title, shown.caption, shown.absent, image),)


def _complete(material: StudyMaterial, ranked: pd.DataFrame) -> Table:
    names = material.frames.hyperparameters
    columns = ["trial", "best_value", "best_step", "last_value", *names, "seed"]
    titles = {"best_value": f"best {material.study.objective.metric}", "last_value": "last"}
    return table_of(ranked[columns], most=MOST_TRIALS, marked=[0], titles=titles, names=names)


def _uncounted(material: StudyMaterial) -> Table:
    frames, names = material.frames, material.frames.hyperparameters
    rest = frames.trials[~frames.trials["trial"].isin(frames.complete["trial"])]
    places = {state: place for place, state in enumerate(_UNCOUNTED)}
    rest = rest.assign(place=rest["state"].map(places)).sort_values(["place", "trial"], kind="stable")
    silent = (rest["state"] == "complete") & (rest["reason"] == "")
    rest.loc[silent, "reason"] = f"no finite value of {frames.study.objective.metric}"
    columns = ["trial", "state", "reason", "steps", "best_value", *names]
    titles = {"best_value": "best value (not counted)"}
    return table_of(rest[columns], most=MOST_TRIALS, titles=titles, names=names)
