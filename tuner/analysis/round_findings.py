"""All that is asked of a round: its checklist, and whether it confirms the round before it."""

from tuner.analysis.checklist import checklist_findings
from tuner.analysis.elsewhere import for_elsewhere
from tuner.analysis.failed import failed_findings
from tuner.analysis.finding import Finding
from tuner.analysis.pruned import pruned_findings
from tuner.analysis.reconciled import reconciled
from tuner.analysis.round_frames import round_frames, round_of, rounds_started
from tuner.analysis.stale import recorded_stale_findings
from tuner.analysis.study_frames import StudyFrames
from tuner.analysis.transfer import transfer_findings
from tuner.storage.store import Ledger


def round_findings(ledger: Ledger, campaign: str, frames: StudyFrames) -> list[Finding]:
    """Failed and pruned trials; a stale budget; a round's checklist; then what it says of the round before.

    What two of these advise about one thing is made to agree.
    """
    place = round_of(frames.study.name)
    confirming = confirming_findings(ledger, campaign, place[0], frames) if place else []
    stale = recorded_stale_findings(ledger, campaign, frames.study.name)
    found = [*failed_findings(frames), *pruned_findings(frames), *stale, *checklist_findings(frames), *confirming]
    return reconciled(for_elsewhere(frames, found))


def confirming_findings(ledger: Ledger, campaign: str, number: int, frames: StudyFrames) -> list[Finding]:
    """Which conclusions of the round before are confirmed, rejected or unconfirmed; empty for the first round."""
    earlier = [started for started in rounds_started(ledger, campaign) if started < number]
    return transfer_findings(round_frames(ledger, campaign, earlier[-1]), frames) if earlier else []


def rounds_frames(ledger: Ledger, campaign: str) -> list[StudyFrames]:
    """Every round that was started, in order."""
    return [round_frames(ledger, campaign, number) for number in rounds_started(ledger, campaign)]
