"""`tuner adoptions`: the log of adoptions, which says how the baseline came to be what it is."""

from tuner.cli.options import Format, OutputFormat, Storage, Study


def adoptions(study: Study, storage: Storage = None, form: OutputFormat = Format.table) -> None:
    """List what was adopted, kept or tied, oldest first, with the evidence (B34)."""
    from tuner.cli.given import note_recorded
    from tuner.cli.output import emit_frame, say
    from tuner.reading import load

    records = load(study, storage)
    note_recorded(records.study_file())
    log = records.adoptions()
    emit_frame(log, form)
    if log.empty:
        say(f"no adoption of {records.name} yet; run: tuner adopt STUDY_FILE --candidate 2/0 --baseline 2/1")
