"""Waiting for trials that other workers hold, which are ours should their workers die.

A worker without a trial asks the database one cheap question, again and again: at first after a moment, then after ever
longer pauses, and the more trials are running, the longer. So a thousand workers that wait for the end of a study cost
its server little, and one that waits for a neighbour is quick. Between two questions, workers of the same machine are
looked at without the database: what a dead one held is taken over at once.
"""

import logging
import random
import time
from collections.abc import Callable

from tuner.execution.leases import retried
from tuner.storage.claims import Left
from tuner.storage.liveness import dead_workers
from tuner.storage.store import Ledger

_log = logging.getLogger(__name__)
FIRST_SECONDS = 0.02
SHARE = 0.1  # a pause is this share of what was waited so far: so much later the end of a wait may be noticed
FIRST_PER_TRIAL = 0.0005  # seconds: while 1,000 trials are running nobody misses a half
LONGEST_SECONDS = 5.0
LONGEST_PER_TRIAL = 0.005  # seconds: 10 s with 1,000 trials running
LONGEST_OF_ALL = 30.0
LOOK_SECONDS = 0.5  # between two looks at the processes of this machine, and whether to stop
ASK_SECONDS = 60.0  # between two questions which workers of this machine hold trials
LONG_WAIT_SECONDS = 5.0  # after which the user is told what is waited for
_uniform = random.SystemRandom().uniform  # the other generator is that of users' code


def pause_seconds(waited: float, running: int, uniform: Callable[[float, float], float] = _uniform) -> float:
    """How long to wait before the next question, after so many seconds, while so many trials are held by others.

    By chance between half and the whole of it, so that workers which began together do not ask together.
    """
    longest = min(LONGEST_OF_ALL, LONGEST_SECONDS + running * LONGEST_PER_TRIAL)
    return min(longest, FIRST_SECONDS + running * FIRST_PER_TRIAL + waited * SHARE) * uniform(0.5, 1.0)


class Waiting:
    """One worker's waits for the trials of a study.

    stop: asked at least every `LOOK_SECONDS`. lease_seconds: of the claims, where the user is to be told of long waits.
    """

    def __init__(
        self, ledger: Ledger, study_id: int, stop: Callable[[], bool], lease_seconds: float | None = None
    ) -> None:
        self.ledger, self.study_id, self.stop = ledger, study_id, stop
        self.lease_seconds = lease_seconds
        self.waited = 0.0  # seconds, since something was trained
        self._begun = False
        self._neighbours: set[str] = set()  # workers of this machine that hold trials
        self._asked: float | None = None

    def over(self) -> None:
        """Something was trained: the next wait is a new one, of short pauses."""
        self.waited, self._begun = 0.0, False

    def for_others(self) -> bool:
        """After a claim that got nothing: wait until another one may get something; False where nothing is left.

        True also where `stop()` is.
        """
        left = self._left()
        if not (left.nothing or self._begun):
            self._begun = True
            if self._freed():
                return True
        while not left.nothing:
            if self._rested(pause_seconds(self.waited, left.running)):
                return True
            left = self._left()
            if left.free:
                return True
        return False

    def free_the_dead(self) -> None:
        """Free what dead workers of this machine hold; the database is asked for that now and then only."""
        if self._asked is None or time.monotonic() - self._asked >= ASK_SECONDS:
            self._freed()

    def _left(self) -> Left:
        return retried(lambda: self.ledger.work_left(self.study_id), self.stop)

    def _rested(self, seconds: float) -> bool:
        """Sleep so long; sooner, and True, where we shall stop, or a neighbour has died and its trials are free."""
        while seconds > 0:
            pause = min(LOOK_SECONDS, seconds)
            time.sleep(pause)
            seconds -= pause
            before, self.waited = self.waited, self.waited + pause
            self._tell_of_long_wait(before)
            if self.stop() or self._a_neighbour_died():
                return True
        return False

    def _a_neighbour_died(self) -> bool:
        """Whether trials became free because a worker of this machine has ended."""
        if self._asked is None or time.monotonic() - self._asked >= ASK_SECONDS or dead_workers(self._neighbours):
            return self._freed()
        return False

    def _freed(self) -> bool:
        """Ask which workers of this machine hold trials; whether dead ones did, whose trials are free now."""
        self._neighbours = retried(lambda: self.ledger.workers_here(self.study_id), self.stop)
        self._asked = time.monotonic()
        dead = dead_workers(self._neighbours)
        self._neighbours -= dead
        return bool(dead) and retried(lambda: self.ledger.forget_dead_workers(self.study_id), self.stop) > 0

    def _tell_of_long_wait(self, before: float) -> None:
        if self.lease_seconds is not None and before <= LONG_WAIT_SECONDS < self.waited:
            _log.warning(
                "waiting for trials that other workers hold; if those have died where that cannot be seen from here, "
                "their leases end in at most %g s",
                self.lease_seconds,
            )
