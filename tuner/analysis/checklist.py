"""The questions every study is asked before its goal is, in the playbook's order (B20-B30).

`QUESTIONS` is the list: `tuner check`, the report and the reading in Python all ask these.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from tuner.analysis.elsewhere import for_elsewhere
from tuner.analysis.finding import Finding
from tuner.analysis.questions.best_steps import best_steps_finding
from tuner.analysis.questions.boundary import boundary_findings
from tuner.analysis.questions.effort import effort_findings
from tuner.analysis.questions.enough_points import enough_points_finding
from tuner.analysis.questions.failed_trials import VERDICTS as FAILED_VERDICTS
from tuner.analysis.questions.failed_trials import failed_findings
from tuner.analysis.questions.improvement import improvement_finding
from tuner.analysis.questions.infeasible import infeasible_finding
from tuner.analysis.questions.insensitivity import insensitivity_finding
from tuner.analysis.questions.instability import instability_finding
from tuner.analysis.questions.isolation import isolation_findings
from tuner.analysis.questions.late_variance import late_variance_finding
from tuner.analysis.questions.overfitting import overfitting_finding
from tuner.analysis.questions.periodicity import periodicity_finding
from tuner.analysis.questions.pruned import VERDICTS as PRUNED_VERDICTS
from tuner.analysis.questions.pruned import pruned_findings
from tuner.analysis.questions.regime import regime_finding
from tuner.analysis.questions.stale_budget import recorded_stale_findings
from tuner.analysis.questions.training_loss import training_loss_finding
from tuner.analysis.questions.transfer import VERDICTS as TRANSFER_VERDICTS
from tuner.analysis.questions.transfer import transfer_findings
from tuner.analysis.questions.warmup import warmup_finding
from tuner.analysis.reconciled import reconciled
from tuner.analysis.round_frames import round_frames, round_of, rounds_started
from tuner.analysis.study_frames import StudyFrames, unfinished
from tuner.analysis.trial_curves import MINIMUM_CURVE, has_curves
from tuner.design.origin import promoted_from
from tuner.errors import DeclarationError
from tuner.storage.store import Ledger


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


def no_curves_finding(frames: StudyFrames, question: str) -> Finding:
    """The answer to every question about curves where there are none."""
    return Finding(
        question=question,
        subject=frames.study.name,
        verdict="no_curves",
        strength="none",
        summary=f"{_no_curve(frames)}, so nothing can be said.",
        evidence=pd.DataFrame(),
        thresholds={"minimum_curve": MINIMUM_CURVE},
        action=_for_a_curve(frames),
    )


def _no_curve(frames: StudyFrames) -> str:
    if len(frames.complete):
        return f"No completed trial has a curve of {frames.study.objective.metric}"
    left = unfinished(frames)
    return f"No trial has completed ({left} of {len(frames.trials)} {'is' if left == 1 else 'are'} waiting or running)"


def _for_a_curve(frames: StudyFrames) -> str:
    if len(frames.complete):
        return "Record the metric at regular steps, at least 20 times a trial (B40, D14)."
    return "Let trials complete, then ask again." if unfinished(frames) else "First find out why no trial completed."


def round_findings(ledger: Ledger, campaign: str, frames: StudyFrames) -> list[Finding]:
    """Failed and pruned trials; a stale budget; a round's checklist; then what it says of the round before.

    What two of these advise about one thing is made to agree.
    """
    place = round_of(frames.study.name)
    confirming = confirming_findings(ledger, campaign, place[0], frames) if place else []
    stale = recorded_stale_findings(ledger, campaign, frames.study.name)
    found = [*failed_findings(frames), *pruned_findings(frames), *stale, *checklist_findings(frames), *confirming]
    return advised(frames, found)


def advised(frames: StudyFrames, findings: Sequence[Finding]) -> list[Finding]:
    """Findings with next steps that their reader can take and that agree; in this order, for both write actions."""
    return reconciled(for_elsewhere(frames, findings))


def confirming_findings(ledger: Ledger, campaign: str, number: int, frames: StudyFrames) -> list[Finding]:
    """Which conclusions of the round before are confirmed, rejected or unconfirmed; empty for the first round."""
    earlier = [started for started in rounds_started(ledger, campaign) if started < number]
    return transfer_findings(round_frames(ledger, campaign, earlier[-1]), frames) if earlier else []
