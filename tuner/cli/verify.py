"""`tuner verify`: is everything there that the records promise?"""

from typing import Annotated

import typer

from tuner.cli.exit_codes import Exit
from tuner.cli.options import Checkpoints, Format, OutputFormat, Storage, Study


def verify(
    study: Study,
    repair: Annotated[bool, typer.Option("--repair", help="Delete stray files, end the leases of the dead.")] = False,
    storage: Storage = None,
    checkpoints: Checkpoints = None,
    form: OutputFormat = Format.table,
) -> None:
    """Check files, digests, curves and states of every study of a campaign (exit code 3: something is wrong)."""
    import pandas as pd

    from tuner.cli.output import emit_frame, say
    from tuner.cli.places import checkpoint_root, opened
    from tuner.execution.in_process import checkpoint_place
    from tuner.reading import campaign_name
    from tuner.storage.verify import delete_strays, study_problems

    found = []
    with opened(storage, create=False) as ledger:
        root = checkpoint_root(ledger, checkpoints)
        name = campaign_name(ledger, study)
        for row in ledger.studies(name):
            place = checkpoint_place(row.campaign, row.study.name)
            if repair:
                freed = ledger.forget_dead_workers(row.study_id)
                deleted = delete_strays(ledger, row.study_id, root, place)
                say(f"{row.study.name}: {deleted} stray files deleted, {freed} trials of dead workers freed")
            found += [
                (row.study.name, one.trial, one.kind, one.text) for one in study_problems(ledger, row, root, place)
            ]
    if not found:
        say(f"{name}: every file, digest, curve and state is as recorded")
        return
    emit_frame(pd.DataFrame(found, columns=["study", "trial", "kind", "problem"]), form)
    raise typer.Exit(Exit.FINDING)
