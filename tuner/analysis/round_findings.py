"""All that is asked of a round: its checklist, and whether it confirms the round before it."""

from tuner.analysis.checklist import checklist_findings
from tuner.analysis.finding import Finding
from tuner.analysis.round_frames import round_frames, rounds_started
from tuner.analysis.study_frames import StudyFrames
from tuner.analysis.transfer import transfer_findings
from tuner.storage.store import Ledger


def round_findings(ledger: Ledger, campaign: str, number: int) -> list[Finding]:
    """The checklist of round `number`, then what it says of the conclusions of the round before."""
    frames = round_frames(ledger, campaign, number)
    return [*checklist_findings(frames), *confirming_findings(ledger, campaign, number, frames)]


def confirming_findings(ledger: Ledger, campaign: str, number: int, frames: StudyFrames) -> list[Finding]:
    """Which conclusions of the round before are confirmed, rejected or unconfirmed; empty for the first round."""
    earlier = [started for started in rounds_started(ledger, campaign) if started < number]
    return transfer_findings(round_frames(ledger, campaign, earlier[-1]), frames) if earlier else []


def rounds_frames(ledger: Ledger, campaign: str) -> list[StudyFrames]:
    """Every round that was started, in order."""
    return [round_frames(ledger, campaign, number) for number in rounds_started(ledger, campaign)]
