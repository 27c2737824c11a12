"""The fork server's own process: it imports all that a worker needs, and forks whenever it is asked to.

Only installed packages are imported here, as torch's own data loaders fork after their import. The study itself, and
all own code that it imports, runs in each worker, which sees what it loads.
"""

import ast
import gc
import importlib
import importlib.util
import os
import select
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType

from tuner import signals, system
from tuner.execution import gang_process, seat_process, worker_process
from tuner.execution.fork_server import LISTENER, MATE, SEAT
from tuner.execution.shipping import sweep
from tuner.sources.places import kind_of

_TASKS = Path("/proc/self/task")  # a folder for each thread
LONELY_SECONDS = 10.0  # a fork server that listens ends, when nobody has been connected for so long
_MODULE = "tuner.execution.fork_server_process"


def main() -> None:
    """Fork whenever a coordinator asks, and report how the workers end, until it is gone.

    Arguments: [--listen PLACE] [STUDY_FILE]. With a place it serves all who connect there, in a session of its own;
    else the one whose socket is its standard input, with which it ends.
    """
    listens, arguments = sys.argv[1:2] == ["--listen"], sys.argv[1:]
    if listens:
        place, arguments = Path(arguments[1]), arguments[2:]
        listener = _inherited()
        _import_packages(arguments, ["--listen", str(place)], listener)
        server = _ForkServer([], listener)
    else:
        system.end_with_the_parent()
        _import_packages(arguments, [])
        server = _ForkServer([socket.socket(fileno=os.dup(0))])
    gc.collect()
    gc.freeze()  # what was imported stays shared
    kind = server.serve()
    if kind == SEAT:
        seat_process.main()
    elif kind == MATE:
        gang_process.main()
    elif kind:
        worker_process.main()
    elif listens:
        place.unlink(missing_ok=True)
        sweep(place.parent)


def _inherited() -> socket.socket:
    """The listener of who started this process; of itself, before it began again."""
    listener = socket.socket(fileno=int(os.environ.pop(LISTENER)))
    listener.set_inheritable(False)
    return listener


def _import_packages(arguments: list[str], again: list[str], listener: socket.socket | None = None) -> None:
    """Import what the study imports. A package that starts a thread cannot be forked: begin again without."""
    os.dup2(2, 1)  # what it prints is no data
    if arguments and not import_packages(arguments[0]):
        if listener is not None:
            os.environ[LISTENER] = str(listener.fileno())
            os.set_inheritable(listener.fileno(), True)
        os.execv(sys.executable, [sys.executable, "-m", _MODULE, *again])  # noqa: S606


def import_packages(study_file: str) -> bool:
    """Import what the first level of a study file imports. Returns whether no thread was started.

    A module that cannot be read or imported is left to the worker, which reports it. A module beside the study file is
    not imported: it hides an installed package of the same name.
    """
    before = _threads()
    path = Path(study_file)
    for name in imported_names(path):
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names or (path.parent / top).exists() or (path.parent / f"{top}.py").exists():
            continue
        with suppress(Exception, SystemExit):
            if _is_installed(top):
                importlib.import_module(name)
    return _threads() == before


def _is_installed(top: str) -> bool:
    spec = importlib.util.find_spec(top)
    return spec is not None and spec.origin is not None and kind_of(Path(spec.origin)) != "own"


def imported_names(path: Path) -> Iterator[str]:
    """Modules that the first level of a Python file imports, in its order; none where it is no Python file."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            yield node.module


def _threads() -> int:
    return len(os.listdir(_TASKS)) if _TASKS.exists() else 0


class _ForkServer:
    """The children of this process, and where the outcome of each is reported."""

    def __init__(self, connections: list[socket.socket], listener: socket.socket | None = None) -> None:
        self.connections = connections
        self.listener = listener
        self.outcomes: dict[int, int] = {}  # by process id
        self.wakeup, self.wakeup_end = os.pipe2(os.O_NONBLOCK)
        signal.set_wakeup_fd(self.wakeup_end)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        for number in signals.not_ignored():
            signal.signal(number, self._pass_on)
        signals.unblock()  # a signal that came before met no worker

    def serve(self) -> bytes:
        """In each child, what it is to become; nothing in the fork server, in the end."""
        while self.connections or self.listener is not None:
            watched: list[socket.socket | int] = [self.wakeup, *self.connections]
            if self.listener is not None:
                watched.append(self.listener)
            ready, _, _ = select.select(watched, [], [], None if self.connections else LONELY_SECONDS)
            if not ready and not self.connections:
                return b""
            if self.wakeup in ready:
                self._report_ended()
            if self.listener is not None and self.listener in ready:
                self.connections.append(self.listener.accept()[0])
            for connection in [one for one in self.connections if one in ready]:
                kind = self._asked_by(connection)
                if kind:
                    return kind
        return b""

    def _asked_by(self, connection: socket.socket) -> bytes:
        """Fork as a coordinator asks; in the child, what it is to become. One that is gone is forgotten."""
        try:
            asked, ends, _, _ = socket.recv_fds(connection, 1, 3)
        except ConnectionError:
            asked, ends = b"", []
        if len(ends) < 3:
            connection.close()
            self.connections.remove(connection)
            return b""
        return asked if self._fork(*ends) else b""

    def _fork(self, tasks: int, messages: int, outcome: int) -> bool:
        """Whether this is the child."""
        signal.pthread_sigmask(signal.SIG_BLOCK, signals.STOPPING)  # a child gets them once it has its setup
        pid = os.fork()
        if pid:
            self.outcomes[pid] = outcome
            signals.unblock()
            self._report(pid, pid)
            os.close(tasks)
            os.close(messages)
            return False
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(tasks, 0)
        os.dup2(messages, 1)
        sockets = [*self.connections, *([] if self.listener is None else [self.listener])]
        ours = (*(one.detach() for one in sockets), self.wakeup, self.wakeup_end, *self.outcomes.values())
        for descriptor in (tasks, messages, outcome, *ours):
            os.close(descriptor)
        return True

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        """A signal that asks for an end is for the workers: each saves, and reports that to the coordinator."""
        for pid in self.outcomes:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _report_ended(self) -> None:
        """Report the children that ended."""
        os.read(self.wakeup, 4096)
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = ended
                self._report(pid, os.waitstatus_to_exitcode(status))
                os.close(self.outcomes.pop(pid))

    def _report(self, pid: int, number: int) -> None:
        with suppress(BrokenPipeError):  # the coordinator does not read it any more
            os.write(self.outcomes[pid], b"%d\n" % number)


if __name__ == "__main__":
    main()
