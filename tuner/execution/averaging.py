"""The mean of the best weights that the selected run kept: evaluated, beside the best single ones, then written.

The mean may be better or worse than each of them; which it is, only an evaluation tells.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from tuner.design.own_loop import OwnLoop
from tuner.design.workload import Trainable
from tuner.errors import DeclarationError, StorageError
from tuner.execution.loaded_workload import LoadedWorkload
from tuner.execution.machine import Machine
from tuner.execution.scoring import Chosen, setup_as_trained
from tuner.storage.store import Ledger
from tuner.training.checkpoints import ExportedWeights, read_weights, write_weights_to
from tuner.training.mean_weights import Weights, evaluated_mean

HEADER = "averaged"  # of the metadata of a written file: JSON, what its weights are the mean of


@dataclass(frozen=True, slots=True)
class MeanOfBest:
    """The mean of the weights at `steps`, the best one first, and what it measures on validation.

    value: by the study's objective, like `best_value`, that of the best single weights. worse: than those.
    """

    weights: Weights
    study: str
    trial: int
    steps: tuple[int, ...]
    objective: str
    value: float
    best_value: float
    worse: bool

    @property
    def words(self) -> str:
        """Its value beside the best single one."""
        told = (
            f"the mean of the weights at steps {', '.join(f'{step:,}' for step in self.steps)} has {self.objective} = "
            f"{self.value:.6g}; the best single ones, at step {self.steps[0]:,}, have {self.best_value:.6g}"
        )
        return told + ("; these are better: export without the mean" if self.worse else "")

    def write(self, target: Path) -> ExportedWeights:
        """Write the weights as a safetensors file, whose header says what they are."""
        about = {
            "study": self.study, "trial": self.trial, "steps": self.steps, self.objective: self.value,
            "best_single": self.best_value,
        }  # fmt: skip
        return write_weights_to(self.weights, target, {HEADER: json.dumps(about)})


def mean_of_best(
    ledger: Ledger, chosen: Chosen, workload: Trainable, machine: Machine, study_file: Path | None = None
) -> MeanOfBest:
    """The mean of all best checkpoints that a run has (`keep_best` of the campaign), in float64, of their dtype.

    Raises StorageError where fewer than two are left, StudyChanged for other code or data than the run was trained
    with, DeclarationError for a workload that trains itself, CorruptCheckpoint.
    """
    study, record = chosen.row.study, chosen.record
    if isinstance(workload, OwnLoop):
        raise DeclarationError(
            f"{type(workload).__name__} evaluates by itself, so the mean of its weights cannot be evaluated here; "
            "export them one by one, and average and evaluate them in your own code"
        )
    kept = sorted((one for one in record.checkpoints if one.kind == "best"), key=lambda one: one.step != chosen.step)
    if len(kept) < 2 or kept[0].step != chosen.step:
        raise StorageError(
            f"trial {record.number} of {study.name} has {len(kept)} best checkpoint{'s' * (len(kept) != 1)}, and a "
            f"mean needs two or more: train with Campaign(keep_best=3) (this study keeps {study.keep_best}), or with "
            "ema_steps for an average over many steps"
        )
    loaded = LoadedWorkload(workload, machine, study_file)
    loaded.inherit_recorded(ledger, chosen.row, machine.checkpoint_root)
    setup = setup_as_trained(chosen.row, loaded, "the mean of its weights")
    read = [read_weights(machine.checkpoint_root, one) for one in kept]
    weights, measured = evaluated_mean(setup, record.readable_trial(), read, chosen.step)
    objective = study.objective
    value = measured.get(objective.metric, float("nan"))
    steps = tuple(one.step for one in kept)
    worse = not objective.better(value, chosen.value) and value != chosen.value
    return MeanOfBest(weights, study.name, record.number, steps, objective.metric, value, chosen.value, worse)
