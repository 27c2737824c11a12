"""`tuner adopt-storage`: go on with a copy of a storage."""

from pathlib import Path
from typing import Annotated

import typer

from tuner.cli.options import Storage

Folder = Annotated[
    Path | None,
    typer.Option(
        "--checkpoints",
        help="The folder to take over, or an empty one for a folder of its own. Default: beside the storage file.",
        show_default=False,
    ),
]
Source = Annotated[
    Path | None,
    typer.Option(
        "--from",
        help="Where recorded files lie that are not in the folder. Default: beside the storage file.",
        show_default=False,
    ),
]
Yes = Annotated[bool, typer.Option("--yes", help="Do it; without, only say what would happen (exit code 3).")]


def adopt_storage(storage: Storage = None, checkpoints: Folder = None, source: Source = None, yes: Yes = False) -> None:
    """Go on with a copy of a storage (a backup, a restored dump): take over the checkpoint folder of the original, or
    get its files in a folder of its own. No checkpoint is deleted.
    """
    from tuner.cli.clearing import adopt, say_adoption
    from tuner.cli.output import next_step, say
    from tuner.cli.places import opened
    from tuner.storage.adoption import planned_adoption
    from tuner.storage.ownership import folder_to_read

    with opened(storage, create=False) as ledger:
        root = checkpoints or folder_to_read(ledger, None)
        beside = folder_to_read(ledger, None) if ledger.file is not None else None
        plan = planned_adoption(ledger, root, source or beside)
        if not plan.needed:
            say(f"nothing to adopt: the checkpoint folder {root} belongs to {ledger.safe_url}")
            return
        say_adoption(ledger, plan)
        if yes:
            adopt(ledger, plan)
            return
    if plan.lost:
        next_step("where they lie elsewhere: the same command with --from FOLDER")
    next_step("the same command with --yes does it")
    raise typer.Exit(3)
