"""A door to a server, which may be shut; of PostgreSQL's it may drop the answer to a COMMIT: done, and nobody hears."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress


class Proxy:
    """Passes on what is asked and answered, but for the answers to the commits that are to be dropped.

    `every`: of so many commits one is dropped, the first of them at once; 0: only those that `drop_next` asks for.
    `at`: the port of the door itself; 0: a free one.
    """

    def __init__(self, port: int, every: int = 0, at: int = 0) -> None:
        self.target = port
        self.every = every
        self.commits = 0
        self.dropped = 0
        self.armed = False
        self.listener = socket.create_server(("127.0.0.1", at))
        self.port = self.listener.getsockname()[1]
        self.sockets = [self.listener]
        self.threads: list[threading.Thread] = []
        self._start(self._accept)

    def drop_next(self) -> None:
        """Drop the answer to the next commit."""
        self.armed = True

    def close(self) -> None:
        for one in self.sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(5.0)
        for one in self.sockets:
            one.close()

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        self.threads.append(threading.Thread(target=target, args=arguments, daemon=True))
        self.threads[-1].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            with suppress(OSError):
                target = socket.create_connection(("127.0.0.1", self.target))
                self.sockets += [client, target]
                deaf = threading.Event()
                self._start(self._pass_questions, client, target, deaf)
                self._start(self._pass_answers, target, client, deaf)
                continue
            client.close()

    def _pass_questions(self, client: socket.socket, target: socket.socket, deaf: threading.Event) -> None:
        while piece := _received(client):
            if b"COMMIT" in piece and self._is_unlucky():
                deaf.set()
            with suppress(OSError):
                target.sendall(piece)
        _hang_up(target)

    def _is_unlucky(self) -> bool:
        unlucky = self.armed or (self.every > 0 and self.commits % self.every == 0)
        self.commits += 1
        self.dropped += unlucky
        self.armed = False
        return unlucky

    def _pass_answers(self, target: socket.socket, client: socket.socket, deaf: threading.Event) -> None:
        while piece := _received(target):
            if deaf.is_set():
                break
            with suppress(OSError):
                client.sendall(piece)
        _hang_up(client)
        _hang_up(target)


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except OSError:
        return b""


def _hang_up(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
