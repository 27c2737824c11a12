"""`tuner replay`: train one recorded trial again and compare it bit for bit."""

from typing import Annotated

import typer

from tuner.cli.exit_codes import Exit
from tuner.cli.options import Device, RoundNumber, Storage, StudyFile, StudyName, Threads


def replay(
    study: StudyFile,
    trial: Annotated[int, typer.Option("--trial", "-t", help="The trial's number.", show_default=False)],
    round_number: RoundNumber = None,
    study_name: StudyName = None,
    storage: Storage = None,
    device: Device = None,
    threads: Threads = 1,
) -> None:
    """Train a recorded trial again from its first step, write nothing, and compare the curves (exit code 3: differ).

    All steps are trained, those too that the trial took over from another one.
    """
    from tuner.analysis.round_frames import row_of_trial
    from tuner.cli.output import say
    from tuner.cli.places import opened
    from tuner.design.study_file import load_campaign
    from tuner.execution.replay import replayed
    from tuner.reading import campaign_name
    from tuner.reading import round_number as round_meant

    _, campaign = load_campaign(study)
    with opened(storage, create=False) as ledger:
        name = campaign_name(ledger, str(study))
        if study_name is not None:
            row = ledger.study(name, study_name)
        else:
            row, _ = row_of_trial(ledger, name, round_meant(ledger, name, round_number), trial)
        outcome = replayed(
            ledger, row, trial, campaign.workload, device=device, threads=threads, study_file=study,
            tell=lambda words: say(f"note: {words}"),
        )  # fmt: skip
    print(f"trial {trial}: {outcome.values} values compared, {outcome.different} differ", flush=True)
    if outcome.different:
        say(f"first difference: {outcome.first_difference}")
        nothing = "code, arguments, data and Numerics are as recorded: the training itself does not repeat its bits"
        say("; ".join(outcome.causes) or nothing)
        raise typer.Exit(Exit.FINDING)
    say("the same bits as recorded")
