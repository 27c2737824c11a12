"""The process of a seat: it coordinates one worker on one study, for an engine that started it on some machine.

It renews the leases of its worker, watches whether that makes progress and replaces it when it dies, as a launcher does
for its own workers. It runs no code of users, and has nothing of the engine's own threads.

Its standard input carries a `SeatOrder`, and later `STOP`. Where it ends, the engine's process has ended, and so do
this one and its worker at once: whoever takes the place of the engine's process needs the resources. Its last message
is {"is": "outcome", "how": ...}: "idle" (nothing was left for it), "stopped", or "fault" with an error.

In a gang whose other ranks the engine starts elsewhere its worker is rank 0. It listens for the others, and says where:
{"is": "spot", ...}. Where any rank ends ({"lost": WHY} says so on its standard input) nothing is replaced here: the
attempt is counted, and the outcome is "died".
"""

import gc
import json
import os
import platform
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from tuner import system
from tuner.errors import Interrupted, TunerError
from tuner.execution.backend import Silent
from tuner.execution.channel import STOP, Channel, exit_words, family_of
from tuner.execution.fork_server import ForkServer, SharedForkServer, worker_environment
from tuner.execution.launched_ranks import RankLost
from tuner.execution.remote_job import Setup, StudyTask, setup_from
from tuner.execution.worker_handle import Ranks, WorkerHandle
from tuner.execution.worker_process import own_input
from tuner.execution.workers import Coordinator
from tuner.logs import escape_logs
from tuner.security import without_password
from tuner.shown import shown_lines
from tuner.signals import SAVE_SECONDS, SHUTDOWN, silent
from tuner.storage.relay import Relay
from tuner.storage.store import open_ledger

IDLE_SECONDS = 60.0  # a seat that holds no trial for so long ends, so that its machine may


@dataclass(frozen=True, slots=True)
class SeatOrder:
    """What a seat is to do. setup, task: for its worker (`remote_job`), as JSON.

    folder: the working directory. study_file: relative to it, or absolute. environment: what is different here than in
    the fork server. fork_server: its name; "" starts workers by themselves. idle_seconds: how long a seat without a
    trial stays. host: of a gang with ranks elsewhere, the address of this machine that they reach; else "".
    """

    setup: dict[str, Any]
    task: dict[str, Any]
    folder: str
    study_file: str
    environment: Mapping[str, str]
    fork_server: str = ""
    idle_seconds: float = IDLE_SECONDS
    host: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def here(self) -> Setup:
        """The setup with the study file as it lies on this machine."""
        return replace(setup_from(self.setup), study_file=Path(self.folder) / self.study_file)


def main() -> None:
    """Coordinate one worker until nothing is left, somebody says stop, or the engine's process has ended."""
    system.end_with_the_parent()
    escape_logs()
    channel, given = Channel(os.dup(1)), own_input()
    os.dup2(2, 1)
    system.after_fork_in_child(SHUTDOWN.forget)
    try:
        SHUTDOWN.listen(silent, save_seconds=SAVE_SECONDS, alone=False)
        line = given.readline()
        if not line:
            return  # who asked for it is gone
        order = SeatOrder(**json.loads(line))
        os.environ.update(order.environment)
        os.chdir(order.folder)
        seat = _OneWorker(order, channel)
        threading.Thread(target=_listen, args=(given, seat), daemon=True).start()
        how = seat.work()
        channel.send("outcome", how=how)
    except (Interrupted, KeyboardInterrupt):
        channel.send("outcome", how="stopped")
    except _SeatLost as error:
        channel.send("outcome", how="died", text=str(error))
    except TunerError as error:
        text = f"on node {platform.node()}: {error}"  # its environment and its disks are not those of the command
        channel.send("outcome", how="fault", kind=family_of(error), name=type(error).__name__, text=text)
    except Exception as error:  # text and never the object: it may not survive the journey
        sys.stderr.write(shown_lines(traceback.format_exc(), ""))
        channel.send("outcome", how="fault", kind="fault", name="", text=f"{type(error).__name__}: {error}")
    gc.freeze()


