"""`tuner best-steps`: was max_train_steps right?"""

import typer

from tuner.cli.options import Format, OutputFormat, RoundNumber, Storage, Study, Thresholds


def best_steps(
    study: Study,
    round_number: RoundNumber = None,
    verbose: Thresholds = False,
    storage: Storage = None,
    form: OutputFormat = Format.table,
) -> None:
    """Say where in training the best checkpoints lie, and whether the step budget was right (exit code 3: act)."""
    from tuner.analysis.elsewhere import for_elsewhere
    from tuner.analysis.questions.best_steps import best_steps_finding
    from tuner.cli.given import command, note_recorded
    from tuner.cli.output import emit_findings, exit_code, next_step, say_failed
    from tuner.reading import load

    records = load(study, storage)
    note_recorded(records.study_file())
    frames = records.frames(round_number)
    (finding,) = for_elsewhere(frames, [best_steps_finding(frames)])
    emit_findings(records.name, frames.study.name, [finding], form, verbose)
    say_failed(frames)
    next_step(command("plot best-steps", records.name, after=("-o", "best-steps.png")))
    raise typer.Exit(exit_code([finding]))
