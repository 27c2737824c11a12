"""Committing what happens to the trials in training: files first, then the transaction that names them."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from tuner.errors import LeaseLost, Unreachable
from tuner.records import Recorder, State, TrialUpdate
from tuner.training.logbook import Logbook, SharedFiles
from tuner.training.saving import BACKGROUND_BYTES, BackgroundSaver, Copies, num_bytes
from tuner.training.setup import StudySetup

MOST_PENDING = 200_000  # measurements kept in memory while the database is away

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is to be recorded of one trial; `update` where no file is to be written for it."""

    book: Logbook
    state: State
    reason: str = ""
    update: TrialUpdate | None = None

    @classmethod
    def failed(cls, book: Logbook, state: State, reason: str) -> "Outcome":
        """The end of a trial by an error: it stays as it was committed."""
        return cls(book, state, reason, book.failed(state, reason))

    @property
    def saves(self) -> bool:
        """Whether the whole state of the trial is saved."""
        return self.update is None and self.state is not State.INFEASIBLE


class Live(Protocol):
    """The trials of a cohort that still train, by their places."""

    @property
    def live(self) -> Sequence[int]: ...

    def retire(self, member: int) -> None:
        """Take a trial out of `live`: it has ended."""
        ...


class Committing:
    """What trials in training have been committed of, and what waits to be.

    Trials of one cohort; the setup says how often, and the recorder takes the updates.
    """

    processes = 1  # that train the cohort together; the time of each counts

    def __init__(self, setup: StudySetup, recorder: Recorder) -> None:
        self.setup = setup
        self.recorder = recorder
        self.copies = Copies()
        self.saver = BackgroundSaver()
        self.books: list[Logbook] = []  # of the cohort, by place
        self.cohort: Live | None = None
        self.shared: SharedFiles | None = None
        self.ended: dict[int, TrialUpdate] = {}  # the last update of each trial, by its id
        self.committed_at = 0.0
        self.counted_at = time.monotonic()

    def checked(self, cohort: Live, places: Sequence[int], state: State | None) -> list[Outcome]:
        """The ends of those trials that diverged; `state` for the others, where one is given."""
        outcomes = []
        for place in list(places):
            book = self.books[place]
            divergence = book.trainee.divergence()
            if divergence is not None:
                cohort.retire(place)
                outcomes.append(Outcome(book, State.INFEASIBLE, str(divergence)))
            elif state is not None:
                outcomes.append(Outcome(book, state))
        return outcomes

    def due_by_clock(self, cohort: Live) -> list[Outcome]:
        """What is to be committed by the clock while training goes on; large states are saved in the background."""
        if self.saver.over():
            self._record_saved(self.books[cohort.live[0]])
        if self.saver.busy or time.monotonic() - self.committed_at < self.setup.commit_seconds:
            return []
        self.committed_at = time.monotonic()
        if len(cohort.live) == 1:
            book = self.books[cohort.live[0]]
            state = book.state()
            least = BACKGROUND_BYTES if isinstance(self.setup.checkpoint_root, Path) else 0  # to send costs more
            if num_bytes(state) >= least:
                copy, copied = self.copies.of(state, book.trainee.optimizer, self.saver.thread)
                self.saver.start(book.without_files(State.RUNNING), book.writes(copy), copied)
                return []
        return self.checked(cohort, cohort.live, State.RUNNING)

    def _record_saved(self, book: Logbook) -> None:
        """Commit what the background thread has written."""
        update, book.written = self.saver.result()
        update = replace(update, checkpoints=book.with_previous(book.written))
        self.commit([Outcome(book, State.RUNNING, update=update)], goes_on=True)

    def commit(self, outcomes: Sequence[Outcome], *, goes_on: bool = False) -> None:
        """Commit all in one transaction: files first, then what names them, then the deletion of what nothing names.

        A trial that another worker owns does not keep the others from their commit. A training that `goes_on` does so
        without the database, too, and everything is written at a later commit.
        """
        self._count_time(outcomes)
        self._save_shared(outcomes)
        updates = [(outcome.book, self._update(outcome)) for outcome in outcomes]
        try:
            if updates:
                self.recorder.record([update for _, update in updates])
        except LeaseLost:
            if len(self.books) == 1:
                self.books[0].lease_lost()
                raise
            updates = [(book, update) for book, update in updates if self._recorded_alone(book, update)]
        except Unreachable as error:
            self._go_on_without_database(error, updates, goes_on)
            return
        for book, update in updates:
            if update.checkpoints is not None:
                book.committed(update)
            self.ended[book.claim.trial_id] = update
        if self.shared is not None and updates:
            self.shared.sweep(self.books)

    def _count_time(self, outcomes: Sequence[Outcome]) -> None:
        """Share the time since the last count, that of all processes, among the trials that trained in it."""
        now = time.monotonic()
        spent, self.counted_at = now - self.counted_at, now
        live = self.books if self.cohort is None else [self.books[place] for place in self.cohort.live]
        trained = {id(book): book for book in (*live, *(outcome.book for outcome in outcomes))}
        for book in trained.values():
            book.seconds += self.processes * spent / len(trained)

    def _save_shared(self, outcomes: Sequence[Outcome]) -> None:
        """Write the states of several trials as one file."""
        if self.shared is not None:
            self.shared.save([outcome.book for outcome in outcomes if outcome.saves])

    def _update(self, outcome: Outcome) -> TrialUpdate:
        if outcome.update is not None:
            return outcome.update
        if self.saver.busy:  # one save at a time; its files need not be written again
            _, outcome.book.in_background = self.saver.result()
        return outcome.book.update(outcome.state, outcome.reason)

    def _recorded_alone(self, book: Logbook, update: TrialUpdate) -> bool:
        """Commit one trial; False where another worker owns it, and then it trains no more."""
        try:
            self.recorder.record([update])
        except LeaseLost:
            book.lease_lost()
            self.ended.pop(book.claim.trial_id, None)
            if self.shared is not None and self.cohort is not None:
                self.shared.lend(book)
                place = self.books.index(book)
                if place in self.cohort.live:
                    self.cohort.retire(place)
            return False
        return True

    def _go_on_without_database(
        self, error: Unreachable, updates: Sequence[tuple[Logbook, TrialUpdate]], goes_on: bool
    ) -> None:
        """Keep what could not be committed; or raise the error: where a trial ends, or too much waits to be written."""
        ends = any(update.state is not State.RUNNING for _, update in updates)
        if ends or not goes_on or sum(len(book.pending) for book in self.books) > MOST_PENDING:
            raise error
        number = updates[0][0].claim.trial.number
        who = f"trial {number} trains" if len(updates) == 1 else f"{len(updates)} trials train"
        logger.warning("%s on without the database: %s", who, error)
        for book, _ in updates:
            book.not_committed()
