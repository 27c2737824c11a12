"""`tuner backup`: a consistent copy of the records, also while others write."""

from pathlib import Path
from typing import Annotated

import typer

from tuner.cli.options import Storage


def backup(
    file: Annotated[Path, typer.Argument(help="The copy; it must not exist yet.", show_default=False)],
    storage: Storage = None,
) -> None:
    """Copy the records: SQLite by its backup interface, PostgreSQL by pg_dump. Checkpoint files are not copied.

    The copy can be read like the original. It trains and repairs nothing until `tuner adopt-storage` was called for it.
    """
    from tuner.cli.output import next_step, say
    from tuner.cli.places import opened
    from tuner.shown import word

    with opened(storage, create=False) as ledger:
        ledger.backup(file)
        is_file = ledger.folder is not None
    say(f"wrote {file}; the checkpoint files are not in it; to train with it one day: tuner adopt-storage -h")
    named = word(file)
    next_step(f"tuner status --storage {named}" if is_file else f"pg_restore --clean -d DATABASE {named}")
