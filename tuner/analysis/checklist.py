"""The questions every study is asked before its goal is, in the playbook's order (B20-B30)."""

from tuner.analysis.best_steps import best_steps_finding
from tuner.analysis.boundaries import boundary_findings
from tuner.analysis.finding import Finding
from tuner.analysis.infeasible import infeasible_finding
from tuner.analysis.study_frames import StudyFrames


def foundation_findings(frames: StudyFrames) -> list[Finding]:
    """Boundaries of each numeric hyperparameter, infeasible trials, best steps."""
    return [*boundary_findings(frames), infeasible_finding(frames), best_steps_finding(frames)]
