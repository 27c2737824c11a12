"""Buckets of object stores, by obstore: opened late, in the process that uses them, with what the environment says.

obstore begins threads of its own at its first use. A process that is forked from one that used it would wait for these
threads for ever, so it is refused there.
"""

import errno
import hashlib
import importlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from tuner.errors import Paused, StorageError, TunerError
from tuner.security import without_secrets

INSTALL = "pip install 'tuner[objects]'"
AT_ONCE = 64 << 20  # bytes of the largest object that is sent as one request; larger ones are sent in parts
PART = 16 << 20
PARTS_AT_ONCE = 4
REQUEST_SECONDS = 120  # of one request, which carries AT_ONCE bytes at the most
CONNECT_SECONDS = 10
RETRY_SECONDS = 60.0  # a server that is away is asked again for so long; then the command pauses
MOST_RETRIES = 10_000
LONGEST_PAUSE = 5.0  # seconds, between two tries
PROBE_SECONDS = 5.0  # the same before anything is trained
_PREFIX = {"s3": "AWS", "gs": "GOOGLE", "az": "AZURE"}  # of the variables of the environment
_CREDENTIAL_HOSTS = ("169.254.169.254", "169.254.170.2", "metadata.google.internal")  # asked where nothing is set
_KINDS = {  # of the client's errors, by their names: the package is imported late, and raises some of Python's own
    "AlreadyExistsError": "there",
    "FileExistsError": "there",
    "PreconditionError": "there",
    "NotFoundError": "missing",
    "FileNotFoundError": "missing",
    "PermissionDeniedError": "refused",
    "PermissionError": "refused",
    "UnauthenticatedError": "refused",
}
_ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
_URL = re.compile(r"https?://[^/\s]")
_PANIC = "PanicException"  # of the client's Rust, for an error that it did not foresee; no Exception of Python's
_LONGEST = 300  # characters of what the client says
_QUERY = re.compile(r"\?[^\s\"')]*")


@dataclass(frozen=True, slots=True)
class ObjectStat:
    """What is known of an object without reading it; as `os.stat_result`. st_ino: of its content, by its ETag."""

    st_size: int
    st_ino: int
    st_mtime_ns: int


class StoreFault(Paused, OSError):
    """A store that refuses, or does not answer: no trial is to blame. errno: EIO where to ask again may help."""

    def __str__(self) -> str:
        return (
            f"{self.filename}: {self.strerror}; nothing that is committed is lost: mend that, then run the same "
            "command again to continue"
        )


