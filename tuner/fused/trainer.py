"""The training loop of a group: the evaluations, checks and commits of a single trial, for all of them at once."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from tuner.errors import Interrupted, LeaseLost, NotFusible, Unreachable
from tuner.fused.evaluation import GroupEvaluation
from tuner.fused.group_checkpoints import GroupCheckpoints
from tuner.fused.likeness import difference_of, largest_kind
from tuner.fused.making import make_group
from tuner.fused.refusal import refusal
from tuner.records import Claim, State, TrialUpdate
from tuner.training.denormals import denormals_as_zero
from tuner.training.endings import ending, is_out_of_memory, raise_lost_device
from tuner.training.randomness import callers_generators_restored
from tuner.training.trainer import (
    CHECK_STEPS,
    MOST_PENDING,
    Trainer,
    TrialInTraining,
    given_up,
)

logger = logging.getLogger(__name__)


class GroupTrainer:
    """Trains claimed trials of one shape as one stacked model, with the bits of `Trainer`."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.setting = trainer.setting
        self.unlike = ""  # what differs between the models, where no two are alike
        self.ways: dict[str, str] = {}  # how the operations of the last group were run

    def train(self, claims: Sequence[Claim]) -> list[TrialUpdate]:
        """Train the trials to their ends, or to where the setting says stop; the last update of each, in order.

        Without an update are those whose models are not like those of most: they are for another group.

        Raises NotFusible when they cannot be trained together with the bits of each alone; then what was
        committed stands, and the trials can go on otherwise. Errors of the machine are raised.
        """
        with callers_generators_restored(self.setting.device), denormals_as_zero(self.setting.device):
            try:
                return self._trained(claims)
            except Exception as error:
                raise_lost_device(error)
                raise

    def _trained(self, claims: Sequence[Claim]) -> list[TrialUpdate]:
        started: list[TrialInTraining | TrialUpdate] = []
        for claim in claims:
            started.append(self._start(claim, mates=any(isinstance(one, TrialInTraining) for one in started)))
        ready = [item for item in started if isinstance(item, TrialInTraining)]
        ended = {item.trial_id: item for item in started if isinstance(item, TrialUpdate)}
        self.trainer.recorder.record(list(ended.values()))
        last = self.setting.study.budget.max_train_steps
        ended |= {item.claim.trial_id: item.go_on() for item in ready if item.run.step == last}
        left = [item for item in ready if item.run.step < last]
        models = [item.run.model for item in left]
        left = [left[place] for place in largest_kind(models, len(left))]
        if len(left) > 1:
            group = _GroupInTraining(self.trainer, left)
            self.ways = dict(group.group.ways)
            ended |= group.to_the_end()
        elif left:
            self.unlike = difference_of(models)
            ended[left[0].claim.trial_id] = left[0].go_on()
        return [ended[claim.trial_id] for claim in claims if claim.trial_id in ended]

    def _start(self, claim: Claim, *, mates: bool) -> TrialInTraining | TrialUpdate:
        """A trial ready to go on from its checkpoint, or its end where the model rejects the point.

        Raises the error when the memory ends that it shares with `mates`: alone it may have enough.
        """
        try:
            training = TrialInTraining(self.trainer, claim)
            training.resume()
            if training.owes_evaluation and training.run.step < self.setting.study.budget.max_train_steps:
                training.evaluate()
                training.pin()
        except Exception as error:
            if mates and is_out_of_memory(error):
                raise
            state, reason = ending(error)
        else:
            return training
        return given_up(claim, None, state, reason)


@dataclass(frozen=True, slots=True)
class _Word:
    """What is to be recorded of one trial; `update` where it is given up as it stands."""

    trial: int
    state: State
    reason: str = ""
    update: TrialUpdate | None = None

    @property
    def saves(self) -> bool:
        """Whether its whole state is saved."""
        return self.update is None and self.state is not State.INFEASIBLE


