"""Sections that are sentences, tables, plots and cards: conclusions, adoptions, regime, exploitation, budget curve."""

from collections.abc import Sequence

import pandas as pd

from tuner.analysis.questions.adoption import adoption_log, concluded_findings
from tuner.analysis.questions.budget_curve import budget_curve, budget_curve_finding
from tuner.analysis.questions.stability import stability_finding
from tuner.analysis.questions.transfer import conclusions_frame
from tuner.analysis.round_frames import round_of
from tuner.analysis.stability_records import stability_records
from tuner.analysis.study_frames import StudyFrames, ranked_trials
from tuner.plots.axes import AXES
from tuner.plots.budget_curve import BUDGET_CURVE
from tuner.plots.stability import STABILITY
from tuner.records.conclusions import CurveStudies, StabilityStudies
from tuner.report.cards import card_of
from tuner.report.images import Image, image_of
from tuner.report.material import Material, Placed, StudyMaterial
from tuner.report.section import Block, Blocks, Part, Section
from tuner.report.tables import table_of
from tuner.report.wording import in_words

CONCLUSIONS_LEAD = (
    "Each conclusion is valid for the number of training steps it was drawn at. It is promoted where a longer round "
    "confirmed it with fresh seeds, rejected where the longer round did not, and unconfirmed until then."
)
ADOPTIONS_LEAD = (
    "Candidate and baseline, both trained again with fresh seeds. The run by which the candidate was selected does not "
    "count (B32). The gain is the difference of the means, with Welch's interval at its level."
)
EXPLOITATION_LEAD = (
    "Configurations that a model proposed from the results of a round, trained with the budget of that round. The best "
    "of many is lucky: before adopting one, train it again with fresh seeds (B32)."
)
EXPLOITATION_CAPTION = (
    "The proposed configurations, on the ranges they were proposed from. They crowd where the model expects the best "
    "results, so only the round itself answers questions about the search space."
)


def conclusions(material: Material) -> list[Part]:
    """What was concluded at which length of training, and whether it still holds (A30, A45).

    Nothing before a second round: until then the length of the round stands on each card.
    """
    rounds = [study.frames for study in material.main_rounds]
    if len(rounds) < 2:
        return []
    titles = {"drawn_at": "drawn at step", "asked_at": "tested at step"}
    table = table_of(conclusions_frame(rounds), titles=titles)
    content = Blocks((CONCLUSIONS_LEAD,), blocks=(Block(table=table, fit=True),))
    return [Part("conclusions", content, "What holds at which length")]


def adoptions(material: Material) -> list[Part]:
    """The log of adoptions, and each answer with its evidence (B32-B34); nothing before the first answer."""
    log = adoption_log(material.ledger, material.campaign)
    if log.empty:
        return []
    found = concluded_findings(material.ledger, material.campaign)
    cards = (card_of(Placed(f"adoption-{n}", one.subject, one)) for n, one in enumerate(found, 1))
    adopted = [place for place, verdict in enumerate(log["verdict"]) if verdict == "adopt"]
    shown = log[["candidate", "baseline", "verdict", "gain", "low", "high", "level", "replicates", "metric"]]
    table = Block(table=table_of(shown, marked=adopted), framed=True)
    content = Blocks((ADOPTIONS_LEAD,), blocks=(table, *(Block(card=card) for card in cards)))
    return [Part("adoptions", content, "Adoptions")]


def regime(material: Material) -> list[Part]:
    """How rounds are planned, and whether the curves agree; a contradiction comes first (A1-A5)."""
    found = material.regime
    if found is None:
        return []
    planned = f"Rounds are planned as {in_words(found.verdict)}. " if found.verdict else ""
    cards = (card_of(placed) for placed in material.placed if placed.anchor.startswith("regime-"))
    content = Blocks((planned + found.how,), blocks=tuple(Block(card=card) for card in cards))
    return [Part("regime", content, "Regime")]