class Bucket:
    """One bucket. Keys are relative to it. address: like s3://bucket. Nothing is opened before the first request.

    retry_seconds: for how long a server that is away is asked again; RETRY_SECONDS where None.
    """

    def __init__(self, address: str, retry_seconds: float | None = None) -> None:
        self.address = address
        self.retry_seconds = RETRY_SECONDS if retry_seconds is None else retry_seconds

    @cached_property
    def _client(self) -> Any:
        # The time alone is the limit. By the client's own base, 2, its pauses do not grow on average: thirty are 15 s.
        backoff = {"base": 3, "max_backoff": timedelta(seconds=LONGEST_PAUSE)}
        wait = timedelta(seconds=self.retry_seconds)
        retries = {"max_retries": MOST_RETRIES, "retry_timeout": wait, "backoff": backoff}
        options = {
            "timeout": timedelta(seconds=REQUEST_SECONDS),
            "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
            "user_agent": "tuner",
            "allow_http": _allows_http(self.address),
        }
        store = importlib.import_module("obstore.store")
        _refuse_strange_endpoint(self.address)
        try:
            with self._told(""):
                return store.from_url(self.address, client_options=options, retry_config=retries)
        except StoreFault as error:  # what the environment says does not do
            raise StoreFault(errno.EINVAL, error.strerror, error.filename) from None

    def found(self, key: str) -> ObjectStat | None:
        """Size and version of an object; None where there is none."""
        try:
            with self._told(key):
                about = _obstore().head(self._client, key)
        except FileNotFoundError:
            return None
        version = f"{about.get('e_tag')} {about.get('version')}".encode()
        mark = int.from_bytes(hashlib.sha256(version).digest()[:7], "big")
        return ObjectStat(int(about["size"]), mark, int(about["last_modified"].timestamp() * 1e9))

    def read(self, key: str) -> bytes:
        """A whole object; a large one by several requests, each of which has to end within REQUEST_SECONDS."""
        with self._told(key):
            answered = _obstore().get(self._client, key)
            size = int(answered.meta["size"])
            if size <= AT_ONCE:
                return bytes(answered.bytes())
            del answered  # its body is not read
            begins = range(0, size, AT_ONCE)
            return b"".join(
                _obstore().get_range(self._client, key, start=begin, end=min(size, begin + AT_ONCE)) for begin in begins
            )

    def names(self, prefix: str) -> Iterator[str]:
        """The keys below a prefix, which ends before a slash."""
        with self._told(prefix):
            for page in _obstore().list(self._client, prefix=prefix or None):
                yield from (str(one["path"]) for one in page)

    def create(self, key: str, file: Path) -> None:
        """Send a file as a new object, which is there whole and durably when this returns.

        Raises FileExistsError where there is one: nothing is ever overwritten.
        """
        if file.stat().st_size <= AT_ONCE:
            self.create_from(key, file.read_bytes())
            return
        if self.found(key) is not None:  # requests in parts have no condition; the fence in the name is the other one
            raise FileExistsError(errno.EEXIST, "there is an object", f"{self.address}/{key}")
        self._send(key, file)

    def create_from(self, key: str, content: bytes) -> None:
        """The same of bytes in memory, by one request."""
        with self._sent(key):
            _obstore().put(self._client, key, content, mode="create")

    def replace(self, key: str, content: bytes | Path) -> None:
        """Write an object, or put it in the place of the one that is there, in one step."""
        if isinstance(content, Path) and content.stat().st_size > AT_ONCE:
            self._send(key, content)
            return
        with self._sent(key):
            whole = content.read_bytes() if isinstance(content, Path) else content
            _obstore().put(self._client, key, whole, use_multipart=False)

    def _send(self, key: str, file: Path) -> None:
        with self._sent(key):
            _obstore().put(self._client, key, file, chunk_size=PART, max_concurrency=PARTS_AT_ONCE)

    def remove(self, keys: Sequence[str]) -> None:
        """Delete objects; those that are not there are no error."""
        for begin in range(0, len(keys), 1000):
            try:
                with self._told(keys[begin]):
                    _obstore().delete(self._client, list(keys[begin : begin + 1000]))
            except FileNotFoundError:
                self._remove_those_there(keys[begin : begin + 1000])

    def _remove_those_there(self, keys: Sequence[str]) -> None:
        """One after the other: some stores end a request at the first key that is missing."""
        for key in keys:
            try:
                with self._told(key):
                    _obstore().delete(self._client, key)
            except FileNotFoundError:
                continue

    def move(self, key: str, target: str) -> None:
        with self._told(key):
            _obstore().copy(self._client, key, target)
        self.remove([key])

    def missing(self, key: str) -> FileNotFoundError:
        return FileNotFoundError(errno.ENOENT, "no such object", f"{self.address}/{key}")

    @contextmanager
    def _sent(self, key: str) -> Iterator[None]:
        """As `_told`; what is missing is the bucket."""
        try:
            with self._told(key):
                yield
        except FileNotFoundError as error:
            raise StoreFault(errno.EINVAL, "there is no such bucket", error.filename) from None

    @contextmanager
    def _told(self, key: str) -> Iterator[None]:
        """What the client raises, as the errors that a filesystem has, and without anything secret in it."""
        where = f"{self.address}/{key}".rstrip("/")
        try:
            yield
        except BaseException as error:
            if not isinstance(error, Exception) and type(error).__name__ != _PANIC:
                raise
            raised = _as_ours(error, where)
            if raised is None:
                raise
            raise raised from None


