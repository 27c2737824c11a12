"""Bearing with a database that is away for a while: asking again, ever more slowly, but not for ever."""

import random
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from tuner.errors import Unreachable
from tuner.records import Recorder, State, TrialUpdate

T = TypeVar("T")
DATABASE_PATIENCE = 300.0  # seconds
LONGEST_PAUSE = 5.0


def patiently(call: Callable[[], T], stop: Callable[[], bool], patience: float = DATABASE_PATIENCE) -> T:
    """The answer of `call`, which is asked again while the database is away. Raises Unreachable in the end."""
    end = time.monotonic() + patience
    pause = 0.1
    while True:
        try:
            return call()
        except Unreachable:
            if stop() or time.monotonic() >= end:
                raise
        time.sleep(pause * random.SystemRandom().uniform(0.5, 1.5))  # the other generator is that of users' code
        pause = min(2 * pause, LONGEST_PAUSE)


class PatientRecorder:
    """A recorder that waits for the database with what ends a trial; a training that goes on hears of it at once."""

    def __init__(self, recorder: Recorder, stop: Callable[[], bool]) -> None:
        self.recorder = recorder
        self.stop = stop

    def record(self, updates: Sequence[TrialUpdate]) -> None:
        if all(update.state is State.RUNNING for update in updates):
            self.recorder.record(updates)
        else:
            patiently(lambda: self.recorder.record(updates), self.stop)
