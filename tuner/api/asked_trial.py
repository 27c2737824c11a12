"""One trial of a study that a script asks for: everything that is needed to train it, wherever that is."""

from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import torch

from tuner.api.told_curves import Curves
from tuner.design.hyperparameters import Value
from tuner.design.names import Name
from tuner.design.prefix import rates_of
from tuner.design.seeds import short_seed
from tuner.design.study import Study
from tuner.design.words import no_such_word
from tuner.errors import WorkloadError
from tuner.records import Claim
from tuner.training.inherited import StartWeights

_REPORT = "study.report(trial, step, value)"


class AskedTrial:
    """One trial to be trained, by whatever means.

    number: in its study. study: the name of that. point: short name of each hyperparameter to its value.
    seed, data_seed: of initialization and dropout, and of the order of the examples; below 2**32, which NumPy's old
    generator and most frameworks take.
    max_train_steps: the updates to make. evaluation_steps: the numbers of updates after which to evaluate, ascending.
    schedule: the schedule in words. regularization_off: whether to train without augmentation, dropout and all else
    that regularizes, as in a sweep. reported: what `study.report` has written of it.
    """

    def __init__(self, claim: Claim, study: Study, inherited: StartWeights | None = None) -> None:
        trial = claim.trial
        self._inherited = inherited
        self.took_start = inherited is None
        self.claim, self.of_study = claim, study
        self.looked_at_regularization = self.looked_at_rates = False
        self.reported: Curves = {}
        self.number = trial.number
        self.study = study.name
        self.point: Mapping[str, Value] = {Name.of(name).short: value for name, value in trial.point.values_by_name}
        self.seed = short_seed(trial.seed)
        self.data_seed = short_seed(trial.data_seed)
        self.max_train_steps = study.budget.max_train_steps
        self.evaluation_steps = study.budget.evaluation_steps
        self.schedule = str(trial.schedule)
        self._rates = rates_of(trial) if "learning_rate" in trial.point else ()
        self._due = frozenset(self.evaluation_steps)

    def __repr__(self) -> str:
        values = ", ".join(
            f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
            for name, value in self.point.items()
        )
        return f"trial {self.number} of {self.study}: {values}; {self.max_train_steps:,} steps"

    def __getattr__(self, name: str) -> NoReturn:
        """Called for what a trial does not have: say what a trial of Optuna's is called here."""
        if name == "report":
            raise AttributeError(f"a trial has no 'report': the study takes reports, {_REPORT}")
        raise AttributeError(no_such_word(name, _REPORT, "nothing is kept of what is trained elsewhere"))

    @property
    def regularization_off(self) -> bool:
        """Whether to train without anything that regularizes."""
        self.looked_at_regularization = True
        return not self.of_study.augment

    @property
    def rates(self) -> tuple[float, ...]:
        """The learning rate of every update. Raises WorkloadError where the space has no learning_rate."""
        self.looked_at_rates = True
        if not self._rates:
            raise WorkloadError("the point has no learning_rate, so no schedule gives a rate; declare one in the space")
        return self._rates

    def rate(self, step: int) -> float:
        """The learning rate of an update, counted from 0."""
        return self.rates[min(max(step, 0), len(self.rates) - 1)]

    @property
    def start_weights(self) -> Mapping[str, torch.Tensor] | None:
        """The carried weights of an earlier stage by their names here, on the CPU; None without `start_from`."""
        self.took_start = True
        return None if self._inherited is None else self._inherited.mapped(self.point)

    def carry_into(self, model: torch.nn.Module) -> bool:
        """Carry those weights into a model that was just made; False without `start_from`.

        Raises WorkloadError where a carried tensor is missing or has another shape.
        """
        self.took_start = True
        if self._inherited is not None:
            self._inherited.into(model, self.point)
        return self._inherited is not None

    def write_start(self, folder: str | Path) -> Path | None:
        """A file of `start_weights` in the format of safetensors, written into a folder; None without `start_from`."""
        self.took_start = True
        return None if self._inherited is None else self._inherited.file_in(Path(folder), self.point)

    def evaluates(self, step: int) -> bool:
        """Whether an evaluation is due after update `step`, counted from 0: which makes `step + 1` updates."""
        return step + 1 in self._due

    def as_dict(self) -> dict[str, object]:
        """All of it as plain data, to be sent as JSON to where it is trained."""
        self.looked_at_rates = True
        return {
            "study": self.study,
            "number": self.number,
            "point": dict(self.point),
            "seed": self.seed,
            "data_seed": self.data_seed,
            "max_train_steps": self.max_train_steps,
            "evaluation_steps": list(self.evaluation_steps),
            "rates": list(self._rates),
            "regularization_off": self.regularization_off,
        }
