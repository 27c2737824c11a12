"""The store by which the ranks of a gang meet, as the coordinator of the gang hosts it."""

import ipaddress
import secrets
import socket

from torch._C._distributed_c10d import TCPStore

from tuner import signals
from tuner.training.gang import Spot

LOCAL = "127.0.0.1"


class GangStore:
    """A store of one start of a gang, on one address of this machine; other interfaces do not listen.

    Where all ranks are on this machine that is the loopback. It ends with `close`, and with this process.
    """

    def __init__(self, world: int, host: str = LOCAL) -> None:
        self.world, self.host = world, host
        self.name = f"gang-{secrets.token_hex(8)}"  # so that what another start left cannot be met
        family = socket.AF_INET6 if _is_v6(host) else socket.AF_INET
        with socket.socket(family) as listener:
            listener.bind((host, 0))
            listener.listen(128)
            self.port: int = listener.getsockname()[1]
            with signals.blocked():  # its thread is not the one that hears them
                self._store: TCPStore | None = TCPStore(
                    host, self.port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach()
                )

    @property
    def spot(self) -> Spot:
        """Where rank 0 joins."""
        return Spot(0, self.world, self.host, self.port, self.name)

    def close(self) -> None:
        """Listen no more; ranks that still use it lose it."""
        self._store = None


def _is_v6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:  # a name
        return False
