"""Where a checkpoint lies: a path of a filesystem, or an object in a bucket (`s3://bucket/place/name`).

`ObjectPath` has those methods of pathlib's `Path` that reading, listing and deleting need, so who does that need not
know which of the two it has. What is written differs, and is in `stores.writing`. A key has no folders: they are what
stands before a slash.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tuner.errors import InputError
from tuner.stores.buckets import Bucket, ObjectStat, bucket_at

SCHEMES = ("s3", "gs", "az")
OWNER_FILE = ".tuner-storage.json"  # in a place of checkpoints: which storage they belong to
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/{1,2}(.*)", re.DOTALL)  # one slash: pathlib makes one of two
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
_PART = re.compile(r"[A-Za-z0-9._=+-]+")
_OF_SECRETS = "@?#:%"  # who has these signs in an address may have written a password into it
_KNOWN = ", ".join(f"{scheme}://" for scheme in SCHEMES)


@dataclass(frozen=True, slots=True, order=True)
class ObjectPath:
    """An object, or what lies before a slash in the keys of several. bucket: like s3://bucket; key: without a slash
    at its ends.

    Methods raise what those of `Path` raise: FileNotFoundError for what is missing, PermissionError, and OSError for a
    server that does not answer; StorageError without the package for it.
    """

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{self.bucket}/{self.key}"

    def __truediv__(self, name: str | PurePosixPath) -> "ObjectPath":
        return ObjectPath(self.bucket, f"{self.key}/{name}" if self.key else str(name))

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]

    @property
    def parent(self) -> "ObjectPath":
        return ObjectPath(self.bucket, self.key.rpartition("/")[0])

    @property
    def store(self) -> Bucket:
        """The open bucket, of this process."""
        return bucket_at(self.bucket)

    def resolve(self) -> "ObjectPath":
        """The same without "." and ".." in it; what leads out of the bucket is the bucket."""
        parts: list[str] = []
        for part in self.key.split("/"):
            if part == "..":
                parts = parts[:-1]
            elif part not in ("", "."):
                parts.append(part)
        return ObjectPath(self.bucket, "/".join(parts))

    def is_relative_to(self, other: "StoredPath") -> bool:
        if not isinstance(other, ObjectPath) or other.bucket != self.bucket:
            return False
        return not other.key or self.key == other.key or self.key.startswith(f"{other.key}/")

    def relative_to(self, other: "StoredPath") -> PurePosixPath:
        if not self.is_relative_to(other) or not isinstance(other, ObjectPath):
            raise ValueError(f"{self} is not below {other}")
        return PurePosixPath(self.key[len(other.key) :].lstrip("/"))

    def is_symlink(self) -> bool:
        return False

    def is_file(self) -> bool:
        return self.store.found(self.key) is not None

    def is_dir(self) -> bool:
        """Whether anything lies below."""
        return next(iter(self.below()), None) is not None

    def exists(self) -> bool:
        return self.is_file() or self.is_dir()

    def stat(self) -> ObjectStat:
        found = self.store.found(self.key)
        if found is None:
            raise self.store.missing(self.key)
        return found

    def read_bytes(self) -> bytes:
        return self.store.read(self.key)

    def unlink(self, missing_ok: bool = False) -> None:
        if not missing_ok:
            self.stat()
        self.store.remove([self.key])

    def rename(self, target: "ObjectPath") -> None:
        """A copy, and then the deletion: stores know no other way."""
        self.store.move(self.key, target.key)

    def below(self) -> Iterator["ObjectPath"]:
        """Every object below, of however many pages the list has."""
        for key in self.store.names(self.key):
            yield ObjectPath(self.bucket, key)


StoredPath = Path | ObjectPath


def is_address(text: str) -> bool:
    """Whether this names a bucket, or is meant to, and no folder."""
    found = _ADDRESS.match(text)
    return found is not None and ("://" in text or found[1] in SCHEMES)


def parsed_root(given: "str | StoredPath") -> StoredPath:
    """The place of checkpoints that a text names: a folder, or s3://bucket/place (also gs://, az://).

    Raises InputError for an address that is not understood, or holds a secret, which is not repeated.
    """
    if isinstance(given, ObjectPath):
        return given
    text = str(given)
    if not is_address(text):
        return Path(given)
    found = _ADDRESS.match(text)
    scheme, rest = (found[1].lower(), found[2]) if found else ("", "")
    if any(sign in rest for sign in _OF_SECRETS):
        raise InputError(
            f'an address of checkpoints is {scheme or "s3"}://bucket/place, without "@", "?", "#", ":" and "%", and is '
            "kept in the records: what identifies you comes from the environment (AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY; GOOGLE_APPLICATION_CREDENTIALS; AZURE_STORAGE_ACCOUNT_NAME and "
            "AZURE_STORAGE_ACCOUNT_KEY)"
        )
    if scheme not in SCHEMES:
        raise InputError(f"--checkpoints {scheme}://... is not known: name a folder, or an address with {_KNOWN}")
    bucket, _, place = rest.partition("/")
    parts = [part for part in place.split("/") if part]
    if not _BUCKET.fullmatch(bucket) or not parts:
        raise InputError(f"--checkpoints {text}: an address is {scheme}://BUCKET/PLACE, with a place in the bucket")
    strange = [part for part in parts if not _PART.fullmatch(part) or part in (".", "..")]
    if strange:
        raise InputError(
            f"--checkpoints {text}: {strange[0]!r} is no part of a place: letters, digits and . _ = + - are"
        )
    return ObjectPath(f"{scheme}://{bucket}", "/".join(parts))


def root_beside(folder: Path, kept: str) -> StoredPath:
    """A place of checkpoints as a storage keeps it: an address, or a folder relative to that of its file."""
    return parsed_root(kept) if is_address(kept) else folder / kept


def lies_below(path: StoredPath, root: StoredPath) -> bool:
    """Whether a path stays below another, links followed; both folders, or both in one bucket."""
    whole, base = path.resolve(), root.resolve()
    if isinstance(whole, ObjectPath) or isinstance(base, ObjectPath):
        return isinstance(whole, ObjectPath) and whole.is_relative_to(base)
    return whole.is_relative_to(base)


def name_below(path: StoredPath, root: StoredPath) -> str:
    """The path relative to another above it, with slashes. Raises ValueError where that is not above it."""
    if isinstance(path, ObjectPath) or isinstance(root, ObjectPath):
        if not isinstance(path, ObjectPath):
            raise ValueError(f"{path} is not below {root}")
        return str(path.relative_to(root))
    return path.relative_to(root).as_posix()


def files_below(folder: StoredPath) -> list[StoredPath]:
    """Every file below a folder, links too, which are not followed; nothing where the folder is not there."""
    if isinstance(folder, ObjectPath):
        return sorted(folder.below())
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.rglob("*") if path.is_file() or path.is_symlink())


def files_in(folder: StoredPath) -> Iterator[StoredPath]:
    """The files right in a folder, in no order; nothing where it is not there."""
    if isinstance(folder, ObjectPath):
        yield from (path for path in folder.below() if path.parent == folder)
    elif folder.is_dir():
        yield from folder.iterdir()


def sha256_of(path: StoredPath) -> str:
    """The sha256 of a file. Raises OSError."""
    if isinstance(path, ObjectPath):
        return hashlib.sha256(path.read_bytes()).hexdigest()
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
