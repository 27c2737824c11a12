"""Waiting for as long as something moves: how fast a machine is decides no test."""

import subprocess
import time

STILL = 600.0  # seconds in which nothing moved at all: it hangs
MOVED = b".\n"  # what a program writes for who waits, when it has done something


class Patience:
    """Ends when what is watched has not changed for `STILL` seconds; `moves` returns what is watched."""

    def __init__(self, moves=lambda: None):
        self.moves = moves
        self.renew()

    def renew(self):
        self.seen, self.end = self.moves(), time.monotonic() + STILL

    def left(self):
        """Seconds until it ends, if nothing moves; AssertionError once it has ended."""
        if self.moves() != self.seen:
            self.renew()
        left = self.end - time.monotonic()
        assert left > 0, "nothing has moved for ten minutes"
        return left


def wait_for(condition, *, alive=(), moves=lambda: None):
    """Wait until the condition is true, while the processes of `alive` live; `moves`: as of Patience."""
    patience = Patience(moves)
    while not condition():
        for process in alive:
            assert process.poll() is None, process.communicate()[1]
        patience.left()
        time.sleep(0.01)


def all_said(process, moves=lambda: None):
    """What a process says on stdout and on stderr until it ends."""
    patience = Patience(moves)
    while True:
        try:
            return process.communicate(timeout=min(5.0, patience.left()))
        except subprocess.TimeoutExpired:
            continue  # nothing of what it said is lost