def exploitations(material: Material) -> list[Part]:
    """What a model's proposals found in the space of a round (B35); nothing where no round was exploited."""
    found = [study for study in material.others if study.study.kind == "exploitation"]
    if not found:
        return []
    rows = [_exploited_row(study, material.rounds) for study in found]
    plots = [
        Block(study.study.name, image=image, caption=EXPLOITATION_CAPTION)
        for study in found
        if (image := _proposed(study)) is not None
    ]
    content = Blocks((EXPLOITATION_LEAD,), blocks=(Block(table=table_of(pd.DataFrame(rows))), *plots))
    return [Part("exploitation", content, "Exploitation")]


def budget_curves(material: Material) -> list[Part]:
    """What longer training would gain: the newest budget curve (A2); nothing before one of its runs has finished."""
    if material.ledger.conclusion(material.campaign, CurveStudies) is None:
        return []
    curve = budget_curve(material.ledger, material.campaign)
    if curve.table.empty:
        return []
    image = image_of(BUDGET_CURVE.draw(curve)[0], f"{BUDGET_CURVE.title}. {BUDGET_CURVE.caption}")
    card = card_of(Placed("budget-curve-finding", curve.point, budget_curve_finding(curve), "budget-curve-plot"))
    plot = Block(BUDGET_CURVE.title, "budget-curve-plot", image=image, caption=BUDGET_CURVE.caption)
    return [Part("budget-curve", Blocks(blocks=(plot, Block(card=card))), "Gain from longer training")]


def stability(material: Material) -> list[Part]:
    """Whether instability limits the learning rate: the newest stability study (B36); nothing without one."""
    if material.ledger.conclusion(material.campaign, StabilityStudies) is None:
        return []
    records = stability_records(material.ledger, material.campaign)
    image = image_of(STABILITY.draw(records)[0], f"{STABILITY.title}. {STABILITY.caption}")
    card = card_of(Placed("stability-finding", records.source, stability_finding(records), "stability-plot"))
    plot = Block(STABILITY.title, "stability-plot", image=image, caption=STABILITY.caption)
    return [Part("stability", Blocks(blocks=(plot, Block(card=card))), "Training stability")]


def _exploited_row(material: StudyMaterial, rounds: Sequence[StudyMaterial]) -> dict[str, object]:
    study, frames = material.study, material.frames
    source = study.lineage[0][0]
    before = next((one.frames for one in rounds if _same_round(one.study.name, source)), None)
    return {
        "study": study.name,
        "goal": study.goal,
        "space_of": source,
        "sampler": study.sampler,
        "complete": len(frames.complete),
        "planned": study.num_trials,
        "best_of_the_round": _best(before),
        "best_proposed": _best(frames),
        "metric": study.objective.metric,
    }


def _same_round(name: str, source: str) -> bool:
    """Whether both are one round, or a widening of it."""
    numbers, others = round_of(name), round_of(source)
    return numbers is not None and others is not None and numbers[0] == others[0]


def _best(frames: StudyFrames | None) -> float:
    values = ranked_trials(frames)["best_value"] if frames is not None else pd.Series(dtype=float)
    return float(values.iloc[0]) if len(values) else float("nan")


def _proposed(material: StudyMaterial) -> Image | None:
    figure, table = AXES.draw(material.frames)
    return None if table.empty else image_of(figure, f"{AXES.title} of {material.study.name}. {EXPLOITATION_CAPTION}")


ADOPTIONS = Section(name="adoptions", place=40, make=adoptions)
CONCLUSIONS = Section(name="conclusions", place=60, make=conclusions)
REGIME = Section(name="regime", place=80, make=regime)
EXPLOITATION = Section(name="exploitation", place=100, make=exploitations)
BUDGET_CURVES = Section(name="budget_curve", place=110, make=budget_curves)
STABILITY_STUDY = Section(name="stability", place=112, make=stability)
