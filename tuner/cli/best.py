"""`tuner best`: the best configuration, how to get it again, and its weights."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from tuner.analysis.elsewhere import again_elsewhere
from tuner.cli.given import command, given_root
from tuner.cli.options import ExportForm, Format
from tuner.cli.output import say, show
from tuner.cli.places import opened, study_file_of
from tuner.cli.reading_options import BestOptions
from tuner.cli.tables import readable
from tuner.design.identity import was_told
from tuner.design.seeds import short_seed
from tuner.design.stages import is_study_file
from tuner.design.study_file import declared_stage
from tuner.errors import InputError, StorageError
from tuner.reading import Winner, load
from tuner.records.promises import common_promises
from tuner.shown import counted
from tuner.storage.ownership import folder_to_read
from tuner.storage.store import Ledger
from tuner.storage.studies import LaunchRow
from tuner.stores.places import StoredPath


def best(options: BestOptions) -> None:
    """Print the best configuration, and write its weights where that is asked for."""
    if options.export_form is not None and options.export is None:
        raise InputError(f"--as {options.export_form} says how weights are written: add --export FILE")
    if options.average and (options.export is None or options.export_form is not None):
        raise InputError(
            "--average writes the mean of several weights: add --export FILE"
            if options.export is None
            else f"--average and --as {options.export_form} are two ways to write weights; choose one of them"
        )
    records = load(options.study, options.storage)
    winner = records.best(options.study_name or options.round_number)
    with opened(options.storage, create=False) as ledger:
        launches = ledger.launches(winner.row.study_id)
        source = winner.row.study.source
        file = options.study if source else study_file_of(ledger, winner.row.study_id, options.study)
        if options.average and not is_study_file(options.study):
            again = command("best", file, after=("--export", str(options.export), "--average"))
            raise InputError(f"--average evaluates the mean of the weights, which takes the study file: {again}")
        told = described_winner(winner, file, launches)
        if options.form is Format.table:
            print_winner(told, winner.headline.words, [*winner.start_words, *winner.stopping_words])
        else:
            print(json.dumps(told, indent=2))
        if options.export is not None:
            root = folder_to_read(ledger, given_root(options.checkpoints))
            if options.average:
                export_mean(ledger, winner, root, options)
            else:
                export_weights(winner, root, options.export, options.export_form)


def described_winner(winner: Winner, study_file: str, launches: Sequence[LaunchRow]) -> dict[str, Any]:
    """Plain data about the winner, for JSON and for people.

    `value` is what the configuration gives (`value_kind`), `selected_value` that of the trial that is named, whose
    checkpoint is exported; `best_value` is the same, under its older name. `seed` and `data_seed` of a
    trial that a script asked for are those that it got.
    """
    study, record = winner.row.study, winner.record
    again, elsewhere = again_elsewhere(study, record), winner.row.elsewhere
    seed, data_seed = (
        short_seed(one) if was_told(winner.row.identity) else one for one in (record.seed, record.data_seed)
    )
    reproduce = elsewhere and f"it was trained elsewhere ({elsewhere}); in your own code: {again}"
    place = ("--round", study.round) if study.kind == "round" else ("--study", study.name)
    reproduce = reproduce or command("replay", study_file, after=(*place, "--trial", record.number))
    return {
        "campaign": winner.row.campaign,
        "study": study.name,
        "trial": record.number,
        "objective": f"{study.objective.direction} {study.objective.metric}",
        "value": winner.value,
        "value_kind": winner.kind,
        "fresh": [asdict(run) for run in winner.fresh],
        "selected_value": winner.selected_value,
        "selected_from": winner.headline.selected_from,
        "best_value": winner.selected_value,
        "best_step": winner.step,
        "last_value": winner.last_value,
        "max_train_steps": study.budget.max_train_steps,
        "stopped_early": record.step if winner.stopped_early else None,
        "starts_from": None if winner.start is None else asdict(winner.start),
        "inherited_steps": winner.inherited_steps,
        "point": dict(record.point),
        "optimizer": record.point.get("optimizer", study.optimizer),
        "seed": seed,
        "exact": record.exact,
        "why_inexact": None if record.exact else common_promises(one.promises for one in launches).why_inexact,
        "data_seed": data_seed,
        "checkpoint": winner.checkpoint.file if winner.checkpoint else None,
        "revision": launches[0].revision if launches else {},
        "reproduce": reproduce,
    }


def print_winner(told: dict[str, Any], words: str, more: Sequence[str] = ()) -> None:
    """The winner for a person; `words`: its value with what it is. `more`: where its weights started, how it ended."""
    show(f"trial {told['trial']} of {told['campaign']} {told['study']}", style="bold")
    show(f"  {told['objective']}: {words}")
    show(
        f"  its selected run: {readable(told['best_value'])} at step {told['best_step']:,} of "
        f"{told['max_train_steps']:,} (last: {readable(told['last_value'])})"
    )
    for line in more:
        show(f"  {line}")
    for name, value in told["point"].items():
        show(f"  {name} = {value!r}")
    if told["seed"] or told["checkpoint"]:  # of a trial that was run elsewhere neither is known
        show(f"  seed {told['seed']}, checkpoint {told['checkpoint']}")
    revision = told["revision"]
    if revision:
        changed = " with uncommitted changes" if revision.get("uncommitted") else ""
        show(f"  code: commit {revision['commit'][:12]}{changed}")
    if not told["exact"]:
        show(f"  exact=false: {told['why_inexact']}, so a replay may give other bits")
    show(f"  reproduce: {told['reproduce']}", whole=True)


def export_mean(ledger: Ledger, winner: Winner, root: StoredPath, options: BestOptions) -> None:
    """Write the mean of the best weights that the selected run kept, and say what it measures beside the best ones."""
    _refuse_elsewhere(winner)
    averaging, execution = (import_module(f"tuner.execution.{name}") for name in ("averaging", "scoring"))
    machine = import_module("tuner.execution.machine").Machine(root, options.device, options.threads)
    stage, target = declared_stage(options.study), Path(str(options.export))
    chosen = execution.Chosen(winner.row, winner.record, winner.checkpoint, winner.step, winner.selected_value)
    mean = averaging.mean_of_best(ledger, chosen, stage.campaign.workload, machine, stage.file)
    written = mean.write(target)
    import_module("tuner.training.checkpoints").note_in_header(written.path, winner.notes)
    say(f"{mean.words}; both on validation, by which they were chosen")
    say(f"wrote {written.path}: {len(written.weights)} tensors, the mean; its header says so (metadata 'averaged')")
    _say_beside(written, target)


def export_weights(winner: Winner, root: StoredPath, target: Path, form: ExportForm | None = None) -> None:
    """Copy the chosen checkpoint, verified, to where the user wants it; form: how its adapters are written."""
    _refuse_elsewhere(winner)
    if winner.checkpoint is None:
        raise StorageError(f"trial {winner.record.number} has no checkpoint of its best step {winner.step:,} left")
    checkpoints = import_module("tuner.training.checkpoints")  # only here: all else works without torch
    if form is not None:
        written = import_module("tuner.training.adapter_export").export_as(root, winner.checkpoint, target, form.value)
    else:
        written = checkpoints.export_weights(root, winner.checkpoint, target)
    checkpoints.note_in_header(written.path, winner.notes)
    count = sum(tensor.numel() for tensor in written.weights.values())
    what = f"{len(written.weights)} tensors, {count:,} numbers,"
    if form is ExportForm.peft:
        what = f"an adapter in peft's format with {len(written.weights)} tensors, {count:,} numbers,"
    elif written.files:
        what = f"a folder of {counted(len(written.files), 'file')}, as the training wrote them,"
    say(
        f"wrote {written.path}: {what} of trial {winner.record.number} of "
        f"{winner.row.study.name} at step {winner.step:,}, the selected run ({winner.selected_value:.4g})"
    )
    _say_beside(written, target)
    for words in winner.stopping_words:
        say(f"note: trial {winner.record.number} {words}; the file says so in its metadata")


def _refuse_elsewhere(winner: Winner) -> None:
    if winner.row.elsewhere:
        raise StorageError(
            f"trial {winner.record.number} was trained elsewhere ({winner.row.elsewhere}), so its weights are there; "
            "nothing was written"
        )


def _say_beside(written: Any, target: Path) -> None:
    if written.beside is not None:
        say(
            f"wrote {written.beside}: extra state, which a safetensors file cannot hold; load both: "
            f"model.load_state_dict(safetensors.torch.load_file({str(target)!r}) | torch.load({str(written.beside)!r}))"
        )
