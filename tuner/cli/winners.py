"""What there is to say about a winner."""

import shlex
from pathlib import Path
from typing import Any

from rich.text import Text

from tuner.analysis.search_lines import again_elsewhere
from tuner.cli.output import console, say
from tuner.cli.tables import readable
from tuner.errors import StorageError
from tuner.reading import Winner
from tuner.storage.studies import LaunchRow


def described_winner(winner: Winner, study_file: Path, launch: LaunchRow | None) -> dict[str, Any]:
    """Plain data about the winner, for JSON and for people."""
    study, record = winner.row.study, winner.record
    again = again_elsewhere(study, record) if study.source else ""
    reproduce = study.source and f"it was trained elsewhere ({study.source}); in your own code: {again}"
    place = f"--round {study.round}" if study.kind == "round" else f"--study {shlex.quote(study.name)}"
    reproduce = reproduce or f"tuner replay {shlex.quote(str(study_file))} {place} --trial {record.number}"
    return {
        "campaign": winner.row.campaign,
        "study": study.name,
        "trial": record.number,
        "objective": f"{study.objective.direction} {study.objective.metric}",
        "best_value": winner.value,
        "best_step": winner.step,
        "last_value": winner.last_value,
        "max_train_steps": study.budget.max_train_steps,
        "point": dict(record.point),
        "optimizer": record.point.get("optimizer", study.optimizer),
        "seed": record.seed,
        "exact": record.exact,
        "data_seed": record.data_seed,
        "checkpoint": winner.checkpoint.file if winner.checkpoint else None,
        "revision": launch.revision if launch else {},
        "reproduce": reproduce,
    }


def print_winner(told: dict[str, Any]) -> None:
    """The winner for a person."""
    out = console()
    out.print(Text(f"trial {told['trial']} of {told['campaign']} {told['study']}", style="bold"))
    out.print(Text(f"  {told['objective']}: {readable(told['best_value'])} at step {told['best_step']} of "
                   f"{told['max_train_steps']} (last: {readable(told['last_value'])})"))  # fmt: skip
    for name, value in told["point"].items():
        out.print(Text(f"  {name} = {value!r}"))
    if told["seed"] or told["checkpoint"]:  # of a trial that was run elsewhere neither is known
        out.print(Text(f"  seed {told['seed']}, checkpoint {told['checkpoint']}"))
    revision = told["revision"]
    if revision:
        changed = " with uncommitted changes" if revision.get("uncommitted") else ""
        out.print(Text(f"  code: commit {revision['commit'][:12]}{changed}"))
    if not told["exact"]:
        out.print(Text("  exact=false: trained under more than one set of Numerics, so it replays to other bits"))
    out.print(Text(f"  reproduce: {told['reproduce']}"))


def export_weights(winner: Winner, root: Path, target: Path) -> None:
    """Copy the chosen checkpoint, verified, to where the user wants it."""
    from tuner.training import checkpoints

    if winner.row.study.source:
        raise StorageError(
            f"trial {winner.record.number} was trained elsewhere ({winner.row.study.source}), so its weights are "
            "there; nothing was written"
        )
    if winner.checkpoint is None:
        raise StorageError(f"trial {winner.record.number} has no checkpoint of its best step {winner.step} any more")
    weights, beside = checkpoints.export_weights(root, winner.checkpoint, target)
    count = sum(tensor.numel() for tensor in weights.values())
    say(f"wrote {target}: {len(weights)} tensors, {count:,} numbers")
    if beside is not None:
        say(
            f"wrote {beside}: what a safetensors file cannot hold, extra state say; load both: model.load_state_dict("
            f"safetensors.torch.load_file({str(target)!r}) | torch.load({str(beside)!r}))"
        )
