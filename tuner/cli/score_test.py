"""`tuner score-test`: how good is the final model on data that nothing was chosen by?"""

import json

from tuner.cli.options import Checkpoints, Device, Format, OutputFormat, Storage, StudyFile, Threads


def score_test(
    study: StudyFile,
    storage: Storage = None,
    checkpoints: Checkpoints = None,
    device: Device = None,
    threads: Threads = 1,
    form: OutputFormat = Format.table,
) -> None:
    """Score the test split, once: for what was adopted last, else the best trial of the last round. Asked again, it
    shows the recorded score.
    """
    import pandas as pd

    from tuner.cli.output import emit_frame, say
    from tuner.cli.places import opened
    from tuner.design.study_file import load_campaign
    from tuner.execution.machine import Machine
    from tuner.execution.scoring import Chosen, recorded_score, scored_once
    from tuner.reading import load
    from tuner.storage.ownership import folder_to_read

    records = load(str(study), storage)
    final = records.final()
    chosen = Chosen(final.row, final.record, final.checkpoint, final.step, final.selected_value)
    with opened(storage, create=False) as ledger:
        before = recorded_score(ledger, records.name)
        machine = Machine(folder_to_read(ledger, checkpoints), device, threads)
        score = scored_once(ledger, chosen, load_campaign(study)[1].workload, machine, study)
    if form is Format.json:
        print(json.dumps(dict(score), indent=2))
    else:
        emit_frame(pd.Series(score["metrics"], name="value").rename_axis("metric").reset_index(), form)
    about = f"{score['study']} trial {score['trial']} at step {score['step']:,}"
    if before is None:
        say(f"scored {about}, {score['examples']} examples; recorded: the test split is not scored again")
        return
    say(f"recorded before, for {about}; the test split is scored once (D31)")
    if (score["study"], score["trial"]) != (chosen.row.study.name, chosen.record.number):
        say(
            f"note: what is final now is {chosen.row.study.name} trial {chosen.record.number}; its score would need "
            "test data that nobody has looked at"
        )
