"""Files that leave a checkpoint folder: what is said before, and how they come back."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from tuner.cli.output import readable_bytes, say
from tuner.storage.adoption import Adoption
from tuner.storage.folder_files import move_to_trash, new_trash, total_bytes
from tuner.storage.store import Ledger

SHOWN = 10  # files that are named one by one


def counted(files: Sequence[object], what: str) -> str:
    """Like "1 stray file" and "3 stray files"."""
    return f"{len(files)} {what}{'' if len(files) == 1 else 's'}"


def say_some(lines: Sequence[str]) -> None:
    """The first lines, and how many more there are."""
    for line in lines[:SHOWN]:
        say(f"  {line}")
    if len(lines) > SHOWN:
        say(f"  and {len(lines) - SHOWN} more")


def list_files(files: Sequence[Path], what: str, why: str, before: str = "") -> None:
    """Say how many files there are, how large they are, and which."""
    say(f"{before}{counted(files, what)} ({readable_bytes(total_bytes(files))}) {why}:")
    say_some([str(path) for path in files])


def move_with_words(root: Path, files: Sequence[Path]) -> None:
    """Move files to the trash, and say how to get them back and when they may go."""
    trash = new_trash(root)
    moved = move_to_trash(root, files, trash)
    there, back = shlex.quote(f"{trash}/."), shlex.quote(f"{root}/")
    say(f"{counted(moved, 'file')} moved to {trash}")
    say(f"to get them back:        cp -a {there} {back}")
    say(f"when nothing is missed:  rm -r {shlex.quote(str(trash))}")
    left = sorted(set(files) - set(moved))
    if left:
        say(f"{counted(left, 'file')} could not be moved and stayed, {left[0]} for one")


def say_adoption(ledger: Ledger, plan: Adoption) -> None:
    """What an adoption will do, and with which files."""
    say(f"{ledger.safe_url} gets the checkpoint folder {plan.root}:")
    here = ledger.identity()
    if plan.owner is not None and not (here and here.copy_of is not None and plan.owner.identity == here.identity):
        whose = "a later state of this storage" if plan.owner.site.same(ledger.site()) else plan.owner.site.address
        say(f"- the folder belongs to {whose} now, which is refused there from then on; nobody may be training with it")
    for files, how in (
        (plan.there, "are there and whole"),
        (plan.elsewhere, f"will be linked or copied from {plan.source}"),
    ):
        if files:
            size = readable_bytes(sum(file.num_bytes for file in files))
            say(f"- {counted(files, 'recorded checkpoint file')} ({size}) {how}")
    if plan.lost:
        say(f"- {counted(list(plan.lost), 'recorded checkpoint file')} cannot be had, and the trials go on without:")
        say_some([f"{path} {reason}" for path, reason in sorted(plan.lost.items())])
    if plan.unknown:
        list_files(plan.unknown, "checkpoint file", "that no record of this storage names, moved to the trash", "- ")
