"""Errors that were raised in another process, as they were there: type, message, attributes, places in the code.

So an error of the user's code says the same, and is told apart in the same way, wherever that code ran.
"""

import sys
import traceback
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from types import FunctionType, TracebackType
from typing import Any

Place = tuple[str, int, str]  # file, line, function


@dataclass(frozen=True)
class TravellingError:
    """An error that can be pickled, whatever it is. `error()` makes it again, to be raised.

    pickled: the error itself, or a type with arguments and attributes; None where no error survives that.
    """

    pickled: bytes | None
    text: str
    places: tuple[Place, ...]
    cause: "TravellingError | None"
    context: "TravellingError | None"
    suppressed: bool

    @classmethod
    def of(cls, error: BaseException, skipped: int = 1) -> "TravellingError":
        """skipped: frames at the beginning that are those of the caller."""
        frames = traceback.extract_tb(error.__traceback__)[skipped:]
        cause, context = error.__cause__, error.__context__
        return cls(
            _pickled(error),
            f"{type(error).__name__}: {error}",
            tuple((frame.filename, frame.lineno or 1, frame.name) for frame in frames),
            None if cause is None else cls.of(cause, 0),
            None if context is None or context is cause else cls.of(context, 0),
            error.__suppress_context__,
        )

    def error(self) -> BaseException:
        """The error, with its causes and with the places where it was raised as the end of its traceback."""
        error = RuntimeError(self.text) if self.pickled is None else _unpickled(self.pickled)
        error.__cause__ = None if self.cause is None else self.cause.error()
        error.__context__ = error.__cause__ if self.context is None else self.context.error()
        error.__suppress_context__ = self.suppressed
        return error.with_traceback(_traceback(self.places))


def _pickled(error: BaseException) -> bytes | None:
    """Of the error, where it comes back as it was; else of its type, or the next type above it, and what it says."""
    plain = {name: value for name, value in vars(error).items() if name != "__notes__" and _survives(value)}
    kinds = [kind for kind in type(error).__mro__ if issubclass(kind, BaseException)]
    said = str(error), f"{type(error).__name__}: {error}"
    ways: list[Any] = [error, (kinds[0], error.args, plain), (kinds[0], said[:1], plain)]
    ways += [(kind, said[1:], plain) for kind in kinds[1:]]
    for way in ways:
        try:
            pickled = bytes(ForkingPickler.dumps(way))
            again = _unpickled(pickled)
        except Exception:  # noqa: S112 - of somebody else's class; the next way is plainer
            continue
        if str(again) in said:
            return pickled
    return None


def _survives(value: object) -> bool:
    try:
        ForkingPickler.loads(ForkingPickler.dumps(value))
    except Exception:
        return False
    return True


def _unpickled(pickled: bytes) -> BaseException:
    held = ForkingPickler.loads(pickled)
    if isinstance(held, BaseException):
        return held
    kind, arguments, attributes = held
    error: BaseException = kind.__new__(kind, *arguments)
    error.args = arguments
    vars(error).update(attributes)
    return error


def _raising() -> None:
    raise ValueError


def _traceback(places: tuple[Place, ...]) -> TracebackType | None:
    """A traceback with these places, made of frames that end there."""
    made: TracebackType | None = None
    for file, line, name in reversed(places):
        code = _raising.__code__.replace(co_filename=file, co_firstlineno=line - 1, co_name=name, co_qualname=name)
        try:
            FunctionType(code, {})()  # it raises, and has then the frame that is wanted
        except ValueError:
            entry = sys.exc_info()[2]
            if entry is not None and entry.tb_next is not None:
                frame = entry.tb_next
                made = TracebackType(made, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return made
