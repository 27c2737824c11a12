"""The process that runs one command: whenever a signal comes, it ends with an exit code that tells what was done.

Where nothing is trained there is nothing to save: each signal of `tuner.signals` ends a command at once, with 130 until
it has done its work, and from then on with the code of that work. While trials train they are saved first.
"""

import atexit
import gc
import io
import sys
import traceback
from types import TracebackType
from typing import NoReturn

from tuner import signals, system
from tuner.cli.exit_codes import Exit
from tuner.cli.streams import lasting
from tuner.shown import escape_logs, shown_lines


def main() -> NoReturn:
    """Run the command given in `sys.argv` and exit with its code."""
    atexit.register(signals.ignore_signals)  # before all others, so that it is called last
    escape_logs()
    sys.excepthook = _show_traceback
    system.after_fork_in_child(signals.SHUTDOWN.forget)
    ending = signals.SHUTDOWN
    _bear_any_letter()
    sys.stdout, sys.stderr = lasting(sys.stdout), lasting(sys.stderr)
    try:
        ending.listen(_tell)
        from tuner.cli.app import run  # where a signal is heard already

        ending.code = run()
    except KeyboardInterrupt:
        ending.code = Exit.INTERRUPTED
        print("interrupted; run the same command again to go on", file=sys.stderr)
    gc.freeze()  # else Python searches all of torch for cycles before it ends: 0.4 s
    sys.exit(ending.code)


def _bear_any_letter() -> None:
    """What the encoding of a terminal or pipe has no letter for is shown by its number, and ends nothing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """For --debug: as Python does it, but whatever names it holds."""
    for part in traceback.format_exception(kind, error, trace):
        print(shown_lines(part.strip("\n")), file=sys.stderr)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
