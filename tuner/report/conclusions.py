"""What was concluded at which length of training, and whether it still holds (A30, A45)."""

from dataclasses import dataclass

from tuner.analysis.questions.transfer import conclusions_frame
from tuner.report.material import Material
from tuner.report.section import Section
from tuner.report.tables import Table, table_of


@dataclass(frozen=True, slots=True)
class ConclusionsPage:
    """One row a conclusion; what no longer round has asked is unconfirmed."""

    table: Table


def conclusions(material: Material) -> list[Section]:
    """Nothing before a second round: a conclusion is always drawn at the length of its round, and each card says so."""
    rounds = [study.frames for study in material.rounds]
    if len(rounds) < 2:
        return []
    titles = {"drawn_at": "drawn at step", "asked_at": "asked at step"}
    page = ConclusionsPage(table_of(conclusions_frame(rounds), titles=titles))
    return [Section("conclusions", "conclusions", page, "What holds at which length")]
