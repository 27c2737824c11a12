"""From a round to the next, longer one: the best points, each with its schedule carried over by rule (A32-A43).

A promoted point is trained with the seeds of its first training where the longer run begins as the shorter one did: it
then goes on from that trial's trunk. It also shares that trial's luck, so the winner and a rival are trained with
fresh seeds, too, and only those count as confirmation. Where no trunk is shared all seeds are fresh. So they are where
the round is no longer than the one before and the schedule is the same: the same seeds would give the same values.
"""

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tuner.analysis.round_frames import round_frames, round_rows
from tuner.analysis.study_frames import StudyFrames, ranked_results, ranked_trials
from tuner.budget.schedules import Schedule
from tuner.budget.step_budget import StepBudget
from tuner.budget.transfer import lengthened, transfer_report, trunk_steps
from tuner.design.hyperparameters import Choice
from tuner.design.narrowing import CONFIRMED, TUNED_AGAIN, narrowed_space
from tuner.design.origin import Origin, Seeds, promoted_from
from tuner.design.patience import check_distance
from tuner.design.points import Point
from tuner.design.quasi_random import quasi_random_points
from tuner.design.round import Round
from tuner.design.seeds import derived_seed
from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.errors import DeclarationError
from tuner.records import TrialRecord
from tuner.rounds.launch import Session, known_promises, required_round, started_study
from tuner.rounds.plan import round_name, schedule_of, trial_at, words_of_updates


