"""One trial that a loop trains, as the logbook sees it: at which step it is, and what is kept of it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import torch

from tuner.delegated.files import KeptFiles
from tuner.delegated.kept import KeptObjects
from tuner.delegated.setup import LoopSetup
from tuner.design.prefix import base_digest, path_digests, rates_of
from tuner.design.trial import Trial
from tuner.records import Checkpoint, GroupRecord, Measurement, Numerics, PrefixKey
from tuner.training.engine import Measured, Weights
from tuner.training.stability import Divergence

# What the first steps of a trial must not depend on where another one shall begin with them; in words.
OF_LENGTH = {
    "max_train_steps": "trial.max_train_steps",
    "evaluation_steps": "trial.evaluation_steps, or asks trial.evaluates of a later step",
    "max_steps": "max_steps of its trainer, or may do so in a callback or a class of its own",
    "rates ahead": "trial.rate of later steps",
}


class LoopTrainee:
    """A trial at some step. `kept`: the objects of the loop; `files`: what it writes itself (see `KeptFiles`).

    asked: what the loop asked the handle for, since its first step.
    `exact`: no step was trained under other Numerics or code, and the loop goes on exactly where it was.
    """

    optimizer: torch.optim.Optimizer | None = None
    groups: list[GroupRecord] | None = None
    unevaluated = 0  # a step ends with its evaluation, and only then is a state saved

    def __init__(self, setup: LoopSetup, trial: Trial) -> None:
        self.setup = setup
        self.trial = trial
        self.step = 0
        self.kept = KeptObjects(setup.device)
        self.files = KeptFiles()
        self.resumed = False
        self.asked: set[str] = set()
        self.exact = setup.profile == "exact"
        self.base = base_digest(setup.study, trial, setup.fingerprint) if setup.fingerprint else ""

    @property
    def planned_steps(self) -> int:
        """The updates of the whole trial."""
        return self.setup.study.budget.max_train_steps

    @property
    def numerics(self) -> Numerics:
        """The Numerics of this trial; not `exact` where it was resumed and the loop does not promise that."""
        return replace(self.setup.numerics, exact=self.exact)

    def fresh(self) -> Self:
        """The same trial at its first step."""
        return type(self)(self.setup, self.trial)

    def divergence(self) -> Divergence | None:
        """Nothing: a loop's losses are its own; what it reports is looked at when it is reported."""
        return None

    def measure(self, evaluated: Measured | None = None) -> Measured:
        """What the loop reported."""
        return evaluated or {}

    def traced(self) -> Sequence[Measurement]:
        """Nothing: a loop reports at evaluations alone."""
        return ()

    def weights(self, into: Weights | None = None) -> Weights:
        """The weights of the kept modules; without any, the files that the loop has written."""
        return self.kept.weights(into) or self.files.weights(self.step)

    def frozen(self) -> Weights:
        """The parameters without gradients of the modules that are kept so far, as they are."""
        return self.kept.frozen()

    def out_of_memory(self) -> str:
        """Nothing: what a loop of one's own holds is not known."""
        return ""

    def prefix_key(self) -> PrefixKey | None:
        """What the present state is a function of; None where that is not promised, or the loop knows how long it is.

        First looks see a few steps alone; what a loop asks for later is noted here.
        """
        if not self.base or not self.setup.promises.prefixes or self.asked & OF_LENGTH.keys():
            return None
        path = path_digests(rates_of(self.trial), self.setup.study.budget, [self.step])[self.step]
        return PrefixKey(self.base, path, self.numerics)

    def state(self) -> dict[str, Any]:
        """Everything the rest of the trial depends on."""
        return {
            "step": self.step,
            "kept": self.kept.state(),
            "files": self.files.state(self.step),
            "numerics": self.setup.numerics.text,
            "exact": self.exact,
            "base": self.base,
            "asked": sorted(self.asked),
        }

    def write_shards(self, place: str, fence: int) -> Sequence[Checkpoint]:
        """Nothing: the state is whole."""
        return ()

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state: objects get theirs when the loop keeps them. Raises LookupError, TypeError."""
        self.kept.load(state["kept"])
        self.files.load(state["files"])
        self.step, self.resumed = int(state["step"]), True
        self.asked |= set(state["asked"])
        here = Numerics.from_text(str(state["numerics"])).agrees_with(self.setup.numerics)
        alike = here and state["base"] == self.base
        self.exact = bool(state["exact"]) and alike and self.setup.promises.exact_resume
