"""A model of who owns what: any order of claims, heartbeats, pauses, kills and ends, compared with the Ledger.

The clock is virtual: when time passes, the leases in the database become that much older.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import select, text

from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.errors import LeaseLost
from tuner.records import Checkpoint, Claim, Measurement, State, TrialUpdate
from tuner.storage.schema import measurement, trial
from tuner.storage.store import Ledger

LEASE = 1000.0  # seconds; a test takes a few
MAX_ATTEMPTS = 3
TRIALS = 4
WORKERS = ("far:1:a", "far:2:b", "far:3:c")
ENDS = (State.COMPLETE, State.INFEASIBLE, State.FAILED)
NAMES = count()


@dataclass
class Known:
    """What a trial must look like."""

    state: State = State.WAITING
    fence: int = 0
    attempt: int = 0  # claims since it got on
    farthest: int = 0
    step: int = 0
    left: float = 0.0  # seconds of its lease
    worker: str | None = None
    curve: list[int] = field(default_factory=list)
    saved: int = -1  # the step of its checkpoint

    def reach(self, step):
        if step > self.farthest:
            self.farthest, self.attempt = step, 1


class Ownership(RuleBasedStateMachine):
    """Workers may act on any claim they ever got, however late: the fence decides, and the model knows."""

    ledger: Ledger  # of the test, set in a subclass, as the two below are
    study: Study
    make_trial: Callable[[int], Trial]

    def __init__(self):
        super().__init__()
        row = self.ledger.start_study(f"machine {next(NAMES)}", self.study, "code and data")
        self.ledger.plan_trials(row.study_id, [self.make_trial(number) for number in range(TRIALS)])
        self.study_id = row.study_id
        self.known = {number: Known() for number in range(TRIALS)}
        self.held: list[tuple[str, Claim]] = []

    @rule(worker=st.sampled_from(WORKERS), most=st.integers(1, 3))
    def claim(self, worker, most):
        expected = self._claimed(worker, most)
        claims = self.ledger.claim(
            self.study_id, worker=worker, lease_seconds=LEASE, max_trials=most, max_attempts=MAX_ATTEMPTS
        )
        assert sorted((c.trial.number, c.fence, c.attempt) for c in claims) == expected
        self.held += [(worker, claimed) for claimed in claims]

    def _claimed(self, worker, most):
        """Trials whose lease ran out, then those that wait, by number; who used up all attempts fails instead."""
        while True:
            expired = [n for n, one in self.known.items() if one.state is State.RUNNING and one.left < 0]
            waiting = [n for n, one in self.known.items() if one.state is State.WAITING]
            found = (expired + waiting)[:most]
            worth = [number for number in found if self.known[number].attempt < MAX_ATTEMPTS]
            for number in set(found) - set(worth):
                self._end(self.known[number], State.FAILED)
            if worth or not found:
                break
        for number in worth:
            one = self.known[number]
            one.state, one.fence, one.attempt, one.worker = State.RUNNING, one.fence + 1, one.attempt + 1, worker
            one.left, one.step = LEASE, max(one.saved, 0)
            one.curve = [step for step in one.curve if step <= one.saved]
        return sorted((number, self.known[number].fence, self.known[number].attempt) for number in worth)

    @precondition(lambda self: self.held)
    @rule(pick=st.integers(0, 99), saved=st.booleans(), twice=st.booleans())
    def go_on(self, pick, saved, twice):
        """Train ten steps and say so, perhaps with a checkpoint, perhaps twice because the answer was lost."""
        _, claimed = self._picked(pick)
        one = self.known[claimed.trial.number]
        owned = self._owned(claimed)
        step = one.step + 10 if owned else 1000
        self._record(claimed, step, State.RUNNING, saved)
        if twice and owned:
            self._record(claimed, step, State.RUNNING, saved)
        if owned:
            one.reach(step)
            one.step, one.left, one.curve = step, LEASE, [*one.curve, step]
            one.saved = step if saved else one.saved

    @precondition(lambda self: self.held)
    @rule(pick=st.integers(0, 99), state=st.sampled_from(ENDS))
    def finish(self, pick, state):
        _, claimed = self._picked(pick)
        one = self.known[claimed.trial.number]
        owned = self._owned(claimed)
        step = one.step + 10 if owned else 1000
        self._record(claimed, step, state, saved=False)
        if owned:
            one.reach(step)
            one.step, one.curve = step, [*one.curve, step]
            self._end(one, state)

    @precondition(lambda self: self.held)
    @rule(pick=st.integers(0, 99), counts=st.booleans())
    def release(self, pick, counts):
        _, claimed = self._picked(pick)
        one = self.known[claimed.trial.number]
        owned = self._owned(claimed)
        assert self.ledger.release([claimed], count_attempt=counts) == int(owned)
        if owned:
            one.attempt -= not counts
            self._end(one, State.WAITING)

    @precondition(lambda self: self.held)
    @rule(pick=st.integers(0, 99))
    def heartbeat(self, pick):
        _, claimed = self._picked(pick)
        owned = self._owned(claimed)
        assert self.ledger.renew([claimed]) == ([claimed] if owned else [])
        if owned:
            self.known[claimed.trial.number].left = LEASE

    @rule(seconds=st.sampled_from([0.4 * LEASE, 1.5 * LEASE]))
    def pause(self, seconds):
        """Time passes, for a worker that is stopped as for all others; never exactly a lease."""
        with self.ledger._database.writing() as connection:
            aging = "update trial set lease_until = lease_until - :seconds where study_id = :study"
            connection.execute(text(aging), {"seconds": seconds, "study": self.study_id})
        for one in self.known.values():
            one.left -= seconds

    @rule(worker=st.sampled_from(WORKERS))
    def kill(self, worker):
        """It will never act again; another of its name may."""
        self.held = [(owner, claimed) for owner, claimed in self.held if owner != worker]

    @invariant()
    def the_ledger_is_as_the_model(self):
        with self.ledger._database.reading() as connection:
            columns = (trial.c.number, trial.c.state, trial.c.fence, trial.c.attempt, trial.c.step, trial.c.worker)
            rows = connection.execute(select(*columns).where(trial.c.study_id == self.study_id)).all()
            steps = select(trial.c.number, measurement.c.step).where(
                trial.c.study_id == self.study_id, measurement.c.trial_id == trial.c.id
            )
            curves = sorted(tuple(row) for row in connection.execute(steps))
        found = {row.number: tuple(row)[1:] for row in rows}
        known = {n: (o.state.value, o.fence, o.attempt, o.step, o.worker) for n, o in self.known.items()}
        assert found == known
        assert curves == sorted((number, step) for number, one in self.known.items() for step in one.curve)

    def _picked(self, pick):
        return self.held[pick % len(self.held)]

    def _owned(self, claimed):
        one = self.known[claimed.trial.number]
        return one.state is State.RUNNING and one.fence == claimed.fence

    def _record(self, claimed, step, state, saved):
        kept = [Checkpoint("latest", step, f"latest-{step}-{claimed.fence}.pt", "digest", 8)] if saved else None
        loss = [Measurement(step, "validation/loss", step / 7)]
        update = TrialUpdate(claimed.trial_id, claimed.fence, step, loss, kept, state)
        owned = self._owned(claimed)
        try:
            self.ledger.record([update])
        except LeaseLost:
            assert not owned, "an owner was refused"
        else:
            assert owned, "somebody wrote who is not the owner"

    def _end(self, one, state):
        one.state, one.worker = state, None
