"""Keeping claims while their trials train: leases are renewed, and outages of the database are waited out."""

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TypeVar

from tuner.errors import RecordsGone, TunerError, Unreachable
from tuner.records import Claim, Recorder, State, TrialUpdate
from tuner.storage.store import Ledger

_log = logging.getLogger(__name__)
T = TypeVar("T")
BEATS = 12  # in the time of a lease, so that a few may be missed
OUTAGE_SECONDS = 300.0
LONGEST_PAUSE = 5.0


@contextmanager
def heartbeat(ledger: Ledger, claims: Sequence[Claim], seconds: float) -> Iterator[None]:
    """Renew the leases of `claims` every so many seconds within the block, in a thread: a step may take longer.

    A beat that fails is only logged.
    """
    left = threading.Event()

    def beat() -> None:
        with suppress(RecordsGone):  # the next commit of the training raises it
            while not left.wait(seconds):
                renew(ledger, claims)

    thread = threading.Thread(target=beat, name="tuner heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join()


def renew(ledger: Ledger, claims: Sequence[Claim]) -> None:
    """One beat: the fence protects what a missed one would have. Raises RecordsGone."""
    try:
        ledger.renew(list(claims))
    except RecordsGone:
        raise
    except TunerError as error:
        _log.warning("a lease could not be renewed: %s", error)


def retried(call: Callable[[], T], stop: Callable[[], bool], outage_seconds: float = OUTAGE_SECONDS) -> T:
    """The result of `call`, which is repeated, at growing intervals, while the database is away.

    Raises Unreachable after an outage of so many seconds, or where `stop()` is true.
    """
    end = time.monotonic() + outage_seconds
    pause = 0.1
    while True:
        try:
            return call()
        except Unreachable:
            if stop() or time.monotonic() >= end:
                raise
        time.sleep(pause * random.SystemRandom().uniform(0.5, 1.5))  # the other generator is that of users' code
        pause = min(2 * pause, LONGEST_PAUSE)


class RetryingRecorder:
    """A recorder that waits for the database with the update that ends a trial; a trial that goes on does not wait."""

    def __init__(self, recorder: Recorder, stop: Callable[[], bool]) -> None:
        self.recorder = recorder
        self.stop = stop

    def record(self, updates: Sequence[TrialUpdate]) -> None:
        if all(update.state is State.RUNNING for update in updates):
            self.recorder.record(updates)
        else:
            retried(lambda: self.recorder.record(updates), self.stop)
