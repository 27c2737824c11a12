"""A session with a real Ledger and a real backend in a temporary folder."""

from contextlib import contextmanager

from support.loaded import loaded
from tuner.rounds.launch import Session
from tuner.storage.store import open_ledger


@contextmanager
def session_for(campaign, folder, **more):
    with open_ledger(str(folder / "ledger.sqlite")) as ledger:
        yield Session("test", campaign, ledger, loaded(campaign.workload, folder / "checkpoints"), **more)


class StopAfter:
    """Says stop from the given count of questions on."""

    def __init__(self, count):
        self.left = count

    def __call__(self):
        self.left -= 1
        return self.left < 0
