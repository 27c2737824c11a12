"""The value that stands for a study: the median of fresh seeds of its winner, else the value of the selected run.

The best of many trials is lucky as well as good (the winner's curse, B32): its value is not an estimate of what the
configuration gives. Trainings with fresh seeds were not selected; their median is. Fresh seeds of a trial stand in its
own round (together with a training that continues a shorter one), in a later round of the same length, or in a contest
of `tuner adopt`. Where all that a round trained of a configuration are fresh seeds, the value by which it was selected
is that of the earlier round.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from tuner.analysis.frames import study_frames
from tuner.analysis.questions.adoption import KIND
from tuner.analysis.study_frames import StudyFrames, ranked_results
from tuner.design.origin import promoted_from
from tuner.design.study import Study
from tuner.storage.store import Ledger

FRESH, SELECTED = "median of fresh seeds", "one seed"  # kinds of a headline value
_REPLICATE = re.compile(r"replicate of (?P<study>\S+)/(?P<trial>\d+)")

Configuration = tuple[str, int, float]  # the study and the trial it was first trained in, and the multiple of its rate


@dataclass(frozen=True, slots=True)
class FreshRun:
    """A training of the winner's configuration with seeds that were not selected; it may have stopped early."""

    study: str
    trial: int
    value: float
    stopped_early: bool = False


@dataclass(frozen=True, slots=True)
class EarlierRun:
    """The training, in an earlier round of the same length, for whose value the winner's configuration was promoted."""

    study: str
    trial: int
    value: float


@dataclass(frozen=True, slots=True)
class Headline:
    """The winner of a study and its value.

    trial: the selected run, the best training of the winner's configuration in this study; its weights are exported.
    value: the median of the fresh runs; without any the selected run's. selected_from: complete trials of the study.
    promoted_for: where the selected run is one of the fresh ones, for whose value the configuration was not selected;
    None for a configuration that was not promoted, or from a round of another length.
    """

    trial: int
    value: float
    selected_value: float
    fresh: tuple[FreshRun, ...]
    selected_from: int
    promoted_for: EarlierRun | None = None

    @property
    def kind(self) -> str:
        return FRESH if self.fresh else SELECTED

    @property
    def words(self) -> str:
        """The value with what it is; four digits."""
        return f"{self.value:.4g}, {self.words_behind}"

    @property
    def words_behind(self) -> str:
        """What stands behind the value."""
        if not self.fresh:
            chosen = f", selected as the best of {self.selected_from}: expect worse" if self.selected_from > 1 else ""
            return f"one seed{chosen}"
        values = [run.value for run in self.fresh]
        if len(values) == 1:
            behind = "one fresh seed"
        else:
            behind = f"median of {len(values)} fresh seeds ({min(values):.4g} to {max(values):.4g})"
        stopped = sum(run.stopped_early for run in self.fresh)
        behind += f", {stopped} of {len(values)} stopped early" if stopped else ""
        if self.promoted_for is not None:
            first = self.promoted_for
            return f"{behind}; promoted because trial {first.trial} of {first.study} had {first.value:.4g} (optimistic)"
        if self.selected_value in values:
            return behind
        return f"{behind}; the selected run had {self.selected_value:.4g} (selected, so optimistic)"


def headline(frames: StudyFrames, others: Sequence[StudyFrames] = (), trial: int | None = None) -> Headline | None:
    """The winner of a study, or `trial` where one is named; None where no trial is complete.

    others: studies that may hold other trainings of its configurations (`relatives`). Where the study itself
    trained fresh seeds, the winner is the configuration with the best median of them: a single seed proves nothing
    against them. Else it is the best trial. The smaller number wins a tie.
    """
    ranked = ranked_results(frames)
    if ranked.empty or (trial is not None and trial not in set(ranked["trial"])):
        return None
    values = {int(row["trial"]): float(row["best_value"]) for row in ranked.to_dict("records")}  # best first
    of_trial = _configurations(frames)
    fresh = {one: tuple(_fresh_runs(frames, others, one, of_trial)) for one in set(of_trial.values())}
    own = [one for one, runs in fresh.items() if any(run.study == frames.study.name for run in runs)]
    if trial is not None:
        chosen = of_trial[trial]
    elif own:
        chosen = min(own, key=lambda one: (_sign(frames) * _median(fresh[one]), _best_trial(one, of_trial)))
    else:
        chosen = of_trial[next(iter(values))]
    best = trial if trial is not None else _best_trial(chosen, of_trial)
    runs = fresh[chosen]
    is_fresh = (frames.study.name, best) in {(run.study, run.trial) for run in runs}
    earlier = _earlier_run(others, chosen) if is_fresh else None
    return Headline(best, _median(runs) if runs else values[best], values[best], runs, len(values), earlier)


