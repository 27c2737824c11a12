"""`tuner score-test` and `replay`: a recorded trial meets its workload again, once for its score or to compare bits."""

import json

import pandas as pd

from tuner.analysis.round_frames import row_of_trial
from tuner.cli.exit_codes import Exit
from tuner.cli.options import Format
from tuner.cli.output import emit_frame, say
from tuner.cli.places import opened
from tuner.cli.training_options import ReplayOptions, ScoreTestOptions
from tuner.design.study_file import load_campaign
from tuner.execution.machine import Machine
from tuner.execution.replay import replayed
from tuner.execution.scoring import Chosen, recorded_score, scored_once
from tuner.reading import campaign_name, load
from tuner.reading import round_number as round_meant
from tuner.storage.ownership import folder_to_read


def score_test(options: ScoreTestOptions) -> None:
    """Score the final configuration on data that nothing was chosen by, once."""
    records = load(str(options.study), options.storage)
    final = records.final()
    chosen = Chosen(final.row, final.record, final.checkpoint, final.step, final.selected_value)
    with opened(options.storage, create=False) as ledger:
        before = recorded_score(ledger, records.name)
        machine = Machine(folder_to_read(ledger, options.checkpoints), options.device, options.threads)
        score = scored_once(ledger, chosen, load_campaign(options.study)[1].workload, machine, options.study)
    if options.form is Format.json:
        print(json.dumps(score.as_json(), indent=2))
    else:
        emit_frame(pd.Series(score.metrics, name="value").rename_axis("metric").reset_index(), options.form)
    about = f"{score.study} trial {score.trial} at step {score.step:,}"
    if before is None:
        say(f"scored {about}, {score.examples} examples; recorded: the test split is not scored again")
        return
    say(f"recorded before, for {about}; the test split is scored once (D31)")
    if (score.study, score.trial) != (chosen.row.study.name, chosen.record.number):
        say(
            f"note: the final configuration is now {chosen.row.study.name} trial {chosen.record.number}; to score it "
            "you need test data that nobody has used yet"
        )


def replay(options: ReplayOptions) -> Exit:
    """Train a recorded trial again and compare it bit for bit."""
    trial = options.trial
    _, campaign = load_campaign(options.study)
    with opened(options.storage, create=False) as ledger:
        name = campaign_name(ledger, str(options.study))
        if options.study_name is not None:
            row = ledger.study(name, options.study_name)
        else:
            row, _ = row_of_trial(ledger, name, round_meant(ledger, name, options.round_number), trial)
        outcome = replayed(
            ledger, row, trial, campaign.workload, device=options.device, threads=options.threads,
            study_file=options.study, tell=lambda words: say(f"note: {words}"),
        )  # fmt: skip
    print(f"trial {trial}: {outcome.values} values compared, {outcome.different} differ", flush=True)
    if not outcome.different:
        say("the same bits as recorded")
        return Exit.FINE
    say(f"first difference: {outcome.first_difference}")
    nothing = "code, arguments, data and Numerics are as recorded, so the training itself does not repeat its bits"
    say("; ".join(outcome.causes) or nothing)
    return Exit.FINDING
