"""The final model: trial, checkpoint, origin of the configuration, and how to export it (A12, A33, B45)."""

from dataclasses import dataclass

import pandas as pd

from tuner.analysis.elsewhere import again_elsewhere
from tuner.design.objective import BATCH_LOSS, metric_from
from tuner.records.conclusions import FinalScore
from tuner.report.material import Material, StudyMaterial, parent_of
from tuner.report.section import Part, Section
from tuner.report.tables import Column, Table
from tuner.report.winner import BestConfiguration, better_elsewhere, study_file, winner_of
from tuner.report.wording import NOTHING, readable


@dataclass(frozen=True, slots=True)
class FinalModel:
    """The content of the section.

    promoted: the configurations of the round beside their first training; no rows where the round searched. better:
    better values in earlier rounds, a sentence each. tested: scores on the test split; no rows before.
    """

    title: str
    winner: BestConfiguration
    origin: str
    metrics: Table
    promoted: Table
    better: tuple[str, ...]
    export: str
    tested: Table
    again: str


def final_model(material: Material) -> list[Part]:
    """The best configuration of the last round that has one; nothing before."""
    winner = winner_of(material)
    if winner is None:
        return []
    study = winner.study
    title = "The final model" if study.promoted else "The best model"
    content = FinalModel(
        title=title,
        winner=winner,
        origin=_origin(winner),
        metrics=_metrics(winner),
        promoted=_promoted_table(material, study) if study.promoted else Table((), ()),
        better=better_elsewhere(material, study, winner.headline.selected_value),
        tested=_tested(material),
        export=f"tuner best {study_file(study)} --round {study.study.round} --export model.safetensors",
        again=again_elsewhere(study.study, winner.record),
    )
    return [Part("final-model", content, title)]


def _tested(material: Material) -> Table:
    """The scores on the test split with their trial; no rows before they were measured."""
    score = material.ledger.conclusion(material.campaign, FinalScore)
    if score is None:
        return Table((), ())
    columns = (Column("metric"), Column(f"{score.study} trial {score.trial}, step {score.step:,}", True))
    return Table(columns, tuple((name, readable(value)) for name, value in score.metrics.items()))


def _origin(winner: BestConfiguration) -> str:
    """Where the configuration came from, in words."""
    origin = winner.record.origin
    if winner.study.promoted:
        return f"{origin}, trained again"
    kind, _, place = origin.rpartition(" ")
    return f"point {place} of the {kind} sequence" if kind == "quasi-random" else origin or "not recorded"


def _metrics(winner: BestConfiguration) -> Table:
    """Every metric of a split at the chosen step and at the last step."""
    curves = winner.study.frames.curves
    mine = curves[curves["trial"] == winner.record.number]
    mine = mine[mine["metric"].astype(str).map(lambda text: metric_from(text).split != BATCH_LOSS.split).astype(bool)]
    columns = (Column("metric"), Column("chosen step", True), Column("last step", True))
    rows = [
        (str(name), _value(curve[curve["step"] == winner.step]), _value(curve.tail(1)))
        for name, curve in mine.groupby("metric", observed=True)
    ]
    selecting = winner.study.study.objective.metric
    return Table(columns, tuple(rows), frozenset(place for place, row in enumerate(rows) if row[0] == selecting))


def _value(rows: pd.DataFrame) -> str:
    return readable(rows["value"].iloc[0]) if len(rows) else NOTHING


def _promoted_table(material: Material, study: StudyMaterial) -> Table:
    """The trials of a promoting round: value and best step, and the value of the first training."""
    titles = {"trial": False, "first trained as": False, "value then": True, "value now": True, "best step": True}
    rows = tuple(_promoted_row(material, study, number) for number in study.frames.trials["trial"])
    return Table(tuple(Column(title, number) for title, number in titles.items()), rows)


def _promoted_row(material: Material, study: StudyMaterial, number: int) -> tuple[str, ...]:
    mine = study.frames.trials.set_index("trial").loc[number]
    found = parent_of(material, material.record(study, int(number)))
    there = NOTHING
    if found is not None:
        there = readable(found[0].frames.trials.set_index("trial").loc[found[1].number, "best_value"])
    return str(number), str(mine["origin"]), there, readable(mine["best_value"]), readable(mine["best_step"])


FINAL_MODEL = Section(name="final_model", place=30, make=final_model, template="final_model")
