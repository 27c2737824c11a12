"""Finding the training prefixes a trial may start from, and what they save."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tuner.design.patience import stopping_step
from tuner.design.prefix import base_digest, path_digests, rates_of
from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.records import Claim, Numerics, Prefix
from tuner.storage.store import Ledger


@dataclass(frozen=True, slots=True)
class PrefixFinder:
    """Looks up prefixes for the trials of one study, as it is trained with this code, these data and these Numerics.

    allow_inexact: also prefixes that were trained under other Numerics; trials that start from these are marked.
    """

    ledger: Ledger
    study: Study
    fingerprint: str
    numerics: Numerics
    allow_inexact: bool = False

    def offered(self, claims: Sequence[Claim]) -> list[Claim]:
        """The claims; those without a saved state with the prefixes that they may start from, the longest first."""
        new = [claim for claim in claims if not claim.checkpoints]
        usable = self.usable([claim.trial for claim in new])
        found = {claim.trial_id: self._measured(prefixes) for claim, prefixes in zip(new, usable, strict=True)}
        return [replace(claim, prefixes=found.get(claim.trial_id, ())) for claim in claims]

    def usable(self, trials: Sequence[Trial]) -> list[list[Prefix]]:
        """For each trial the prefixes it may start from, the longest first, without their measurements."""
        bases = [base_digest(self.study, trial, self.fingerprint) for trial in trials]
        known = self.ledger.prefixes(bases) if bases else {}
        return [self._of_path(trial, known.get(base, [])) for trial, base in zip(trials, bases, strict=True)]

    def _of_path(self, trial: Trial, candidates: Sequence[Prefix]) -> list[Prefix]:
        """Prefixes along the trial's schedule; none beyond a step at which it has to leave a trunk that is missing."""
        if not candidates:
            return []
        digests = path_digests(rates_of(trial), self.study.budget, [prefix.step for prefix in candidates])
        judged = (self._judged(prefix, digests) for prefix in candidates)
        mine = [prefix for prefix in judged if prefix is not None]
        left = {prefix.step for prefix in mine}
        furthest = min((pin for pin in trial.pins if pin not in left), default=len(trial.schedule))
        return sorted((p for p in mine if p.step <= furthest), key=lambda p: (-p.step, not p.exact, p.trial_id))

    def _judged(self, prefix: Prefix, digests: Mapping[int, str]) -> Prefix | None:
        key = prefix.checkpoint.prefix
        if key is None or digests.get(prefix.step) != key.path:
            return None
        exact = key.numerics.exact and key.numerics.agrees_with(self.numerics)
        return replace(prefix, exact=exact) if exact or self.allow_inexact else None

    def _measured(self, prefixes: Sequence[Prefix]) -> tuple[Prefix, ...]:
        """Prefixes with their measurements, without those whose trial was deleted in the meantime."""
        whole = (replace(p, measurements=self.ledger.measured_until(p.trial_id, p.step)) for p in prefixes)
        return tuple(prefix for prefix in whole if self._is_measured(prefix) and not self._stops_within(prefix))

    def _is_measured(self, prefix: Prefix) -> bool:
        due = {step for step in self.study.budget.evaluation_steps if step <= prefix.step}
        return due == {measured.step for measured in prefix.measurements}

    def _stops_within(self, prefix: Prefix) -> bool:
        """Whether a trial of this study would have stopped early before the end of a prefix, trained by itself."""
        objective = self.study.objective
        curve = [(one.step, one.value) for one in prefix.measurements if one.metric == objective.metric]
        stop = stopping_step(curve, objective, self.study.patience_steps)
        return stop is not None and stop < prefix.step


def saved_steps(finder: PrefixFinder, trials: Sequence[Trial]) -> list[int]:
    """The steps that each trial would inherit from another one and not train, as the records are now."""
    return [prefixes[0].step if prefixes else 0 for prefixes in finder.usable(trials)]
