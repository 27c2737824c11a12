"""One worker as its coordinator sees it: a process, or the processes of a gang."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from tuner import signals
from tuner.execution.channel import END, STOP, Message, exit_words, line_of, piped
from tuner.execution.fork_server import MATE, WORKER, ForkedWorker, ForkServer, worker_environment
from tuner.execution.gang_store import LOCAL, GangStore
from tuner.execution.launched_ranks import LaunchedRanks, RankLost
from tuner.execution.remote_job import Setup, StudyTask
from tuner.records import Claim
from tuner.training.gang import Spot

READY_SECONDS = 120.0  # time enough to import torch and to read the data on a busy machine
MISSED_SECONDS = 2.0  # within which it is known which rank a signal has ended, that the others miss
END_SECONDS = 5.0  # for a process that was told to end
_MODULES = {WORKER: "tuner.execution.worker_process", MATE: "tuner.execution.gang_process"}


@dataclass(frozen=True, slots=True)
class Ranks:
    """Where the other ranks of a worker's gang are, `Machine.gang` of them with rank 0.

    host: the address of this machine that all of them reach. devices: of the ranks that the coordinator starts itself,
    1, 2, ...; none where somebody else starts them at the `spot` of the handle. launched: they are commands that were
    started together with this one, which cannot start one again.
    """

    host: str = LOCAL
    devices: Sequence[str | None] = ()
    launched: LaunchedRanks | None = None


class WorkerHandle:
    """A worker: the claims it holds, and when it last gave a sign of life.

    It is forked by the fork server, where there is one. A new process can take the place of one that died. Of a gang
    the worker is rank 0; where one of its ranks has died, all of them have, and all are started again.
    """

    def __init__(self, setup: Setup, fork_server: ForkServer | None = None, ranks: Ranks | None = None) -> None:
        self.setup = setup
        self.fork_server = fork_server
        self.ranks = ranks or Ranks()
        self.claims: dict[int, Claim] = {}  # by the trial's number
        self.busy = False
        self.ready = False
        self.moved = time.monotonic()
        self.spot: Spot | None = None
        self._store: GangStore | None = None
        self._mates: list[_Pipes] = []
        self.said: dict[int, str] = {}  # why it ended, as far as a rank has said it itself
        self._ended: RankLost | None = None  # the rank that ended first
        self._start()

    def _start(self) -> None:
        world, launched = self.setup.machine.gang, self.ranks.launched
        self._store = GangStore(world, self.ranks.host) if world > 1 and launched is None else None
        self.spot = None if self._store is None else self._store.spot
        if launched is not None:
            self.spot = launched.started(self.setup)
        self._lead = _Pipes(_started(WORKER, self.setup, self.fork_server))
        self.ready, self.moved, self._ended = False, time.monotonic(), None
        self.said = {}
        self._lead.send(self._setup_of(self.spot).as_json())
        self._mates = []
        for rank, device in enumerate(self.ranks.devices, 1):
            mate = _Pipes(_started(MATE, self.setup, self.fork_server))
            self._mates.append(mate)
            mate.send(self._mates_setup(rank, device).as_json())

    def _setup_of(self, spot: Spot | None) -> Setup:
        return replace(self.setup, spot=None if spot is None else spot.as_json())

    def _mates_setup(self, rank: int, device: str | None) -> Setup:
        """What another rank loads: the same, without the records."""
        machine = replace(self.setup.machine, device=device)
        spot = None if self.spot is None else replace(self.spot, rank=rank)
        return replace(self._setup_of(spot), machine=machine, url="", relay="")

    @property
    def process(self) -> subprocess.Popen[bytes] | ForkedWorker:
        """The process that claims the trials."""
        return self._lead.process

    def restart(self) -> None:
        """Start a new process for one that died; of a gang all of them."""
        self.claims = {}
        self.kill()
        self._close()
        self._start()

    def assign(self, task: StudyTask) -> None:
        """Have it train what is left of a study."""
        self.busy, self.moved = True, time.monotonic()
        self._lead.send(task.as_json())

    @property
    def descriptors(self) -> list[int]:
        """What can be read when it has sent something."""
        return [self._lead.descriptor, *(mate.descriptor for mate in self._mates if not mate.is_read)]

    @property
    def _all(self) -> list["_Pipes"]:
        return [self._lead, *self._mates]

    def messages(self) -> Iterator[Message]:
        """What it has sent since the last call; of the other ranks of a gang, what went wrong."""
        for message in self._lead.messages():
            self.moved = time.monotonic()
            yield message
        for rank, mate in enumerate(self._mates, 1):
            yield from (message | {"rank": rank} for message in mate.messages() if message["is"] == "fault")

    def has_ended(self) -> bool:
        """Whether its process has ended, or one of its gang has that was not told to; the others are ended then."""
        if self._ended is None and self.ranks.launched is not None:
            self._ended = self.ranks.launched.lost()
        if self._ended is None and self._some_ended():
            end = time.monotonic() + MISSED_SECONDS
            while self._mates and self._unexplained() is None and time.monotonic() < end:
                time.sleep(0.01)
            self._ended = self._by_signal() or self._unexplained() or self._first_end()
        if self._ended is not None:
            self.kill()
        return self._ended is not None

    def _some_ended(self) -> bool:
        codes = [mate.process.poll() for mate in self._mates]
        early = not self.ready and 0 in codes  # nobody has told it to end yet
        return self.process.poll() is not None or early or any(codes)

    def _by_signal(self) -> RankLost | None:
        """The rank that a signal has ended."""
        return self._found(_is_signal)

    def _unexplained(self) -> RankLost | None:
        """The rank whose process ended as none ends by itself; the errors of the others follow from that."""
        return self._found(_is_unexplained)

    def _found(self, kind: Callable[[int], bool]) -> RankLost | None:
        codes = ((rank, one.process.poll()) for rank, one in enumerate(self._all))
        return next((self._lost(rank, code) for rank, code in codes if code is not None and kind(code)), None)

    def _first_end(self) -> RankLost:
        """The rank that ended with an error, or else the first one that ended."""
        return self._found(bool) or self._found(lambda code: True) or self._lost(0, 0)

    def _lost(self, rank: int, code: int) -> RankLost:
        who = f"rank {rank} of its gang" if self.setup.machine.gang > 1 else "its worker"
        return RankLost(rank, code, f"{who} {exit_words(code)}")

    @property
    def lost(self) -> RankLost:
        """How it ended, or the rank that the others were ended for."""
        found = self._lost(0, self.process.returncode or 0) if self._ended is None else self._ended
        said = self.said.get(0) or self.said.get(found.rank)
        return replace(found, words=said) if said and not _is_unexplained(found.code) else found

    @property
    def may_restart(self) -> bool:
        """Whether its processes are started here, and not by what has started this command."""
        return self.ranks.launched is None

    def is_stalled(self, seconds: float) -> bool:
        """Whether it has a task and gave no sign of life for so long. Until it is ready it may take longer."""
        return self.busy and time.monotonic() - self.moved > max(seconds, 0.0 if self.ready else READY_SECONDS)

    def ask_to_stop(self) -> None:
        """Have it save and end. A message and not a signal: it may ignore signals, and need not be forked yet."""
        for one in self._all:
            one.send(STOP)

    @property
    def was_told_to_end(self) -> bool:
        """Whether a signal ended it that asks for an end; as it did where it could not save in time."""
        return _asked_for(self.process.returncode if self._ended is None else self._ended.code)

    def kill(self) -> None:
        """End it at once, with its gang, and wait until all are gone."""
        for one in self._all:
            if one.process.poll() is None:
                one.process.kill()
        for one in self._all:
            one.process.wait()

    def end(self) -> None:
        """Tell it that there are no more tasks."""
        for one in self._all:
            one.send(END)

    def close(self) -> None:
        """Wait for the end of one that was told to end; what does not end is killed."""
        end = time.monotonic() + (0.0 if self.busy else END_SECONDS)
        for one in self._all:
            with suppress(subprocess.TimeoutExpired):
                one.process.wait(timeout=max(0.0, end - time.monotonic()))
        self.kill()
        self._close()

    def _close(self) -> None:
        for one in self._all:
            one.close()
        if self._store is not None:
            self._store.close()


class MateHandle:
    """A rank of a gang that follows rank 0, as the command that has started it alone sees it."""

    def __init__(self, setup: Setup, fork_server: ForkServer | None = None) -> None:
        self._pipes = _Pipes(_started(MATE, setup, fork_server))
        self._pipes.send(setup.as_json())

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._pipes.process.poll()

    def faults(self) -> list[Message]:
        """What went wrong since the last call."""
        return [message for message in self._pipes.messages() if message["is"] == "fault"]

    def ask_to_stop(self) -> None:
        """Have it ask rank 0 to save and end."""
        self._pipes.send(STOP)

    def kill(self) -> None:
        """End it at once, and wait until it is gone."""
        if self._pipes.process.poll() is None:
            self._pipes.process.kill()
        self._pipes.process.wait()

    def close(self) -> None:
        """Wait a moment for the end that rank 0 has told it; else kill it."""
        self._pipes.send(END)
        with suppress(subprocess.TimeoutExpired):
            self._pipes.process.wait(timeout=END_SECONDS)
        self.kill()
        self._pipes.close()


class _Pipes:
    """A process that was started with pipes: what it is sent, and what it sends."""

    def __init__(self, process: subprocess.Popen[bytes] | ForkedWorker) -> None:
        self.process = process
        self._rest = b""
        self.is_read = False  # to its end
        os.set_blocking(self.descriptor, False)

    @property
    def descriptor(self) -> int:
        return piped(self.process.stdout).fileno()

    def send(self, message: Message) -> None:
        stdin = piped(self.process.stdin)
        with suppress(BrokenPipeError):  # it died: its end is noticed where all ends are
            stdin.write(line_of(message))
            stdin.flush()

    def messages(self) -> Iterator[Message]:
        """What it has sent since the last call."""
        with suppress(BlockingIOError):
            while piece := os.read(self.descriptor, 65536):
                self._rest += piece
            self.is_read = True
        *lines, self._rest = self._rest.split(b"\n")
        for line in lines:
            yield json.loads(line)

    def close(self) -> None:
        for stream in (self.process.stdin, self.process.stdout):
            with suppress(BrokenPipeError):
                piped(stream).close()


def _is_signal(code: int) -> bool:
    return code < 0 or _asked_for(code)


def _is_unexplained(code: int) -> bool:
    """Whether it is neither 0 nor 1, which processes of ours end with after they have said why."""
    return code not in (0, 1)


def _asked_for(code: int | None) -> bool:
    return code == signals.EXIT_CODE or (code is not None and -code in signals.STOPPING)


def _started(kind: bytes, setup: Setup, fork_server: ForkServer | None) -> subprocess.Popen[bytes] | ForkedWorker:
    """A process that waits for its setup."""
    if fork_server is not None:
        return fork_server.fork(kind)
    with signals.blocked():
        return subprocess.Popen(  # noqa: S603 - our own modules
            [sys.executable, "-m", _MODULES[kind]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=worker_environment(setup.machine.threads),
        )
