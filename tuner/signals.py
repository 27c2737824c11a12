"""Signals that ask a process to end: which ones there are, and how long the process then has to save.

All of them mean the same: save, release the trials without counting an attempt, and end with exit code 130.

| signal           | who sends it                                                                           |
|------------------|----------------------------------------------------------------------------------------|
| SIGINT           | Ctrl-C, to every process of the terminal                                               |
| SIGTERM          | `kill`, Kubernetes, SLURM at the time limit and at preemption (there twice at once)    |
| SIGHUP           | a terminal that is closed or lost                                                      |
| SIGUSR1, SIGUSR2 | SLURM's `--signal`, SGE's `-notify`, submitit: a warning before the end                |
| SIGXCPU          | a limit of processor time, every second from then on                                   |
| SIGBREAK         | Ctrl-Break on Windows, which has only SIGINT and SIGTERM besides                       |

The same signal may come again at once, from another sender or to another process of the same command; that changes
nothing. The process ends at once, with what was committed before, on a second Ctrl-C at a terminal, or on any of these
signals (except SIGXCPU) that comes more than `INSIST_SECONDS` after the first.

A signal that was ignored when the process was started (`nohup`, `command &` in a script, `trap ''`) stays ignored.
Where there is nothing to save, the first signal interrupts at once. Python runs handlers between two bytecodes, so one
call into C, such as a single operation of torch, delays them.

An end that is known before (`tuner.time_limit`) does what a signal does. The first signal after it is a warning that
comes late, and no second request.
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
INSIST_SECONDS = 5.0  # a later signal means that its sender does not want to wait
SAVE_SECONDS = 20.0  # steps that are not saved by then are trained again from the last commit
LAST_SECONDS = 4.0  # after that: to release trials, should the database be slow
HANDING_OVER_SECONDS = 2.0  # a worker process gives up so much earlier than its coordinator
TOGETHER_SECONDS = 0.2  # all processes of a job get their signals within this time


class ShutdownRequested(KeyboardInterrupt):
    """A signal asked this process to end.

    It is not KeyboardInterrupt itself: where that passes through code that was run from text, such as the methods of
    data classes, Python kills itself with SIGINT at its end, whatever the exit code.
    """


class Shutdown:
    """How this process ends when a signal asks it to.

    code: the exit code, once the work is done; from then on every signal ends the process at once, with that code.
    """

    def __init__(self) -> None:
        self._handler = self._handle_signal  # one object, so that it can be recognized
        self._begin()

    def _begin(self) -> None:
        self.code: int | None = None
        self._asked_at: float | None = None
        self._handled: tuple[signal.Signals, ...] = ()
        self._in_hand: list[Callable[[], object]] = []
        self._news: queue.SimpleQueue[bool] = queue.SimpleQueue()  # its `put` may interrupt itself
        self._tell: Callable[[str], None] = silent
        self._save_seconds = SAVE_SECONDS
        self._obeys_insistence = True
        self._insisted = False
        self._known_before = False  # whether what asked first was an end that was known, and no signal
        self._heard_at: float | None = None  # the first signal after such an end
        self.listening_since: float | None = None

    def listen(self, tell: Callable[[str], None], *, save_seconds: float | None = None, alone: bool = True) -> None:
        """Handle all signals that are not ignored, from now on; also those that came while they were blocked.

        tell: prints a message for the user, from another thread. alone: a repeated signal ends the process at once;
        a worker process leaves that to its coordinator.
        """
        self._tell, self._obeys_insistence = tell, alone
        self.listening_since = time.monotonic()
        self._save_seconds = SAVE_SECONDS if save_seconds is None else save_seconds
        self._handled = not_ignored()
        for number in self._handled:
            signal.signal(number, self._handler)
        threading.Thread(target=self._watch, args=(self._news,), name="tuner ending", daemon=True).start()
        unblock()

    @contextmanager
    def listening(self, tell: Callable[[str], None]) -> Iterator["Shutdown"]:
        """Handle signals within the block, where the process does not do so anyway."""
        if self._handled:
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
        """Whether this process was asked to end. Replaces handlers that user code has installed meanwhile."""
        for number in self._handled:
            if signal.getsignal(number) is not self._handler and signal.getsignal(number) is not signal.SIG_IGN:
                with suppress(ValueError):  # not in the main thread
                    signal.signal(number, self._handler)
        return self._asked_at is not None

    def is_set_soon(self) -> bool:
        """The same, after a failure that a signal to another process may have caused: ours may follow in a moment."""
        return soon(lambda: self._asked_at is not None) if self._handled else self._asked_at is not None

    def tell(self) -> None:
        """Do as if a signal had come. May be called from any thread."""
        if self._handled:
            if hasattr(signal, "pthread_kill"):
                signal.pthread_kill(threading.main_thread().ident or 0, self._handled[0])
            else:
                _thread.interrupt_main(self._handled[0])
        elif self._asked_at is None:
            self._asked_at = time.monotonic()
            self._news.put(True)

    @contextmanager
    def ending_at(self, moment: float, why: str, save_seconds: float) -> Iterator[None]:
        """Within the block, do as if a signal had come at a moment of the monotonic clock.

        why: told to the user then. save_seconds: time to save from then on, at most.
        """
        over = threading.Event()

        def wait() -> None:
            if over.wait(min(max(0.0, moment - time.monotonic()), threading.TIMEOUT_MAX)) or self._asked_at is not None:
                return
            self._known_before, self._save_seconds = True, min(self._save_seconds, save_seconds)
            self._say(why)
            self.tell()

        thread = threading.Thread(target=wait, name="tuner known end", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            if not self._handled:
                self._begin()  # nobody listens: the next command of this process is not asked to end

    @contextmanager
    def in_hand(self, give_back: Callable[[], object]) -> Iterator[None]:
        """Within the block there is something to save: a signal interrupts nothing and only sets `is_set`.

        give_back: called where there is no time to save, perhaps by another thread and more than once. Raises
        ShutdownRequested at the end of a block during which a signal came, unless the block raised something itself.
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
        if self._asked_at is not None:
            raise ShutdownRequested

    def forget(self) -> None:
        """Restore the default handlers: in a process that user code forks, to load data for example."""
        for number in self._handled:
            if signal.getsignal(number) is self._handler:
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        self._handled = ()

    def _handle_signal(self, number: int, frame: FrameType | None) -> None:
        if self.code is not None:
            self._exit()
        if self._asked_at is None:
            self._asked_at = time.monotonic()
            self._news.put(True)
            if not self._in_hand:
                raise ShutdownRequested
        elif self._insists(number):
            if self._insisted or not self._in_hand:
                self._exit()
            self._insisted = True
            raise ShutdownRequested

    def _insists(self, number: int) -> bool:
        if not self._obeys_insistence or self._asked_at is None or number == getattr(signal, "SIGXCPU", None):
            return False
        if number == signal.SIGINT and _on_a_terminal():
            return True
        if self._known_before and self._heard_at is None:
            self._heard_at = time.monotonic()
            return False
        return time.monotonic() - (self._heard_at or self._asked_at) >= INSIST_SECONDS

    def _watch(self, news: "queue.SimpleQueue[bool]") -> None:
        """In a thread: tell the user what happens, and end the process when the time is over."""
        if hasattr(signal, "pthread_sigmask"):  # a signal must wake the main thread, which may wait for something
            signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        if not news.get():
            return
        limit = self._save_seconds
        if self._in_hand:
            more = f"; Ctrl-C {'' if self._known_before else 'once more '}ends at once" if _on_a_terminal() else ""
            self._say(f"stopping: saving where we are, for {limit:.3g} s at most{more}")
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
                f"interrupted: not saved in {limit:.3g} s; run the same command again to go on from the last commit"
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
            with suppress(Exception):  # its reader is gone, or it is just being written to
                stream.flush()
        os._exit(self._code)


def not_ignored() -> tuple[signal.Signals, ...]:
    """The signals of `STOPPING` that this process does not ignore."""
    return tuple(number for number in STOPPING if signal.getsignal(number) is not signal.SIG_IGN)


def ignore_signals() -> None:
    """Ignore all signals that ask for an end, from now on."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def blocked() -> Iterator[None]:
    """A process that is started in the block begins with these signals blocked, until it calls `Shutdown.listen`.

    A signal reaches every process of a job or a terminal, and would kill one that still imports.
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
    """Let the signals of `STOPPING` through again."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)


def soon(condition: Callable[[], bool]) -> bool:
    """Whether `condition()` is true now or within a moment."""
    end = time.monotonic() + TOGETHER_SECONDS
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(0.01)
    return True


def _on_a_terminal() -> bool:
    return os.isatty(0) or os.isatty(2)


def silent(text: str) -> None:
    """Tell nobody."""


SHUTDOWN = Shutdown()
