"""`tuner boundaries`: was the search space wide enough?"""

from typing import Annotated

import typer

from tuner.cli.options import Format, OutputFormat, RoundNumber, Storage, Study, Thresholds


def boundaries(
    study: Study,
    round_number: RoundNumber = None,
    expand: Annotated[
        bool, typer.Option("--expand", help="Write the next study, with the ranges widened and points only there.")
    ] = False,
    verbose: Thresholds = False,
    storage: Storage = None,
    form: OutputFormat = Format.table,
) -> None:
    """Say for every hyperparameter whether the best points press against its range (exit code 3: widen it).

    Without --round it speaks of the last round that searched: a round that trains chosen points has no ranges.
    """
    from tuner.analysis.elsewhere import for_elsewhere
    from tuner.analysis.questions.boundary import boundary_findings
    from tuner.cli.given import command, note_recorded
    from tuner.cli.output import emit_findings, exit_code, next_step, say, say_failed
    from tuner.reading import load

    records = load(study, storage)
    note_recorded(records.study_file())
    frames = records.searched(round_number)
    if round_number is None:
        say(f"{frames.study.name}: the last round that searched")
    findings = for_elsewhere(frames, boundary_findings(frames))
    emit_findings(records.name, frames.study.name, findings, form, verbose)
    say_failed(frames)
    if expand:
        _write_expansion(storage, records.name, frames.study.round or 1, records.study_file())
        return
    if exit_code(findings) and not frames.study.source:
        next_step(command("boundaries", records.name, after=("--round", frames.study.round, "--expand")))
    next_step(command("plot axes", records.name, after=("--round", frames.study.round or 1, "-o", "axes.png")))
    raise typer.Exit(exit_code(findings))


def _write_expansion(storage: str | None, campaign: str, number: int, file: str | None) -> None:
    """Plan the widened study of a round in the Ledger, and say how it is trained. Raises InputError where there is
    nothing to widen.
    """
    from tuner.cli.given import command
    from tuner.cli.output import next_step, say
    from tuner.cli.places import opened
    from tuner.rounds.expand import expand_round

    with opened(storage, create=False) as ledger:
        made, row = expand_round(ledger, campaign, number)
    say(f"wrote {row.study.name}: {'; '.join(made.widened)}")
    say(f"{len(made.trials)} points, all in the new region; the trials of the old ranges count as sampled")
    next_step(
        command("launch", file or campaign, after=("--round", number, "--expanded")),
        command("check", campaign, after=("--round", number)),
    )
