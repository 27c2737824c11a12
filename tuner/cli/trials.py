"""`tuner trials`: every trial with its point and what became of it."""

from tuner.cli.options import Format, OutputFormat, RoundNumber, Storage, Study, StudyName


def trials(
    study: Study,
    round_number: RoundNumber = None,
    study_name: StudyName = None,
    storage: Storage = None,
    form: OutputFormat = Format.table,
) -> None:
    """List the trials of a round: number, state, reason, point, best and last value, steps (those taken over), seed."""
    from tuner.cli.output import emit_frame
    from tuner.reading import load

    frames = load(study, storage).frames(study_name or round_number)
    first = ["trial", "state", "reason"]
    values = ["best_value", "best_step", "last_value", "steps", "seed"]
    rest = ["origin"] if form is Format.table else ["inherited", "exact", "data_seed", "origin", "attempt"]
    if form is Format.table:  # what is as always is not worth a column
        values += ["inherited"] * bool(frames.trials["inherited"].any())
        values += ["exact"] * bool(not frames.trials["exact"].all())
    emit_frame(frames.trials[first + frames.hyperparameters + values + rest], form)