def relatives(ledger: Ledger, campaign: str, study: Study) -> list[StudyFrames]:
    """Studies of the same length and objective that may hold other trainings of a study's configurations: contests and
    later rounds with fresh seeds of its trials, and what it was promoted from.
    """
    before = {name for name, _ in study.lineage} if study.kind == "round" else set()
    return [
        study_frames(ledger, campaign, row.study.name)
        for row in ledger.studies(campaign)
        if row.study.name != study.name
        and (
            row.study.kind == KIND
            or (row.study.round or 0) > (study.round or 0)
            or any(_is_of(row.study.name, name) for name in before)
        )
        and row.study.budget.max_train_steps == study.budget.max_train_steps
        and row.study.objective == study.objective
    ]


def fresh_medians(frames: StudyFrames) -> dict[int, tuple[float, int]]:
    """The median of the fresh seeds that a study trained itself and their count, by the best trial of each
    configuration, best median first.
    """
    of_trial, found = _configurations(frames), {}
    for one in dict.fromkeys(of_trial.values()):
        runs = tuple(_fresh_runs(frames, (), one, of_trial))
        if runs:
            found[_best_trial(one, of_trial)] = (_median(runs), len(runs))
    return dict(sorted(found.items(), key=lambda item: (_sign(frames) * item[1][0], item[0])))


def _configurations(frames: StudyFrames) -> dict[int, Configuration]:
    """The configuration of each complete trial, best trial first; one that was not promoted is its own."""
    found: dict[int, Configuration] = {}
    for row in ranked_results(frames).to_dict("records"):
        parent = promoted_from(str(row["origin"]))
        number = int(row["trial"])
        found[number] = (
            (frames.study.name, number, 1.0) if parent is None else (parent.study, parent.trial, parent.rate)
        )
    return found


def _best_trial(one: Configuration, of_trial: dict[int, Configuration]) -> int:
    """Trials are in the order of their values, equal ones in that of their numbers."""
    return next(trial for trial, configuration in of_trial.items() if configuration == one)


def _fresh_runs(
    frames: StudyFrames, others: Sequence[StudyFrames], one: Configuration, of_trial: dict[int, Configuration]
) -> Iterator[FreshRun]:
    mine = {trial for trial, configuration in of_trial.items() if configuration == one}
    stopped = set(frames.trials.loc[frames.stopped_early(), "trial"])
    for row in frames.selectable.to_dict("records"):
        parent = promoted_from(str(row["origin"]))
        if row["trial"] in mine and parent is not None and parent.seeds == "fresh":
            number = int(row["trial"])
            yield FreshRun(frames.study.name, number, float(row["best_value"]), number in stopped)
    for other in others:
        if other.study.patience_steps != frames.study.patience_steps:  # one may have trained longer than the other
            continue
        for row in other.complete.to_dict("records"):
            if _trains_again(str(row["origin"]), frames.study.name, mine):
                yield FreshRun(other.study.name, int(row["trial"]), float(row["best_value"]))


def _trains_again(origin: str, study: str, trials: set[int]) -> bool:
    """Whether a trial of another study is one of these trials with fresh seeds."""
    parent = promoted_from(origin)
    if parent is not None:
        return parent.seeds == "fresh" and parent.replicates and parent.study == study and parent.trial in trials
    found = _REPLICATE.fullmatch(origin)
    if found is None or int(found["trial"]) not in trials:
        return False
    return _is_of(found["study"], study)


def _is_of(name: str, study: str) -> bool:
    """Whether a study is this one or a widening of it: a widened round is one study."""
    return name == study or name.startswith(f"{study}-wide-")


def _earlier_run(others: Sequence[StudyFrames], one: Configuration) -> EarlierRun | None:
    study, trial, rate = one
    for other in others:
        found = other.complete[other.complete["trial"] == trial]
        if rate == 1.0 and _is_of(other.study.name, study) and len(found):
            return EarlierRun(study, trial, float(found["best_value"].iloc[0]))
    return None


def _median(runs: Sequence[FreshRun]) -> float:
    return median(run.value for run in runs)


def _sign(frames: StudyFrames) -> float:
    return frames.study.objective.sign
