"""`tuner exploit`, `adopt`, `score-test` and `replay`: from the best of the exploration to a final model."""

import json
from dataclasses import replace

import pandas as pd

from tuner.analysis.finding import Finding
from tuner.analysis.numerics_sets import crossing_of
from tuner.analysis.round_frames import campaign_name, round_number, row_of_trial
from tuner.cli.exit_codes import Exit
from tuner.cli.given import command, given_root
from tuner.cli.launch import print_plan, told_failures
from tuner.cli.options import Format
from tuner.cli.output import emit_findings, emit_frame, next_step, say
from tuner.cli.places import opened
from tuner.cli.sessions import open_session
from tuner.cli.tables import readable
from tuner.cli.training_options import AdoptOptions, ExploitOptions, ReplayOptions, ScoreTestOptions
from tuner.cli.watching import stop_on_signal, watch
from tuner.design.stages import split_stage
from tuner.design.study import Study
from tuner.design.study_file import declared_stage
from tuner.execution.machine import Machine
from tuner.execution.replay import replayed
from tuner.execution.scoring import Chosen, recorded_score, scored_once
from tuner.reading import load
from tuner.rounds.adoption import (
    Contest,
    Side,
    baseline_place,
    check_level,
    contest,
    run_contest,
    trial_at_place,
)
from tuner.rounds.exploitation import exploitation, explored_trials, run_exploitation
from tuner.rounds.imported_contest import imported_contest, imported_row, settle
from tuner.rounds.launch import Session, plan_study, refuse_all_failed
from tuner.rounds.opening import storage_exists
from tuner.rounds.plan import planned_trials
from tuner.storage.ownership import folder_to_read


def exploit(options: ExploitOptions) -> Exit:
    """Search a round's space by a model of its trials, or show what that would cost."""
    with open_session(options, dry_run=options.dry_run, create=False) as session:
        study = exploitation(
            session, options.round_number, options.sampler.value, options.trials, options.batch, options.although
        )
        if not options.dry_run:
            return search_on(session, study, retry_failed=options.retry_failed, quiet=options.quiet)
        print_plan(plan_study(session, study, planned_trials(study)))  # in place of points that are not known yet
    return Exit.FINE


def search_on(session: Session, study: Study, *, retry_failed: bool, quiet: bool) -> Exit:
    """Search what is left, say what it gained over the exploration, and return the exit code."""
    say(f"{session.name} {study.name}: {study.goal}")
    say(
        f"{study.num_trials} trials of {study.length_in_words} by {study.sampler}, {study.batch} at a "
        f"time, from {len(explored_trials(session.ledger, session.name, study))} explored ones"
    )
    with stop_on_signal() as asked:
        row = run_exploitation(
            replace(session, stop=asked.is_set, watch=watch(quiet)), study, retry_failed=retry_failed
        )
    code = told_failures(session, [row])
    refuse_all_failed(session, row)
    records = load(session.name, session.ledger.url)
    best, before = records.best(study.name), records.best(study.round)
    say(
        f"{study.objective.metric}: {readable(best.selected_value)} at trial {best.record.number}; the exploration's "
        f"best was {readable(before.selected_value)}. Both are the best of many trials, so both are partly luck (B32)"
    )
    candidate = f"{study.name}/{best.record.number}"
    baseline = f"{before.row.study.name}/{before.record.number}"
    next_step(
        command("adopt", session.called, after=("--candidate", candidate, "--baseline", baseline)),
        command("trials", session.name, after=("--study", study.name)),
    )
    return code


def adopt(options: AdoptOptions) -> Exit:
    """Compare candidate and baseline by trials with fresh seeds, or show what that would cost."""
    check_level(options.level)
    if _is_imported(options):
        return _compare_replicates(options)
    with open_session(options, dry_run=options.dry_run, create=False) as session:
        made = contest(session, *_sides_of(session, options.candidate, options.baseline), options.replicates)
        if options.dry_run:
            print_plan(*(plan_study(session, part.study, part.trials) for part in made.parts))
            return Exit.FINE
        finding = _hold_contest(session, made, options)
        emit_findings(session.name, made.study.name, [finding], options.form)
        say(f"{finding.verdict.upper()}: recorded in the log of adoptions of {session.name}")
        rows = [session.ledger.study(session.name, part.study.name) for part in made.parts]
        crossing = crossing_of(record for row in rows for record in session.ledger.trials(row.study_id))
        if crossing:
            say(f"note: the trials of both sides were trained {crossing}")
        code = told_failures(session, rows)
        next_step(command("adoptions", session.name), command("report", session.name))
        return code


