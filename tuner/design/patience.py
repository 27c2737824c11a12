"""Early stopping: at which evaluation a trial ends because its selection metric has not improved for a while.

The rule is a function of the recorded curve alone, so a trial ends at the same step alone, in a group, in a worker, and
after it was resumed anywhere. Only rounds without a budget verdict have it (`design.round.check_patience`).
"""

from collections.abc import Iterable

from tuner.design.objective import Objective
from tuner.errors import DeclarationError


def stalled(step: int, best_step: int, patience_steps: int) -> bool:
    """Whether an evaluation after `step` updates ends a trial whose best one so far was after `best_step` updates."""
    return 0 < patience_steps <= step - best_step


def stopping_step(points: Iterable[tuple[int, float]], objective: Objective, patience_steps: int) -> int | None:
    """The first evaluated step that is `patience_steps` or more after the best one up to there; None without one.

    points: (step, value) of the selection metric. An equal value is no improvement, and what is not finite neither;
    before the first finite value nothing is counted, because there is nothing yet to improve on.
    """
    best: tuple[int, float] | None = None
    for step, value in sorted(points, key=lambda point: point[0]):
        best = objective.best([*([best] if best else []), (step, value)])
        if best is not None and stalled(step, best[0], patience_steps):
            return step
    return None


def check_distance(evaluate_every: int, patience_steps: int, name: str) -> None:
    """Raise DeclarationError for a patience that ends before the next evaluation, when nothing can have improved.

    evaluate_every: the steps from one evaluation to the next. patience_steps: 0 for none. name: of the round.
    """
    if 0 < patience_steps < evaluate_every:
        raise DeclarationError(
            f"patience_steps={patience_steps:,} of {name} is less than the {evaluate_every:,} steps between two "
            "evaluations, so that each trial would stop at the first evaluation that is no better: give at least "
            f"{evaluate_every:,}, and better several times as many, because a curve is noisy; or evaluate more often "
            "(evaluations, evaluate_every of Campaign)"
        )
