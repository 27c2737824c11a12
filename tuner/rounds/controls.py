"""Controls of a stage: the same task trained from scratch, to be compared with what starts from the weights (C5).

A control is a side branch. It is as long as the last round before it that starts from the weights, or as that and the
steps behind the weights together; nothing of the campaign rests on it. Warmup and the family of the schedule are those
of the campaign, and the decay keeps its share of the steps.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tuner.analysis.questions.effort import SMALL, UNEQUAL
from tuner.analysis.round_frames import round_rows
from tuner.budget.step_budget import StepBudget
from tuner.design.study import Study
from tuner.rounds.launch import Session, started_study
from tuner.rounds.plan import round_name


@dataclass(frozen=True, slots=True)
class InheritedSteps:
    """Updates behind the weights that a stage starts from. assumed: the earlier stage is not trained yet."""

    steps: int
    assumed: bool = False


def inherited_steps(session: Session) -> InheritedSteps:
    """The steps that the trials of a session inherit from earlier stages."""
    if session.loaded.inherited is not None:
        return InheritedSteps(session.loaded.inherited.start.inherited_steps)
    return InheritedSteps(session.assumed_steps, assumed=session.campaign.start_from is not None)


def as_compared(session: Session, study: Study) -> tuple[Study, tuple[str, ...]]:
    """The study of a control with as many evaluations as the round it is compared with, and what is not equal (D32).

    Before that round was started the study is as it was.
    """
    before = session.campaign.round_before(study.round or 0)
    row = None if before is None else started_study(session, round_name(before))
    if row is None:
        return study, tuple(_effort(session, study))
    wanted = len(row.study.budget.evaluation_steps)
    return replace(study, budget=evaluated(study.budget.max_train_steps, wanted)), tuple(_effort(session, study))


def evaluated(max_train_steps: int, evaluations: int) -> StepBudget:
    """A budget whose number of evaluations, at equal distances, comes nearest to `evaluations`; the larger on a tie.

    >>> [len(evaluated(steps, 40).evaluation_steps) for steps in (40, 100, 140, 1000)]
    [40, 34, 35, 40]
    """
    every = max(1, max_train_steps // evaluations)
    budgets = [StepBudget(max_train_steps, min(one, max_train_steps)) for one in (every, every + 1)]
    return min(budgets, key=lambda one: abs(len(one.evaluation_steps) - evaluations))


def searched_before(session: Session, number: int) -> int:
    """The configurations that the rounds before a control searched which start from the weights."""
    rounds = [(one, session.campaign.round(one)) for one in session.campaign.main_rounds if one < number]
    return sum(_planned(session, one) if declared.space else declared.trials or 0 for one, declared in rounds)


def _planned(session: Session, number: int) -> int:
    """The trials of a round, with those of its widenings."""
    if started_study(session, round_name(number)) is None:
        return session.campaign.round(number).trials or 0
    return sum(row.study.num_trials for row in round_rows(session.ledger, session.name, number))


def _effort(session: Session, study: Study) -> Iterator[str]:
    """A warning where the best of few would be compared with the best of many (B15, D41)."""
    searched = searched_before(session, study.round or 0)
    fewer, more = sorted((study.num_trials, searched))
    if study.num_trials < searched or (more - fewer > SMALL and more > UNEQUAL * fewer):
        side = "the start from the weights" if study.num_trials < searched else "the control"
        yield (
            f"{study.name} is a control of {study.num_trials} trials, and {searched} were searched that start from the "
            f"weights: the best of more is better by luck alone, here {side} (B15, D41); trials={searched} compares "
            "them fairly"
        )
