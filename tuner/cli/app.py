"""The program `tuner` as a process: it hears signals, runs one command, and ends with a code that tells what was done.

Where nothing is trained there is nothing to save: each signal of `tuner.signals` ends a command at once, with 130 until
its work is done, and from then on with the code of that work. While trials train, they are saved first.
"""

import atexit
import errno
import gc
import io
import os
import sys
import traceback
from importlib import import_module
from types import TracebackType
from typing import Any, NoReturn, TextIO, cast

from tuner import signals, system
from tuner.cli.exit_codes import Exit, ending_of
from tuner.cli.given import completed
from tuner.errors import Interrupted, Paused
from tuner.logs import escape_logs
from tuner.shown import shown, shown_lines
from tuner.signals import SHUTDOWN


def main() -> NoReturn:
    """Run the command given in `sys.argv` and exit with its code."""
    atexit.register(signals.ignore_signals)  # before all others, so that it is called last
    escape_logs()
    sys.excepthook = _show_traceback
    system.after_fork_in_child(SHUTDOWN.forget)
    _print_any_letter()
    sys.stdout, sys.stderr = lasting(sys.stdout), lasting(sys.stderr)
    try:
        SHUTDOWN.listen(_say_at_once)
        SHUTDOWN.code = run()
    except KeyboardInterrupt:
        SHUTDOWN.code = Exit.INTERRUPTED
        print("interrupted; run the same command again to go on", file=sys.stderr)
    gc.freeze()  # else Python searches all of torch for cycles before it ends: 0.4 s
    sys.exit(SHUTDOWN.code)


def run() -> int:
    """Run the command given in `sys.argv`; its exit code. Raises KeyboardInterrupt for a signal that is no error."""
    program = import_module("tuner.cli.program").program()  # typer: only now, when signals are heard
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        code = program.main(args=arguments, prog_name="tuner", standalone_mode=False)
    except Exception as error:
        if debug:
            raise
        return _report(error)
    if code == Exit.INTERRUPTED:  # what typer makes of KeyboardInterrupt
        raise KeyboardInterrupt
    return code if isinstance(code, int) else 0


def _report(error: Exception) -> int:
    """Print what went wrong in one message, and return the exit code for it."""
    if SHUTDOWN.is_set() and not isinstance(error, Interrupted | Paused):  # other code made it of the interruption
        _say(f"interrupted; run the same command again to go on (meanwhile: {type(error).__name__}: {error})")
        return Exit.INTERRUPTED
    if hasattr(error, "show"):  # an error of the command line itself
        return _report_usage(error)
    message, code = ending_of(error)
    _say(message)
    return code


def _report_usage(error: Any) -> int:
    """Print an error of the command line; for a missing argument with an example of the whole command."""
    error.message = shown(str(getattr(error, "message", "")))
    error.show()
    example = import_module("tuner.cli.program").example_for(error)
    if example:
        _say(f"Example: {example}")
    return int(getattr(error, "exit_code", Exit.INPUT))


def _say(message: str) -> None:
    """A message to the person at the terminal, whatever names it holds."""
    print(shown_lines(completed(message)), file=sys.stderr)


def _say_at_once(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """For --debug: as Python does it, but whatever names it holds."""
    for part in traceback.format_exception(kind, error, trace):
        print(shown_lines(part.strip("\n")), file=sys.stderr)


def _print_any_letter() -> None:
    """A letter that the encoding of a terminal or pipe does not have is printed as its number, and is no error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def lasting(stream: TextIO) -> TextIO:
    """A stream that goes on when its terminal is gone, or when its reader ended by the signal that ends this process.

    What nobody can read is no reason to end a training, nor to end with another exit code. A reader that ends for
    its own reasons (`| head`) is an error, as everywhere.
    """
    closed = cast(TextIO | None, stream) is None  # by `command >&-`: what is printed goes nowhere
    return stream if closed else cast(TextIO, _Lasting(stream))


class _Lasting:
    """A stream with other ways to write and to flush; the rest is the stream's."""

    _stream: TextIO = sys.__stderr__ or sys.stderr  # of a copy that is being made

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._to_nowhere(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._to_nowhere(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _to_nowhere(self, error: OSError) -> None:
        """Write to nowhere from now on. Raises the error where it is one."""
        if error.errno != errno.EIO and not SHUTDOWN.is_set_soon():
            raise error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
        self._stream.flush()
