"""`tuner plot`: a picture and the numbers in it."""

from pathlib import Path
from typing import Annotated

import typer

from tuner.cli.options import RoundNumber, Storage, Study, StudyName


def plot(
    kind: Annotated[
        str,
        typer.Argument(
            help="best-steps, axes, curves, schedules, isolation, best-of-n, infeasible, parallel, sweep, transfer or "
            "budget-curve.",
            show_default=False,
        ),
    ],
    study: Study,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="A .png, .svg or .pdf file. Default: KIND.png.", show_default=False),
    ] = None,
    round_number: RoundNumber = None,
    study_name: StudyName = None,
    storage: Storage = None,
) -> None:
    """Draw a plot into a file, and beside it a CSV of what is plotted."""
    from tuner.cli.output import say
    from tuner.errors import StorageError
    from tuner.plots.theme import empty_because
    from tuner.reading import load
    from tuner.security import make_private_folder, safe_cell

    target = out or Path(f"{kind}.png")
    if target.suffix not in (".png", ".svg", ".pdf"):
        raise StorageError(f"a plot is written as .png, .svg or .pdf, got {target.name!r}; name the file so")
    figure, frame = load(study, storage).drawn(kind, study_name or round_number)
    if reason := empty_because(figure):
        raise StorageError(f"there is nothing to plot: {reason} No file was written")
    make_private_folder(target.parent)
    figure.savefig(target, dpi=150)
    frame.map(safe_cell).rename(columns=safe_cell).to_csv(target.with_suffix(".csv"), index=False)
    say(f"wrote {target} and {target.with_suffix('.csv')}")
