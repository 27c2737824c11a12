"""Renewing leases from a thread of its own, so that a step may take longer than a lease lasts."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tuner.errors import RecordsGone, TunerError
from tuner.records import Claim
from tuner.storage.store import Ledger

logger = logging.getLogger(__name__)
BEATS = 12  # in the time of a lease, so that a few may be missed


@contextmanager
def heartbeat(ledger: Ledger, claims: list[Claim], seconds: float) -> Iterator[None]:
    """Renew the leases of `claims` every so often, until the block is left. A beat that fails is only logged."""
    through = threading.Event()

    def beat() -> None:
        with suppress(RecordsGone):  # the next commit of the training says it
            while not through.wait(seconds):
                renew(ledger, claims)

    thread = threading.Thread(target=beat, name="tuner heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        through.set()
        thread.join()


def renew(ledger: Ledger, claims: list[Claim]) -> None:
    """One beat: the fence protects what a missed one would have. Raises RecordsGone."""
    try:
        ledger.renew(claims)
    except RecordsGone:
        raise
    except TunerError as error:
        logger.warning("a lease could not be renewed: %s", error)
