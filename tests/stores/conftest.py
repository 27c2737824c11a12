"""An object store, and the command line."""

from support.object_store import object_server, object_store
from support.shell import tuner

__all__ = ["object_server", "object_store", "tuner"]
