"""`tuner status`: what was launched and how far it is."""

from typing import Annotated

import typer

from tuner.cli.options import Format, OutputFormat, Storage


def status(
    study: Annotated[str | None, typer.Argument(help="A campaign or its study file; all without.")] = None,
    storage: Storage = None,
    form: OutputFormat = Format.table,
) -> None:
    """Show the studies in the storage: trials by state, steps done, budget."""
    from tuner.analysis.study_progress import in_words, standing
    from tuner.cli.output import emit_frame
    from tuner.cli.places import opened
    from tuner.reading import campaign_name

    with opened(storage, create=False) as ledger:
        frame = standing(ledger, [campaign_name(ledger, study)] if study else ledger.campaigns())
    emit_frame(in_words(frame) if form is Format.table and len(frame) else frame, form, spare=("goal", "trials"))
