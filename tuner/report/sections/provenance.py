"""The foot of the page: versions and commands behind the records, and the thresholds of the verdicts."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version

from tuner.report.material import Material, StudyMaterial
from tuner.report.section import Part, Section
from tuner.report.tables import Column, Table
from tuner.report.wording import NOTHING, in_words, readable, readable_moment
from tuner.security import without_secrets
from tuner.storage.studies import LaunchRow


@dataclass(frozen=True, slots=True)
class Provenance:
    """The content of the section. thresholds: one row for each question, with the numbers its verdicts depend on."""

    launches: Table
    thresholds: Table
    version: str


def provenance(material: Material) -> list[Part]:
    """Launches, versions, thresholds."""
    titles = ("started", "study", "command", "code", "python", "versions", "machine")
    rows = [_launch(study, launch) for study in material.studies for launch in study.launches]
    launches = Table(tuple(Column(title) for title in titles), tuple(rows))
    content = Provenance(launches, _thresholds(material), version("tuner"))
    return [Part("provenance", content, "Provenance")]


def _launch(study: StudyMaterial, launch: LaunchRow) -> tuple[str, ...]:
    known = launch.environment
    versions = known.get("versions")
    listed = ", ".join(f"{name} {found}" for name, found in versions.items()) if isinstance(versions, Mapping) else ""
    return (
        readable_moment(launch.started),
        study.study.name,
        without_secrets(launch.command),
        _code(launch),
        readable(known.get("python")),
        listed or NOTHING,
        " · ".join(str(known[key]) for key in ("host", "platform") if known.get(key)) or NOTHING,
    )


def _code(launch: LaunchRow) -> str:
    commit = launch.revision.get("commit")
    changed = launch.revision.get("uncommitted")
    return f"{str(commit)[:12]}{' + changes' if changed else ''}" if commit else NOTHING


def _thresholds(material: Material) -> Table:
    """One row for each question, because its thresholds are the same for every subject."""
    placed = [*material.placed, *(one for study in material.rounds for one in study.placed)]
    found = {one.finding.question: one.finding.thresholds for one in placed}
    rows = (
        (in_words(question), ", ".join(f"{in_words(name)} {readable(value)}" for name, value in thresholds.items()))
        for question, thresholds in found.items()
    )
    return Table((Column("question"), Column("thresholds")), tuple(rows))


PROVENANCE = Section(name="provenance", place=130, make=provenance, template="provenance")
