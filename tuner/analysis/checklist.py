"""The checklist: questions that every study is asked before its goal is evaluated, in the playbook's order (B20-B30).

`tuner check`, the report and the reading in Python all ask these. Which questions there are, and their order, is in
their records (`finding.QUESTIONS`): a new question is a new file of `tuner.analysis.questions`, or of a plugin.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from difflib import get_close_matches

import pandas as pd

from tuner.analysis.elsewhere import for_elsewhere
from tuner.analysis.finding import NO_CURVES, QUESTIONS, Finding, Question
from tuner.analysis.questions.control import control_findings
from tuner.analysis.questions.leaks import leak_findings
from tuner.analysis.questions.stability import recorded_stability_findings
from tuner.analysis.questions.stale_budget import recorded_stale_findings
from tuner.analysis.questions.stale_start import stale_start_findings
from tuner.analysis.questions.transfer import transfer_findings
from tuner.analysis.reconciled import reconciled
from tuner.analysis.round_frames import main_rounds, round_frames, round_of
from tuner.analysis.study_frames import WITHOUT_STOPPING, StudyFrames, stopping_words
from tuner.analysis.trial_curves import MINIMUM_CURVE, has_curves
from tuner.design.origin import promoted_from
from tuner.errors import DeclarationError
from tuner.storage.store import Ledger


def checklist_findings(frames: StudyFrames) -> list[Finding]:
    """Every question of the checklist with its answer, in the order of the records.

    A round that searched nothing is asked nothing about its search space: the few points it trains were chosen.
    Where a study has no curves, what needs them is answered by "no_curves".
    """
    chosen, curves = only_promoted(frames), has_curves(frames)
    found: list[Finding] = []
    for question in QUESTIONS:
        if "search" in question.needs and chosen:
            continue
        if "curves" in question.needs and not curves:
            found.append(no_curves_finding(frames, question))
        else:
            found += question.findings(frames)
    return found


def only_promoted(frames: StudyFrames) -> bool:
    """Whether all points come from trials of earlier rounds (A33), as the study's lineage names them."""
    if frames.study.kind != "round" or not frames.study.lineage:
        return False
    chosen = set(frames.study.lineage)
    parents = [promoted_from(str(origin)) for origin in frames.trials["origin"]]
    return all(parent is not None and (parent.study, f"trial {parent.trial}") in chosen for parent in parents)


def known_verdicts() -> tuple[str, ...]:
    """The verdicts that findings about a round can have, sorted: what `--fail-on` may name."""
    return tuple(sorted({one.name for asked in QUESTIONS if asked.scope == "round" for one in asked.answers}))


def failing(findings: Iterable[Finding], verdicts: Iterable[str] | None = None) -> list[Finding]:
    """The findings with one of `verdicts`; without any given those that need action.

    Raises DeclarationError for a verdict that no question has, with the nearest one before the list of all.
    """
    if verdicts is None:
        return [finding for finding in findings if finding.needs_action]
    wanted, known = set(verdicts), known_verdicts()
    unknown = sorted(wanted - set(known))
    if unknown:
        near = [get_close_matches(word.lower(), known, n=1) for word in unknown]
        meant = ", ".join(dict.fromkeys(match for matches in near for match in matches))
        hint = f"did you mean {meant}? There" if meant else "there"
        raise DeclarationError(f"there is no verdict {', '.join(unknown)}; {hint} are: {', '.join(known)}, or none")
    return [finding for finding in findings if finding.verdict in wanted]


def no_curves_finding(frames: StudyFrames, question: Question) -> Finding:
    """The answer to every question about curves where there are none."""
    complete, unfinished = len(frames.complete), frames.unfinished
    if frames.stops_early:
        missing = stopping_words(frames)
        action = WITHOUT_STOPPING
    elif complete:
        missing = f"No completed trial has a curve of {frames.study.objective.metric}"
        action = "Record the metric at regular steps, at least 20 times a trial (B40, D14)."
    else:
        are = "is" if unfinished == 1 else "are"
        missing = f"No trial has completed ({unfinished} of {len(frames.trials)} {are} waiting or running)"
        action = "Let trials complete, then ask again." if unfinished else "First find out why no trial completed."
    summary = f"{missing}, so this cannot be answered."
    found = question.answer(frames.study.name, NO_CURVES.name, summary, pd.DataFrame(), action=action)
    return replace(found, thresholds={"minimum_curve": MINIMUM_CURVE})


def round_findings(ledger: Ledger, campaign: str, frames: StudyFrames) -> list[Finding]:
    """A round's checklist, whether its budget is stale, and what it shows of the round before; in the records' order.

    Where two of these advise about one thing, their advice is made to agree.
    """
    place = round_of(frames.study.name)
    confirming = confirming_findings(ledger, campaign, place[0], frames) if place else []
    stale = recorded_stale_findings(ledger, campaign, frames.study.name)
    stale += stale_start_findings(ledger, campaign, frames.study.name)
    controls = control_findings(ledger, campaign, place[0]) if place and frames.study.start else []
    leaks = leak_findings(ledger, campaign) if place and main_rounds(ledger, campaign)[-1:] == [place[0]] else []
    stale += recorded_stability_findings(ledger, campaign, frames.study.name)
    found = [*checklist_findings(frames), *stale, *leaks, *confirming, *controls]
    return advised(frames, sorted(found, key=lambda finding: finding.asked.order))


def advised(frames: StudyFrames, findings: Sequence[Finding]) -> list[Finding]:
    """Findings with next steps that their reader can take and that agree; in this order, for both write actions."""
    return reconciled(for_elsewhere(frames, findings))


def confirming_findings(ledger: Ledger, campaign: str, number: int, frames: StudyFrames) -> list[Finding]:
    """Which conclusions of the round before are confirmed, rejected or unconfirmed.

    Empty for the first round, and for a control of a stage, which promotes nothing.
    """
    main = main_rounds(ledger, campaign)
    earlier = [started for started in main if started < number] if number in main else []
    return transfer_findings(round_frames(ledger, campaign, earlier[-1]), frames) if earlier else []
