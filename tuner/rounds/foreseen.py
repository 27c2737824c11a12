"""What can be wrong between two stages, looked for before the first of them is trained.

The weights of an earlier stage are not there yet, but the names and the shapes of its model are. So a pattern that
matches nothing costs a second, and not the hours of a pretraining.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace

from tuner.design.campaign import Campaign
from tuner.design.stages import Stage
from tuner.design.workload import Workload
from tuner.errors import StorageError, WorkloadError
from tuner.records.conclusions import Selected, StageStart
from tuner.rounds.opening import ledger_there, storage_exists
from tuner.rounds.plan import planned_trials, study_of_round
from tuner.rounds.stage_start import unknown_source, weights_path
from tuner.security import without_secrets
from tuner.shown import quoted
from tuner.storage.engine import default_url
from tuner.training.inherited import Built, check_foreseen

logger = logging.getLogger(__name__)
_MOST_TRIALS = 64  # that are looked through for other shapes
_ANY_STEPS = 100  # of a study whose points alone are asked for


def check_chain(stages: Sequence[Stage], storage: str | None, *, dry_run: bool = False) -> None:
    """Look for what a later stage cannot start from, before an earlier one trains; begun stages are known to start.

    A dry run prices a stage whose source is not recorded yet, so it does not ask for that. Raises DeclarationError for
    a file that is not there, StorageError for a campaign that is neither of this file nor recorded, WorkloadError for
    names and shapes that do not fit.
    """
    starting = [stage for stage in stages if stage.campaign.start_from is not None]
    known: Sequence[str] = ()
    where = storage or default_url()
    with ledger_there(storage) if starting else nullcontext() as ledger:
        if ledger is not None:
            known, where = ledger.campaigns(), ledger.safe_url
    for stage in starting:
        if stage.name in known:  # it has begun, and goes on from our own copies
            continue
        start = stage.campaign.start_from
        if start.file is not None:
            weights_path(stage)
        elif start.storage is not None and not storage_exists(start.storage):
            raise StorageError(
                f"{stage.name} starts from {quoted(start.campaign)} in {without_secrets(start.storage)}, and "
                "there is no storage there: storage= of best_of is the file or URL in which that campaign is recorded"
            )
        elif start.storage is None and not dry_run and start.campaign not in {*known, *stage.of_file}:
            raise StorageError(unknown_source(stage, known, where))
        check_hand_over(stage)


def check_hand_over(stage: Stage) -> None:
    """Compare the model of a stage with that of the earlier one of its file. Raises WorkloadError.

    What cannot be known before that is trained is passed over: loops of a user's own, models that cannot be built yet,
    and shapes that the earlier stage searches, as long as one of them fits.
    """
    before, start = stage.before, stage.campaign.start_from
    if before is None or start is None:
        return
    words = Selected(digest="", num_bytes=0, campaign=before.name)
    record = StageStart((words,), start.parameters, start.fresh, dict(start.renamed))
    check_foreseen(record, _models(before.campaign), _models(stage.campaign, told=WorkloadError))


def _models(campaign: Campaign, told: type[Exception] | tuple[()] = ()) -> Iterator[Built]:
    """One model of each shape that the first round has; none where it cannot be told yet, and the first look will.

    told: errors of a model that are raised at once, as with_lora's are.
    """
    if not isinstance(campaign.workload, Workload):
        return
    shapes: set[str] = set()
    try:
        study = study_of_round(campaign, 1, _ANY_STEPS)
        for trial in planned_trials(replace(study, num_trials=min(study.num_trials, _MOST_TRIALS))):
            if trial.shape_group not in shapes:
                shapes.add(trial.shape_group)
                yield Built(campaign.workload.model(trial.point), trial.point)
    except told:
        raise
    except Exception as error:  # errors of the model are the first look's to tell
        logger.debug("not foreseen: %s", error)