def _as_ours(error: BaseException, where: str) -> OSError | None:
    """An error of obstore's as one that a filesystem has, or as a fault of the store; None for what is not obstore's.

    Those of Python's own classes have neither a number nor a file's name there.
    """
    if isinstance(error, TunerError) or (isinstance(error, OSError) and error.errno is not None):
        return None
    kind = _KINDS.get(type(error).__name__, "")
    if kind == "there":
        return FileExistsError(errno.EEXIST, "there is an object", where)
    words = _words_of(error)
    if kind == "missing" and "NoSuchBucket" not in words:
        return FileNotFoundError(errno.ENOENT, "no such object", where)
    if kind == "refused":
        return StoreFault(errno.EACCES, f"the store refuses: {words}", where)
    if any(host in str(error) for host in _CREDENTIAL_HOSTS):
        return StoreFault(
            errno.EACCES, f"nothing in the environment says who asks, nor does the machine: {words}", where
        )
    refused = re.match(r"4\d\d ", words) is not None and not words.startswith(("408", "429"))
    hopeless = refused or kind == "missing" or "builder error" in words or type(error).__name__ == _PANIC
    number = errno.EINVAL if hopeless else errno.EIO
    return StoreFault(number, f"the store {'refuses' if refused else 'does not answer as it should'}: {words}", where)


_opened: dict[str, Bucket] = {}
_used_by: list[int] = []  # the process that used obstore


def bucket_at(address: str) -> Bucket:
    """The bucket of an address like s3://bucket, the same one in all of a process."""
    return _opened.setdefault(address, Bucket(address))


def _obstore() -> Any:
    """The package, in a process that may use it. Raises StorageError where it is missing, and after a fork."""
    if not _used_by:
        _used_by.append(os.getpid())
    if _used_by[0] != os.getpid():
        raise StorageError(
            f"checkpoints in an object store were read or written by process {_used_by[0]}, and this one was forked "
            "from it: their client hangs in a forked process; read and write them in the process that trains, and "
            "start others by multiprocessing's 'spawn'"
        )
    try:
        return importlib.import_module("obstore")
    except ImportError as error:
        raise StorageError(f"checkpoints in an object store need obstore ({error}): {INSTALL}") from error


def _refuse_strange_endpoint(address: str) -> None:
    """Raise StoreFault where the environment names a server by what is no URL: the client ends in a panic by it."""
    for variable in _ENDPOINTS[address.partition(":")[0]]:
        if not _URL.match(os.environ.get(variable, "http://none")):  # not repeated: it may hold a password
            words = f"{variable} must begin with https:// or http:// and name a server, like https://host:9000"
            raise StoreFault(errno.EINVAL, words, address)


def _allows_http(address: str) -> bool:
    """Whether the environment allows an endpoint without encryption, which the client is not told by it alone."""
    variable = f"{_PREFIX[address.partition(':')[0]]}_ALLOW_HTTP"
    return os.environ.get(variable, "").lower() in ("1", "true", "yes", "on")


def _words_of(error: BaseException) -> str:
    """What went wrong, in one line: what the server says, or else the client's first line.

    An address stands there without what follows a question mark, which may be a token.
    """
    text = str(error)
    status = re.search(r"status code: (\d+ [A-Za-z ]+)", text)
    told = [found[1] for name in ("Code", "Message") if (found := re.search(f"<{name}>(.*?)</{name}>", text))]
    if status is not None:
        return _shortened(": ".join([status[1].strip(), *told]))
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(error).__name__]
    words = without_secrets(_QUERY.sub("?...", lines[0]))
    if words.endswith("builder error") and "http://" in words:
        words += "; an endpoint that begins with http:// needs AWS_ALLOW_HTTP=true in the environment"
    return _shortened(words)


def _shortened(words: str) -> str:
    return words if len(words) <= _LONGEST else f"{words[:_LONGEST]}..."
