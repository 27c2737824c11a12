"""What a worker serves, and what it waits for: the launch, the next study, and the end of the campaign.

A campaign is over when every round that its file declares is trained, no trial of it is left, and no command that
launches is known to be at work. A launcher that waits for an answer, was stopped or was killed leaves rounds that are
not trained: then more may come, and how long a worker waits for it is its idle timeout.
"""

import math
import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

from tuner.design.stages import Stage
from tuner.errors import NoLedger, NoServer, Paused, StorageError, TunerError, Unreachable
from tuner.execution.leases import retried
from tuner.rounds.plan import round_name
from tuner.rounds.presence import is_launching
from tuner.shown import counted, word
from tuner.storage.engine import default_url
from tuner.storage.reading import StudyLeft
from tuner.storage.store import Ledger, open_ledger

Until = Literal["campaign", "study"]
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 7.0  # seconds between two questions, which grow; by chance up to 30 % more or less
SPREAD = 0.3


class Pauses:
    """Pauses between two questions to a database that many ask: they grow, and do not come at the same time."""

    def __init__(self) -> None:
        self._next = FIRST_PAUSE

    def pause(self, at_most: float) -> None:
        """Wait, but no longer than so many seconds. A signal interrupts it."""
        chance = random.SystemRandom().uniform(1.0 - SPREAD, 1.0 + SPREAD)  # the other generator is users' code's
        time.sleep(max(0.0, min(self._next * chance, at_most)))
        self._next = min(2 * self._next, LONGEST_PAUSE)


def at_most(seconds: float) -> str:
    """How long something is waited for, after what it is; "" where it is waited for without an end."""
    return f", for {seconds:g} s at most" if math.isfinite(seconds) else ""


@dataclass(frozen=True, slots=True)
class AskedLaunch:
    """The launch that a worker belongs to. called: the study as the command was given it."""

    called: str
    campaigns: tuple[str, ...]
    storage: str | None

    def wait(self, seconds: float, tell: Callable[[str], None]) -> bool:
        """Wait until a study of these campaigns was launched, and make no storage; whether it had to be waited for.

        Raises StorageError (or Unreachable) where there is none and `seconds` is 0, Paused where none came in time.
        """
        end, pauses, waited = time.monotonic() + seconds, Pauses(), False
        ledger: Ledger | None = None
        with ExitStack() as opened:
            while True:
                try:
                    url = self.storage or default_url()
                    ledger = ledger or opened.enter_context(open_ledger(url, create=False))
                    if ledger.studies_left(self.campaigns):
                        return waited
                    missing: TunerError = StorageError(f"{ledger.safe_url} has no study of {self.called} yet")
                except (NoLedger, NoServer, Unreachable) as error:
                    missing = error
                if time.monotonic() >= end:
                    raise self._not_launched(missing, seconds)
                if not waited:
                    tell(f"waiting for a launch of {self.called}{at_most(seconds)}")
                waited = True
                pauses.pause(end - time.monotonic())

    def _not_launched(self, missing: TunerError, seconds: float) -> TunerError:
        launch = f"tuner run {word(self.called)}"
        if seconds:
            return Paused(
                f"no launch of {self.called} came within {seconds:g} s: start it ({launch}), then this command again; "
                f"{missing}"
            )
        if isinstance(missing, NoServer | Unreachable):
            return missing
        return StorageError(f"{missing}: launch it first ({launch}); --wait-for-launch 600 waits for that")


@dataclass(frozen=True, slots=True)
class Serving:
    """What a worker serves: the stages of a training, until the campaign is over, or until no study has trials left.

    idle_seconds: so long it waits while nobody trains anything.
    """

    stages: Sequence[Stage]
    until: Until
    idle_seconds: float
    stop: Callable[[], bool]
    tell: Callable[[str], None]

    @property
    def names(self) -> tuple[str, ...]:
        """The campaigns."""
        return tuple(stage.name for stage in self.stages)

    def next_study(self, ledger: Ledger) -> StudyLeft | str:
        """A study with a trial that may be claimed, which is waited for; at the end why there is none any more."""
        pauses, told, idle_since = Pauses(), "", time.monotonic()
        while True:
            left = retried(lambda: ledger.studies_left(self.names), self.stop)
            free = next((one for one in left if one.free), None)
            if free is not None:
                return free
            if any(one.running for one in left):
                idle_since, still = time.monotonic(), 2 * LONGEST_PAUSE
                words = "waiting: other workers train the trials that are left"
            else:
                words = self._end(ledger, left)
                if words:
                    return words
                still = self.idle_seconds - (time.monotonic() - idle_since)
                if still <= 0.0:
                    return f"no more work came in {self.idle_seconds:g} s (--idle-timeout); {self._rounds(left)}"
                awaited = "the next study" if self._missing_rounds(left) else "the launching command to end"
                words = f"waiting for {awaited}{at_most(self.idle_seconds)}; {self._rounds(left)}"
            if words != told:
                self.tell(words)
                told = words
            pauses.pause(still)

    def _end(self, ledger: Ledger, left: Sequence[StudyLeft]) -> str:
        """Why nothing more will come; "" where something may."""
        if self.until == "study":
            return f"nothing is left to train in {counted(len(left), 'study')}"
        if self._missing_rounds(left) or retried(lambda: is_launching(ledger, self.names), self.stop):
            return ""
        return f"the campaign is over: nothing is left to train in {counted(len(left), 'study')}"

    def _missing_rounds(self, left: Sequence[StudyLeft]) -> int:
        """How many declared rounds were not launched yet."""
        there = {(one.campaign, one.name) for one in left}
        return sum(one not in there for one in self._declared)

    @property
    def _declared(self) -> list[tuple[str, str]]:
        """Campaign and study of every round that is declared."""
        rounds = [(stage.name, len(stage.campaign.rounds)) for stage in self.stages]
        return [(name, round_name(number)) for name, count in rounds for number in range(1, count + 1)]

    def _rounds(self, left: Sequence[StudyLeft]) -> str:
        declared = len(self._declared)
        return f"{declared - self._missing_rounds(left)} of {counted(declared, 'round')} were launched"
