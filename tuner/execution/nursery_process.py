"""The nursery in its own process: it has imported all that a worker needs, and forks whenever it is asked to."""

import gc
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from types import FrameType

from tuner import signals
from tuner.execution import worker_process
from tuner.execution.ahead import import_ahead


def main() -> None:
    """Fork whenever the coordinator asks, and tell how the workers end, until it is gone."""
    worker_process.die_with_the_parent()
    _import_ahead(sys.argv[1:])
    gc.collect()
    gc.freeze()  # what was imported stays shared
    if _Forks(socket.socket(fileno=os.dup(0))).serve():
        worker_process.main()


def _import_ahead(arguments: list[str]) -> None:
    """Import what the study imports. A package that starts a thread cannot be forked: begin again without."""
    os.dup2(2, 1)  # what it prints is no data
    if arguments and not import_ahead(arguments[0]):
        os.execv(sys.executable, [sys.executable, "-m", "tuner.execution.nursery_process"])  # noqa: S606


class _Forks:
    """The nursery in its own process: the children it has, and where to tell the end of each."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.fates: dict[int, int] = {}  # by process id
        self.bell, self.ringing = os.pipe2(os.O_NONBLOCK)
        signal.set_wakeup_fd(self.ringing)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        for number in signals.heard():
            signal.signal(number, self._pass_on)
        signals.unblock()  # what came while this process was starting met no worker

    def serve(self) -> bool:
        """True in each child, which is to work; False in the nursery, in the end."""
        while True:
            ready, _, _ = select.select([self.channel.fileno(), self.bell], [], [])
            if self.bell in ready:
                self._bury()
            if self.channel.fileno() in ready:
                asked, ends, _, _ = socket.recv_fds(self.channel, 1, 3)
                if not asked:
                    return False
                if self._fork(*ends):
                    return True

    def _fork(self, orders: int, words: int, fate: int) -> bool:
        """Whether this is the child."""
        signal.pthread_sigmask(signal.SIG_BLOCK, signals.STOPPING)  # a child hears them once it knows what to do
        pid = os.fork()
        if pid:
            self.fates[pid] = fate
            signals.unblock()
            self._tell(pid, pid)
            os.close(orders)
            os.close(words)
            return False
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(orders, 0)
        os.dup2(words, 1)
        ours = (self.channel.detach(), self.bell, self.ringing, *self.fates.values())
        for descriptor in (orders, words, fate, *ours):
            os.close(descriptor)
        return True

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        """A signal that asks for an end is for the workers: each saves, and the coordinator hears of it from them."""
        for pid in self.fates:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _bury(self) -> None:
        """Tell of those that ended."""
        os.read(self.bell, 4096)
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = ended
                self._tell(pid, os.waitstatus_to_exitcode(status))
                os.close(self.fates.pop(pid))

    def _tell(self, pid: int, number: int) -> None:
        with suppress(BrokenPipeError):  # nobody wants to know
            os.write(self.fates[pid], b"%d\n" % number)


if __name__ == "__main__":
    main()
