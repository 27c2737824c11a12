"""`tuner sweep`: how many steps does the fastest trial need to fit the training set?"""

from typing import Annotated

import typer

from tuner.cli.options import Format, OutputFormat, RetryFailed
from tuner.cli.where import Where, trains


@trains
def sweep(
    where: Where,
    learning_rates: Annotated[
        str | None, typer.Option(help="A grid of your own: 1e-3,3e-3,1e-2.", show_default=False)
    ] = None,
    extend: Annotated[bool, typer.Option("--extend", help="Extend the grid of a sweep that was invalid.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Sweep anew although it came to an end: model, data or batch changed.")
    ] = False,
    retry_failed: RetryFailed = False,
    form: OutputFormat = Format.table,
) -> None:
    """Sweep constant learning rates without regularization and find the step budget (exit codes 3: no budget could be
    determined, 4: a rate failed twice, so there is none).
    """
    from tuner.cli.sessions import open_session
    from tuner.cli.sweeping import chosen_sweep, run_and_print

    with open_session(where) as session:
        declared = chosen_sweep(session, learning_rates, extend)
        raise typer.Exit(
            run_and_print(session, declared, again=again, retry_failed=retry_failed, quiet=where.quiet, form=form)
        )
