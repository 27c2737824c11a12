"""The command line as a fixture, a fork server that several tests use, and a Ray cluster with a database server."""

import os
import signal

import pytest
from support.ray_studies import cluster, server, url
from support.shell import tuner

from tuner.execution.fork_server import ForkServer, worker_environment

__all__ = ["cluster", "server", "tuner", "url"]


class Kept(ForkServer):
    """A fork server that outlives the workers of a test: importing torch once is enough for all of them.

    Each hears of Ctrl-C as soon as it is there, as all processes of a terminal do.
    """

    def open(self):
        known = self._process
        channel = super().open()
        if self._process is not known:
            self._process.send_signal(signal.SIGINT)
        return channel

    def close(self):
        if self._process is None or self._process.poll() is not None:
            super().close()

    @property
    def pid(self):
        return self._process and self._process.pid


@pytest.fixture(scope="module")
def fork_server():
    kept = Kept(worker_environment(1), os.devnull)  # of no one study: it imports torch
    yield kept
    ForkServer.close(kept)
