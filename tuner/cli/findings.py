"""`tuner check`, `best-steps`, `boundaries`: verdicts. `trials`, `conclusions` and `adoptions`: tables."""

from collections.abc import Sequence
from dataclasses import asdict

import pandas as pd

from tuner.analysis.checklist import failing
from tuner.analysis.elsewhere import for_elsewhere
from tuner.analysis.good_trials import good_defined
from tuner.analysis.numerics_sets import crossing_words
from tuner.analysis.questions.best_steps import best_steps_finding
from tuner.analysis.questions.boundary import boundary_findings
from tuner.analysis.study_frames import StudyFrames, ranked_results
from tuner.analysis.trial_curves import has_curves
from tuner.cli.exit_codes import Exit
from tuner.cli.given import command, note_recorded
from tuner.cli.options import Format
from tuner.cli.output import emit_findings, emit_frame, exit_code, next_step, say, say_failed, show
from tuner.cli.places import opened
from tuner.cli.reading_options import (
    AdoptionsOptions,
    BestStepsOptions,
    BoundariesOptions,
    CheckOptions,
    ConclusionsOptions,
    TrialsOptions,
)
from tuner.interchange.cells import with_choice_cells, with_none
from tuner.reading import CampaignRecords, load
from tuner.rounds.expand import expand_round
from tuner.rounds.importances import importances
from tuner.shown import counted, shown


def check(options: CheckOptions) -> Exit:
    """Print the answer to every question of the checklist."""
    fail_on = options.fail_on
    verdicts = None if fail_on is None else [word.strip() for word in fail_on.split(",") if word.strip() != "none"]
    failing([], verdicts)  # a word that is no verdict is an error before anything is read
    records = _records(options.study, options.storage)
    frames = records.frames(options.round_number)  # read once: a large study takes seconds, and may grow meanwhile
    findings = [*records.findings_about(frames), *importances(frames)]
    if options.form is Format.table and has_curves(frames):
        show(good_defined(frames), style="dim")
    emit_findings(records.name, frames.study.name, findings, options.form, options.verbose)
    if frames.weaker:
        say(f"note: the training of {shown(frames.study.name)} promises less: {shown(frames.weaker)}")
    say_numerics(frames)
    told = failing(findings, verdicts)
    what = f"need{'s' * (len(told) == 1)} action" if verdicts is None else "of the chosen verdicts"
    named = ", ".join(f"{finding.about} {finding.verdict}" for finding in told)
    say(f"{counted(len(findings), 'finding')}, {len(told)} {what}{': ' * bool(told)}{named}")
    if not frames.study.source and any(finding.verdict.startswith("expand") for finding in findings):
        next_step(command("boundaries", records.name, after=("--expand",)))
    next_step(command("report", records.name))
    return Exit.FINDING if told else Exit.FINE


def best_steps(options: BestStepsOptions) -> int:
    """Print whether the step budget was right."""
    records = _records(options.study, options.storage)
    frames = records.frames(options.round_number)
    (finding,) = for_elsewhere(frames, [best_steps_finding(frames)])
    emit_findings(records.name, frames.study.name, [finding], options.form, options.verbose)
    say_failed(frames)
    next_step(command("plot best-steps", records.name, after=("-o", "best-steps.png")))
    return exit_code([finding])


def boundaries(options: BoundariesOptions) -> int:
    """Print for every hyperparameter whether its range was wide enough, and write a wider study if asked."""
    records = _records(options.study, options.storage)
    frames = records.searched(options.round_number)
    if options.round_number is None:
        say(f"{frames.study.name}: the last round that searched")
    findings = for_elsewhere(frames, boundary_findings(frames))
    emit_findings(records.name, frames.study.name, findings, options.form, options.verbose)
    say_failed(frames)
    if options.expand:
        _write_expansion(options.storage, records, frames.study.round or 1)
        return Exit.FINE
    if exit_code(findings) and not frames.study.source:
        next_step(command("boundaries", records.name, after=("--round", frames.study.round, "--expand")))
    next_step(command("plot axes", records.name, after=("--round", frames.study.round or 1, "-o", "axes.png")))
    return exit_code(findings)


def _records(study: str, storage: str | None) -> CampaignRecords:
    """The records that are meant; commands that are printed name the study file that they record."""
    records = load(study, storage)
    note_recorded(records.study_file())
    return records