def _listen(stream: TextIO, seat: "_OneWorker") -> None:
    """Obey STOP; end at once, with the worker, where the stream ends."""
    for line in stream:
        message = json.loads(line)
        if message == STOP:
            SHUTDOWN.tell()
        elif "lost" in message:
            seat.lose(message["lost"])
    seat.kill()
    os._exit(1)


class _SeatLost(TunerError):
    """A rank of the gang has ended: it cannot go on without."""


class _RankZero(WorkerHandle):
    """The worker of a gang whose other ranks are elsewhere: it is not replaced where it ends."""

    why = ""  # another rank has ended, if one has

    @property
    def lost(self) -> RankLost:
        """The rank that ended first."""
        found = super().lost
        seen = f"rank 0 of its gang {exit_words(found.code)}" if found.code else "another rank of its gang is gone"
        return replace(found, words=self.why or seen)

    def restart(self) -> None:
        """Raise _SeatLost: its claims are given back already."""
        self.claims, self.busy = {}, False
        raise _SeatLost(self.lost.words)


class _OneWorker:
    """The worker of a seat, and how long it has held no trial."""

    def __init__(self, order: SeatOrder, channel: Channel) -> None:
        self.order = order
        self.channel = channel
        self.setup = order.here()
        self.worker: WorkerHandle | None = None
        self.busy_at = time.monotonic()

    def work(self) -> str:
        """How it ended: "idle" or "stopped". Raises what the worker raised."""
        task = StudyTask(**self.order.task)
        machine = self.setup.machine
        with open_ledger(self.setup.url, create=False) as ledger:
            row = replace(ledger.study(task.campaign, task.study), created=task.created)
            relay = ledger.relay()
            setup = self.setup if relay is None else _relayed(self.setup, relay)
            self.worker = worker = self._started(setup)
            coordinator = Coordinator(ledger, row, machine, Silent(), [worker])
            try:
                with SHUTDOWN.in_hand(coordinator.give_back):
                    coordinator.work(task, self._ends)
            except Interrupted:
                return "stopped" if SHUTDOWN.is_set() else "idle"
            except BaseException:
                with suppress(Exception):  # where the database is away, its leases end
                    coordinator.cut_short()
                raise
            finally:
                self._close(worker)
                if relay is not None:
                    relay.close()
        return "idle"

    def _started(self, setup: Setup) -> WorkerHandle:
        if not self.order.host:
            return WorkerHandle(setup, self._fork_server())
        worker = _RankZero(setup, self._fork_server(), Ranks(self.order.host))
        if worker.spot is not None:
            self.channel.send("spot", spot=worker.spot.as_json())
        return worker

    def _fork_server(self) -> ForkServer | None:
        """The fork server of this machine, for a worker on the CPU; the context of a GPU does not survive a fork."""
        machine = self.setup.machine
        if not self.order.fork_server or machine.device != "cpu":
            return None
        environment = worker_environment(machine.threads)
        return SharedForkServer(environment, str(self.setup.study_file), self.order.fork_server)

    def _ends(self) -> bool:
        """Whether it was told to end, or has held nothing for so long that it is not needed."""
        worker, now = self.worker, time.monotonic()
        if worker is None or worker.claims or not worker.ready:
            self.busy_at = now
        return SHUTDOWN.is_set() or now - self.busy_at > self.order.idle_seconds

    def _close(self, worker: WorkerHandle) -> None:
        if worker.busy:
            worker.kill()
        worker.end()
        worker.close()

    def lose(self, why: str) -> None:
        """Another rank has ended: so does the worker, and what it holds is given back."""
        if isinstance(self.worker, _RankZero):
            self.worker.why = why
            self.kill()

    def kill(self) -> None:
        """End the worker now, from another thread."""
        if self.worker is not None:
            with suppress(Exception):
                self.worker.process.kill()


def _relayed(setup: Setup, relay: Relay) -> Setup:
    """A worker that shares the connection of its coordinator, and needs no password."""
    return replace(setup, url=without_password(setup.url), relay=str(relay.folder))


if __name__ == "__main__":
    main()
