"""Signals that ask a process to end: which ones, what each of them means, and how long there is to save.

All mean the same: save, give the trials back without counting an attempt, end with exit code 130.

| signal           | who sends it                                                                           |
|------------------|----------------------------------------------------------------------------------------|
| SIGINT           | Ctrl-C, to every process of the terminal                                               |
| SIGTERM          | `kill`, Kubernetes, SLURM at the time limit and at preemption (there twice at once)    |
| SIGHUP           | a terminal that is closed or lost                                                      |
| SIGUSR1, SIGUSR2 | SLURM's `--signal`, SGE's `-notify`, submitit: a warning before the end                |
| SIGXCPU          | a limit of processor time, every second from then on                                   |
| SIGBREAK         | Ctrl-Break on Windows, which has of the others only SIGINT and SIGTERM                 |

The same signal may come again at once, from another sender, or to another process of the same command: that changes
nothing. Ending at once, with what was committed before, takes Ctrl-C once more on a terminal, or any of them (but
SIGXCPU) more than `INSIST_SECONDS` after the first.

A signal that was ignored when the process was started (`nohup`, `command &` in a script, `trap ''`) stays ignored.
Where nothing is in hand that could be saved, the first signal interrupts at once. Handlers run between two bytecodes
of Python: one call into C, such as a single operation of torch, delays them.
"""

import _thread
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

EXIT_CODE = 130
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGBREAK")
STOPPING = tuple(signal.Signals[name] for name in _NAMES if name in signal.Signals.__members__)

# From the first signal on. Schedulers kill 30 s after they asked (SLURM's KillWait, Kubernetes' grace period).
INSIST_SECONDS = 5.0  # a later signal means that somebody does not want to wait
SAVE_SECONDS = 20.0  # what is not saved by then is given up: it is trained again from the last commit
LAST_SECONDS = 4.0  # after that: to give trials back, should the database be slow
HANDING_OVER_SECONDS = 2.0  # so much earlier a worker process gives up than the one that watches it
TOGETHER_SECONDS = 0.2  # the processes of a job are signalled one after the other, all within this time


class ShutdownRequested(KeyboardInterrupt):
    """A signal asked for an end.

    Not KeyboardInterrupt itself: where one passes through code that was run from text, as that of data classes, Python
    kills itself with SIGINT in the end, whatever the exit code.
    """


