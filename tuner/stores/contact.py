"""The first contact with a place in a bucket: one clear error before anything is trained, and not one in its middle."""

import errno
import secrets
from contextlib import suppress

from tuner.errors import Paused, StorageError
from tuner.stores.buckets import PROBE_SECONDS, Bucket, StoreFault
from tuner.stores.places import ObjectPath, StoredPath

PROBE = ".tuner-probe"
STALE_SECONDS = 600  # a probe that is older belongs to nobody
_SETTINGS = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION; of another server than Amazon's AWS_ENDPOINT_URL",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY",
}
_met: set[str] = set()  # buckets that have answered in this process


def ensure_reachable(root: StoredPath) -> None:
    """Ask the store of a place for a list, once in a process; of a folder nothing.

    Raises StorageError where it refuses, or has no such bucket, Paused where it does not answer.
    """
    if isinstance(root, ObjectPath) and root.bucket not in _met:
        try:
            next(Bucket(root.bucket, PROBE_SECONDS).names(root.key), None)
        except StoreFault as error:
            raise _refused(root, error, "read") from None
        _met.add(root.bucket)


def check_writable(root: StoredPath) -> None:
    """Write an object, see that a second one cannot take its place, read and delete it; of a folder nothing.

    Raises StorageError, Paused.
    """
    if not isinstance(root, ObjectPath):
        return
    bucket, key, content = Bucket(root.bucket, PROBE_SECONDS), f"{root.key}/{PROBE}/{secrets.token_hex(8)}", b"tuner"
    try:
        bucket.create_from(key, content)
        again = _is_refused_again(bucket, key, content)
        whole = bucket.read(key) == content
        bucket.remove([key, *_left_by_others(bucket, root, key)])
    except StoreFault as error:
        raise _refused(root, error, "read, written and deleted") from None
    except OSError as error:
        raise StorageError(f"{root}: an object that was just written is not there ({error}); is it a cache?") from None
    if not again or not whole:
        raise StorageError(
            f"the server of {root} overwrites objects that are there, although asked not to (If-None-Match: *), so two "
            "commands could take each other's files for their own; use a newer version of the server, or name a folder "
            "with --checkpoints FOLDER"
        )


def _left_by_others(bucket: Bucket, root: ObjectPath, own: str) -> list[str]:
    """Probes of commands that were killed within theirs: much older than our own, by the clock of the store."""
    now = bucket.found(own)
    others = {key: bucket.found(key) for key in bucket.names(f"{root.key}/{PROBE}") if key != own}
    return [
        key for key, one in others.items() if now and one and now.st_mtime_ns - one.st_mtime_ns > STALE_SECONDS * 1e9
    ]


def _is_refused_again(bucket: Bucket, key: str, content: bytes) -> bool:
    with suppress(FileExistsError):
        bucket.create_from(key, content)
        return False
    return True


def _refused(root: ObjectPath, error: StoreFault, what: str) -> StorageError | Paused:
    told = f"the checkpoints' place {root} cannot be {what}: {error.strerror}"
    if error.errno == errno.EIO:
        return Paused(f"{told}; when the network and the server are there again, run the same command again")
    scheme = root.bucket.partition(":")[0]
    return StorageError(
        f"{told}; see that the bucket exists and may be written, and that the environment says who you are "
        f"({_SETTINGS[scheme]}), or name another place with --checkpoints"
    )
