"""Writing the widened study of a round, and saying how it is trained."""

from tuner.cli.given import command
from tuner.cli.output import next_step, say
from tuner.cli.places import opened
from tuner.rounds.expand import expand_round


def write_expansion(storage: str | None, campaign: str, number: int) -> None:
    """Plan the widened study in the Ledger. Raises InputError where there is nothing to widen."""
    with opened(storage, create=False) as ledger:
        made, row = expand_round(ledger, campaign, number)
        launches = ledger.launches(ledger.study(campaign, f"round-{number}").study_id)
    say(f"wrote {row.study.name}: {'; '.join(made.widened)}")
    say(f"{len(made.trials)} points, all in the new region; the trials of the old ranges count as sampled")
    file = str(launches[-1].environment.get("study_file") or campaign) if launches else campaign
    next_step(
        command("launch", file, after=("--round", number, "--expanded")),
        command("check", campaign, after=("--round", number)),
    )
