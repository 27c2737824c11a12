"""A checkpoint folder belongs to one storage: who may write and delete in it, and who is refused.

Every command that trains or deletes asks `allowed_folder` before it writes anything, and calls `claimed_folder` before
its first write. Commands that read take `folder_to_read`, and claim nothing.
"""

import enum
import logging
import shlex
from dataclasses import dataclass
from pathlib import Path

from tuner.errors import StorageError
from tuner.security import plain_name
from tuner.storage.folder_files import Contents, checkpoint_names, sorted_out
from tuner.storage.identity import StorageIdentity, StorageSite
from tuner.storage.neighbours import original_of, others_that_name
from tuner.storage.owner_file import Owner, folder_key, owner_or_none, read_owner, write_owner
from tuner.storage.store import Ledger
from tuner.stores.contact import check_writable
from tuner.stores.places import StoredPath, parsed_root, root_beside

_log = logging.getLogger(__name__)
DEFAULT = "checkpoints"
ADOPT = "tuner adopt-storage"


class Standing(enum.Enum):
    """What a storage and a folder are to each other. The first four may be claimed."""

    OURS = "ours"
    FREE = "nobody's, and without checkpoints"
    EARLIER = "from before folders had owners; our records name its files"
    APART = "a copy of the folder, beside a copy of the storage: both become a storage of their own"
    TAKEN = "another storage's"
    COPY = "the storage is a copy"
    OLDER = "the folder has later files than the storage knows"
    UNCLEAR = "from before folders had owners, and not ours alone"


_CLAIMABLE = (Standing.OURS, Standing.FREE, Standing.EARLIER, Standing.APART)


@dataclass(frozen=True, slots=True)
class Look:
    """What was found in a folder, without writing anything; `text`: why it may not be claimed, and what to do."""

    root: StoredPath
    standing: Standing
    owner: Owner | None = None
    text: str = ""

    def refuse(self) -> None:
        """Raise StorageError unless the folder may be claimed."""
        if self.standing not in _CLAIMABLE:
            raise StorageError(self.text)


def folder_to_read(ledger: Ledger, given: StoredPath | None) -> StoredPath:
    """The checkpoint folder for who only reads: the one given, the one chosen at the first launch, or the default.

    Raises StorageError for a server without a given folder.
    """
    if given is not None:
        return given
    here = ledger.identity()
    names = _default_names(ledger, here)
    owners = [(root, owner_or_none(root)) for root in names]
    ours = (root for root, owner in owners if owner and here and owner.identity == here.identity)
    return next(ours, names[0])


def allowed_folder(ledger: Ledger, given: StoredPath | None) -> StoredPath:
    """The folder that `claimed_folder` would claim. Writes nothing. Raises StorageError where it would be refused."""
    found = _chosen(ledger, given)
    found.refuse()
    return found.root


def claimed_folder(ledger: Ledger, given: StoredPath | None) -> StoredPath:
    """The folder of this storage: from now on others are refused in it. Raises StorageError, Paused.

    The first one that is given, or chosen at the first launch, is kept as the default of an SQLite file: without a
    given one that is `checkpoints` beside the file, or, where that is another storage's, a name of our own.
    """
    while True:
        found = _chosen(ledger, given)
        found.refuse()
        check_writable(found.root)
        if _claimed(ledger, found):
            break
    here = ledger.identity()
    if ledger.folder is not None and here is not None and here.checkpoints is None:
        ledger.choose_checkpoints(as_kept(found.root, ledger.folder))
    missing = len(ledger.checkpoint_files()) if found.standing is Standing.FREE else 0
    if missing:
        _log.warning(
            "%s has none of the %d checkpoint files that %s names: trials that need them begin at step 0; if the "
            "files are in another folder, stop and name it with --checkpoints FOLDER",
            found.root, missing, ledger.safe_url,
        )  # fmt: skip
    return found.root


def as_kept(root: StoredPath, beside: Path) -> str:
    """A folder as it is kept: relative to that of the SQLite file where it lies below, so that both can be moved."""
    if not isinstance(root, Path):
        return str(root)
    whole, base = root.resolve(), beside.resolve()
    return str(whole.relative_to(base)) if whole.is_relative_to(base) else str(whole)


def ensure_claimed(ledger: Ledger, root: StoredPath) -> str:
    """Claim a folder unless this storage claimed it before; returns the storage's identity. Raises StorageError."""
    owner, here = read_owner(root), ledger.identity()  # in this order: the folder never counts further than the storage
    if owner is not None and here is not None and _is_settled(owner, here) and owner.site.same(ledger.site()):
        return here.identity
    claimed_folder(ledger, root)
    here = ledger.identity()
    return here.identity if here else ""


