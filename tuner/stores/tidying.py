"""Deleting objects while training goes on, which does not wait for it: what stays is deleted by the next sweep."""

import logging
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor

from tuner.stores.buckets import PROBE_SECONDS, Bucket
from tuner.stores.places import ObjectPath, StoredPath

_log = logging.getLogger(__name__)
_threads: list[ThreadPoolExecutor] = []  # one, once there is something to delete
_last: list[Future[None]] = []


def remove(root: StoredPath, names: Collection[str]) -> None:
    """Delete files below a root: those of a folder at once, objects soon. Nothing else may be named so later on.

    Raises OSError for a folder.
    """
    if not isinstance(root, ObjectPath):
        for name in names:
            (root / name).unlink(missing_ok=True)
    elif names:
        if not _threads:
            _threads.append(ThreadPoolExecutor(1, "tuner deletes"))
        _last[:] = [_threads[0].submit(_remove, root.bucket, [f"{root.key}/{name}" for name in sorted(names)])]


def wait() -> None:
    """Wait until all is deleted that was asked for."""
    for one in _last:
        one.result()


def _remove(address: str, keys: list[str]) -> None:
    try:
        Bucket(address, PROBE_SECONDS).remove(keys)
    except Exception as error:  # it costs room, and no trial
        _log.warning("cannot delete %d objects of %s, which nothing needs any more: %s", len(keys), address, error)
