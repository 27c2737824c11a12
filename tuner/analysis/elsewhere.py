"""Findings about a study that was run elsewhere: what its sample cannot show, and next steps that its owner can take.

The questions are those of every study. But its points may have been chosen by a model, some of its trials pruned, and
there is no study file to edit and no checkpoint to train on from.
"""

from collections.abc import Sequence
from dataclasses import replace

from tuner.analysis.finding import Finding
from tuner.analysis.sampling import sample_of
from tuner.analysis.search_lines import number, search_line
from tuner.analysis.study_frames import StudyFrames
from tuner.design.hyperparameters import Range

# What a sample that was not drawn evenly takes from an answer; the others do not rest on where the points lie.
_OF_THE_SAMPLE = {
    "boundary": "few trials lie far from the best ones, so less is known there",
    "enough_points": "many good trials may lie close together, and are no sign that the space is covered",
    "insensitivity": "such trials differ less than evenly chosen ones",
    "isolation": "values that looked worse at first got fewer trials",
    "effort": "values that looked worse at first got fewer trials",
    "instability": "few trials lie where trials diverge",
}
_BETWEEN = "what lies between them is not seen"  # of a grid, or of points chosen by hand
_OF_PRUNING = {
    "boundary": "each counts as at least as bad as the completed trial that had its rank when it was ended",
    "enough_points": "they are not among the completed ones",
    "infeasible": "whether they would have diverged is not known",
    "instability": "whether they would have diverged is not known",
    "insensitivity": "the completed ones differ less than all would",
    "isolation": "values with many pruned trials completed fewer",
    "effort": "values with many pruned trials completed fewer",
    "best_steps": "only curves that were good from early on are here",
    "improvement": "only curves that were good from early on are here",
    "regime": "only curves that were good from early on are here",
    "overfitting": "they take no part here",
    "late_variance": "they take no part here",
    "training_loss": "they take no part here",
    "warmup": "they take no part here",
    "periodicity": "they take no part here",
    "importance": "they take no part here",
}
_WEAKENED = ("boundary", "enough_points", "insensitivity", "isolation")


def for_elsewhere(frames: StudyFrames, findings: Sequence[Finding]) -> list[Finding]:
    """The findings of an imported study with their caveats, no stronger than its sample allows; others as they are."""
    if not frames.study.source:
        return list(findings)
    sample, pruned, total = sample_of(frames), len(frames.pruned), len(frames.trials)
    found = []
    for finding in findings:
        caveats = list(finding.caveats)
        uneven = sample.kind != "even" and finding.question in _OF_THE_SAMPLE
        if uneven and finding.verdict != "no_curves":
            takes = _OF_THE_SAMPLE[finding.question] if sample.kind == "model" else _BETWEEN
            caveats.append(f"{sample.why}: {takes}.")
        said = any("pruned trials count as" in caveat for caveat in caveats)
        if pruned and not said and finding.question in _OF_PRUNING and finding.verdict != "no_curves":
            caveats.append(f"{pruned} of {total} trials were pruned: {_OF_PRUNING[finding.question]}.")
        doubtful = finding.question in _WEAKENED and (uneven or pruned > 0) and not finding.needs_action
        strength = "moderate" if doubtful and finding.strength == "strong" else finding.strength
        action = _action(frames, finding)
        found.append(replace(finding, caveats=tuple(caveats), strength=strength, action=action))
    return found


def _action(frames: StudyFrames, finding: Finding) -> str:
    """The next step in the owner's own code; what was advised, where that is possible there."""
    if finding.question == "boundary" and finding.verdict.startswith("expand"):
        return _wider(frames, finding)
    if finding.verdict == "no_curves":
        report = "trial.report(value, step)" if _is_optuna(frames) else "your logger"
        return f"Record the metric at regular steps, at least 20 times a trial, with {report} (B40, D14)."
    if finding.question == "best_steps" and finding.verdict in ("maybe_too_short", "mixed"):
        return _longer(frames, finding)
    if finding.question == "failed_trials":
        return "Remove the cause, train these trials again in your own code, and import."
    more = _more_trials(frames)
    by_answer = {
        ("boundary", "inconclusive"): f"Train more trials in the same ranges, spread evenly: {more}.",
        ("enough_points", "sparse"): f"Train more trials ({more}), or narrow the ranges around the best one first.",
        ("regime", "compute_bound"): "Train as long as you can afford: these trials still improved at their end (A2).",
    }
    action = by_answer.get((finding.question, finding.verdict), finding.action)
    return action.replace("then launch again", "train again in your own code, and import")


def _wider(frames: StudyFrames, finding: Finding) -> str:
    hyperparameter = next(h for h in frames.study.hyperparameters if h.name == finding.subject)
    domain, edges = hyperparameter.domain, finding.evidence
    if not isinstance(domain, Range):
        return finding.action
    moved = {row["edge"]: row["next_bound"] for row in edges[edges["expand"]].to_dict("records")}
    bounds = {"low": domain.low, "high": domain.high} | moved
    was = f"{number(domain.low, domain.integer)} to {number(domain.high, domain.integer)}"
    wider = f"{number(bounds['low'], domain.integer)} to {number(bounds['high'], domain.integer)}"
    line = search_line(frames.study, hyperparameter, replace(domain, low=bounds["low"], high=bounds["high"]))
    return f"Search {finding.subject} from {wider} instead of {was}: {line}."


def _longer(frames: StudyFrames, finding: Finding) -> str:
    """Which trial, how many steps, and with which values: there is no checkpoint here to go on from."""
    if "trial" not in finding.evidence or finding.evidence.empty:
        return finding.action
    trial, steps = int(finding.evidence["trial"].iloc[0]), 2 * frames.study.budget.max_train_steps
    row = frames.trials[frames.trials["trial"] == trial]
    there = [name for name in frames.hyperparameters if bool(frames.exists_in(row, name).iloc[0])]
    values = ", ".join(f"{name} = {_value(row[name].iloc[0])}" for name in there)
    return (
        f"In your own code, train the configuration of trial {trial} again for {steps:,} steps instead of "
        f"{frames.study.budget.max_train_steps:,}, with its schedule lengthened ({values}); take the longer budget "
        "only if its best value improves by more than trials vary (A1, A15)."
    )


def _value(value: object) -> str:
    plain = value.item() if hasattr(value, "item") else value
    if isinstance(plain, float):
        return str(int(plain)) if plain.is_integer() and abs(plain) < 1e15 else number(plain)
    return str(plain)


def _more_trials(frames: StudyFrames) -> str:
    if _is_optuna(frames):
        return "study.sampler = optuna.samplers.QMCSampler(); study.optimize(objective, n_trials=20), then import again"
    return "about 20, by random or quasi-random search; then import again"


def _is_optuna(frames: StudyFrames) -> bool:
    return frames.study.source.startswith("Optuna")
