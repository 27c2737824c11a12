"""Promoted points beside their first training: what the longer training and fresh seeds changed (A32, B32)."""

from tuner.design.origin import promoted_from
from tuner.records import TrialRecord
from tuner.report.material import Material, StudyMaterial
from tuner.report.tables import Column, Table
from tuner.report.wording import NOTHING, readable


def parent_of(material: Material, record: TrialRecord) -> tuple[StudyMaterial, TrialRecord] | None:
    """The trial of an earlier round whose point a trial trains again; None where its origin names none."""
    origin = promoted_from(record.origin)
    if origin is None:
        return None
    study = next((study for study in material.rounds if study.study.name == origin.study), None)
    if study is None or origin.trial not in set(study.frames.trials["trial"]):
        return None
    return study, material.record(study, origin.trial)


def promoted_table(material: Material, study: StudyMaterial) -> Table:
    """The trials of a promoting round by their number: value and best step now, and of the point's first training."""
    titles = {"trial": False, "point of": False, "value there": True, "here": True, "best step": True}
    rows = tuple(_row(material, study, number) for number in study.frames.trials["trial"])
    return Table(tuple(Column(title, number) for title, number in titles.items()), rows)


def _row(material: Material, study: StudyMaterial, number: int) -> tuple[str, ...]:
    mine = study.frames.trials.set_index("trial").loc[number]
    found = parent_of(material, material.record(study, int(number)))
    there = NOTHING
    if found is not None:
        there = readable(found[0].frames.trials.set_index("trial").loc[found[1].number, "best_value"])
    return str(number), str(mine["origin"]), there, readable(mine["best_value"]), readable(mine["best_step"])