@dataclass(frozen=True, slots=True)
class Promotion:
    """A promoting round ready to be launched: its study, its trials, and what the longer schedules do."""

    study: Study
    trials: tuple[Trial, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Parent:
    """A chosen trial, and the schedule with which its point is trained for longer.

    shares: whether a trial may go on from the steps of another; where not, a longer run begins at its first step.
    """

    record: TrialRecord
    schedule: Schedule
    shares: bool = True

    @property
    def has_trunk(self) -> bool:
        """Whether the longer training begins with all steps of this trial's trunk."""
        return self.record.schedule is not None and trunk_steps(self.record.schedule, self.schedule) > 0

    @property
    def repeats(self) -> bool:
        """Whether the same seeds would train the very same run again, from which nothing is learned."""
        return self.record.schedule == self.schedule


def promotion(session: Session, number: int, max_train_steps: int, *, carry_over: bool) -> Promotion:
    """The best points of the round before at `max_train_steps`, and new points around the winner where declared.

    carry_over: the schedules of a compute-bound workload are lengthened by rule (A40-A43); otherwise the declared
    schedule is derived again for the new length, unless the round declares how. Raises StorageError when the round
    before has no complete trial, TransferError for a schedule without a rule.
    """
    declared = session.campaign.round(number)
    before = session.campaign.round_before(number) or 1  # the first round is no control, and promotes nothing
    required_round(session, before)
    rows = round_rows(session.ledger, session.name, before)
    records = {record.number: record for row in rows for record in session.ledger.trials(row.study_id)}
    frames = round_frames(session.ledger, session.name, before)
    best = chosen_trials(frames, declared.promote or 1)
    chosen = [records[trial] for trial in _as_started(session, number, best, records)]
    started = started_study(session, round_name(number))  # one that was begun keeps as many as it did
    study = replace(
        rows[-1].study,
        name=round_name(number),
        keep_best=started.study.keep_best if started else session.campaign.keep_best,
        goal=declared.goal,
        budget=session.campaign.budget(max_train_steps),
        optimizer=session.campaign.optimizer,
        batch_size=session.campaign.workload.batch_size,
        schedule=session.campaign.schedule_family,
        warmup_steps=session.campaign.warmup_steps,
        **words_of_updates(session.campaign),
        round=number,
        seed=derived_seed("study", session.campaign.seed, round_name(number)),
        lineage=tuple((round_name(before), f"trial {record.number}") for record in chosen),
        patience_steps=declared.patience_steps or 0,
    )
    carried = carry_over if declared.transfer is None else declared.transfer != "retune"
    shares = _shares_steps(session, study)
    parents = [Parent(record, _schedule(study, record, declared, carried), shares) for record in chosen]
    if any(parent.has_trunk for parent in parents):
        study = replace(study, budget=_budget(session, study, rows[-1].study.budget))
    no_repeats = not _repeated_seeds(session, study.name)
    trials = list(_trials(study, parents, declared, no_repeats=no_repeats))
    if session.campaign.start_from is not None:
        trials = [_in_its_own_order(study, trial) for trial in trials]
    if declared.trials is not None:
        study = study_around(study, chosen[0].point)
        trials += trials_around(study, rows[-1].study, declared, len(trials), carried=carried)
    follows = known_promises(session, study).follows_schedule
    warnings = _warnings(parents) if carried and follows else ()
    warnings += () if follows or declared.transfer is None else (_told_nothing_carried(session, declared.transfer),)
    if no_repeats and any(parent.has_trunk and parent.repeats for parent in parents):
        warnings += (_told_fresh(study.name, round_name(before)),)
    check_distance(study.budget.evaluate_every, study.patience_steps, f"round {number}")
    warnings += tuple(_about_patience(study, trials))
    warnings += _stays(study, [record.number for record in chosen], best)
    return Promotion(replace(study, num_trials=len(trials)), tuple(trials), warnings)


def _shares_steps(session: Session, study: Study) -> bool:
    """Whether trials may go on from the steps of others; of a round of a loop that was started: whether they did."""
    started = session.loaded.trains_itself and started_study(session, study.name) is not None
    return _repeated_seeds(session, study.name) if started else known_promises(session, study).prefixes


def _about_patience(study: Study, trials: Sequence[Trial]) -> Iterator[str]:
    """Warnings about a patience that stops no trial, or that stops trials before their rate has decayed."""
    patience, steps = study.patience_steps, study.budget.max_train_steps
    if not patience:
        return
    if patience >= steps:
        yield f"patience_steps={patience:,} stops no trial of {study.name}, which trains {steps:,} steps"
    decays = [trial.schedule.decay_start for trial in trials if trial.schedule.decay_start is not None]
    if decays and patience <= max(decays) - study.warmup_steps:
        yield (
            f"patience_steps={patience:,} may stop trials of {study.name} while their learning rate is still constant, "
            f"which it is for {max(decays):,} steps: a curve is often flat there, and much of the gain comes with the "
            "decay after it; give a larger patience_steps, or none"
        )


def _stays(study: Study, chosen: list[int], best: list[int]) -> tuple[str, ...]:
    if chosen == best:
        return ()
    return (
        f"{study.name} was started from trials {_numbers(chosen)} of {study.lineage[0][0]} and stays so; by now trials "
        f"{_numbers(best)} are its best",
    )


def _as_started(session: Session, number: int, best: list[int], records: Collection[int]) -> list[int]:
    """The trials that a round was started from, where it was started from as many: trials that FAILED and completed
    when they were tried again may be better, and come too late for it.
    """
    started = started_study(session, round_name(number))
    lineage = started.study.lineage if started is not None else ()
    source = round_name(session.campaign.round_before(number) or 1)
    names = [name for place, name in lineage if place == source and name.startswith("trial ")]
    before = [int(name.removeprefix("trial ")) for name in names]
    return before if len(before) == len(best) and set(before) <= set(records) else best


def _told_nothing_carried(session: Session, transfer: str) -> str:
    name = type(session.campaign.workload).__name__
    return f"transfer={transfer!r} carries schedules over, and {name} trains by rates of its own: it changes nothing"


def _told_fresh(name: str, before: str) -> str:
    return (
        f"{name} is as long as {before}, so all its trials have fresh seeds: the same seeds would give the same values "
        "again"
    )


def _repeated_seeds(session: Session, name: str) -> bool:
    """Whether a round was started with the seeds of the first trainings of its points; then it keeps them."""
    started = started_study(session, name)
    records = session.ledger.trials(started.study_id) if started is not None else ()
    origins = (promoted_from(record.origin) for record in records)
    return any(origin is not None and origin.seeds == "same" for origin in origins)


def _numbers(trials: Iterable[int]) -> str:
    return ", ".join(map(str, trials))


def _budget(session: Session, study: Study, before: StepBudget) -> StepBudget:
    """A budget that is evaluated at the steps of the shorter round, so that inherited steps keep their measurements.

    As it was started, where it was: versions before evaluated elsewhere.
    """
    started = started_study(session, study.name)
    steps = study.budget.max_train_steps
    if started is not None and started.study.budget.max_train_steps == steps:
        return started.study.budget
    return before.lengthened_to(study.budget) if steps > before.max_train_steps else study.budget


def most_promoted(declared: Round) -> int:
    """How many trials a promoting round has at most, before it is known which points share a trunk."""
    return (declared.promote or 0) + declared.num_fresh + len(declared.rate_arms) - 1 + (declared.trials or 0)


def _schedule(study: Study, record: TrialRecord, declared: Round, carried: bool) -> Schedule:
    if not carried or record.schedule is None:
        return schedule_of(study, record.point)
    mode = None if declared.transfer == "retune" else declared.transfer
    return lengthened(record.schedule, study.budget.max_train_steps, mode)


def _warnings(parents: Sequence[Parent]) -> tuple[str, ...]:
    told: list[str] = []
    for parent in parents:
        if parent.record.schedule is not None:
            told += transfer_report(parent.record.schedule, parent.schedule).warnings
    return tuple(dict.fromkeys(told))


def _trials(study: Study, parents: Sequence[Parent], declared: Round, *, no_repeats: bool) -> Iterator[Trial]:
    """Every point once; then the first ones again with (other) fresh seeds; then the winner's arms.

    no_repeats: no training is repeated with the same seeds. Nor is one that could not go on from the first training.
    """
    plan: list[tuple[Parent, Seeds, float]] = [
        (one, "same" if one.has_trunk and one.shares and not (no_repeats and one.repeats) else "fresh", 1.0)
        for one in parents
    ]
    plan += [(one, "fresh", 1.0) for one in parents[: declared.num_fresh] if one.has_trunk]
    plan += [(parents[0], "fresh", arm) for arm in declared.rate_arms if arm != 1.0]
    yield from (_trial(study, place, *one) for place, one in enumerate(plan))


def _trial(study: Study, place: int, parent: Parent, seeds: Seeds, arm: float) -> Trial:
    record = parent.record
    point = Point.of(dict(record.point))
    if arm != 1.0:
        point = point.with_values(learning_rate=arm * point.number("learning_rate"))
    origin = Origin(study.lineage[0][0], record.number, seeds, arm)
    planned = trial_at(study, place, point, str(origin), parent.schedule)
    return replace(planned, seed=record.seed, data_seed=record.data_seed) if seeds == "same" else planned


def _in_its_own_order(study: Study, trial: Trial) -> Trial:
    """A fresh trial of a stage with an order of batches of its own.

    Where all parameters are carried, nothing is left for its other seed: two trainings in one order would be copies,
    and their agreement would pass for certainty.
    """
    origin = promoted_from(trial.origin)
    if origin is None or origin.seeds == "same":
        return trial
    return replace(trial, data_seed=derived_seed("data", study.seed, trial.number))


def chosen_trials(frames: StudyFrames, count: int) -> list[int]:
    """Numbers of the trials to promote, best first; the smaller number on a tie.

    Where architectures or scientific values were compared and the best `count` (2 or more) have only one, the second
    place goes to the best trial of another: only beside it can the answer of the round be confirmed (A36, B32).
    """
    ranked = ranked_trials(frames)
    numbers = [int(trial) for trial in ranked["trial"]]
    names = [
        h.name
        for h in frames.study.hyperparameters
        if isinstance(h.domain, Choice) and (h.family in CONFIRMED or h.name in frames.study.scientific)
    ]
    chosen = numbers[:count]
    if names and count > 1:
        kinds = {int(row["trial"]): _kind(row, names) for row in ranked.to_dict("records")}
        others = [number for number in numbers if kinds[number] != kinds[numbers[0]]]
        if others and not set(others) & set(chosen):
            chosen = [chosen[0], others[0], *chosen[1 : count - 1]]
    return chosen


def best_trial(session: Session, number: int) -> int:
    """The best trial of a round, one that stopped early too. Raises DeclarationError where none is complete."""
    ranked = ranked_results(round_frames(session.ledger, session.name, number))
    if ranked.empty:
        raise DeclarationError(f"round {number} has no complete trial yet; give --round, or train it first")
    return int(ranked["trial"].iloc[0])


def study_around(study: Study, winner: Point) -> Study:
    """The study of a round that searches around the winner. Raises DeclarationError where nothing is left to vary."""
    space = narrowed_space(study.space, winner)
    left = {hyperparameter.name for hyperparameter in space}
    return replace(
        study,
        hyperparameters=space.hyperparameters,
        fixed=space.fixed,
        scientific=tuple(name for name in study.scientific if name in left),
    )


def trials_around(study: Study, before: Study, declared: Round, first: int, *, carried: bool) -> Sequence[Trial]:
    """The new points of a round from `study_around`, numbered from `first` on.

    Their schedules are those of the round before, carried over by rule; new schedules are made for the new
    length where the schedule itself is tuned again.
    """
    points = quasi_random_points(study.space, seed=study.seed, start=0, count=declared.trials or 0)
    tuned = any(hyperparameter.family in TUNED_AGAIN for hyperparameter in study.hyperparameters)

    def schedule(point: Point) -> Schedule:
        if tuned or not carried:
            return schedule_of(study, point)
        mode = None if declared.transfer == "retune" else declared.transfer
        return lengthened(schedule_of(before, point), study.budget.max_train_steps, mode)

    return [
        trial_at(study, number, point, f"quasi-random {number - first}", schedule(point))
        for number, point in enumerate(points, first)
    ]


def _kind(row: Mapping[Hashable, object], names: Sequence[str]) -> tuple[str, ...]:
    return tuple(repr(row[name]) for name in names)
