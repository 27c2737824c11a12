"""Which campaign, which storage, which study: what the words on the command line stand for."""

from pathlib import Path

from tuner.errors import DeclarationError
from tuner.storage.engine import default_url
from tuner.storage.store import Ledger, open_ledger


def opened(storage: str | None, *, create: bool) -> Ledger:
    """The Ledger the user means; a reading command does not create one."""
    return open_ledger(storage or default_url(), create=create)


def study_file_of(ledger: Ledger, study_id: int, given: str) -> Path:
    """The study file: the one given, or the one the study was last launched from."""
    if given.endswith(".py"):
        return Path(given)
    for launch in reversed(ledger.launches(study_id)):
        if launch.study_file is not None:
            return Path(launch.study_file)
    raise DeclarationError(f"the study file of {given!r} is not recorded; name the file itself")
