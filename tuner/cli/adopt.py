"""`tuner adopt`: is the candidate better than the baseline, in view of the variance of trials?"""

from typing import Annotated

import typer

from tuner.cli.options import DryRun, Format, OutputFormat, RetryFailed
from tuner.cli.where import Where, trains

Candidate = Annotated[
    str | None,
    typer.Option(
        help="ROUND/TRIAL, like 2/0. Default: the best trial of the last round. Of an imported study a TRIAL, or "
        "values, like lr=0.1,width=32.",
        show_default=False,
    ),
]
Baseline = Annotated[str | None, typer.Option(help="The same. Default: what was adopted last.", show_default=False)]
Level = Annotated[float, typer.Option(help="Probability of the interval of the difference.")]
MinimumGain = Annotated[float, typer.Option(help="What the candidate's added complexity has to earn.")]


@trains
def adopt(
    where: Where,
    candidate: Candidate = None,
    baseline: Baseline = None,
    replicates: Annotated[int, typer.Option(help="Fresh seeds for each of the two.")] = 5,
    level: Level = 0.8,
    minimum_gain: MinimumGain = 0.0,
    dry_run: DryRun = False,
    retry_failed: RetryFailed = False,
    form: OutputFormat = Format.table,
) -> None:
    """Train candidate and baseline again with fresh seeds, and answer ADOPT, KEEP or TIE (exit code 4: trials
    failed). Of an imported study (its name instead of a file) the replicates that are there are compared; nothing is
    trained.
    """
    from tuner.cli.contests import hold_contest, price_contest, settled_import, sides_of
    from tuner.cli.given import command
    from tuner.cli.launching import told_failures
    from tuner.cli.output import emit_findings, next_step, say
    from tuner.cli.sessions import open_session
    from tuner.rounds.adoption import check_level, contest

    check_level(level)
    imported = settled_import(where, candidate, baseline, level=level, minimum_gain=minimum_gain, dry_run=dry_run)
    if imported is not None:
        emit_findings(str(where.study), imported.study, imported.findings, form)
        return
    with open_session(where, dry_run=dry_run, create=False) as session:
        made = contest(session, *sides_of(session, candidate, baseline), replicates)
        if dry_run:
            price_contest(session, made)
            return
        finding = hold_contest(
            session, made, level=level, minimum_gain=minimum_gain, retry_failed=retry_failed, quiet=where.quiet
        )
        emit_findings(session.name, made.study.name, [finding], form)
        say(f"{finding.verdict.upper()}: in the log of adoptions of {session.name}")
        code = told_failures(session, [session.ledger.study(session.name, made.study.name)])
        next_step(command("adoptions", session.name), command("report", session.name))
        raise typer.Exit(code)
