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
    import pandas as pd

    from tuner.cli.output import emit_frame
    from tuner.cli.places import opened
    from tuner.reading import campaign_name
    from tuner.storage.store import Ledger
    from tuner.storage.studies import StudyRow

    def row_of(ledger: Ledger, row: StudyRow) -> dict[str, object]:
        counts = ledger.state_counts(row.study_id)
        records = ledger.trials(row.study_id)
        budget = row.study.budget.max_train_steps
        planned = len(records) * budget
        return {
            "campaign": row.campaign, "study": row.study.name, "goal": row.study.goal, "trials": len(records),
            **{state.value: count for state, count in counts.items()},
            "max_train_steps": budget,
            "steps_done": f"{sum(record.step for record in records) / planned:.0%}" if planned else "-",
        }  # fmt: skip

    with opened(storage, create=False) as ledger:
        names = [campaign_name(ledger, study)] if study else ledger.campaigns()
        rows = [row_of(ledger, row) for name in names for row in ledger.studies(name)]
    emit_frame(pd.DataFrame(rows), form)
