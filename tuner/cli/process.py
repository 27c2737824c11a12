"""The process that runs one command: whenever a signal comes, it ends with an exit code that tells what was done.

Where nothing is trained there is nothing to save: Ctrl-C and SIGTERM end a command at once, with 130 until it has done
its work, and from then on with the code of that work. While trials train `watching.stop_on_signal` takes over.
"""

import atexit
import gc
import os
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import NoReturn

from tuner.cli.exit_codes import Exit

STOPPING = (signal.SIGINT, signal.SIGTERM)  # what asks a command to end


def main() -> NoReturn:
    """Run the command given in `sys.argv` and exit with its code."""
    atexit.register(_be_deaf)  # before all others, so that it is called last
    os.register_at_fork(after_in_child=_forget)
    ending = _Ending()
    for number in STOPPING:
        signal.signal(number, ending)
    try:
        from tuner.cli.app import run  # where a signal is heard already

        ending.code = run()
    except KeyboardInterrupt:
        ending.code = Exit.INTERRUPTED
        print("interrupted; run the same command again to go on", file=sys.stderr)
    gc.freeze()  # else Python searches all of torch for cycles before it ends: 0.4 s
    sys.exit(ending.code)


class _Ending:
    """What a signal does: the first one interrupts the command; where its exit code is known, that is the end."""

    code: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.code is None:
            self.code = Exit.INTERRUPTED
            raise KeyboardInterrupt
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, RuntimeError):  # nobody reads it, or it is just being written to
                stream.flush()
        os._exit(self.code)


def _be_deaf() -> None:
    """Python takes itself apart: it would give signals back their first meaning, a death without an exit code."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


def _forget() -> None:
    """What user code forks, for its data say, is no command and ends like any process that is told to."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
