"""Output whose reader may go: a terminal that is closed, or a `tee` that Ctrl-C ends before us."""

import errno
import os
import sys
from typing import Any, TextIO, cast

from tuner import signals


def lasting(stream: TextIO) -> TextIO:
    """A stream that lasts where its terminal is gone, and where its reader ended by the signal that ends us.

    What nobody can read is no reason to end a training, nor to end with another exit code. A reader that ends for
    itself (`| head`) is an error as everywhere.
    """
    closed = cast(TextIO | None, stream) is None  # by `command >&-`: what is printed goes nowhere
    return stream if closed else cast(TextIO, _Lasting(stream))


class _Lasting:
    """As much of a stream as has to be another; the rest is the stream's."""

    _stream: TextIO = sys.__stderr__ or sys.stderr  # of a copy that is being made

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._bear(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._bear(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _bear(self, error: OSError) -> None:
        """Write to nowhere from now on. Raises the error where it is one."""
        if error.errno != errno.EIO and not signals.SHUTDOWN.is_set_soon():
            raise error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
        self._stream.flush()
