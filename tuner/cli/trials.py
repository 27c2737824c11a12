"""`tuner trials`: every trial with its point and what became of it."""

from tuner.cli.options import Format, OutputFormat, RoundNumber, Storage, Study, StudyName


def trials(
    study: Study,
    round_number: RoundNumber = None,
    study_name: StudyName = None,
    storage: Storage = None,
    form: OutputFormat = Format.table,
) -> None:
    """List the trials of a round: number, state, reason, point, best and last value, steps, seed."""
    from tuner.cli.output import emit_frame
    from tuner.reading import load

    frames = load(study, storage).frames(study_name or round_number)
    first = ["trial", "state", "reason"]
    values = ["best_value", "best_step", "last_value", "steps", "seed"]
    rest = ["origin"] if form is Format.table else ["data_seed", "origin", "attempt"]
    emit_frame(frames.trials[first + frames.hyperparameters + values + rest], form)
