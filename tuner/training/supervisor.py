"""The supervisor: trains a cohort to its evaluations, evaluates, keeps the best weights, and commits by the clock."""

import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

from tuner.errors import Interrupted, NotFusible
from tuner.records import Claim, Recorder, State, TrialUpdate
from tuner.training.committing import Committing, Outcome
from tuner.training.denormals import denormals_as_zero
from tuner.training.endings import ending, is_out_of_memory, raise_lost_device
from tuner.training.engine import Cohort, Measured, OnStep, StepEngine
from tuner.training.logbook import Logbook, SharedFiles
from tuner.training.randomness import callers_generators_restored

CHECK_STEPS = 50  # losses are read back and checked at least this often


class Supervisor(Committing):
    """Trains claimed trials of one study by an engine, and commits what happens to a recorder.

    `on_step(claim, step)` is called every few steps. Errors of the user's code end the trial; errors of the machine
    are raised, and the trial goes on later.
    """

    def __init__(self, engine: StepEngine[Any], recorder: Recorder, on_step: OnStep = lambda claim, step: None) -> None:
        super().__init__(engine.setup, recorder)
        self.engine: StepEngine[Any] = engine
        self.on_step = on_step
        self.evaluation_steps = self.setup.study.budget.evaluation_steps
        self.stops: list[int] = []  # the step at which each member is looked at next

    def train(self, claims: Sequence[Claim]) -> list[TrialUpdate]:
        """Train the trials to their ends, to their divergence, or to where the setup says stop.

        Returns the last update of each, in order; its state is RUNNING when the trial was stopped and can go on.
        A trial without an update was not trained: it does not go with the others, or another worker owns it now.

        Raises NotFusible when the trials cannot be trained together; what was committed stands, and they can go on
        otherwise. Raises LeaseLost when another worker owns the only trial.
        """
        self.ended, failure, device, memory_ended = {}, None, self.setup.device, False
        self.counted_at = time.monotonic()
        with self._books_closed_after():
            with (
                callers_generators_restored(device), denormals_as_zero(device), closing(self.saver),
                self.engine.setup.loading(),
            ):  # fmt: skip
                try:
                    cohort = self._begin(claims)
                    while cohort is not None and cohort.live:
                        with self._committed_if_not_fusible(cohort):
                            stopped = cohort.advance(self._distance(cohort), self.saver.over)
                        if not self._arrive(cohort, stopped=stopped):
                            break
                except Exception as error:
                    raise_lost_device(error)
                    if not self._is_alone(claims):
                        raise
                    failure, memory_ended = ending(error), is_out_of_memory(error)
            if failure is not None:  # outside the handler: an exception holds the frames, and they hold the tensors
                self._end_the_last(*failure, memory_ended=memory_ended)
        return [self.ended[claim.trial_id] for claim in claims if claim.trial_id in self.ended]

    def _end_the_last(self, state: State, reason: str, *, memory_ended: bool) -> None:
        """Commit the end of the only trial that is left, by an error of its code."""
        book = self.books[self.cohort.live[0]] if self.cohort is not None else self.books[0]
        told = book.trainee.out_of_memory() if memory_ended else ""
        self.commit([Outcome.failed(book, state, f"{reason}; {told}" if told else reason)])

    @contextmanager
    def _books_closed_after(self) -> Iterator[None]:
        try:
            yield
        finally:
            self.books, self.stops, self.cohort, self.shared = [], [], None, None

    @contextmanager
    def _committed_if_not_fusible(self, cohort: Cohort) -> Iterator[None]:
        """Commit what trains where the block finds that it cannot go on together."""
        try:
            yield
        except NotFusible:
            self.commit(self.checked(cohort, cohort.live, State.RUNNING))
            raise

    def _is_alone(self, claims: Sequence[Claim]) -> bool:
        """Whether an error can only be that of the one trial which is left."""
        if self.cohort is None:
            return len(claims) == len(self.books) == 1
        return len(self.cohort.live) == 1

    def _start(self, claims: Sequence[Claim]) -> bool:
        """Have each trial ready to go on from its checkpoint, or ended where it has an error; False when stopped."""
        for claim in claims:
            self._open(claim)
        outcomes: list[Outcome] = []
        try:
            for book in self.books:
                if book.owes_evaluation:
                    outcomes += self._evaluated(book, None)
                elif book.at_end:
                    outcomes.append(Outcome(book, *book.end()))
        except Interrupted:
            self.commit([Outcome(book, State.RUNNING) for book in self.books])
            return False
        self.commit(outcomes)
        ended = [outcome.book for outcome in outcomes]
        self.books = [book for book in self.books if book not in ended]
        return True

    def _open(self, claim: Claim) -> None:
        """Open the logbook of a trial, or record its end where the model rejects the point.

        Raises the error when the memory ends that the trial shares with others: alone it may have enough.
        """
        failure, book = None, None
        try:
            book = Logbook(self.setup, claim, self.engine.trainee(claim.trial))
            book.resume()
        except Exception as error:
            if self.books and is_out_of_memory(error):
                raise
            failure = ending(error)
        if failure is None and book is not None:
            self.books.append(book)
            return
        state, reason = failure or (State.FAILED, "")
        update = TrialUpdate(claim.trial_id, claim.fence, 0, state=state, reason=reason)
        update = update if book is None else book.failed(state, reason)
        self.recorder.record([update])
        self.ended[claim.trial_id] = update

    def _begin(self, claims: Sequence[Claim]) -> Cohort | None:
        """A cohort of the trials that go together; the others stay without an update. None where nothing is to train.

        The trials are opened for it, and that may end some of them, or meet a stop.
        """
        if not self._start(claims) or not self.books:
            return None
        book_of = {id(book.trainee): book for book in self.books}
        self.cohort = cohort = self.engine.begin([book.trainee for book in self.books])
        self.books = [book_of[id(trainee)] for trainee in cohort.trainees]
        self.stops = [self._next_stop(book) for book in self.books]
        self.shared = SharedFiles(self.setup, self.books[0].claim)
        self.committed_at = time.monotonic()
        return cohort

    def _next_stop(self, book: Logbook) -> int:
        """The step up to which a trial trains before it is looked at: an evaluation, a trunk, or losses to read."""
        step = book.trainee.step
        following = bisect_right(self.evaluation_steps, step)
        target = self.evaluation_steps[following] if following < len(self.evaluation_steps) else step
        return min(target, step + CHECK_STEPS, book.next_pin)

    def _distance(self, cohort: Cohort) -> int:
        """Updates until the first trial is at a stop."""
        return min(self.stops[place] - self.books[place].trainee.step for place in cohort.live)

    def _arrive(self, cohort: Cohort, *, stopped: bool) -> bool:
        """Some trials are at a stop: check, evaluate, and commit what has ended or is due. False when stopped."""
        if stopped:
            self.commit(self.checked(cohort, cohort.live, State.RUNNING))
            return False
        arrived = [place for place in cohort.live if self.books[place].trainee.step == self.stops[place]]
        arrived = arrived or list(cohort.live)  # no one arrived where there was a pause
        outcomes = self.checked(cohort, arrived, None)
        try:
            self._evaluate(cohort, [place for place in arrived if place in cohort.live], outcomes)
        except Interrupted:
            self.commit(outcomes + self.checked(cohort, cohort.live, State.RUNNING))
            return False
        if cohort.live:
            outcomes += self.due_by_clock(cohort)
        self.commit(outcomes, goes_on=True)
        return True

    def _evaluate(self, cohort: Cohort, healthy: Sequence[int], outcomes: list[Outcome]) -> None:
        """Evaluate those of the healthy trials that are due, and add to `outcomes` what has ended."""
        steps = [self.books[place].trainee.step for place in healthy]
        due = [
            place
            for place, step in zip(healthy, steps, strict=True)
            if step == self.stops[place] and step in self.evaluation_steps
        ]
        measured = cohort.evaluate(due) if due else {}
        for place, step in zip(healthy, steps, strict=True):
            book = self.books[place]
            self.on_step(book.claim, step)
            if place in due:
                ended = self._evaluated(book, measured.get(place))
                outcomes += ended
                if ended:
                    cohort.retire(place)
                    continue
            else:
                book.pin()
            self.stops[place] = self._next_stop(book)

    def _evaluated(self, book: Logbook, measured: Measured | None) -> list[Outcome]:
        """The end of a trial, if this was its last evaluation, if it stops early here, or if its metrics failed.

        Raises the error when the memory ends that the trial shares with others. Raises Interrupted, with nothing
        changed, where the setup says stop.
        """
        failure = None
        try:
            book.evaluated(book.trainee.measure(measured), reuse=not self.saver.busy)
        except Exception as error:
            mates = self.books if self.cohort is None else self.cohort.live
            if len(mates) > 1 and is_out_of_memory(error):
                raise
            failure = ending(error)
        if failure is not None:
            return [Outcome.failed(book, *failure)]
        book.pin()
        return [Outcome(book, *book.end())] if book.at_end else []
