"""Whether a command that launches studies is at work, told to the workers of its campaign through the Ledger."""

from collections.abc import Collection
from contextlib import suppress
from types import TracebackType
from typing import Self

from tuner.errors import Paused, TunerError
from tuner.records.conclusions import Launcher
from tuner.storage.liveness import dead_workers, worker_id
from tuner.storage.store import Ledger


class LaunchPresence:
    """A context of a command that may launch studies: from the first one on it is at work, until the block ends.

    A command that is killed stays at work in the records. On this machine that is noticed; workers elsewhere wait for
    it as long as their --idle-timeout says.
    """

    def __init__(self, ledger: Ledger, campaign: str) -> None:
        self._ledger, self._campaign = ledger, campaign
        self._worker = ""

    def begin(self) -> None:
        """Tell that this command is at work, in a campaign that is recorded. Once is enough."""
        if not self._worker:
            self._worker = worker_id()
            self._ledger.conclude(self._campaign, Launcher(self._worker, at_work=True))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._worker or isinstance(error, Paused):  # where the database is away there is nobody to tell
            return
        with suppress(TunerError):
            newest = self._ledger.conclusion(self._campaign, Launcher)
            if newest == Launcher(self._worker, at_work=True):  # another command may have begun since
                self._ledger.conclude(self._campaign, Launcher(self._worker, at_work=False))


def is_launching(ledger: Ledger, campaigns: Collection[str]) -> bool:
    """Whether a command that launches studies of one of these campaigns is at work, as far as that is known."""
    newest = [ledger.conclusion(name, Launcher) for name in campaigns]
    at_work = {one.worker for one in newest if one is not None and one.at_work}
    return bool(at_work - dead_workers(at_work))
