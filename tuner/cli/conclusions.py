"""`tuner conclusions`: what holds at which length of training."""

from tuner.cli.options import Format, OutputFormat, Storage, Study


def conclusions(study: Study, storage: Storage = None, form: OutputFormat = Format.table) -> None:
    """List conclusions and whether longer runs confirmed them."""
    from tuner.cli.given import command
    from tuner.cli.output import emit_frame, next_step
    from tuner.reading import load

    records = load(study, storage)
    emit_frame(records.conclusions(), form)
    next_step(command("plot transfer", records.name))
