"""Which campaign, which storage, which study: what the words on the command line stand for."""

from tuner.design.stages import is_study_file, split_stage
from tuner.errors import DeclarationError
from tuner.storage.engine import default_url
from tuner.storage.store import Ledger, open_ledger


def opened(storage: str | None, *, create: bool) -> Ledger:
    """The Ledger the user means; a reading command does not create one."""
    return open_ledger(storage or default_url(), create=create)


def study_file_of(ledger: Ledger, study_id: int, given: str) -> str:
    """What a command calls the campaign of a study: its file as it was given, or as the last launch recorded it.

    FILE:NAME where the file has several campaigns. Raises DeclarationError where no file is known.
    """
    recorded = next((one.study_file for one in reversed(ledger.launches(study_id)) if one.study_file), None)
    if is_study_file(given):
        file, name = split_stage(given)
        return given if name or recorded is None else f"{file}{recorded[len(str(split_stage(recorded)[0])) :]}"
    if recorded is not None:
        return recorded
    raise DeclarationError(f"the study file of {given!r} is not recorded; name the file itself")
