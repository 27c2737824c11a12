"""`tuner report`: one page that holds everything."""

from pathlib import Path
from typing import Annotated

import typer

from tuner.cli.options import Storage, Study


def report(
    study: Study,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="The page. Default: beside the storage.", show_default=False)
    ] = None,
    storage: Storage = None,
) -> None:
    """Write a self-contained HTML page: findings first, then plots, curves and the table of trials."""
    from tuner.cli.output import say
    from tuner.cli.places import opened
    from tuner.reading import load
    from tuner.report.page import report_path, write_report
    from tuner.rounds.importances import importances

    records = load(study, storage)
    with opened(storage, create=False) as ledger:
        target = out or report_path(ledger, records.name)
        write_report(ledger, records.name, target, importances)
    say(f"wrote {target}")
