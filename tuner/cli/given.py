"""The study file and the places of the records that this command was given: every command that it prints names them.

So a command that somebody pastes into another terminal reads the same records.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from tuner.design.stages import is_study_file
from tuner.security import holds_password, without_password
from tuner.shown import commands_about, commands_with, word
from tuner.stores.places import StoredPath, parsed_root

_EXPOSED = (
    "note: everybody on this machine can read the password in --storage (ps shows it). Leave it out of the address: "
    "PGPASSWORD, ~/.pgpass or TUNER_STORAGE can hold it."
)


@dataclass
class Given:
    """What this command was given; None: nothing, so that the default holds."""

    storage: str | None = None
    checkpoints: str | None = None
    study_file: str | None = None  # or FILE:NAME
    warned: bool = False  # of a password: once in a process


GIVEN = Given()


def note_storage(value: str | None) -> str | None:
    """Remember the storage of this command; a password that `ps` shows is warned of, once."""
    GIVEN.storage = value
    exposed = value is not None and holds_password(value) and value != os.environ.get("TUNER_STORAGE")
    if exposed and not GIVEN.warned:
        GIVEN.warned = True
        print(_EXPOSED, file=sys.stderr)
    return value


def note_checkpoints(value: str | None) -> str | None:
    """Remember the checkpoint folder of this command. An address that is none is refused here, before it is shown."""
    given_root(value)
    GIVEN.checkpoints = value
    return value


def given_root(value: str | None) -> StoredPath | None:
    """The folder, or the place in a bucket, that an option names. Raises InputError."""
    return None if value is None else parsed_root(value)


def note_study(value: str) -> str:
    """Remember the study file of this command, where it was given one and no name."""
    GIVEN.study_file = value if is_study_file(value) else None
    return value


def note_study_file(value: Path) -> Path:
    """Remember the study file of this command."""
    GIVEN.study_file = str(value)
    return value


def note_stage(called: str) -> None:
    """Remember which campaign of its study file this command works on now."""
    GIVEN.study_file = called


def note_recorded(file: str | None) -> None:
    """Remember the study file that the records name, where this command was given the name of a campaign."""
    if GIVEN.study_file is None and file is not None:
        GIVEN.study_file = file


def completed(text: str) -> str:
    """`text`, whose commands name the study file and find the records that this command was given."""
    told = commands_with(text, place_options)
    return commands_about(told, GIVEN.study_file) if GIVEN.study_file is not None else told


def place_options(verb: str) -> str:
    """The options with which `tuner VERB` finds the same records, quoted for the shell; "" where they are defaults.

    A password is never among them: one in the environment is still there, any other has to come from where libpq looks.
    """
    said = ""
    storage = GIVEN.storage
    if storage is not None and holds_password(storage):
        storage = None if storage == os.environ.get("TUNER_STORAGE") else without_password(storage)
    if storage is not None:
        said += f" --storage {word(storage)}"
    if GIVEN.checkpoints is not None and _takes_checkpoints(verb):
        said += f" --checkpoints {word(GIVEN.checkpoints)}"
    return said


def _takes_checkpoints(verb: str) -> bool:
    """Whether `tuner VERB` has the option --checkpoints; its options import this module, so they are looked up here."""
    record = import_module("tuner.cli.commands").commands().get(verb)
    options = record and import_module("tuner.cli.options").loaded(record.options)
    return "checkpoints" in getattr(options, "__dataclass_fields__", ())


def command(verb: str, *named: object, after: Sequence[object] = ()) -> str:
    """`tuner VERB` about what is named (a campaign, a study file), with options, for a person to paste into a shell."""
    words = [word(one) for one in named]
    options = "".join(f" {word(one)}" for one in after) + place_options(verb)
    if any(one.startswith("-") for one in words):  # a name, and no option
        return f"tuner {verb}{options} -- {' '.join(words)}"
    return " ".join(["tuner", verb, *words]) + options
