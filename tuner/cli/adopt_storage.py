"""`tuner adopt-storage`: go on with a copy of a storage."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from tuner.cli.options import Storage


def adopt_storage(
    storage: Storage = None,
    checkpoints: Annotated[
        Path | None,
        typer.Option(
            help="The folder to take over, or an empty one for a folder of its own. Default: beside the storage file.",
            show_default=False,
        ),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="For an empty folder: where the recorded files are now. Default: beside the storage file.",
            show_default=False,
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do it; without, only say what would happen (exit code 3).")
    ] = False,
) -> None:
    """Go on with a copy of a storage (a backup, a restored dump): take over the checkpoint folder of the original, or
    get its files in a folder of its own. No checkpoint is deleted.
    """
    from tuner.cli.clearing import move_with_words, say_adoption
    from tuner.cli.output import next_step, say
    from tuner.cli.places import opened
    from tuner.storage.adoption import begin_adoption, bring_files, end_adoption, planned_adoption
    from tuner.storage.ownership import folder_to_read

    with opened(storage, create=False) as ledger:
        root = checkpoints or folder_to_read(ledger, None)
        there = source or (folder_to_read(ledger, None) if ledger.file is not None and checkpoints else None)
        plan = planned_adoption(ledger, root, there)
        if not plan.needed:
            say(f"nothing to adopt: the checkpoint folder {root} belongs to {ledger.safe_url}")
            return
        say_adoption(ledger, plan)
        if not yes:
            if plan.lost:
                next_step("where they lie elsewhere: the same command with --from FOLDER")
            next_step("the same command with --yes does it")
            raise typer.Exit(3)
        begin_adoption(ledger, plan)
        bring_files(plan)
        if plan.unknown:
            move_with_words(root, plan.unknown)
        end_adoption(ledger, plan)
        say(f"done: {ledger.safe_url} is a storage of its own, with the checkpoint folder {root}")
        for name in ledger.campaigns():
            next_step(shlex.join(["tuner", "verify", name, *(("--storage", str(ledger.file)) if ledger.file else ())]))
