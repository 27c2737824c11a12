"""The seam between the strategy and whatever trains: a job, the one method of a backend, and its listener."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

from tuner.design.study import Study
from tuner.execution.loaded_workload import LoadedWorkload
from tuner.records import Claim, TrialUpdate
from tuner.storage.identity import checkpoint_place
from tuner.storage.store import Ledger
from tuner.storage.studies import StudyRow
from tuner.storage.verify import clear_strays


class Listener(Protocol):
    """Hears about the progress of trials. Must be quick and must not raise."""

    def trial_started(self, claim: Claim) -> None: ...

    def trial_stepped(self, claim: Claim, step: int) -> None: ...

    def trial_ended(self, claim: Claim, update: TrialUpdate) -> None: ...


class Silent:
    """A listener that does nothing."""

    def trial_started(self, claim: Claim) -> None:
        """Do nothing."""

    def trial_stepped(self, claim: Claim, step: int) -> None:
        """Do nothing."""

    def trial_ended(self, claim: Claim, update: TrialUpdate) -> None:
        """Do nothing."""


# Makes a listener for a study of which so many trials are finished already; closed after the training.
Watch = Callable[[Study, int], AbstractContextManager[Listener]]


def silent(study: Study, finished: int) -> AbstractContextManager[Listener]:
    """A watch without a listener."""
    return nullcontext(Silent())


Stop = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Job:
    """A study that is to be trained: its row in the Ledger, and its workload as this process has loaded it."""

    ledger: Ledger
    row: StudyRow
    workload: LoadedWorkload

    @property
    def checkpoint_place(self) -> str:
        """The folder of the study's checkpoints, below the root."""
        return checkpoint_place(self.row.campaign, self.row.study.name)

    def delete_strays(self) -> None:
        """Delete the files of a study all of whose trials have ended that no record names."""
        clear_strays(self.ledger, self.row.study_id, self.workload.machine.checkpoint_root, self.checkpoint_place)


class Backend(Protocol):
    """Has the trials of a study trained, here or in other processes, until none is left."""

    def run(self, job: Job, listener: Listener, stop: Stop) -> None:
        """Claim and train every trial that is left, and delete files that no record names in the end.

        `stop()` is asked at every step; True means to commit and to leave the trials resumable. Raises Interrupted
        when stopped, Paused when the machine cannot go on, TrialsFailed when trials in a row fail alike.
        """
        ...