def refuse_if_lost(root: StoredPath, identity: str) -> None:
    """Raise StorageError when a folder that was claimed is another storage's in the meantime."""
    owner = owner_or_none(root)  # what cannot be read now may be a hiccup of the disk
    if owner is not None and owner.identity != identity:
        raise StorageError(
            f"the checkpoint folder {root} was given to the storage {owner.site.address} while trials were trained "
            "into it; nothing more is written there: name another folder with --checkpoints FOLDER"
        )


def whose_folder(ledger: Ledger, root: StoredPath) -> str:
    """Words for who reads a folder that this storage may not claim; "" where it may."""
    try:
        return look(ledger, root).text
    except StorageError as error:  # an owner file that cannot be read
        return str(error)


def look(ledger: Ledger, root: StoredPath) -> Look:
    """What a storage and a folder are to each other; writes nothing."""
    owner, here = read_owner(root), ledger.identity()
    if owner is not None and here is not None and _is_half_apart(ledger, root, owner, here):
        return Look(root, Standing.APART, owner)
    if here is None or here.copy_of is not None:
        return Look(root, Standing.COPY, owner, _copy_text(ledger, root, owner, here))
    if owner is None:
        return _look_at_unowned(ledger, root)
    if owner.identity != here.identity:
        return Look(root, Standing.TAKEN, owner, _taken_text(ledger, root, owner, here))
    return _look_at_same_identity(ledger, root, owner, here)


def contents_of(ledger: Ledger, root: StoredPath) -> Contents:
    """Whose the checkpoint files of a folder are. The files are listed before the records are read."""
    names = checkpoint_names(root)
    return sorted_out(names, ledger.checkpoint_files(), ledger.fences_by_folder() if names else {})


def _chosen(ledger: Ledger, given: StoredPath | None) -> Look:
    """The folder given, or the first default that is ours or can be; of a storage that has files, the first."""
    if given is not None:
        return look(ledger, given)
    *first, last = _default_names(ledger, ledger.identity())
    for root in first:
        found = look(ledger, root)
        passed_by = found.standing in (Standing.TAKEN, Standing.UNCLEAR) and not ledger.checkpoint_files()
        if not passed_by:
            return found
    return look(ledger, last)


def _default_names(ledger: Ledger, here: StorageIdentity | None) -> list[StoredPath]:
    """Default folders next to the SQLite file, the preferred one first."""
    if ledger.file is None:
        raise StorageError(
            f"{ledger.safe_url} is a server, so no checkpoint folder lies beside it; give --checkpoints FOLDER (or "
            "s3://BUCKET/PLACE), which every worker and every later command sees"
        )
    if here is not None and here.checkpoints is not None:
        return [root_beside(ledger.file.parent, here.checkpoints)]
    own = f"{DEFAULT}-{plain_name(ledger.file.stem)}"
    names = [DEFAULT, own, f"{own}-{here.identity[:8]}"] if here else [DEFAULT]
    return [ledger.file.parent / name for name in names]


def _claimed(ledger: Ledger, found: Look) -> bool:
    """Write this storage into the owner file; False when another process was first."""
    if found.standing is Standing.APART and found.owner is not None:
        _part(ledger, found.owner)
        _log.warning(
            "%s and %s are copies of %s and its checkpoint folder: they are a storage of their own from now on",
            ledger.safe_url, found.root, found.owner.site.address,
        )  # fmt: skip
    generation = ledger.next_generation()  # first in the storage: it may count further than the folder, never less
    here = ledger.identity()
    if here is None:
        return False
    return write_owner(found.root, here.identity, ledger.site(), generation, new=found.owner is None)


def _part(ledger: Ledger, owner: Owner) -> None:
    """Be another storage than the owner of a copied folder, unless a command that was killed began with that."""
    here = ledger.identity()
    if here is None or here.identity == owner.identity:
        ledger.become_copy(owner.identity)
    ledger.end_copy()


def _is_half_apart(ledger: Ledger, root: StoredPath, owner: Owner, here: StorageIdentity) -> bool:
    """Whether a command was killed while it took storage and folder, both copies, apart from their originals.

    By then the storage has a new identity, and the folder still has that of the original, whose folder is another.
    """
    begun = owner.identity != here.identity and here.copy_of in (None, owner.identity)
    if not begun or owner.site.same(ledger.site()) or owner.folder_key == folder_key(root) or not _is_there(owner):
        return False
    contents = contents_of(ledger, root)
    return bool(contents.named) and not contents.foreign


def _is_settled(owner: Owner, here: StorageIdentity) -> bool:
    return owner.identity == here.identity and here.copy_of is None and owner.generation <= here.generation


