"""Learning rate schedules of the rounds, and how a longer round uses its extra steps (A34-A43)."""

from tuner.analysis.study_frames import ranked_results
from tuner.budget.schedules import Schedule
from tuner.budget.transfer import transfer_report
from tuner.plots.schedules import SCHEDULES, base_rate, schedules_frame, schedules_plot
from tuner.records import TrialRecord
from tuner.report.images import image_of
from tuner.report.material import Material, StudyMaterial, parent_of
from tuner.report.section import Block, Blocks, Part, Section
from tuner.report.tables import Column, Table
from tuner.report.wording import NOTHING, readable
from tuner.shown import counted


def schedules(material: Material) -> list[Part]:
    """The best trial of each round: its schedule, and what a longer round changed.

    Nothing before a round has a complete trial, nor where the schedules are not known.
    """
    known = [study for study in material.rounds if study.frames.schedules]
    best = [(study, _best(material, study)) for study in known]
    drawn = [(study, record, record.schedule) for study, record in best if record is not None and record.schedule]
    if not drawn:
        return []
    based = {
        f"{study.study.name} trial {record.number}": (schedule, base_rate(study.frames, record.number))
        for study, record, schedule in drawn
    }
    promoted = [(study, record) for study, record, _ in drawn if study.promoted]
    reports = [_transfer(material, study, record) for study, record in promoted]
    image = image_of(
        schedules_plot(schedules_frame(based)), f"{SCHEDULES.title} of the best trials. {SCHEDULES.caption}"
    )
    content = Blocks(
        leads=tuple(sentence for sentence, _ in reports if sentence),
        cautions=tuple(warning for _, warnings in reports for warning in warnings),
        blocks=(Block(image=image, caption=SCHEDULES.caption), Block(table=_pieces(drawn), fit=True)),
    )
    return [Part("schedules", content, "Schedules")]


def _best(material: Material, study: StudyMaterial) -> TrialRecord | None:
    ranked = ranked_results(study.frames)
    return material.record(study, int(ranked["trial"].iloc[0])) if len(ranked) else None


def _transfer(material: Material, study: StudyMaterial, record: TrialRecord) -> tuple[str, tuple[str, ...]]:
    """How the schedule of a promoted trial differs from that of its configuration's first training, and warnings."""
    found = parent_of(material, record)
    if found is None:
        return "", ()
    before, parent = found
    if parent.schedule is None or record.schedule is None:
        return "", ()
    short, long, mine = parent.schedule, record.schedule, f"{study.study.name} trial {record.number}"
    theirs = f"{before.study.name} trial {parent.number}, whose configuration it has"
    if len(long) <= len(short):
        return f"{mine} trains no longer than {theirs}.", ()
    report = transfer_report(short, long)
    stopped = f"{mine} stopped early, at step {record.step:,}. " if record.stopped_early else ""
    mine = f"The schedule of {mine}" if stopped else mine
    return (
        f"{stopped}{mine} trains {counted(report.extra_steps, 'step')} more than {theirs}; "
        f"{report.extra_share_at_low_rate:.0%} of them at less than a tenth of the base rate (A35). "
        f"{_decay_words(short, long)}",
        tuple(f"{mine}: {warning}." for warning in report.warnings),
    )


def _decay_words(short: Schedule, long: Schedule) -> str:
    old, new = _decay(short), _decay(long)
    if not old and not new:
        return "Neither decays."
    if old == new:
        return f"The decay keeps its {counted(new, 'step')}, and the constant part is longer (A41)."
    return f"The decay takes {counted(new, 'step')} in place of {old:,}."


def _decay(schedule: Schedule) -> int:
    return 0 if schedule.decay_start is None else len(schedule) - schedule.decay_start


def _pieces(drawn: list[tuple[StudyMaterial, TrialRecord, Schedule]]) -> Table:
    names = ("base rate", "steps", "warmup", "constant", "decay", "decay's share")
    columns = (Column("schedule"), *(Column(name, True) for name in names))
    return Table(columns, tuple(_row(*one) for one in drawn))


def _row(study: StudyMaterial, record: TrialRecord, schedule: Schedule) -> tuple[str, ...]:
    decay, warmup = _decay(schedule), schedule.warmup_steps
    return (
        f"{study.study.name} trial {record.number}",
        readable(base_rate(study.frames, record.number)),
        f"{record.step:,} of {len(schedule):,}" if record.stopped_early else f"{len(schedule):,}",
        f"{warmup:,}",
        f"{len(schedule) - warmup - decay:,}",
        f"{decay:,}" if decay else NOTHING,
        f"{decay / len(schedule):.0%}" if decay else NOTHING,
    )


SCHEDULES_SECTION = Section(name="schedules", place=120, make=schedules)