def _write_expansion(storage: str | None, records: CampaignRecords, number: int) -> None:
    """Plan the widened study of a round in the Ledger, and say how it is trained. Raises InputError where there is
    nothing to widen.
    """
    with opened(storage, create=False) as ledger:
        made, row = expand_round(ledger, records.name, number)
    say(f"wrote {row.study.name}: {'; '.join(made.widened)}")
    say(f"{len(made.trials)} points, all in the new part of the ranges; the trials of the old part are not repeated")
    next_step(
        command("launch", records.study_file() or records.name, after=("--round", number, "--expanded")),
        command("check", records.name, after=("--round", number)),
    )


def trials(options: TrialsOptions) -> None:
    """Print the trials of a round, each with its point and what became of it."""
    form = options.form
    frames = load(options.study, options.storage).frames(options.study_name or options.round_number)
    table = frames.trials if options.top is None else ranked_results(frames).head(options.top)
    if form is not Format.json:
        table = with_choice_cells(table, frames.study.hyperparameters, none="None" if form is Format.table else "null")
    values = ["best_value", "best_step", "last_value", "steps", "seed"]
    if form is not Format.table:
        more = ["inherited", "exact", "numerics", "data_seed", "origin", "attempt", "parameter_groups"]
        if form is Format.json:
            groups = [[asdict(group) for group in frames.groups.get(one, ())] for one in table["trial"]]
            table = table.assign(parameter_groups=pd.Series(groups, index=table.index, dtype=object))
        columns = ["trial", "state", "reason", *frames.hyperparameters, *values, *more]
        emit_frame(table[columns], form, nullable=with_none(frames.study.hyperparameters))
        return
    unusual = ["inherited"] * bool(table["inherited"].any())  # what is as always is not worth a column
    unusual += ["exact"] * bool(not table["exact"].all()) + ["numerics"] * (len(frames.numerics) > 1)
    reason = ["reason"] * bool(table["reason"].any())
    point = frames.hyperparameters
    shown = ["trial", "state", "best_value", *point, *values[1:], *unusual, "origin", *reason]
    emit_frame(table[shown], form, spare=("origin", "seed", "last_value", *unusual, "steps", "best_step"))
    if frames.study.kind == "exploitation":
        say(f"{frames.study.name}: {frames.study.goal}")
    objective = frames.study.objective
    say(f"{frames.study.name}: values are {objective.metric}, to {objective.direction}; best: during training")
    say_numerics(frames)
    _say_groups(frames, list(table["trial"]))


def say_numerics(frames: StudyFrames) -> None:
    """One line where trials of a study were trained under several sets of Numerics."""
    if crossing := crossing_words(frames):
        say(f"note: the trials of {shown(frames.study.name)} were trained {crossing}")


NAMED = 3  # parameters of a group that are named


def _say_groups(frames: StudyFrames, listed: Sequence[int]) -> None:
    """The parameter groups of the first listed trial that has some; those of the others may have other multiples."""
    number = next((one for one in listed if one in frames.groups), None)
    if number is None:
        return
    groups = frames.groups[number]
    say(
        f"trial {number} has {counted(len(groups), 'parameter group')}, with multiples of the learning rate and of "
        "weight_decay:"
    )
    for group in groups:
        names = ", ".join(group.parameters[:NAMED]) + ", ..." * (len(group.parameters) > NAMED)
        tensors = counted(len(group.parameters), "tensor")
        say(f"  {group.name}: {group.multiples}; {counted(group.num_values, 'parameter')} in {tensors}: {names}")


def conclusions(options: ConclusionsOptions) -> None:
    """Print what holds at which length of training."""
    records = load(options.study, options.storage)
    concluded = records.conclusions()
    emit_frame(concluded, options.form)
    if concluded["asked_at"].notna().any():  # else no later round is there to be drawn
        next_step(command("plot transfer", records.name))


def adoptions(options: AdoptionsOptions) -> None:
    """Print the log of adoptions, which tells how the baseline came to be what it is."""
    records = load(options.study, options.storage)
    note_recorded(records.study_file())
    log = records.adoptions()
    emit_frame(log, options.form)
    if log.empty:
        say(f"no adoption of {records.name} yet; run: tuner adopt STUDY_FILE --candidate 2/0 --baseline 2/1")
