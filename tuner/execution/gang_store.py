"""Stores by which the ranks of a gang meet, hosted here: on one address, and no other interface listens."""

import secrets
import socket
from datetime import timedelta

from torch._C._distributed_c10d import TCPStore

from tuner import signals
from tuner.training.gang import Spot

LOCAL = "127.0.0.1"
ASKING_SECONDS = 300.0  # torch's own: an answer of the store may take so long


def hosted_store(host: str, port: int = 0) -> tuple[TCPStore, int]:
    """A store at this address of this machine, and its port: a free one where it is 0. Raises OSError."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
        port = listener.getsockname()[1]
        with signals.blocked():  # its thread is not the one that hears them
            store = TCPStore(
                host, port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach(),
                timeout=timedelta(seconds=ASKING_SECONDS),
            )  # fmt: skip
    return store, port


class GangStore:
    """The store of one start of a gang, as its coordinator hosts it.

    Where all ranks are on this machine it listens on the loopback. It ends with `close`, and with this process.
    """

    def __init__(self, world: int, host: str = LOCAL) -> None:
        self.world, self.host = world, host
        self.name = f"gang-{secrets.token_hex(8)}"  # so that what another start left cannot be met
        self._store: TCPStore | None
        self._store, self.port = hosted_store(host)

    @property
    def spot(self) -> Spot:
        """Where rank 0 joins."""
        return Spot(0, self.world, self.host, self.port, self.name)

    def close(self) -> None:
        """Listen no more; ranks that still use it lose it."""
        self._store = None
