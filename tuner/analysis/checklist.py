"""The questions every study is asked before its goal is, in the playbook's order (B20-B30).

`QUESTIONS` is the list: `tuner check`, the report and the reading in Python all ask these.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tuner.analysis.best_steps import best_steps_finding
from tuner.analysis.boundaries import boundary_findings
from tuner.analysis.effort import effort_findings
from tuner.analysis.enough_points import enough_points_finding
from tuner.analysis.evidence import has_curves, no_curves_finding
from tuner.analysis.failed import VERDICTS as FAILED_VERDICTS
from tuner.analysis.finding import Finding
from tuner.analysis.improvement import improvement_finding
from tuner.analysis.infeasible import infeasible_finding
from tuner.analysis.insensitivity import insensitivity_finding
from tuner.analysis.instability import instability_finding
from tuner.analysis.isolation import isolation_findings
from tuner.analysis.late_variance import late_variance_finding
from tuner.analysis.overfitting import overfitting_finding
from tuner.analysis.periodicity import periodicity_finding
from tuner.analysis.pruned import VERDICTS as PRUNED_VERDICTS
from tuner.analysis.regime import regime_finding
from tuner.analysis.study_frames import StudyFrames
from tuner.analysis.training_loss import training_loss_finding
from tuner.analysis.transfer import VERDICTS as TRANSFER_VERDICTS
from tuner.analysis.warmup import warmup_finding
from tuner.design.origin import promoted_from
from tuner.errors import DeclarationError


@dataclass(frozen=True, slots=True)
class Asked:
    """A question. searched: only of a round that searched its points; curves: only where there are curves."""

    question: str
    ask: Callable[[StudyFrames], list[Finding]]
    verdicts: tuple[str, ...]
    searched: bool = False
    curves: bool = False


def _one(ask: Callable[[StudyFrames], Finding]) -> Callable[[StudyFrames], list[Finding]]:
    return lambda frames: [ask(frames)]


QUESTIONS = (
    Asked("boundary", boundary_findings, ("ok", "expand_low", "expand_high"), searched=True),
    Asked("enough_points", _one(enough_points_finding), ("enough", "sparse"), searched=True),
    Asked("infeasible", _one(infeasible_finding), ("ok", "many_infeasible"), searched=True),
    Asked("instability", _one(instability_finding), ("ok", "likely_instability"), searched=True),
    Asked("overfitting", _one(overfitting_finding), ("ok", "some_overfit", "overfitting"), curves=True),
    Asked("late_variance", _one(late_variance_finding), ("ok", "noisy"), curves=True),
    Asked("improvement", _one(improvement_finding), ("still_improving", "saturated", "got_worse"), curves=True),
    Asked("training_loss", _one(training_loss_finding), ("ok", "rising"), curves=True),
    Asked(
        "best_steps", _one(best_steps_finding), ("ok", "too_long", "maybe_too_short", "mixed"), curves=True
    ),
    Asked("regime", _one(regime_finding), ("compute_bound", "not_compute_bound", "undecided"), curves=True),
    Asked("warmup", _one(warmup_finding), ("ok", "in_warmup"), curves=True),
    Asked("periodicity", _one(periodicity_finding), ("none", "periodic"), curves=True),
    Asked("insensitivity", _one(insensitivity_finding), ("sensitive", "insensitive"), searched=True, curves=True),
    Asked("effort", effort_findings, ("equal", "unequal"), searched=True),
    Asked("isolation", isolation_findings, ("leads", "tie"), searched=True),
)  # fmt: skip
VERDICTS = tuple(
    sorted(
        {
            "inconclusive",
            "no_curves",
            "stale",
            *TRANSFER_VERDICTS,
            *PRUNED_VERDICTS,
            *FAILED_VERDICTS,
            *(one for asked in QUESTIONS for one in asked.verdicts),
        }
    )
)


def checklist_findings(frames: StudyFrames) -> list[Finding]:
    """Every question of the checklist with its answer.

    A round that searched nothing is asked nothing about its search space: the few points it trains were chosen.
    Where a study has no curves, what needs them is answered by "no_curves".
    """
    chosen, curves = only_promoted(frames), has_curves(frames)
    found: list[Finding] = []
    for asked in QUESTIONS:
        if asked.searched and chosen:
            continue
        if asked.curves and not curves:
            found.append(no_curves_finding(frames, asked.question))
        else:
            found += asked.ask(frames)
    return found


def only_promoted(frames: StudyFrames) -> bool:
    """Whether all points come from trials of earlier rounds (A33), as the study's lineage names them."""
    if frames.study.kind != "round" or not frames.study.lineage:
        return False
    chosen = set(frames.study.lineage)
    parents = [promoted_from(str(origin)) for origin in frames.trials["origin"]]
    return all(parent is not None and (parent.study, f"trial {parent.trial}") in chosen for parent in parents)


def failing(findings: Iterable[Finding], verdicts: Iterable[str] | None = None) -> list[Finding]:
    """The findings with one of `verdicts`; without any given those that need action.

    Raises DeclarationError for a verdict that no question has.
    """
    if verdicts is None:
        return [finding for finding in findings if finding.needs_action]
    wanted = set(verdicts)
    unknown = sorted(wanted - set(VERDICTS))
    if unknown:
        raise DeclarationError(f"there is no verdict {', '.join(unknown)}; there are: {', '.join(VERDICTS)}, or none")
    return [finding for finding in findings if finding.verdict in wanted]
