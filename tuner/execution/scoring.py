"""The test split: scored once, on request, at the chosen checkpoint of one trial, never by a selection (A12, D31).

The score stands in the Ledger as a conclusion about the campaign. Asked again, it is read and not made: a split that is
scored for one candidate after another becomes a second validation split.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from tuner.design.own_loop import OwnLoop
from tuner.design.seeds import derived_seed
from tuner.design.workload import Trainable
from tuner.errors import DeclarationError, StorageError, StudyChanged
from tuner.execution.identifying import changed_since
from tuner.execution.loaded_workload import LoadedWorkload
from tuner.execution.machine import Machine
from tuner.records import Checkpoint, TrialRecord
from tuner.records.conclusions import FinalScore
from tuner.storage.store import Ledger
from tuner.storage.studies import StudyRow
from tuner.training.checkpoints import read_weights
from tuner.training.evaluation import tallied
from tuner.training.extra_state import load_weights
from tuner.training.models import build_model
from tuner.training.precision import computing
from tuner.training.randomness import callers_generators_restored, seed_global_generators
from tuner.training.setup import TrainingSetup, split_of


@dataclass(frozen=True, slots=True)
class Chosen:
    """The trial that is final, at its chosen checkpoint, and the value of that checkpoint on validation."""

    row: StudyRow
    record: TrialRecord
    checkpoint: Checkpoint | None
    step: int
    value: float


def recorded_score(ledger: Ledger, campaign: str) -> FinalScore | None:
    """The score that was made, or None."""
    return ledger.conclusion(campaign, FinalScore)


def scored_once(
    ledger: Ledger, chosen: Chosen, workload: Trainable, machine: Machine, study_file: Path | None = None
) -> FinalScore:
    """The score of the campaign: the recorded one, whatever it was made of; else it is made now, and recorded.

    Raises StorageError without the checkpoint, StudyChanged for other code or data than the trial was trained with,
    DeclarationError for a workload without a test split, and for one that trains itself.
    """
    recorded = recorded_score(ledger, chosen.row.campaign)
    if recorded is not None:
        return recorded
    if isinstance(workload, OwnLoop):
        weights = "export the weights (tuner best STUDY_FILE --export model.safetensors) and score them"
        if chosen.row.elsewhere:
            weights = "score the weights, which are where it was trained,"
        raise DeclarationError(
            f"{type(workload).__name__} evaluates by itself, so no test split of it is known here; {weights} in your "
            "own code, once, after everything is chosen (A12, D31)"
        )
    # Where two ask at the same moment, the first answer holds for both.
    loaded = LoadedWorkload(workload, machine, study_file)
    loaded.inherit_recorded(ledger, chosen.row, machine.checkpoint_root)
    return ledger.conclude_once(chosen.row.campaign, _score(chosen, loaded))


def setup_as_trained(row: StudyRow, loaded: LoadedWorkload, what: str, *, test: bool = False) -> TrainingSetup:
    """The setup of a study that was trained, to evaluate weights of it.

    `what`: is made of them, as in "its score"; `test`: of the test split. Raises StudyChanged for other code or data
    than it was trained with.
    """
    setup = cast(TrainingSetup, loaded.setup(row.study))
    changed = changed_since(row, loaded.identifier, setup, test=test)
    if changed:
        raise StudyChanged(
            f"the code or the data of the workload changed since {row.study.name} of {row.campaign!r} was started "
            f"({'; '.join(changed)}); {what} would be that of another model, or of other data: undo the change, "
            "then ask again"
        )
    return setup


def _score(chosen: Chosen, loaded: LoadedWorkload) -> FinalScore:
    study, record = chosen.row.study, chosen.record
    trial = record.readable_trial()
    if chosen.checkpoint is None:
        raise StorageError(f"trial {record.number} has no checkpoint of its best step {chosen.step:,} any more")
    setup, device = setup_as_trained(chosen.row, loaded, "its score", test=True), loaded.device
    test, workload = loaded.data.test, setup.workload
    if test is None:
        name = type(workload).__name__
        raise DeclarationError(
            f"{name}.data gives no test split; return Splits(training=..., validation=..., test=...)"
        )
    split = split_of(workload, "test", test, device)
    with callers_generators_restored(device):
        model = build_model(setup, trial)
        load_weights(model, read_weights(loaded.machine.checkpoint_root, chosen.checkpoint), device)
        seed_global_generators(derived_seed("score", trial.seed), device)  # metrics may draw
        with computing(setup.precision_of(trial), device):
            tally = tallied(workload, model, split, batch_size=setup.evaluation_batch_size)
        metrics = tally.measured()
    return FinalScore(
        study=study.name,
        trial=record.number,
        step=chosen.step,
        objective=study.objective.metric,
        value=chosen.value,
        metrics=metrics,
        examples=split.size,
        checkpoint=chosen.checkpoint.digest,
    )
