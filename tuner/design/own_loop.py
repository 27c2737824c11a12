"""A workload that trains itself: a loop that people already have, with the study around it.

This module imports neither torch nor anything that trains: the trial that `train` is given is `Any` here.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from tuner.design.objective import FitCriterion, Objective
from tuner.design.workload import Trainable


class OwnLoop(Trainable):
    """Subclass it and write `train(self, trial)`: your own loop, which asks the trial how long to go and what is due.

    The program decides the points, the number of steps, the learning rate of each step and when to evaluate; it keeps
    weights and state, resumes, and draws the conclusions. The loop builds the model, the optimizer and the data.

    batch_size: examples in one training step, where a length is written in epochs or examples; 0: not known. It changes
        no batch: the loop makes its own.
    num_examples: of the training split, where a length is written in epochs; 0: not known.
    select_by: the validation metric that picks checkpoints and ranks trials, `minimize("validation/loss")`.
    fitted_when: when the training set counts as fitted, `at_most("training/error_rate", 0.0)`; needed by a sweep.

    Without `train`, `OwnLoop(select_by=minimize("validation/loss"))` stands for trials that are trained somewhere else
    and told of: see `tuner.asking`.
    """

    batch_size: int = 0
    num_examples: int = 0
    constant_rate = False  # whether it trains at the learning_rate of the point from the first update to the last
    door = "loop"  # which rows of docs/reference/delegated.md hold, see `design.words`

    def __init__(
        self,
        *,
        select_by: Objective | None = None,
        fitted_when: FitCriterion | None = None,
        batch_size: int | None = None,
        num_examples: int | None = None,
    ) -> None:
        if select_by is not None:
            self.select_by = select_by
        if fitted_when is not None:
            self.fitted_when = fitted_when
        if batch_size is not None:
            self.batch_size = batch_size
        if num_examples is not None:
            self.num_examples = num_examples

    def train(self, trial: Any) -> None:
        """Train one trial: `trial` is a `LoopTrial`, which says what to train and takes what is measured and kept."""
        raise NotImplementedError(f"{type(self).__name__}.train must train the trial that it is given")

    @property
    def trained_elsewhere(self) -> str:
        """Why this program cannot train it, where there is no `train`: its trials are asked for; else ""."""
        if type(self).train is not OwnLoop.train:
            return ""
        return (
            f"{type(self).__name__} has no train(self, trial), so its trials are trained elsewhere: ask for them in a "
            "script, with tuner.asking(campaign) as study: trial = study.ask(); ...; study.tell(trial, curve); or "
            "write train"
        )

    @property
    def follows_schedule(self) -> bool | None:
        """Whether the rates of the study are those that are trained with; None: seen when a trial is tried."""
        return None

    def check_start(self, names: Collection[str]) -> None:
        """Raise DeclarationError where no training could start from given weights. names: of the search spaces."""

    def code_files(self, folder: Path) -> Sequence[Path]:
        """Files besides its modules that decide what is trained, for a change to be noticed. folder: of the study."""
        return ()

    def words(self) -> Mapping[str, str]:
        """What is known of how it trains, for the page of a study: "optimizer": "that of the module", say."""
        return {}
