"""The exit codes of every command: what each means, and whether a scheduler should start the command again."""

from enum import IntEnum


class Exit(IntEnum):
    """An exit code with its meaning and with what to do about it.

    requeue: whether the same command, started again without a change, goes on and may end better. A process that was
    killed has no code of these; it may be started again, too.
    """

    meaning: str
    then: str
    requeue: bool

    def __new__(cls, code: int, meaning: str, then: str, requeue: bool = False) -> "Exit":
        """A number that knows what it means."""
        made = int.__new__(cls, code)
        made._value_ = code
        made.meaning, made.then, made.requeue = meaning, then, requeue
        return made

    FINE = 0, "done, and nothing needs action", "go on with the next command"
    FAULT = 1, "an unexpected fault", "report it; --debug shows where it happened"
    INPUT = 2, "wrong input; nothing was trained", "correct what the message names"
    FINDING = 3, "a finding or a question needs a decision", "read it: the next command stands below it"
    FAILED = (
        4,
        "some trials failed; running again without a change will not help",
        "remove the causes that are listed, then the same command with --retry-failed",
    )
    PAUSED = 75, "the machine gave way (disk, database, device)", "start the same command again: it goes on", True
    INTERRUPTED = 130, "stopped by Ctrl-C or a signal; all is saved", "start the same command again: it goes on", True


def exit_codes_in_short() -> str:
    """All of them for a help page, one a line."""
    return "\n\n".join(f"{code.value}: {code.meaning}" + " (start again)" * code.requeue for code in Exit)
