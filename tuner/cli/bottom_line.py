"""How `tuner run` ends: which configuration to take, what it reaches, and what is left to decide, on a few lines."""

from collections.abc import Iterator, Sequence

from tuner.analysis.finding import NOTHING_TO_DO, Finding, needing_action
from tuner.cli.tables import readable
from tuner.reading import Winner


def bottom_line(winner: Winner, findings: Sequence[Finding], *, ended: bool) -> Iterator[str]:
    """The configuration and what it reaches first, then what the rounds answered, what to do, and what is not known.

    findings: of this run, in its order. ended: whether every round of the study file was trained.
    """
    study, point = winner.row.study, winner.record.point.values_by_name
    values = ", ".join(f"{name} {readable(value)}" for name, value in point)
    yield f"{'Result' if ended else 'So far'}: take {values}, and train {study.budget.max_train_steps:,} steps"
    yield f"  {study.objective.metric} {winner.headline.words}"
    yield f"  selected run: trial {winner.record.number} of {study.name}, best at step {winner.step:,}"
    answers = [finding for finding in findings if _answers_the_round(finding) and finding.strength != "none"]
    yield from (f"  {finding.heading} {finding.verdict}. {finding.summary}" for finding in answers)
    act = needing_action(findings)
    left = (one for one in act if one.action != NOTHING_TO_DO and not _is_taken(one, winner))
    yield from (f"  to do, {finding.heading} {finding.action}" for finding in left)
    doubts = [finding for finding in findings if finding.strength == "none" and not finding.needs_action]
    if doubts:
        yield f"  not known: {', '.join(finding.about for finding in doubts)}"
        yield from (f"    {finding.heading} {finding.action}" for finding in doubts if _is_worth_a_line(finding))
    elif not act:
        yield "  every question that was asked has an answer, and nothing is left to do"


def on_the_page(told: Sequence[Finding], page: Sequence[Finding]) -> list[Finding]:
    """What a run has told, as the page of its last round tells it, and what else that page asks somebody to do.

    page: the findings of the last round, whose advice was made to agree.
    """
    agreed = {(finding.question, finding.subject): finding for finding in page}
    found = [agreed.pop((finding.question, finding.subject), finding) for finding in told]
    return found + needing_action(agreed.values())


def _is_taken(finding: Finding, winner: Winner) -> bool:
    """Whether the rival that is better by fresh seeds is the configuration that the first line says to take."""
    study, _, trial = winner.record.origin.partition(",")[0].partition(" trial ")
    return _answers_the_round(finding) and f"the rival, trial {trial} of {study}:" in finding.action


def _answers_the_round(finding: Finding) -> bool:
    return finding.question == "isolation" or (finding.question == "transfer" and finding.subject == "winner")


def _is_worth_a_line(finding: Finding) -> bool:
    """What a person can do about the round's own question; of the others the report tells."""
    return _answers_the_round(finding) and bool(finding.action) and finding.action != NOTHING_TO_DO
