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
    values = ["best_value", "best_step", "last_value", "steps", "seed"]
    if form is not Format.table:
        more = ["inherited", "exact", "data_seed", "origin", "attempt"]
        emit_frame(frames.trials[["trial", "state", "reason", *frames.hyperparameters, *values, *more]], form)
        return
    unusual = ["inherited"] * bool(frames.trials["inherited"].any())  # what is as always is not worth a column
    unusual += ["exact"] * bool(not frames.trials["exact"].all())
    reason = ["reason"] * bool(frames.trials["reason"].any())
    point = frames.hyperparameters
    shown = ["trial", "state", "best_value", *point, *values[1:], *unusual, "origin", *reason]
    emit_frame(frames.trials[shown], form, spare=("origin", "seed", "last_value", *unusual, "steps", "best_step"))
