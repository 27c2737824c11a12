"""Validation inputs of a stage that an earlier one trained on: found before anything of the stage is trained (C5).

Each campaign records hashes of its training inputs at its first launch, with those of the stages before it, so that a
stage that is launched much later, or from another storage, finds all of them. A campaign that is no stage records them
only where that fetches no example.
"""

import logging
from contextlib import nullcontext

from tuner.design.campaign import Campaign
from tuner.design.own_loop import OwnLoop
from tuner.errors import TunerError
from tuner.execution.loaded_workload import LoadedWorkload
from tuner.records.conclusions import FoundInputs, InputSet, StageLeaks, TrainingInputs
from tuner.storage.store import Ledger, open_ledger
from tuner.training.input_hashes import in_memory, input_hashes

_log = logging.getLogger(__name__)
_OWN_LOOP = "its loop reads data of its own"


def compare_inputs(ledger: Ledger, name: str, campaign: Campaign, loaded: LoadedWorkload, *, of_several: bool) -> None:
    """Record the training inputs of a campaign, and of a stage what its validation has in common with earlier ones.

    The latter is said, too. of_several: the study file declares several campaigns. Nothing where it is recorded.
    """
    staged = campaign.start_from is not None
    if ledger.conclusion(name, TrainingInputs) is None:
        before = _of_source(ledger, campaign)
        own = _own_inputs(name, loaded, staged=staged or of_several)
        if own or before:
            ledger.conclude(name, TrainingInputs((*own, *before)))
    if staged and ledger.conclusion(name, StageLeaks) is None:
        found = _found(ledger, campaign, loaded)
        ledger.conclude(name, StageLeaks(found))
        for one in found:
            if one.found or one.why:
                _log.warning("%s: %s%s", name, one.words, _WHAT_FOLLOWS if one.found else "")


_WHAT_FOLLOWS = ": the comparison with training from scratch favours the earlier stage; leave them out there (C5)"


def _own_inputs(name: str, loaded: LoadedWorkload, *, staged: bool) -> tuple[InputSet, ...]:
    if isinstance(loaded.workload, OwnLoop):
        return ()
    training = loaded.data.training
    return (input_hashes(training).as_set(name),) if staged or in_memory(training) else ()


def _of_source(ledger: Ledger, campaign: Campaign) -> tuple[InputSet, ...]:
    """The training inputs of the stages before a campaign, as the one that it starts from recorded them."""
    start = campaign.start_from
    if start is None or start.file is not None:
        return ()
    try:
        with nullcontext(ledger) if start.storage is None else open_ledger(start.storage, create=False) as source:
            known = source.conclusion(start.campaign, TrainingInputs)
    except TunerError as error:
        _log.warning("the training inputs of %s cannot be read: %s", start.campaign, error)
        return ()
    return () if known is None else known.sets


def _found(ledger: Ledger, campaign: Campaign, loaded: LoadedWorkload) -> tuple[FoundInputs, ...]:
    start = campaign.start_from
    if start is None:
        return ()
    if start.file is not None:
        return (FoundInputs(str(start.file), why="a file of weights does not tell what it was trained on"),)
    if isinstance(campaign.workload, OwnLoop):
        return (FoundInputs(start.campaign, why=_OWN_LOOP),)
    known = _of_source(ledger, campaign)
    mine = input_hashes(loaded.data.validation)
    found = [mine.among(one) for one in known]
    if all(one.campaign != start.campaign for one in known):
        why = (
            "none were recorded at its first launch, because a loop has data of its own, or because it was no stage of "
        )
        why += "a study file then and its examples are fetched one by one"
        found.insert(0, FoundInputs(start.campaign, why=why))
    return tuple(found)
