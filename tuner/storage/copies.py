"""Adopting a copy of a storage: the copy gets the checkpoint folder of its original, or a separate folder.

The copy stays a copy until the last step, so after a kill at any moment the same call goes on.
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tuner.errors import Paused, StorageError
from tuner.failpoints import failpoint
from tuner.security import make_private_folder
from tuner.storage.folder_files import checkpoint_names, difference, differences
from tuner.storage.neighbours import neighbour_at
from tuner.storage.owner_file import Owner, owner_or_none, write_owner
from tuner.storage.ownership import Standing, as_kept, look
from tuner.storage.reading import CheckpointFile
from tuner.storage.store import Ledger
from tuner.stores.places import OWNER_FILE, ObjectPath, StoredPath
from tuner.stores.writing import sync_folder, write_durably


@dataclass(frozen=True, slots=True)
class FolderAdoption:
    """What an adoption will do. Made without writing anything.

    root: the folder that will be the storage's own. owner: whose it is now. there: recorded files that lie in it whole.
    elsewhere: those that are whole in `source` only, and will be linked or copied. lost: the others, with the reason.
    unknown: checkpoint files in `root` that no record of the storage names; they go to the trash. new_identity: the
    storage shares its identity with another one, and gets a new one. needed: False where the folder is its own already.
    """

    root: StoredPath
    source: StoredPath | None
    owner: Owner | None
    there: tuple[CheckpointFile, ...] = ()
    elsewhere: tuple[CheckpointFile, ...] = ()
    lost: Mapping[str, str] | None = None
    unknown: tuple[StoredPath, ...] = ()
    new_identity: bool = False
    needed: bool = True


def planned_adoption(ledger: Ledger, root: StoredPath, source: StoredPath | None) -> FolderAdoption:
    """How the storage would get the folder `root`. Reads every recorded file; writes nothing.

    Recorded files that are not in `root` are looked for in `source`. Raises StorageError where the folder has nothing
    to do with the storage, or trials are being trained into it.
    """
    owner, names, known = owner_or_none(root), checkpoint_names(root), ledger.checkpoint_files()
    if _is_settled(ledger, root):
        return FolderAdoption(root, source, owner, needed=False)
    not_here = differences(root, known)
    there = tuple(file for file in known if file.path not in not_here)
    lost = dict(not_here)
    if source is not None and source.resolve() != root.resolve():
        lost = differences(source, [file for file in known if file.path in not_here])
    _refuse_unknown_files(ledger, root, owner, there, bool(names))
    _refuse_training(ledger, owner)
    paths = {file.path for file in known}
    return FolderAdoption(
        root,
        source,
        owner,
        there,
        tuple(file for file in known if file.path in not_here and file.path not in lost),
        lost,
        tuple(root / name for name in names if name not in paths),
        new_identity=any(_shares_identity(ledger, folder) for folder in (root, source) if folder),
    )


def begin_adoption(ledger: Ledger, plan: FolderAdoption) -> None:
    """Make the folder the storage's own; from now on its original is refused there. The storage is still a copy.

    Raises StorageError, Paused.
    """
    here = ledger.identity()
    if here is None or here.copy_of is None:
        ledger.become_copy(plan.owner.identity if plan.owner else "unknown", new_identity=plan.new_identity)
    failpoint("adopt-marked")
    generation, here = ledger.next_generation(), ledger.identity()
    if here is None:
        raise StorageError(f"{ledger.safe_url} lost its identity while it was adopted; run the same command again")
    new = not (plan.root / OWNER_FILE).exists()  # one that cannot be read is written again
    if not write_owner(plan.root, here.identity, ledger.site(), generation, new=new):
        raise StorageError(f"another storage claimed {plan.root} in this moment; name another folder")
    failpoint("adopt-owned")


def bring_files(plan: FolderAdoption) -> None:
    """Link or copy the recorded files into the new folder; complete files that are there already stay.

    Raises StorageError for a file that is not what was recorded, Paused for a full disk.
    """
    for file in plan.elsewhere:
        if plan.source is not None and difference(plan.root, file):
            try:
                _bring(plan.source / file.path, plan.root / file.path)
            except OSError as error:
                raise Paused(
                    f"cannot copy {file.path} to {plan.root}: {error.strerror}; make room, then run the same command "
                    "again to continue"
                ) from error
            wrong = difference(plan.root, file)
            if wrong:
                raise StorageError(f"{plan.source / file.path} {wrong} now; run the same command again")
            failpoint("adopt-brought")


def end_adoption(ledger: Ledger, plan: FolderAdoption) -> None:
    """The storage is no copy any more; its default folder is the one that it has now."""
    if ledger.file is not None:
        ledger.choose_checkpoints(as_kept(plan.root, ledger.file.parent))
    failpoint("adopt-chosen")
    ledger.end_copy()


def _is_settled(ledger: Ledger, root: StoredPath) -> bool:
    """Whether there is nothing to adopt: the folder is the storage's own."""
    try:
        return look(ledger, root).standing is Standing.OURS
    except StorageError:  # an owner file that cannot be read
        return False


def _shares_identity(ledger: Ledger, folder: StoredPath) -> bool:
    """Whether a folder belongs to our identity, and yet not to us: it is that of our original, or of a later state."""
    owner, here = owner_or_none(folder), ledger.identity()
    if here is None:
        return True
    return owner is not None and owner.identity == here.identity and look(ledger, folder).standing is not Standing.OURS


def _refuse_unknown_files(
    ledger: Ledger, root: StoredPath, owner: Owner | None, there: tuple[CheckpointFile, ...], has_files: bool
) -> None:
    """A folder is given away only to a copy of its owner, or to whose records name a file that is whole there."""
    here = ledger.identity()
    is_copy = owner is not None and here is not None and owner.identity in (here.identity, here.copy_of)
    if not is_copy and not there and (has_files or owner is not None):
        raise StorageError(
            f"no record of {ledger.safe_url} names a whole file of the checkpoint folder {root}"
            f"{f', which belongs to {owner.site.address}' if owner else ''}; name the folder of its own checkpoints, "
            "or an empty one, with --checkpoints"
        )


def _refuse_training(ledger: Ledger, owner: Owner | None) -> None:
    """Nobody may train with the original while its folder changes hands; seen where the original is a file."""
    if owner is None or owner.site.server or ledger.site().same(owner.site):
        return
    original = neighbour_at(Path(owner.site.address))
    if original is not None and original.identity == owner.identity and original.training:
        raise StorageError(
            f"{original.training} trials of {original.file} are being trained into this folder; stop that launch first"
        )


def _bring(source: StoredPath, target: StoredPath) -> None:
    """One file under its new name, whole or not at all. A link is as good as a copy: files are never changed."""
    if isinstance(source, ObjectPath) or isinstance(target, ObjectPath):
        content = source.read_bytes()
        write_durably(target, lambda file: file.write(content), replace=True)
        sync_folder(target.parent)
        return
    for made in make_private_folder(target.parent):
        sync_folder(made.parent)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        try:
            os.link(source.resolve(), temporary)
        except OSError:
            shutil.copyfile(source, temporary)
            temporary.chmod(0o600)
            with temporary.open("rb") as copied:
                os.fsync(copied.fileno())
        temporary.replace(target)
        sync_folder(target.parent)
    finally:
        temporary.unlink(missing_ok=True)
