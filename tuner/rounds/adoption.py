"""Before a point is adopted: a separate study trains candidate and baseline again with fresh seeds (B31-B34).

Its trials are claimed, fused, resumed and verified like those of any study. The name of the study is made of the two
trials, so that the same command goes on with it; more replicates extend it.
"""

from dataclasses import dataclass, replace

from tuner.analysis.finding import Finding
from tuner.analysis.questions.adoption import (
    KIND,
    adoption_finding,
    baseline_name,
    contest_frames,
    is_candidate,
    last_adoption,
    log_entry,
)
from tuner.analysis.replicates import LEVEL
from tuner.analysis.round_frames import controls_started, round_frames, row_of_trial
from tuner.design.seeds import derived_seed
from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.errors import DeclarationError, StorageError
from tuner.records import TrialRecord
from tuner.records.budget_origin import budget_of_study
from tuner.rounds.launch import Session, launch_study
from tuner.rounds.plan import round_name, trial_at
from tuner.rounds.promotion import chosen_trials
from tuner.storage.store import Ledger
from tuner.storage.studies import StudyRow

_SHARED = (
    "objective",
    "optimizer",
    "batch_size",
    "slices",
    "slice_size",
    "precision",
    "ema_steps",
    "augment",
    "fitted_when",
)  # what must be equal of both
MOST_REPLICATES = 1000


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two: a trial and the study it was trained in."""

    row: StudyRow
    record: TrialRecord

    @property
    def place(self) -> str:
        return f"{self.row.study.name}/{self.record.number}"

    @property
    def start(self) -> str:
        """How it starts: "scratch" in a control of a stage, "" as the campaign does."""
        return self.row.study.start


@dataclass(frozen=True, slots=True)
class Contest:
    """An adoption study with its trials: even numbers train the candidate, odd ones the baseline.

    other: the study of the baseline, where one side starts from scratch and one from the weights of an earlier stage.
    """

    study: Study
    trials: tuple[Trial, ...]
    other: "Contest | None" = None

    @property
    def parts(self) -> tuple["Contest", ...]:
        """The studies, each with its trials."""
        return (self,) if self.other is None else (self, self.other)


def trial_at_place(ledger: Ledger, campaign: str, place: str) -> Side:
    """The trial that "2/0" (round 2, trial 0) or "round-1-exploit-tpe/7" means. Raises StorageError."""
    where, _, number = place.rpartition("/")
    if not where or not number.isdecimal():
        raise DeclarationError(f"a trial is named ROUND/TRIAL, like 2/0, or STUDY/TRIAL, like round-2/0; got {place!r}")
    if where.isdecimal():
        return Side(*row_of_trial(ledger, campaign, int(where), int(number)))
    row = ledger.study(campaign, where)
    return Side(row, ledger.trial(row.study_id, int(number)))


def baseline_place(ledger: Ledger, campaign: str, candidate: str) -> str:
    """What was adopted last; where that is the `candidate` itself, what it was adopted over: the same contest again.

    Raises DeclarationError while nothing was adopted.
    """
    adopted = last_adoption(ledger, campaign)
    if adopted is None:
        controls = controls_started(ledger, campaign)
        trials = chosen_trials(round_frames(ledger, campaign, controls[-1]), 1) if controls else []
        control = f"; or the best of the control: --baseline {controls[-1]}/{trials[0]}" if trials else ""
        raise DeclarationError(
            f"nothing of {campaign!r} was adopted yet: name the baseline, like --baseline 2/1, of the candidate's "
            f"round{control}"
        )
    new, old = (f"{study}/{number}" for study, number in adopted)
    return old if new == candidate else new


def contest(session: Session, candidate: Side, baseline: Side, replicates: int) -> Contest:
    """The study that trains both with fresh seeds. Raises DeclarationError where they cannot be compared."""
    if not 2 <= replicates <= MOST_REPLICATES:
        raise DeclarationError(f"replicates must lie in 2..{MOST_REPLICATES}: one has no spread; got {replicates}")
    _check_comparable(candidate, baseline)
    name = f"adopt-{candidate.place}-over-{baseline.place}".replace("/", "-")
    sides = (candidate, baseline)
    numbers = range(2 * replicates)
    if candidate.start == baseline.start:
        return _part(session, sides, candidate, name, numbers)
    other = _part(session, sides, baseline, baseline_name(name), numbers[1::2])
    return replace(_part(session, sides, candidate, name, numbers[::2]), other=other)


def _part(session: Session, sides: tuple[Side, Side], side: Side, name: str, numbers: range) -> Contest:
    """A study with some trials of a contest, which all start and train as those of one side do."""
    candidate, baseline = sides
    study = replace(
        side.row.study,
        name=name,
        kind=KIND,
        goal=f"Is trial {candidate.place} better than trial {baseline.place}, in view of the variance of trials?",
        num_trials=len(numbers),
        seed=derived_seed("study", session.campaign.seed, name),
        keep_best=1,
        round=None,
        lineage=tuple((one.row.study.name, str(one.record.number)) for one in sides),
        scientific=(),
        patience_steps=0,
    )
    trials = [_replicate(study, number, sides[0 if is_candidate(number) else 1]) for number in numbers]
    return Contest(study, tuple(trials))


def _replicate(study: Study, number: int, side: Side) -> Trial:
    """The trial again with other seeds: those of initialization and dropout, and the order of the batches, too."""
    trial = trial_at(study, number, side.record.point, f"replicate of {side.place}", side.record.schedule)
    return replace(trial, data_seed=derived_seed("data", study.seed, number))


def run_contest(
    session: Session, made: Contest, *, level: float = LEVEL, minimum_gain: float = 0.0, retry_failed: bool = False
) -> Finding:
    """Train what is left of the contest, answer, and keep the answer in the log of adoptions."""
    check_level(level)
    for part, (source, _) in zip(made.parts, made.study.lineage, strict=False):
        origin = budget_of_study(source)
        launch_study(session, part.study, part.trials, budget_origin=origin, retry_failed=retry_failed)
    frames, efforts = contest_frames(session.ledger, session.name, made.study.name)
    finding = adoption_finding(frames, level=level, minimum_gain=minimum_gain, efforts=efforts)
    row = session.ledger.study(session.name, made.study.name)
    session.ledger.conclude(session.name, log_entry(frames, finding), row.study_id)
    return finding


def check_level(level: float) -> None:
    """Raise DeclarationError for a level that is no probability of use."""
    if not 0.5 <= level < 1.0:
        raise DeclarationError(f"level is the probability of the interval, from 0.5 to below 1, got {level:g}")


def _check_comparable(candidate: Side, baseline: Side) -> None:
    if candidate.place == baseline.place:
        raise DeclarationError(f"candidate and baseline are the same trial {candidate.place}; name two")
    for side in (candidate, baseline):
        if side.row.study.source:
            raise StorageError(f"trial {side.place} was trained elsewhere and cannot be trained again here")
        if side.record.schedule is None:
            raise StorageError(f"trial {side.place} is unreadable in the Ledger: {side.record.reason}")
    trained = [(one.start, one.record.point, one.record.schedule) for one in (candidate, baseline)]
    if trained[0] == trained[1]:
        raise DeclarationError(
            f"{candidate.place} and {baseline.place} train one configuration with different seeds, so neither can be "
            "better; name trials of two configurations (tuner trials shows them)"
        )
    one, other = candidate.row.study, baseline.row.study
    for key in (*_SHARED, *["budget"] * (one.start == other.start)):
        if getattr(one, key) != getattr(other, key):
            mine, theirs = _told(one, key), _told(other, key)
            raise DeclarationError(
                f"{candidate.place} and {baseline.place} differ in {key} ({mine} and {theirs}) and cannot be compared "
                f"by one study; name two of {round_name(one.round or 1)}, where points of the round before were "
                "trained again, or promote both to the next"
            )


def _told(study: Study, key: str) -> str:
    if key == "budget":
        return f"{study.budget.max_train_steps:,} steps"
    return str(getattr(study, key)) or "not declared"
