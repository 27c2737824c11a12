"""`tuner trials`: every trial with its point and what became of it."""

from typing import Annotated

import typer

from tuner.cli.options import Format, OutputFormat, RoundNumber, Storage, Study, StudyName


def trials(
    study: Study,
    round_number: RoundNumber = None,
    study_name: StudyName = None,
    top: Annotated[
        int | None, typer.Option("--top", min=1, help="Only so many complete trials, best first.", show_default=False)
    ] = None,
    storage: Storage = None,
    form: OutputFormat = Format.table,
) -> None:
    """List the trials of a round: number, state, reason, point, best and last value, steps (those taken over), seed.

    A hyperparameter that a trial does not have is shown as "-" (left empty in CSV); None is a value, None or null.
    """
    from tuner.analysis.study_frames import ranked_trials
    from tuner.cli.output import emit_frame, say
    from tuner.interchange.cells import with_choice_cells, with_none
    from tuner.reading import load

    frames = load(study, storage).frames(study_name or round_number)
    table = frames.trials if top is None else ranked_trials(frames).head(top)
    if form is not Format.json:
        table = with_choice_cells(table, frames.study.hyperparameters, none="None" if form is Format.table else "null")
    values = ["best_value", "best_step", "last_value", "steps", "seed"]
    if form is not Format.table:
        more = ["inherited", "exact", "data_seed", "origin", "attempt"]
        columns = ["trial", "state", "reason", *frames.hyperparameters, *values, *more]
        emit_frame(table[columns], form, nullable=with_none(frames.study.hyperparameters))
        return
    unusual = ["inherited"] * bool(table["inherited"].any())  # what is as always is not worth a column
    unusual += ["exact"] * bool(not table["exact"].all())
    reason = ["reason"] * bool(table["reason"].any())
    point = frames.hyperparameters
    shown = ["trial", "state", "best_value", *point, *values[1:], *unusual, "origin", *reason]
    emit_frame(table[shown], form, spare=("origin", "seed", "last_value", *unusual, "steps", "best_step"))
    if frames.study.kind == "exploitation":
        say(f"{frames.study.name}: {frames.study.goal}")
    objective = frames.study.objective
    say(f"{frames.study.name}: values are {objective.metric}, to {objective.direction}; best: over training")
