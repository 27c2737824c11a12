"""New points around the winner of a shorter round, beside the promoted ones (A36)."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

from tuner.analysis.study_frames import StudyFrames, ranked_trials
from tuner.budget.schedules import Schedule
from tuner.budget.transfer import lengthened
from tuner.design.campaign import Round
from tuner.design.hyperparameters import Choice
from tuner.design.narrowing import CONFIRMED, TUNED_AGAIN, narrowed_space
from tuner.design.points import Point
from tuner.design.quasi_random import quasi_random_points
from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.rounds.plan import schedule_of, trial_at


def chosen_trials(frames: StudyFrames, count: int) -> list[int]:
    """Numbers of the trials to promote, best first; the smaller number on a tie.

    Where architectures or scientific values were compared and the best `count` (2 or more) have only one, the second
    place goes to the best trial of another: only beside it can the answer of the round be confirmed (A36, B32).
    """
    ranked = ranked_trials(frames)
    numbers = [int(trial) for trial in ranked["trial"]]
    names = [
        h.name
        for h in frames.study.hyperparameters
        if isinstance(h.domain, Choice) and (h.family in CONFIRMED or h.name in frames.study.scientific)
    ]
    chosen = numbers[:count]
    if names and count > 1:
        kinds = {int(row["trial"]): _kind(row, names) for row in ranked.to_dict("records")}
        others = [number for number in numbers if kinds[number] != kinds[numbers[0]]]
        if others and not set(others) & set(chosen):
            chosen = [chosen[0], others[0], *chosen[1 : count - 1]]
    return chosen


def study_around(study: Study, winner: Point) -> Study:
    """The study of a round that searches around the winner. Raises DeclarationError where nothing is left to vary."""
    space = narrowed_space(study.space, winner)
    left = {hyperparameter.name for hyperparameter in space}
    return replace(
        study,
        hyperparameters=space.hyperparameters,
        fixed=space.fixed,
        scientific=tuple(name for name in study.scientific if name in left),
    )


def trials_around(study: Study, before: Study, declared: Round, first: int, *, carried: bool) -> Sequence[Trial]:
    """The new points of a round from `study_around`, numbered from `first` on.

    Their schedules are those they would have had in the round before, carried over by rule; made anew for the new
    length where the schedule itself is tuned again.
    """
    points = quasi_random_points(study.space, seed=study.seed, start=0, count=declared.trials or 0)
    tuned = any(hyperparameter.family in TUNED_AGAIN for hyperparameter in study.hyperparameters)

    def schedule(point: Point) -> Schedule:
        if tuned or not carried:
            return schedule_of(study, point)
        mode = None if declared.transfer == "retune" else declared.transfer
        return lengthened(schedule_of(before, point), study.budget.max_train_steps, mode)

    return [
        trial_at(study, number, point, f"quasi-random {number - first}", schedule(point))
        for number, point in enumerate(points, first)
    ]


def _kind(row: Mapping[Hashable, object], names: Sequence[str]) -> tuple[str, ...]:
    return tuple(repr(row[name]) for name in names)
