"""The program `tuner`: its commands, and how errors become exit codes."""

import sys
from typing import Annotated

import typer

from tuner import __version__
from tuner.cli.exit_codes import Exit, exit_codes_in_short
from tuner.cli.given import completed
from tuner.cli.limits import machine_limit
from tuner.errors import InputError, Interrupted, Paused, TrialsFailed, TunerError
from tuner.shown import shown, shown_lines
from tuner.signals import SHUTDOWN

# The first that fits: an error, the word before its message, and the exit code.
_ENDINGS: tuple[tuple[type[TunerError], str, Exit], ...] = (
    (InputError, "error", Exit.INPUT),
    (TrialsFailed, "failed", Exit.FAILED),
    (Paused, "paused", Exit.PAUSED),
    (Interrupted, "interrupted", Exit.INTERRUPTED),
    (TunerError, "error", Exit.FAULT),
)
app = typer.Typer(
    name="tuner",
    help="The Deep Learning Tuning Playbook as a program.\n\n"
    "tuner run STUDY_FILE --dry-run    check a study file, and what it would cost\n\n"
    "tuner run STUDY_FILE --yes        the whole playbook, and a report\n\n"
    "tuner status                      what is there",
    epilog=f"Exit codes:\n\n{exit_codes_in_short()}",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        print(f"tuner {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Global options."""


def run() -> int:
    """Run the command given in `sys.argv`; its exit code. Raises KeyboardInterrupt for a signal that is no error."""
    from tuner.cli import commands

    commands.register(app)
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        code = app(args=arguments, standalone_mode=False)
    except Exception as error:
        if debug:
            raise
        return _report(error)
    if code == Exit.INTERRUPTED:  # what typer makes of it
        raise KeyboardInterrupt
    return code if isinstance(code, int) else 0


def _report(error: Exception) -> int:
    """Say what went wrong in one message, and return the exit code for it."""
    if SHUTDOWN.is_set() and not isinstance(error, Interrupted | Paused):  # made of the interruption by other code
        _tell(f"interrupted; run the same command again to go on (meanwhile: {_named(error)})")
        return Exit.INTERRUPTED
    for kind, word, code in _ENDINGS:
        if isinstance(error, kind):
            _tell(f"{word}: {error}")
            return code
    show_usage = getattr(error, "show", None)
    if show_usage is not None:  # an error of the command line itself
        error.message = shown(str(getattr(error, "message", "")))  # type: ignore[attr-defined]
        show_usage()
        return int(getattr(error, "exit_code", Exit.INPUT))
    limit = machine_limit(error)
    if limit is not None:
        _tell(f"paused: {limit}")
        return Exit.PAUSED
    _tell(f"unexpected {_named(error)} (--debug shows where)")
    return Exit.FAULT


def _tell(message: str) -> None:
    """A message to the person at the terminal, whatever names it holds."""
    print(shown_lines(completed(message)), file=sys.stderr)


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
