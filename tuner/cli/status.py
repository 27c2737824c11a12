"""`tuner status`: which studies there are and how far they are."""

from tuner.analysis.study_progress import in_words, standing
from tuner.cli.options import Format
from tuner.cli.output import emit_frame
from tuner.cli.places import opened
from tuner.cli.reading_options import Status
from tuner.reading import campaign_name


def status(options: Status) -> None:
    """Print a row for each study of a campaign, or of all."""
    with opened(options.storage, create=False) as ledger:
        names = [campaign_name(ledger, options.study)] if options.study else ledger.campaigns()
        frame = standing(ledger, names)
    in_table = options.form is Format.table and len(frame) > 0
    emit_frame(in_words(frame) if in_table else frame, options.form, spare=("goal", "trials"))
