"""`tuner boundaries`: was the search space wide enough?"""

import typer

from tuner.cli.options import Format, OutputFormat, RoundNumber, Storage, Study


def boundaries(
    study: Study, round_number: RoundNumber = None, storage: Storage = None, form: OutputFormat = Format.table
) -> None:
    """Say for every hyperparameter whether the best points press against its range (exit code 3: widen it)."""
    from tuner.cli.output import emit_findings, exit_code, next_step
    from tuner.reading import load

    records = load(study, storage)
    frames = records.frames(round_number)
    findings = records.boundaries(round_number)
    emit_findings(records.name, frames.study.name, findings, form)
    next_step(f"tuner plot axes {records.name} -o axes.png")
    raise typer.Exit(exit_code(findings))
