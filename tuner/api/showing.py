"""Progress of a call of the Python API, and what stops it: for a terminal, a notebook, and a script."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from types import FrameType

from rich.console import Console
from rich.text import Text

from tuner.design.study import Study
from tuner.execution.backend import Listener, Silent
from tuner.progress import Lines, bars
from tuner.shown import shown


@dataclass(slots=True)
class StopFlag:
    """Whether trials should stop at their next step and save. Call it to find out."""

    asked: bool = False

    def __call__(self) -> bool:
        return self.asked


@dataclass(frozen=True, slots=True)
class Display:
    """Shows progress: bars on a terminal, and in a notebook with ipywidgets; lines of text elsewhere.

    progress: True shows it, False does not; None shows it where a person watches, on a terminal or in a notebook.
    """

    progress: bool | None
    stop: StopFlag

    @property
    def visible(self) -> bool:
        if self.progress is not None:
            return self.progress
        console = _console()
        return console.is_terminal or console.is_jupyter

    def tell(self, text: str) -> None:
        """Show one line of text."""
        if self.visible:
            _console().print(Text(shown(text)), soft_wrap=True)

    @contextmanager
    def watch(self, study: Study, finished: int) -> Iterator[Listener]:
        """Show the trials of a study while they train. Within the block an interrupt asks trials to stop and save."""
        with _stopped_by_interrupt(self.stop), self._listener(study, finished) as listener:
            yield listener

    def _listener(self, study: Study, finished: int) -> AbstractContextManager[Listener]:
        if not self.visible:
            return nullcontext(Silent())
        console = _console()
        if (console.is_jupyter and find_spec("ipywidgets") is not None) or (
            console.is_terminal and not console.is_jupyter
        ):
            return bars(study, finished, console)
        return nullcontext(Lines(study, finished, self.tell))


def _console() -> Console:
    """Made for each use: a notebook and pytest replace the streams."""
    return Console(stderr=True, highlight=False)


@contextmanager
def _stopped_by_interrupt(stop: StopFlag) -> Iterator[None]:
    """Within the block the first SIGINT asks for a stop, and a second one raises KeyboardInterrupt.

    Only the main thread of a process receives signals; in another thread nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True

    before: Callable[[int, FrameType | None], object] | int | None = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler if before is None else before)
