"""A program at work: its lines as they come, how it ended, and its end where that is asked for.

It is started by `command_guard`, a process that kills all of it when this one ends in whatever way.
"""

import os
import selectors
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tuner.shown import one_line, shown

GUARD = Path(__file__).with_name("command_guard.py")
LONGEST_LINE = 1 << 20  # bytes; what is longer is cut, and is output
LONGEST_LOGGED = 4000  # bytes of a line of output that are kept
LOG_BYTES = 4 << 20  # of one log file; there are two, the older one is replaced
LAST_LINES = 12  # of the output, in the reason of a failed trial
READ_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class ProgramEnd:
    """How a program ended: with an exit `code`, by a `signal`, or it could not be started (`missing`: errno)."""

    code: int = 0
    signal: int = 0
    missing: int = 0

    @property
    def words(self) -> str:
        """How it ended, for a message."""
        if self.missing:
            return f"could not be started: {os.strerror(self.missing)}"
        return f"was ended by signal {self.signal} ({_name(self.signal)})" if self.signal else (
            f"ended with exit code {self.code}"
        )  # fmt: skip

    @property
    def is_lost(self) -> bool:
        """Whether a signal ended it, or a program below a shell or launcher, which then says 128 + the number."""
        return bool(self.signal) or self.code in (128 + signal.SIGTERM, 128 + 9, 128 + signal.SIGINT)


def _name(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else "unknown"


class OutputLog:
    """What a program prints besides its reports, one safe line each, in `output.log` and the older `output.1.log`."""

    def __init__(self, folder: Path, *, stays: bool = True) -> None:
        """stays: whether the folder is there when a message is read; that of a first look is not."""
        self.path, self.older = folder / "output.log", folder / "output.1.log"
        self._where = f" ({self.path})" if stays else ""
        self.last: deque[str] = deque(maxlen=LAST_LINES)
        self._file = self.path.open("a", encoding="utf-8")

    def write(self, line: bytes) -> None:
        """Add one line."""
        text = shown(line[:LONGEST_LOGGED].decode("utf-8", "backslashreplace").rstrip("\r\n"))
        if not text:
            return
        self.last.append(text[:400])
        if self._file.tell() + len(text) > LOG_BYTES:
            self._file.close()
            self.path.replace(self.older)
            self._file = self.path.open("w", encoding="utf-8")
        self._file.write(f"{text}\n")

    def flush(self) -> None:
        """Let others read it."""
        self._file.flush()

    def close(self) -> None:
        """Write what is left."""
        self._file.close()

    @property
    def said(self) -> str:
        """The last lines, for a message."""
        if not self.last:
            return f"it printed nothing{self._where}"
        return f"its last output{self._where}: {one_line(' | '.join(self.last))}"


class LineBuffer:
    """Bytes as whole lines; a line that is too long comes cut, in pieces."""

    def __init__(self) -> None:
        self._rest = b""

    def of(self, piece: bytes) -> Iterator[bytes]:
        """The lines that end in this piece."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        yield from lines
        if len(self._rest) > LONGEST_LINE:
            yield self._rest
            self._rest = b""

    def left(self) -> Iterator[bytes]:
        """A last line without its end."""
        if self._rest:
            yield self._rest
            self._rest = b""


class RunningProgram:
    """A program that was started.

    words: the program's absolute path, and its arguments. metrics: the file that it writes its lines to; None: they
    are read from its standard output. log: takes everything that it prints besides.
    """

    def __init__(
        self, words: Sequence[str], folder: Path, environment: Mapping[str, str], metrics: Path | None, log: OutputLog
    ) -> None:
        self.log = log
        self.ended: ProgramEnd | None = None
        self._metrics, self._offset = metrics, 0
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-I", "-S", str(GUARD), str(theirs.fileno()), *words]
        with theirs:
            self._guard = subprocess.Popen(  # noqa: S603 - the command of the study file
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=folder,
                env=dict(environment), pass_fds=[theirs.fileno()], start_new_session=True,
            )  # fmt: skip
        self._life = ours
        self._buffers = {name: LineBuffer() for name in ("out", "error", "life", "metrics")}
        self._open = selectors.DefaultSelector()
        self._streams = {"out": self._guard.stdout, "error": self._guard.stderr}
        for name, stream in self._streams.items():
            if stream is not None:
                os.set_blocking(stream.fileno(), False)
                self._open.register(stream, selectors.EVENT_READ, name)
        self._open.register(ours, selectors.EVENT_READ, "life")

    def lines(self, seconds: float) -> list[bytes]:
        """Wait so long for something to happen; the lines that came where reports are read. Others go to the log."""
        found: list[bytes] = []
        events = self._open.select(seconds)
        ended_before = self.ended is not None
        for key, _ in events:
            found += self._read(key)
        if self.ended is not None and not ended_before:
            found += self._drained()
        found += self._from_file(whole=self.ended is not None)
        self.log.flush()
        return found

    def _read(self, key: selectors.SelectorKey) -> list[bytes]:
        name, descriptor = key.data, key.fd
        try:
            piece = os.read(descriptor, READ_BYTES)
        except BlockingIOError:
            return []
        except OSError:
            piece = b""
        if not piece:
            self._open.unregister(key.fileobj)
            if name == "life":
                self.ended = self.ended or ProgramEnd(signal=int(signal.SIGKILL))  # the guard itself was killed
                return []
            return self._sorted(name, self._buffers[name].left())
        return self._sorted(name, self._buffers[name].of(piece))

    def _sorted(self, name: str, lines: Iterator[bytes]) -> list[bytes]:
        """Those lines that may be reports; the others are output, or say how the program ended."""
        if name == "life":
            for line in lines:
                kind, _, number = line.decode().partition(" ")
                self.ended = ProgramEnd(**{{"exited": "code"}.get(kind, kind): int(number)})
            return []
        if name == "out" and self._metrics is None:
            return list(lines)
        for line in lines:
            self.log.write(line)
        return []

    def _drained(self) -> list[bytes]:
        """What is still in the pipes."""
        found: list[bytes] = []
        while self._open.get_map() and (events := self._open.select(0.0)):
            for key, _ in events:
                found += self._read(key)
        for name in ("out", "error"):
            found += self._sorted(name, self._buffers[name].left())
        return found

    def _from_file(self, *, whole: bool) -> list[bytes]:
        """New lines of the file of metrics; with a last line without its end, where the program has ended."""
        if self._metrics is None:
            return []
        try:
            with self._metrics.open("rb") as file:
                file.seek(self._offset)
                piece = file.read()
        except FileNotFoundError:
            return []
        self._offset += len(piece)
        buffer = self._buffers["metrics"]
        return [*buffer.of(piece), *(buffer.left() if whole else ())]

    def terminate(self) -> None:
        """Ask it to end, by SIGTERM to its process group."""
        self._tell(b"T")

    def _tell(self, word: bytes) -> None:
        try:
            self._life.sendall(word)
        except OSError:  # it has ended
            return

    def close(self) -> None:
        """Kill whatever is left of it, and wait until it is gone."""
        self._tell(b"K")
        self._life.close()
        self._guard.wait()
        self._open.close()
        for stream in self._streams.values():
            if stream is not None:
                stream.close()
