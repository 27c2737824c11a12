"""`tuner status`, `verify`, `backup` and `adopt-storage`: what a storage holds, whether it is whole, and copies."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from tuner.analysis.frames import not_promised, promises_of
from tuner.analysis.round_frames import campaign_name
from tuner.analysis.spending import spent_words, with_costs
from tuner.analysis.stage_chain import chain_frame, recorded_stage
from tuner.analysis.study_progress import in_words, standing
from tuner.cli.exit_codes import Exit
from tuner.cli.given import given_root
from tuner.cli.options import Format
from tuner.cli.output import emit_frame, next_step, readable_bytes, say
from tuner.cli.places import opened
from tuner.cli.reading_options import StatusOptions
from tuner.cli.storage_options import AdoptStorageOptions, BackupOptions, VerifyOptions
from tuner.design.file_names import declares_one
from tuner.design.stages import Stage, is_study_file, split_stage
from tuner.design.study_file import declared_stages
from tuner.errors import DeclarationError
from tuner.records.hourly_price import parsed_price
from tuner.shown import shown, word
from tuner.storage.copies import FolderAdoption, begin_adoption, bring_files, end_adoption, planned_adoption
from tuner.storage.folder_files import move_to_trash, new_trash, total_bytes
from tuner.storage.identity import checkpoint_place
from tuner.storage.ownership import claimed_folder, folder_to_read, whose_folder
from tuner.storage.store import Ledger
from tuner.storage.verify import strays_held, study_problems
from tuner.stores.places import StoredPath

SHOWN = 10  # files that are named one by one


def status(options: StatusOptions) -> None:
    """Print a row for each study of a campaign, of the stages of a study file, or of all."""
    price, costs = parsed_price(options.price_per_hour), []
    with opened(options.storage, create=False) as ledger:
        stages = stages_meant(options.study) if options.study else []
        names = [one.name for one in stages] if stages else named_campaigns(ledger, options.study)
        known = [name for name in names if name in ledger.campaigns()]
        frame = standing(ledger, known)
        if price is not None:
            frame = with_costs(frame, ledger, price.value)
            costs = [f"{shown(name)}: {spent_words(ledger, name, price)}" for name in known]
        weaker = [words for name in known for words in weaker_words(ledger, name)]
        chain = [recorded_stage(ledger, name) for name in names]
    in_table = options.form is Format.table and len(frame) > 0
    emit_frame(in_words(frame) if in_table else frame, options.form, spare=("goal", "trials"))
    if options.form is Format.table and len(stages) > 1:
        emit_frame(chain_frame(chain), options.form, "the stages, in steps", spare=("starts from",))
    for one in chain:
        if one.start is not None:
            say(one.sentence)
    for stage in stages:
        if stage.name not in known:
            say(f"not launched yet: {stage.words}")
    for words in (*weaker, *costs):
        say(words)


def stages_meant(study: str) -> list[Stage]:
    """The stages of a file that has several, or those that lead to one of them; none of anything else."""
    file, name = split_stage(study)
    if not is_study_file(study) or not file.is_file() or (declares_one(file) and not name):
        return []
    try:
        stages = declared_stages(study)
    except DeclarationError:  # its records can be read all the same
        return []
    return stages if len(stages[0].of_file) > 1 else []


def named_campaigns(ledger: Ledger, study: str | None) -> list[str]:
    """The campaign that a name or a file stands for; all of the storage without one."""
    return [campaign_name(ledger, study)] if study else ledger.campaigns()


def weaker_words(ledger: Ledger, campaign: str) -> list[str]:
    """A line for the studies of a campaign that lack the same promises, with the reason of the last of them."""
    told: dict[tuple[str, ...], tuple[list[str], str]] = {}
    for row in ledger.studies(campaign):
        words = not_promised(ledger, [row])
        if words:
            missing = promises_of(ledger, [row]).missing
            names, _ = told.get(missing, ([], ""))
            told[missing] = ([*names, row.study.name], words)
    return [
        f"note: the training of {shown(campaign)} ({shown(', '.join(names))}) promises less: {shown(words)}"
        for names, words in told.values()
    ]


def verify(options: VerifyOptions) -> Exit:
    """Print what is not as the records promise."""
    with opened(options.storage, create=False) as ledger:
        name = campaign_name(ledger, options.study)
        root, is_ours = checked_folder(ledger, name, given_root(options.checkpoints), repair=options.repair)
        found = problems_of(ledger, name, root, is_ours=is_ours)
        say_what_is_not_promised(ledger, name)
    if not len(found):
        say(f"{name}: every file, digest, curve and state is as recorded")
        return Exit.FINE
    emit_frame(found, options.form)
    return Exit.FINDING


def say_what_is_not_promised(ledger: Ledger, campaign: str) -> None:
    """Name the studies whose curves nobody can compare bit for bit, which is no problem of the records."""
    for row in ledger.studies(campaign):
        missing = promises_of(ledger, [row]).missing_of(["exact_resume", "deterministic"])
        if missing:
            say(f"note: the curves of {shown(row.study.name)} cannot be compared bit for bit: {'; '.join(missing)}")


def backup(options: BackupOptions) -> None:
    """Write a consistent copy of the records, also while others write."""
    with opened(options.storage, create=False) as ledger:
        ledger.backup(options.file)
        is_file = ledger.folder is not None
    say(f"wrote {options.file}; the checkpoint files are not in it; to train with it one day: tuner adopt-storage -h")
    named = word(options.file)
    next_step(f"tuner status --storage {named}" if is_file else f"pg_restore --clean -d DATABASE {named}")


def adopt_storage(options: AdoptStorageOptions) -> Exit:
    """Go on with a copy of a storage, or say what that would do."""
    with opened(options.storage, create=False) as ledger:
        root = given_root(options.checkpoints) or folder_to_read(ledger, None)
        beside = folder_to_read(ledger, None) if ledger.file is not None else None
        plan = planned_adoption(ledger, root, given_root(options.source) or beside)
        if not plan.needed:
            say(f"nothing to adopt: the checkpoint folder {root} belongs to {ledger.safe_url}")
            return Exit.FINE
        say_adoption(ledger, plan)
        if options.yes:
            adopt(ledger, plan)
            return Exit.FINE
    if plan.lost:
        next_step("where they lie elsewhere: the same command with --from FOLDER")
    next_step("the same command with --yes does it")
    return Exit.FINDING


def counted(files: Sequence[object], what: str) -> str:
    """Like "1 stray file" and "3 stray files"."""
    return f"{len(files)} {what}{'' if len(files) == 1 else 's'}"


def say_some(lines: Sequence[str]) -> None:
    """The first lines, and how many more there are."""
    for line in lines[:SHOWN]:
        say(f"  {line}")
    if len(lines) > SHOWN:
        say(f"  and {len(lines) - SHOWN} more")


def list_files(files: Sequence[StoredPath], what: str, why: str, before: str = "") -> None:
    """Say how many files there are, how large they are, and which."""
    say(f"{before}{counted(files, what)} ({readable_bytes(total_bytes(files))}) {why}:")
    say_some([str(path) for path in files])


def move_with_words(root: StoredPath, files: Sequence[StoredPath]) -> None:
    """Move files to the trash, and say how to get them back and when they may go."""
    trash = new_trash(root)
    moved = move_to_trash(root, files, trash)
    there, back = word(f"{trash}/."), word(f"{root}/")
    say(f"{counted(moved, 'file')} moved to {trash}")
    if isinstance(trash, Path):
        say(f"to get them back:        cp -a {there} {back}")
        say(f"when nothing is missed:  rm -r {word(trash)}")
    else:
        say("they can be copied back, or deleted when nothing is missed, with the store's own tools (aws s3 cp, rm)")
    left = sorted(set(files) - set(moved))
    if left:
        say(f"{counted(left, 'file')} could not be moved, for example {left[0]}")


def say_adoption(ledger: Ledger, plan: FolderAdoption) -> None:
    """What an adoption will do, and with which files."""
    say(f"{ledger.safe_url} gets the checkpoint folder {plan.root}:")
    here = ledger.identity()
    if plan.owner is not None and not (here and here.copy_of is not None and plan.owner.identity == here.identity):
        whose = "a later state of this storage" if plan.owner.site.same(ledger.site()) else plan.owner.site.address
        say(f"- the folder belongs to {whose} now, which can no longer use it then; nothing may be training with it")
    for files, how in (
        (plan.there, "are there and whole"),
        (plan.elsewhere, f"will be linked or copied from {plan.source}"),
    ):
        if files:
            size = readable_bytes(sum(file.num_bytes for file in files))
            say(f"- {counted(files, 'recorded checkpoint file')} ({size}) {how}")
    if plan.lost:
        say(f"- {counted(list(plan.lost), 'recorded checkpoint file')} are lost; their trials continue without them:")
        say_some([f"{path} {reason}" for path, reason in sorted(plan.lost.items())])
    if plan.unknown:
        list_files(plan.unknown, "checkpoint file", "that no record of this storage names, moved to the trash", "- ")


def adopt(ledger: Ledger, plan: FolderAdoption) -> None:
    """Do what was planned, and say what to do next."""
    begin_adoption(ledger, plan)
    bring_files(plan)
    if plan.unknown:
        move_with_words(plan.root, plan.unknown)
    end_adoption(ledger, plan)
    say(f"done: {ledger.safe_url} is a storage of its own, with the checkpoint folder {plan.root}")
    where = ("--storage", str(ledger.file)) if ledger.file else ("--checkpoints", str(plan.root))
    verify = (["tuner", "verify", name, *where] for name in ledger.campaigns())
    next_step(*(" ".join(map(word, words)) for words in verify))


def checked_folder(ledger: Ledger, campaign: str, given: StoredPath | None, *, repair: bool) -> tuple[StoredPath, bool]:
    """The folder to verify, and whether the storage may repair it; repair: strays go to the trash, the dead are freed.

    Raises StorageError for a repair in a folder that is another storage's.
    """
    root = (claimed_folder if repair else folder_to_read)(ledger, given)
    told = whose_folder(ledger, root)
    if told:
        say(f"note: {told}")
    if repair:
        rows = ledger.studies(campaign)
        places = {row.study_id: checkpoint_place(campaign, row.study.name) for row in rows}
        with strays_held(ledger, root, places) as strays:
            if strays:
                list_files(strays, "stray file", "that no record names")
                move_with_words(root, strays)
        freed = sum(ledger.forget_dead_workers(row.study_id) for row in rows)
        say(f"{campaign}: {counted(strays, 'stray file')} moved to the trash, {freed} trials of dead workers freed")
    return root, not told


def problems_of(ledger: Ledger, campaign: str, root: StoredPath, *, is_ours: bool) -> pd.DataFrame:
    """What is wrong with each study of a campaign. Strays in a folder that is another storage's are that one's."""
    found = [
        (row.study.name, one.trial, one.kind, one.text)
        for row in ledger.studies(campaign)
        for one in study_problems(ledger, row, root, checkpoint_place(campaign, row.study.name))
        if is_ours or one.kind != "stray"
    ]
    return pd.DataFrame(found, columns=["study", "trial", "kind", "problem"])
