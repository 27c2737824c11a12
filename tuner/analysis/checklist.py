"""The questions every study is asked before its goal is, in the playbook's order (B20-B30)."""

from tuner.analysis.best_steps import best_steps_finding
from tuner.analysis.boundaries import boundary_findings
from tuner.analysis.finding import Finding
from tuner.analysis.infeasible import infeasible_finding
from tuner.analysis.study_frames import StudyFrames


def foundation_findings(frames: StudyFrames) -> list[Finding]:
    """Boundaries of each numeric hyperparameter, infeasible trials, best steps.

    A round that searched nothing is asked nothing about its search space: the few points it trains were chosen.
    """
    if only_promoted(frames):
        return [best_steps_finding(frames)]
    return [*boundary_findings(frames), infeasible_finding(frames), best_steps_finding(frames)]


def only_promoted(frames: StudyFrames) -> bool:
    """Whether all points come from trials of earlier rounds (A33), as the study's lineage names them."""
    if frames.study.kind != "round" or not frames.study.lineage:
        return False
    chosen = {f"{study} {trial}" for study, trial in frames.study.lineage}
    return bool(frames.trials["origin"].isin(chosen).all())
