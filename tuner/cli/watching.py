"""Progress of a launch: bars on a terminal, lines anywhere else; and signals that end it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from tuner import signals
from tuner.cli.output import console, say, shown_line
from tuner.execution.backend import Silent, Watch
from tuner.progress import Lines, bars


def watch(quiet: bool) -> Watch:
    """What makes a listener for each study that is launched, suited to where the output goes."""
    if quiet:
        return lambda study, finished: nullcontext(Silent())
    if not sys.stderr.isatty():
        return lambda study, finished: nullcontext(Lines(study, finished, say))
    return lambda study, finished: bars(study, finished, console(stderr=True), shown_line)


@contextmanager
def stop_on_signal() -> Iterator[signals.Shutdown]:
    """Within the block a signal that means to end asks trials to stop at their next step and to save."""
    with signals.SHUTDOWN.listening(say) as ending:
        yield ending
