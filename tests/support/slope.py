"""An engine that is no torch trainer: one number goes downhill, and no bits, prefixes or schedules are promised.

It shows that the supervisor, the backend and the report need nothing of an engine but what it promises.
"""

import math
from dataclasses import replace

import torch

from tuner.records import Price, Promises
from tuner.training.engine import Inspection
from tuner.training.stability import Divergence
from tuner.training.supervisor import Supervisor

GOAL = 3.0


def value_at(rate, step):
    """The value after so many updates, worked by hand: the distance to the goal shrinks by 1 - 2 rate each."""
    return (GOAL * (1.0 - 2.0 * rate) ** step) ** 2


class Slope:
    """A trial: `place` moves downhill on (place - GOAL) ** 2, at the constant rate of its point."""

    optimizer = None
    groups = None

    def __init__(self, setup, trial):
        self.setup, self.trial = setup, trial
        self.step, self.place, self.losses = 0, 0.0, []

    @property
    def unevaluated(self):
        return len(self.losses)

    @property
    def numerics(self):
        return replace(self.setup.numerics, exact=False)

    def fresh(self):
        return Slope(self.setup, self.trial)

    def divergence(self):
        return None if all(map(math.isfinite, self.losses)) else Divergence(self.step, "the place is lost")

    def measure(self, evaluated=None):
        measured = {"validation/loss": (self.place - GOAL) ** 2, "batch/loss": math.fsum(self.losses)}
        self.losses = []
        return measured

    def traced(self):
        return []

    def state(self):
        return {"step": self.step, "place": self.place, "losses": self.losses}

    def load(self, state):
        self.step, self.place, self.losses = state["step"], state["place"], list(state["losses"])

    def weights(self, into=None):
        return {"place": torch.tensor([self.place], dtype=torch.float64)}

    def frozen(self):
        return {}

    def prefix_key(self):
        return None

    def update(self):
        rate = self.trial.point.number("learning_rate")
        self.losses.append((self.place - GOAL) ** 2)
        self.place -= 2.0 * rate * (self.place - GOAL)
        self.step += 1


class Slopes:
    """A cohort of one."""

    def __init__(self, slope):
        self.trainees, self.live = [slope], [0]

    def advance(self, updates, pause):
        for _ in range(updates):
            if pause():
                break
            if self.trainees[0].setup.stop():
                return True
            self.trainees[0].update()
        return False

    def evaluate(self, members):
        return {}

    def retire(self, member):
        self.live.remove(member)


class SlopeEngine:
    """Inspects by its own means: no model is built, no loss is called."""

    promises = Promises()

    def __init__(self, setup):
        self.setup = setup

    def inspect(self, trials, asked):
        size = torch.float64.itemsize
        price = Price(step_ms=2.0, evaluation_ms=30.0, latest_bytes=3 * size, best_bytes=size)
        return Inspection(finite=asked.validation_seconds is not None, price=price if asked.price else None)

    def settle(self, trial):
        """Nothing has to be."""

    def trainer(self, recorder, on_step):
        return Supervisor(self, recorder, on_step)

    def trainee(self, trial):
        return Slope(self.setup, trial)

    def begin(self, trainees):
        return Slopes(trainees[0])
