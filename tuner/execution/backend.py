"""What a backend offers to the strategy above it, and what it tells to whoever watches."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from tuner.design.hyperparameters import Value
from tuner.design.identity import Identity
from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.records import Claim, Price, TrialUpdate
from tuner.storage.store import Ledger
from tuner.storage.studies import StudyRow
from tuner.training.engine import Fusion


class Listener(Protocol):
    """Told about the progress of trials. Must be quick and must not raise."""

    def trial_started(self, claim: Claim) -> None: ...

    def trial_stepped(self, claim: Claim, step: int) -> None: ...

    def trial_ended(self, claim: Claim, update: TrialUpdate) -> None: ...


class Silent:
    """A listener that does not care."""

    def trial_started(self, claim: Claim) -> None:
        """Nothing to say."""

    def trial_stepped(self, claim: Claim, step: int) -> None:
        """Nothing to say."""

    def trial_ended(self, claim: Claim, update: TrialUpdate) -> None:
        """Nothing to say."""


# Makes a listener for a study of which so many trials are finished already; closed when the study is through.
Watch = Callable[[Study, int], AbstractContextManager[Listener]]


def silent(study: Study, finished: int) -> AbstractContextManager[Listener]:
    """Nobody watches."""
    return nullcontext(Silent())


class Backend(Protocol):
    """Runs the trials of a study until none is left."""

    def fingerprint(self) -> str:
        """The digest of the workload's code, arguments and data, as far as all studies share them."""
        ...

    def weaker_fingerprint(self) -> str:
        """The fingerprint that tuner 0.1 would give the workload: for the studies it started."""
        ...

    def workload_parts(self) -> Mapping[str, str]:
        """What a budget is chosen under, part by part, so that a change can be named."""
        ...

    def identity(self, study: Study, points: Sequence[Mapping[str, Value]] | None = None) -> Identity:
        """All that decides the bits of a study's trials besides its declaration; initial weights at these points.

        Without points they are chosen. Builds a model at each, and tries one batch.
        """
        ...

    def check_repeatable(self, study: Study, looked_at: Identity) -> None:
        """Raise WorkloadError when data() or model() give something else at a second call. Nothing is written."""
        ...

    def check(self, study: Study, trial: Trial) -> None:
        """Try one whole update, once a study and process; raises WorkloadError. Nothing is written."""
        ...

    def look_at_validation(self, study: Study, trial: Trial, most_seconds: float | None = None) -> bool:
        """Whether each validation example has a finite selection metric; raises WorkloadError where one has none.

        False where looking at all of them would take more than `most_seconds`. Nothing is written.
        """
        ...

    def check_room(self, study: Study, trial: Trial) -> None:
        """Raise Paused when the disk has no room for a few checkpoints of such trials. Nothing is written."""
        ...

    def check_switched_off(self, study: Study, trial: Trial) -> None:
        """Raise WorkloadError when training at this point is still random: regularized or augmented (D2)."""
        ...

    def price(self, study: Study, trial: Trial) -> Price:
        """Measure what a trial costs here. Nothing is written."""
        ...

    def fusion(self, study: Study, trials: Sequence[Trial]) -> Fusion:
        """How these trials would train together: operation by operation, or why they cannot. Nothing is written."""
        ...

    def saved_steps(self, ledger: Ledger, study: Study, trials: Sequence[Trial]) -> list[int]:
        """The first steps that each trial would take over from one trained before (`design.prefix`)."""
        ...

    def tidy(self, ledger: Ledger, row: StudyRow) -> None:
        """Delete files of a study all of whose trials have ended that no record names."""
        ...

    def run(self, ledger: Ledger, row: StudyRow, listener: Listener, stop: Callable[[], bool]) -> None:
        """Train every trial that is left. Raises Interrupted when stopped, Paused when the machine gave way."""
        ...
