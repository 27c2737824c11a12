"""How the rounds are planned (A1-A5), who decided it, and what the curves say to that."""

from collections.abc import Sequence
from dataclasses import dataclass

from tuner.analysis.finding import Finding
from tuner.analysis.questions.regime import contradiction_finding, regime_finding
from tuner.analysis.study_frames import StudyFrames
from tuner.analysis.sweep_records import SweepRecords
from tuner.records.conclusions import RegimeVerdict
from tuner.records.sweep_outcomes import NotFitted
from tuner.report.wording import in_words


@dataclass(frozen=True, slots=True)
class Regime:
    """`verdict`: how rounds are planned, "" where the records do not say. `how` it came about, as a sentence.

    finding: what the curves say now. contradiction: that they say otherwise than was declared.
    """

    verdict: str
    how: str
    finding: Finding | None
    contradiction: Finding | None


def regime_of(
    concluded: RegimeVerdict | None, sweep: SweepRecords | None, rounds: Sequence[StudyFrames]
) -> Regime | None:
    """The regime as it was concluded, beside the evidence; None where nothing could be asked.

    The evidence is the sweep's, whose learning rates never fall (D47); without a sweep it is the newest round's.
    """
    finding = _finding(sweep, rounds)
    if concluded is None:
        elsewhere = any(frames.study.source for frames in rounds)
        return None if finding is None else Regime("", _ELSEWHERE if elsewhere else _UNDECLARED, finding, None)
    verdict = concluded.verdict
    contradiction = None if finding is None else contradiction_finding(verdict, finding)
    return Regime(verdict, _how(concluded, sweep), finding, contradiction)


_UNDECLARED = (
    "No regime was concluded from a sweep. Rounds are planned as the study file declares or implies it: a production "
    "length means compute-bound. What the curves say stands below."
)

_ELSEWHERE = (
    "The trials were trained elsewhere, and nothing is recorded of how their number of steps was chosen. What the "
    "curves say stands below."
)


def _finding(sweep: SweepRecords | None, rounds: Sequence[StudyFrames]) -> Finding | None:
    if sweep is not None:
        return regime_finding(sweep.frames, sweep.outcome)
    trained = [frames for frames in rounds if len(frames.complete)]
    return regime_finding(trained[-1]) if trained else None


def _how(concluded: RegimeVerdict, sweep: SweepRecords | None) -> str:
    verdict, evidence = concluded.verdict, concluded.evidence
    if verdict == evidence == "undecided":
        return "The evidence does not decide. Rounds are planned from the steps to fit, and refined from best steps."
    if verdict == evidence:
        return "Found from the sweep's outcome and its curves."
    said = f"the evidence said {in_words(evidence)}"
    if sweep is not None and isinstance(sweep.outcome, NotFitted):
        if verdict == "compute_bound":
            return f"Taken as compute-bound because the training set was not fitted (A19); {said}."
        if verdict == "undecided":
            return f"The training set was not fitted and round 1 declares its length, refined from best steps; {said}."
    return f"Declared in the study file; {said}."