class _GroupInTraining:
    """Trials on their way together; each stops for itself at its evaluations and where its losses are read back."""

    def __init__(self, trainer: Trainer, trainings: list[TrialInTraining]) -> None:
        self.trainer = trainer
        self.trainings = trainings
        self.everyone = list(trainings)
        self.checkpoints = GroupCheckpoints(trainer.setting, trainings[0].claim)
        self.evaluation_steps = trainer.setting.study.budget.evaluation_steps
        self.ended: dict[int, TrialUpdate] = {}
        self._stack()
        self.stops = [self._next_stop(training) for training in trainings]

    def to_the_end(self) -> dict[int, TrialUpdate]:
        """The last update of each trial, by its id."""
        while self.group.live:
            distance = min(self.stops[trial] - self.trainings[trial].run.step for trial in self.group.live)
            try:
                made = self.group.advance(distance)
            except NotFusible:
                self._record(self._checked(self.group.live, State.RUNNING))
                raise
            except Exception as error:  # of a batch that user code cannot bear; half an update may have been made
                raise refusal(error, "while it was trained") from error
            if made < distance:
                self._record(self._checked(self.group.live, State.RUNNING))
                break
            if not self._arrive([t for t in self.group.live if self.trainings[t].run.step == self.stops[t]]):
                break
            if 0 < len(self.group.live) <= len(self.trainings) // 2:
                self._compact()
        return self.ended

    def _compact(self) -> None:
        """Go on with a smaller group, now that half of the trials train no more; a last one goes on alone."""
        self.stops = [self.stops[trial] for trial in self.group.live]
        self.trainings = [self.trainings[trial] for trial in self.group.live]
        if len(self.trainings) > 1:
            self._stack()
            return
        (last,) = self.trainings
        self.group.live.clear()
        self.ended[last.claim.trial_id] = last.go_on()

    def _stack(self) -> None:
        runs = [training.run for training in self.trainings]
        left = self.evaluation_steps[-1] - min(run.step for run in runs)
        self.group = make_group(runs, steps=left)
        self.evaluation = GroupEvaluation(self.group)

    def _next_stop(self, training: TrialInTraining) -> int:
        step = training.run.step
        target = next((each for each in self.evaluation_steps if each > step), step)
        return min(target, step + CHECK_STEPS, training.next_pin)

    def _arrive(self, trials: Sequence[int]) -> bool:
        """Some trials are at a stop: read back, evaluate, and commit what is finished or due. Whether all go on."""
        words = self._checked(trials, None)
        healthy = [trial for trial in trials if trial in self.group.live]
        try:
            self._evaluate(healthy, words)
        except Interrupted:
            self._record(words + self._checked(self.group.live, State.RUNNING))
            return False
        live = self.group.live
        if live and self.trainings[live[0]].commit_is_due():
            words += self._checked(live, State.RUNNING)
        self._record(words, goes_on=True)
        return True

    def _evaluate(self, healthy: Sequence[int], words: list[_Word]) -> None:
        """Evaluate those of the healthy trials that are due, and add to `words` what is to be recorded of them."""
        due = [trial for trial in healthy if self.trainings[trial].run.step in self.evaluation_steps]
        measured = self.evaluation.of(due) if due else {}
        for trial in healthy:
            training = self.trainings[trial]
            self.trainer.on_step(training.claim, training.run.step)
            if trial in due:
                words += self._evaluated(trial, measured.get(trial))
            if trial in self.group.live:
                training.pin()
            self.stops[trial] = self._next_stop(training)

    def _checked(self, trials: Sequence[int], state: State | None) -> list[_Word]:
        """Ends of those that diverged; `state` for the others, where one is given."""
        words = []
        for trial in list(trials):
            divergence = self.trainings[trial].check_losses()
            if divergence is not None:
                self.group.retire(trial)
                words.append(_Word(trial, State.INFEASIBLE, str(divergence)))
            elif state is not None:
                words.append(_Word(trial, state))
        return words

    def _evaluated(self, trial: int, measured: dict[str, float] | None) -> list[_Word]:
        """The trial's end, if this was its last evaluation or if its metrics failed.

        Raises the error when the memory ends, which it shares with its mates.
        """
        training = self.trainings[trial]
        try:
            training.evaluate(measured)
            self.group.reclaim(trial)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            state, reason = ending(error)
            word = _Word(trial, state, reason, given_up(training.claim, training, state, reason))
        else:
            if training.run.step < self.evaluation_steps[-1]:
                return []
            word = _Word(trial, *training.end())
        self.group.retire(trial)
        return [word]

    def _record(self, words: Sequence[_Word], *, goes_on: bool = False) -> None:
        """Commit all in one transaction; a trial that is not ours any more does not keep the others from theirs.

        While trials go on they do so without the database, and everything is written at a later commit.
        """
        self.checkpoints.save([self.trainings[word.trial] for word in words if word.saves])
        updates = [(word.trial, self._update(word)) for word in words]
        try:
            self.trainer.recorder.record([update for _, update in updates])
        except LeaseLost:
            updates = [pair for pair in updates if self._recorded_alone(*pair)]
        except Unreachable as error:
            self._bear(error, updates, goes_on)
            return
        for trial, update in updates:
            training = self.trainings[trial]
            if update.checkpoints is not None:
                training.committed(update)
            if update.state.finished or update.state is State.RUNNING:
                self.ended[training.claim.trial_id] = update
        self.checkpoints.sweep(self.everyone)

    def _update(self, word: _Word) -> TrialUpdate:
        return word.update or self.trainings[word.trial].update(word.state, word.reason)

    def _bear(self, error: Unreachable, updates: Sequence[tuple[int, TrialUpdate]], goes_on: bool) -> None:
        """Go on without the database, or raise the error: where a trial ends, or too much waits to be written."""
        ends = any(update.state is not State.RUNNING for _, update in updates)
        if ends or not goes_on or sum(len(one.pending) for one in self.trainings) > MOST_PENDING:
            raise error
        logger.warning("%d trials train on without the database: %s", len(updates), error)
        for trial, _ in updates:
            self.trainings[trial].not_committed()

    def _recorded_alone(self, trial: int, update: TrialUpdate) -> bool:
        training = self.trainings[trial]
        try:
            self.trainer.recorder.record([update])
        except LeaseLost:
            self.checkpoints.lend(training)
            training.forsaken()
            self.ended.pop(training.claim.trial_id, None)
            if trial in self.group.live:
                self.group.retire(trial)
            return False
        return True