def _sides_of(session: Session, candidate: str | None, baseline: str | None) -> tuple[Side, Side]:
    """The two trials as named; by default the best of the last round, and the configuration adopted last."""
    if candidate is None:
        winner = load(session.name, session.ledger.url).best()
        candidate = f"{winner.row.study.name}/{winner.record.number}"
    side = trial_at_place(session.ledger, session.name, candidate)
    baseline = baseline or baseline_place(session.ledger, session.name, side.place)
    return side, trial_at_place(session.ledger, session.name, baseline)


def _hold_contest(session: Session, made: Contest, options: AdoptOptions) -> Finding:
    """Train what is left while somebody watches."""
    say(f"{session.name} {made.study.name}: {made.study.goal}")
    for part in made.parts:
        start = " from scratch" if part.study.start else ""
        say(f"{len(part.trials)} trials of {part.study.length_in_words}{start}, with fresh seeds")
    with stop_on_signal() as asked:
        working = replace(session, stop=asked.is_set, watch=watch(options.quiet))
        return run_contest(
            working, made, level=options.level, minimum_gain=options.minimum_gain, retry_failed=options.retry_failed
        )


def _is_imported(options: AdoptOptions) -> bool:
    """Whether the study is the name of an imported one, and no file that can be trained."""
    if split_stage(options.study)[0].is_file() or not storage_exists(options.storage):
        return False
    with opened(options.storage, create=False) as ledger:
        return imported_row(ledger, str(options.study)) is not None


def _compare_replicates(options: AdoptOptions) -> Exit:
    """Answer from the replicates that an imported study has; a dry run only counts them."""
    name = str(options.study)
    with opened(options.storage, create=False) as ledger:
        made = imported_contest(ledger, name, options.candidate, options.baseline)
        say(f"{name} {made.study.name}: {made.study.goal}")
        say(f"{made.count(0)} replicates of the candidate, {made.count(1)} of the baseline; nothing is trained")
        findings = (
            []
            if options.dry_run
            else [settle(ledger, name, made, level=options.level, minimum_gain=options.minimum_gain)]
        )
    for finding in findings:
        say(f"{finding.verdict.upper()}: recorded in the log of adoptions of {name}")
        next_step(command("adoptions", name), command("report", name))
    emit_findings(name, made.study.name, findings, options.form)
    return Exit.FINE


def score_test(options: ScoreTestOptions) -> None:
    """Score the final configuration on data that nothing was chosen by, once."""
    records = load(str(options.study), options.storage)
    final = records.final()
    chosen = Chosen(final.row, final.record, final.checkpoint, final.step, final.selected_value)
    with opened(options.storage, create=False) as ledger:
        before = recorded_score(ledger, records.name)
        machine = Machine(folder_to_read(ledger, given_root(options.checkpoints)), options.device, options.threads)
        stage = declared_stage(options.study)
        score = scored_once(ledger, chosen, stage.campaign.workload, machine, stage.file)
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
    stage = declared_stage(options.study)
    with opened(options.storage, create=False) as ledger:
        name = stage.name if stage.name in ledger.campaigns() else campaign_name(ledger, str(options.study))
        if options.study_name is not None:
            row = ledger.study(name, options.study_name)
        else:
            row, _ = row_of_trial(ledger, name, round_number(ledger, name, options.round_number), trial)
        outcome = replayed(
            ledger, row, trial, stage.campaign.workload, device=options.device, threads=options.threads,
            study_file=stage.file, tell=lambda words: say(f"note: {words}"),
        )  # fmt: skip
    print(f"trial {trial}: {outcome.values} values compared, {outcome.different} differ", flush=True)
    if not outcome.different:
        say("the same bits as recorded" if outcome.values else "nothing is recorded of it yet, so nothing is compared")
        return Exit.FINE
    say(f"first difference: {outcome.first_difference}")
    nothing = "code, arguments, data and Numerics are as recorded, so the training itself does not repeat its bits"
    say("; ".join(outcome.causes) or nothing)
    return Exit.FINDING
