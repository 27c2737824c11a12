"""How much room the checkpoints of a study may take, and what is deleted first when they take more.

Deleted, in this order, the worst trial first: the last states of finished trials, their trunks, their best weights.
Never: anything of a trial that is not finished or is among the winners, nor a state from which a planned trial of the
campaign would start.
"""

import logging
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from tuner.design.study import Study
from tuner.execution.machine import Quota
from tuner.execution.prefixes import PrefixFinder
from tuner.records import Checkpoint, CheckpointKind, State, TrialRecord, is_shard
from tuner.records.conclusions import Retention
from tuner.storage.identity import checkpoint_place
from tuner.storage.store import Ledger
from tuner.storage.studies import StudyRow
from tuner.storage.verify import clear_strays
from tuner.stores.places import StoredPath

_log = logging.getLogger(__name__)
ORDER: tuple[CheckpointKind, ...] = ("latest", "trunk", "best")
Owned = tuple[int, Checkpoint]  # a checkpoint and the id of its trial


def keep_within(quota: Quota, finder: PrefixFinder, row: StudyRow, root: StoredPath) -> int:
    """Delete checkpoints beyond the quota; returns how many. Warns where those that must stay exceed it."""
    ledger = finder.ledger
    excess = ledger.checkpoint_bytes(row.study_id) - quota.num_bytes
    if excess <= 0:
        return 0
    chosen: list[Owned] = []
    records = ledger.trials(row.study_id)
    every = [file for record in records for kept in record.checkpoints for file in _files(kept)]
    users = Counter(file for file, _ in every)  # a group's trials share files, and all that have the same frozen part
    for trial_id, kept in spare(row.study, records, quota.winners, needed_states(finder, row.campaign)):
        if excess <= 0:
            break
        chosen.append((trial_id, kept))
        for file, num_bytes in _files(kept):
            users[file] -= 1
            excess -= 0 if users[file] else num_bytes
    if excess > 0:
        _log.warning("the checkpoints of %s that must stay take %d bytes more than the quota", row.study.name, excess)
    if chosen:
        _forget(ledger, row, chosen, root)
        if any(kept.base is not None and not users[kept.base.file] for _, kept in chosen):
            clear_strays(ledger, row.study_id, root, checkpoint_place(row.campaign, row.study.name))
    return len(chosen)


def _files(kept: Checkpoint) -> list[tuple[str, int]]:
    """The files that a checkpoint needs, with their bytes."""
    base = kept.base
    return [(kept.file, kept.num_bytes), *([] if base is None else [(base.file, base.num_bytes)])]


def spare(
    study: Study, records: Sequence[TrialRecord], winners: int, needed: Collection[tuple[int, int]]
) -> Iterator[Owned]:
    """Checkpoints that may be deleted, in this order; `needed` are (trial id, step) of states that must stay.

    FAILED trials keep all their checkpoints: they continue from these when they are trained again.
    """
    ended = (record for record in records if record.state.finished and record.state is not State.FAILED)
    ranked = sorted(ended, key=lambda one: _rank(study, one))
    chosen = {record.trial_id for record in ranked[:winners]} | _best_of_seeds(ranked)
    losers = [record for record in ranked if record.trial_id not in chosen]
    gone: set[Owned] = set()
    for kind in ORDER:
        for record in reversed(losers):
            for kept in record.checkpoints:
                is_needed = kept.kind != "best" and (record.trial_id, kept.step) in needed
                rests_on_it = kept.kind == "best" and any(trial == record.trial_id for trial, _ in needed)
                if kept.kind == kind and not is_needed and not rests_on_it:
                    gone.add((record.trial_id, kept))
                    yield record.trial_id, kept
                    if kind != "best":
                        yield from ((record.trial_id, one) for one in _shards_without_state(record, kept.step, gone))


def _shards_without_state(record: TrialRecord, step: int, gone: Collection[Owned]) -> list[Checkpoint]:
    """The parts that other ranks have of a trial's state at a step, where no state there is left that needs them."""
    here = [kept for kept in record.checkpoints if kept.step == step and kept.kind != "best"]
    needed = any(not is_shard(kept.kind) and (record.trial_id, kept) not in gone for kept in here)
    return [] if needed else [kept for kept in here if is_shard(kept.kind)]


def _best_of_seeds(ranked: Sequence[TrialRecord]) -> set[int]:
    """The best trial of each point that was trained with several seeds: by their median another point may win."""
    seeds: dict[str, list[int]] = {}
    for record in ranked:
        seeds.setdefault(repr(sorted(dict(record.point).items())), []).append(record.trial_id)
    return {trials[0] for trials in seeds.values() if len(trials) > 1}


def needed_states(finder: PrefixFinder, campaign: str) -> set[tuple[int, int]]:
    """(trial id, step) of the states from which the unfinished trials of a campaign would start."""
    needed: set[tuple[int, int]] = set()
    for row in finder.ledger.studies(campaign):
        counts = finder.ledger.state_counts(row.study_id)
        if counts[State.WAITING] or counts[State.RUNNING]:
            planned = finder.ledger.unfinished(row.study_id)
            for prefixes in replace(finder, study=row.study).usable(planned):
                needed |= {(prefix.trial_id, prefix.step) for prefix in prefixes[:1]}
    return needed


def _rank(study: Study, record: TrialRecord) -> tuple[bool, float, int]:
    """Sorts complete trials first, the best of them in front; on a tie the smaller number."""
    values = [kept.value for kept in record.checkpoints if kept.kind == "best" and kept.value is not None]
    sign = 1.0 if study.objective.direction == "minimize" else -1.0
    return (
        record.state is not State.COMPLETE,
        min((sign * value for value in values), default=float("inf")),
        record.number,
    )


def _forget(ledger: Ledger, row: StudyRow, chosen: Sequence[Owned], root: StoredPath) -> None:
    """Delete the records, then the files: a kill between the two leaves stray files, which are deleted later."""
    named = [(trial_id, kept.kind, kept.step) for trial_id, kept in chosen]
    for path in ledger.forget_checkpoints(row, named, Retention(ORDER)):
        with suppress(OSError):  # the file costs room and spoils no trial
            (root / path).unlink()
