"""`tuner verify`: is everything there that the records promise?"""

from typing import Annotated

import typer

from tuner.cli.exit_codes import Exit
from tuner.cli.options import Checkpoints, Format, OutputFormat, Storage, Study


def verify(
    study: Study,
    repair: Annotated[
        bool, typer.Option("--repair", help="Move stray files to the trash folder, end the leases of the dead.")
    ] = False,
    storage: Storage = None,
    checkpoints: Checkpoints = None,
    form: OutputFormat = Format.table,
) -> None:
    """Check files, digests, curves and states of every study of a campaign (exit code 3: something is wrong)."""
    from tuner.cli.clearing import checked_folder, problems_of
    from tuner.cli.output import emit_frame, say
    from tuner.cli.places import opened
    from tuner.reading import campaign_name

    with opened(storage, create=False) as ledger:
        name = campaign_name(ledger, study)
        root, is_ours = checked_folder(ledger, name, checkpoints, repair=repair)
        found = problems_of(ledger, name, root, is_ours=is_ours)
    if not len(found):
        say(f"{name}: every file, digest, curve and state is as recorded")
        return
    emit_frame(found, form)
    raise typer.Exit(Exit.FINDING)
