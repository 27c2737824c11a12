"""`tuner status`, `trials`, `conclusions` and `adoptions`: what is recorded, as tables."""

from tuner.analysis.study_frames import ranked_trials
from tuner.analysis.study_progress import in_words, standing
from tuner.cli.given import command, note_recorded
from tuner.cli.options import Format
from tuner.cli.output import emit_frame, next_step, say
from tuner.cli.places import opened
from tuner.cli.reading_options import AdoptionsOptions, ConclusionsOptions, StatusOptions, TrialsOptions
from tuner.interchange.cells import with_choice_cells, with_none
from tuner.reading import campaign_name, load


def status(options: StatusOptions) -> None:
    """Print a row for each study of a campaign, or of all."""
    with opened(options.storage, create=False) as ledger:
        names = [campaign_name(ledger, options.study)] if options.study else ledger.campaigns()
        frame = standing(ledger, names)
    in_table = options.form is Format.table and len(frame) > 0
    emit_frame(in_words(frame) if in_table else frame, options.form, spare=("goal", "trials"))


def trials(options: TrialsOptions) -> None:
    """Print the trials of a round, each with its point and what became of it."""
    form = options.form
    frames = load(options.study, options.storage).frames(options.study_name or options.round_number)
    table = frames.trials if options.top is None else ranked_trials(frames).head(options.top)
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
    say(f"{frames.study.name}: values are {objective.metric}, to {objective.direction}; best: during training")


def conclusions(options: ConclusionsOptions) -> None:
    """Print what holds at which length of training."""
    records = load(options.study, options.storage)
    emit_frame(records.conclusions(), options.form)
    next_step(command("plot transfer", records.name))


def adoptions(options: AdoptionsOptions) -> None:
    """Print the log of adoptions, which tells how the baseline came to be what it is."""
    records = load(options.study, options.storage)
    note_recorded(records.study_file())
    log = records.adoptions()
    emit_frame(log, options.form)
    if log.empty:
        say(f"no adoption of {records.name} yet; run: tuner adopt STUDY_FILE --candidate 2/0 --baseline 2/1")
