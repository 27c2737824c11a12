"""`tuner best`: the winner, how to get it again, and its weights."""

import json
from pathlib import Path
from typing import Annotated

import typer

from tuner.cli.options import Checkpoints, Format, OutputFormat, RoundNumber, Storage, Study, StudyName


def best(
    study: Study,
    round_number: RoundNumber = None,
    study_name: StudyName = None,
    export: Annotated[
        Path | None,
        typer.Option(help="Write the weights of the selected run's best step there (safetensors).", show_default=False),
    ] = None,
    storage: Storage = None,
    checkpoints: Checkpoints = None,
    form: OutputFormat = Format.table,
) -> None:
    """Name the best configuration: its value (the median of fresh seeds, where some were trained), its selected run,
    the best training of it, whose weights --export writes, and the command that reproduces that run.
    """
    from tuner.cli.places import opened, study_file_of
    from tuner.cli.winners import described_winner, export_weights, print_winner
    from tuner.reading import load
    from tuner.storage.ownership import folder_to_read

    records = load(study, storage)
    winner = records.best(study_name or round_number)
    with opened(storage, create=False) as ledger:
        launches = ledger.launches(winner.row.study_id)
        source = winner.row.study.source
        file = Path(study) if source else study_file_of(ledger, winner.row.study_id, study)
        told = described_winner(winner, file, launches[0] if launches else None)
        if form is Format.table:
            print_winner(told, winner.headline.words)
        else:
            print(json.dumps(told, indent=2))
        if export is not None:
            export_weights(winner, folder_to_read(ledger, checkpoints), export)