def _look_at_same_identity(ledger: Ledger, root: StoredPath, owner: Owner, here: StorageIdentity) -> Look:
    site = ledger.site()
    if not owner.site.same(site):
        is_copied = owner.folder_key != folder_key(root)
        original = _original(ledger, owner, site)
        if original and is_copied and _is_there(owner):
            return Look(root, Standing.APART, owner)
        moved_with_it = not site.server and (is_copied or owner.site.host == site.host)
        gone = bool(site.server) and site.server == owner.site.server
        if original or not (moved_with_it or gone):
            return Look(root, Standing.COPY, owner, _copy_text(ledger, root, owner, here))
    if owner.generation > here.generation:
        why = f"{owner.generation} commands wrote to the folder, and the storage knows of {here.generation}"
        return Look(root, Standing.OLDER, owner, _older_text(ledger, root, why))
    foreign = contents_of(ledger, root).foreign
    if foreign:
        why = f"{len(foreign)} of its files were never written by this storage, {foreign[0]} for one"
        return Look(root, Standing.OLDER, owner, _older_text(ledger, root, why))
    return Look(root, Standing.OURS, owner)


def _original(ledger: Ledger, owner: Owner, site: StorageSite) -> bool:
    """Whether the storage that claimed the folder is still to be seen, and is not this one."""
    if ledger.file is not None:
        return original_of(owner.identity, owner.site, ledger.file) is not None
    return bool(site.server) and site.server == owner.site.server and ledger.has_beside(owner.site.key)


def _is_there(owner: Owner) -> bool:
    """Whether the folder that a copied owner file speaks of is still there, and has the same owner."""
    original = owner_or_none(parsed_root(owner.folder))
    return original is not None and original.identity == owner.identity


def _look_at_unowned(ledger: Ledger, root: StoredPath) -> Look:
    contents = contents_of(ledger, root)
    if not any((contents.named, contents.left, contents.foreign)):
        return Look(root, Standing.FREE)
    others = others_that_name((*contents.named, *contents.foreign), root, ledger.file)
    if contents.foreign or others:
        return Look(root, Standing.UNCLEAR, None, _unclear_text(ledger, root, contents, [str(o.file) for o in others]))
    return Look(root, Standing.EARLIER)


def _adopt(ledger: Ledger) -> str:
    """The command for this storage, as it can be run; the address of a server stands where it stood before."""
    return shlex.join([*ADOPT.split(), *(("--storage", str(ledger.file)) if ledger.file else ())])


def _taken_text(ledger: Ledger, root: StoredPath, owner: Owner, here: StorageIdentity) -> str:
    return (
        f"the checkpoint folder {root} belongs to the storage {owner.site.address} (identity {owner.identity[:8]}), "
        f"and this is {ledger.safe_url} (identity {here.identity[:8]}): a folder belongs to one storage, because two "
        "would delete each other's files; name another folder with --checkpoints FOLDER, or, where this storage shall "
        f"take the place of that one, see `{_adopt(ledger)}`"
    )


def _copy_text(ledger: Ledger, root: StoredPath, owner: Owner | None, here: StorageIdentity | None) -> str:
    how = "is a copy of another storage"
    if here is None:
        how = "was restored from a dump, and so is a copy of another storage"
    elif here.copy_of and owner and owner.identity == here.identity:
        return (
            f"{ledger.safe_url} is a copy whose adoption was interrupted: `{_adopt(ledger)}` goes on, with the other "
            "options that it had"
        )
    elif owner and owner.identity == here.identity:
        how = f"is taken for a copy of {owner.site.address}, whose identity it has"
    whose = ""
    if owner:
        was_here = owner.site.address == str(ledger.file)
        whose = "one that was in its place before" if was_here else f"the storage {owner.site.address}"
        whose = f"; the checkpoint folder {root} belongs to {whose}"
    return (
        f"{ledger.safe_url} {how}{whose}. A copy can be read; training or repairing with it would delete what the "
        f"original has trained since. To go on with the copy: `{_adopt(ledger)}` says what will happen, and does it "
        "with --yes"
    )


def _older_text(ledger: Ledger, root: StoredPath, why: str) -> str:
    return (
        f"the storage {ledger.safe_url} is older than its checkpoint folder {root}, as if a backup had been put back: "
        f"{why}. To go on with this state: `{_adopt(ledger)}` says what will happen, and does it with "
        "--yes; or put the newer storage back, or name another folder with --checkpoints FOLDER"
    )


def _unclear_text(ledger: Ledger, root: StoredPath, contents: Contents, others: list[str]) -> str:
    if others and contents.named:
        why = f"the records of {' and of '.join([ledger.safe_url, *others])} name files in it"
    elif others:
        why = f"the records of {' and of '.join(others)} name files in it, and those of {ledger.safe_url} none"
    else:
        why = (
            f"{len(contents.foreign)} of its files, {contents.foreign[0]} for one, were never written by "
            f"{ledger.safe_url}"
        )
    return (
        f"the checkpoint folder {root} is from before folders had an owner, and {why}; a folder belongs to one "
        f"storage: give each a folder of its own (`{_adopt(ledger)} --checkpoints FOLDER` takes its files along), or "
        f"let this one have it (`{_adopt(ledger)}`), or name an empty folder with --checkpoints FOLDER"
    )
