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
    import pandas as pd

    from tuner.cli.clearing import list_files, move_with_words
    from tuner.cli.output import emit_frame, say
    from tuner.cli.places import opened
    from tuner.reading import campaign_name
    from tuner.storage.identity import checkpoint_place
    from tuner.storage.ownership import claimed_folder, folder_to_read, whose_folder
    from tuner.storage.verify import stray_files, study_problems

    found = []
    with opened(storage, create=False) as ledger:
        name = campaign_name(ledger, study)
        root = (claimed_folder if repair else folder_to_read)(ledger, checkpoints)
        others = whose_folder(ledger, root)
        if others:
            say(f"note: {others}")
        rows = ledger.studies(name)
        if repair:
            places = {row.study_id: checkpoint_place(name, row.study.name) for row in rows}
            strays = [path for key, place in places.items() for path in stray_files(ledger, key, root, place)]
            if strays:
                list_files(strays, "stray file", "that no record names")
                move_with_words(root, strays)
            freed = sum(ledger.forget_dead_workers(row.study_id) for row in rows)
            say(f"{name}: {len(strays)} stray files moved to the trash, {freed} trials of dead workers freed")
        for row in rows:
            problems = study_problems(ledger, row, root, checkpoint_place(row.campaign, row.study.name))
            found += [
                (row.study.name, one.trial, one.kind, one.text)
                for one in problems
                if not (others and one.kind == "stray")  # they are another's
            ]
    if not found:
        say(f"{name}: every file, digest, curve and state is as recorded")
        return
    emit_frame(pd.DataFrame(found, columns=["study", "trial", "kind", "problem"]), form)
    raise typer.Exit(Exit.FINDING)
