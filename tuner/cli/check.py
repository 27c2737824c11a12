"""`tuner check`: every question of the playbook about a study."""

from typing import Annotated

import typer

from tuner.cli.exit_codes import Exit
from tuner.cli.options import Format, OutputFormat, RoundNumber, Storage, Study, Thresholds


def check(
    study: Study,
    round_number: RoundNumber = None,
    fail_on: Annotated[
        str | None,
        typer.Option(
            "--fail-on",
            help="Verdicts that set exit code 3: expand_high,too_long; none: never. Default: what needs action.",
            show_default=False,
        ),
    ] = None,
    verbose: Thresholds = False,
    storage: Storage = None,
    form: OutputFormat = Format.table,
) -> None:
    """Ask every question of the playbook's checklist: verdict, evidence, next action (exit code 3: act)."""
    from tuner.analysis.checklist import failing
    from tuner.analysis.good_trials import good_defined
    from tuner.analysis.trial_curves import has_curves
    from tuner.cli.given import command, note_recorded
    from tuner.cli.output import emit_findings, next_step, say, show
    from tuner.reading import load
    from tuner.rounds.importances import importances

    verdicts = None if fail_on is None else [word.strip() for word in fail_on.split(",") if word.strip() != "none"]
    failing([], verdicts)  # a word that is no verdict is said before anything is read
    records = load(study, storage)
    note_recorded(records.study_file())
    frames = records.frames(round_number)  # read once: a large study takes seconds, and may grow meanwhile
    findings = [*records.findings_about(frames), *importances(frames)]
    if form is Format.table and has_curves(frames):
        show(good_defined(frames), style="dim")
    emit_findings(records.name, frames.study.name, findings, form, verbose)
    told = failing(findings, verdicts)
    what = f"need{'s' * (len(told) == 1)} action" if verdicts is None else "of the chosen verdicts"
    named = ", ".join(f"{finding.about} {finding.verdict}" for finding in told)
    say(f"{len(findings)} finding{'s' * (len(findings) != 1)}, {len(told)} {what}{': ' * bool(told)}{named}")
    if not frames.study.source and any(finding.verdict.startswith("expand") for finding in findings):
        next_step(command("boundaries", records.name, after=("--expand",)))
    next_step(command("report", records.name))
    raise typer.Exit(Exit.FINDING if told else Exit.FINE)