class Shutdown:
    """How this process ends when it is told to.

    code: its exit code, once its work is done; from then on every signal ends it at once, with that code.
    """

    def __init__(self) -> None:
        self._handler = self._hear  # one object, so that it can be recognized
        self._begin()

    def _begin(self) -> None:
        self.code: int | None = None
        self._told_at: float | None = None
        self._heard: tuple[signal.Signals, ...] = ()
        self._in_hand: list[Callable[[], object]] = []
        self._news: queue.SimpleQueue[bool] = queue.SimpleQueue()  # its `put` may interrupt itself
        self._tell: Callable[[str], None] = silent
        self._save_seconds = SAVE_SECONDS
        self._obeys_insistence = True
        self._insisted = False

    def listen(self, tell: Callable[[str], None], *, save_seconds: float | None = None, alone: bool = True) -> None:
        """Hear all signals that are not ignored, from now on; also those that came while they were withheld.

        tell: says something to whoever watches, from another thread. alone: nobody but the sender of signals says
        when to end at once; a worker process leaves that to the one that watches it.
        """
        self._tell, self._obeys_insistence = tell, alone
        self._save_seconds = SAVE_SECONDS if save_seconds is None else save_seconds
        self._heard = not_ignored()
        for number in self._heard:
            signal.signal(number, self._handler)
        threading.Thread(target=self._watch, args=(self._news,), name="tuner ending", daemon=True).start()
        unblock()

    @contextmanager
    def listening(self, tell: Callable[[str], None]) -> Iterator["Shutdown"]:
        """Listen within the block, where the process does not do so anyway."""
        if self._heard:
            yield self
            return
        before = {number: signal.getsignal(number) for number in STOPPING}
        self.listen(tell)
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
            self._news.put(False)
            self._begin()

    def is_set(self) -> bool:
        """Whether this process was told to end. Handlers that user code has installed meanwhile are put aside."""
        for number in self._heard:
            if signal.getsignal(number) is not self._handler and signal.getsignal(number) is not signal.SIG_IGN:
                with suppress(ValueError):  # not in the main thread
                    signal.signal(number, self._handler)
        return self._told_at is not None

    def is_set_soon(self) -> bool:
        """The same, where a failure may come of a signal to another process: ours may be on its way."""
        return soon(lambda: self._told_at is not None) if self._heard else self._told_at is not None

    def tell(self) -> None:
        """Do as if a signal had come. For any thread."""
        if self._heard:
            if hasattr(signal, "pthread_kill"):
                signal.pthread_kill(threading.main_thread().ident or 0, self._heard[0])
            else:
                _thread.interrupt_main(self._heard[0])
        elif self._told_at is None:
            self._told_at = time.monotonic()
            self._news.put(True)

    @contextmanager
    def in_hand(self, give_back: Callable[[], object]) -> Iterator[None]:
        """Within the block there is something to save: a signal only asks for it (`is_set`).

        give_back: called, perhaps by another thread and more than once, where that is cut short. Raises
        ShutdownRequested at the end of a block that was told to end and did not raise anything itself.
        """
        self._in_hand.append(give_back)
        try:
            yield
        except KeyboardInterrupt:
            with suppress(Exception):
                give_back()
            raise
        finally:
            self._in_hand.pop()
        if self._told_at is not None:
            raise ShutdownRequested

    def forget(self) -> None:
        """Give signals their first meaning again: in what user code forks, for its data say."""
        for number in self._heard:
            if signal.getsignal(number) is self._handler:
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        self._heard = ()

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.code is not None:
            self._exit()
        if self._told_at is None:
            self._told_at = time.monotonic()
            self._news.put(True)
            if not self._in_hand:
                raise ShutdownRequested
        elif self._insists(number):
            if self._insisted or not self._in_hand:
                self._exit()
            self._insisted = True
            raise ShutdownRequested

    def _insists(self, number: int) -> bool:
        if not self._obeys_insistence or self._told_at is None or number == getattr(signal, "SIGXCPU", None):
            return False
        late = time.monotonic() - self._told_at >= INSIST_SECONDS
        return late or (number == signal.SIGINT and _on_a_terminal())

    def _watch(self, news: "queue.SimpleQueue[bool]") -> None:
        """In a thread of its own: say what happens, and end what does not end in time."""
        if hasattr(signal, "pthread_sigmask"):  # they wake the main thread, which may wait for something
            signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        if not news.get():
            return
        limit = self._save_seconds
        if self._in_hand:
            more = "; Ctrl-C once more ends at once" if _on_a_terminal() else ""
            self._say(f"stopping: saving where we are, for {limit:g} s at most{more}")
        with suppress(queue.Empty):
            news.get(timeout=limit)
            return
        last = threading.Timer(LAST_SECONDS, os._exit, (self._code,))
        last.daemon = True
        last.start()
        for give_back in tuple(self._in_hand):
            with suppress(Exception):
                give_back()
        if self._in_hand:
            self._say(
                f"interrupted: not saved in {limit:g} s; run the same command again to go on from the last commit"
            )
        self._exit()

    def _say(self, text: str) -> None:
        with suppress(Exception):
            self._tell(text)

    @property
    def _code(self) -> int:
        return EXIT_CODE if self.code is None else self.code

    def _exit(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):  # nobody reads it, or it is just being written to
                stream.flush()
        os._exit(self._code)


def not_ignored() -> tuple[signal.Signals, ...]:
    """The signals that this process does not ignore."""
    return tuple(number for number in STOPPING if signal.getsignal(number) is not signal.SIG_IGN)


def ignore_signals() -> None:
    """Ignore them all from now on."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def blocked() -> Iterator[None]:
    """A process that is started in the block is born with the signals blocked, until it listens.

    They reach every process of a job or a terminal, and one that still imports would die of them.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unblock() -> None:
    """Hear what was withheld."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)


def soon(told: Callable[[], bool]) -> bool:
    """Whether `told()` is true now or within a moment."""
    end = time.monotonic() + TOGETHER_SECONDS
    while not told():
        if time.monotonic() >= end:
            return False
        time.sleep(0.01)
    return True


def _on_a_terminal() -> bool:
    return os.isatty(0) or os.isatty(2)


def silent(text: str) -> None:
    """Nobody watches."""


SHUTDOWN = Shutdown()
