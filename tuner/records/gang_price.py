"""What a gang, several processes that train one trial, would gain on a machine: an estimate, before there is one."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tuner.shown import readable_bytes, readable_seconds

CLEARLY = 0.8  # [P] of the time without a gang: one that saves less is not proposed, as the estimate is the best case
WAITING = 5  # [P] times the fixed part of the exchanges: ranks wait for the slowest, which a short look does not show


@dataclass(frozen=True, slots=True)
class GangPrice:
    """A step in a gang, and in what else the same devices could do.

    ranks: processes that share the slices of a batch. places: devices that compute at once: cores by threads, or GPUs.
    step_ms: of one process. gradients: bytes that are exchanged. rate, fixed_ms: bytes a second of an exchange
    of two ranks as measured here, and what all exchanges of a step take however little is sent. start: seconds until
    several processes train.
    group, group_ms: trials that train fastest as one model on one device, and a step of one of them there; 1 where that
    gains nothing, for the reason `why_alone`. asked: whether --gang was given. on_gpu: places are GPUs.
    """

    ranks: int
    places: int
    step_ms: float
    gradients: int
    rate: float
    fixed_ms: float = 0.0
    start: float = 0.0
    group: int = 1
    group_ms: float = 0.0
    why_alone: str = ""
    asked: bool = True
    on_gpu: bool = False

    @property
    def at_work(self) -> int:
        """Ranks that compute at once."""
        return min(self.ranks, self.places)

    @property
    def exchanged(self) -> float:
        """Bytes that each rank sends a step: those of a ring."""
        return 2 * (self.ranks - 1) / self.ranks * self.gradients

    @property
    def exchange_ms(self) -> float:
        """Of a step: a message passes all other ranks, one after the other."""
        return (self.ranks - 1) * self.fixed_ms + 1e3 * self.exchanged / self.rate

    @property
    def gang_ms(self) -> float:
        """A step of a gang, at best: its slices in equal parts, and the exchange."""
        return self.step_ms / self.at_work + self.exchange_ms

    def gang_seconds(self, trials: int, steps: int) -> float:
        """All trials, each by the gang, one after the other."""
        return self.start + trials * steps * self.gang_ms / 1e3

    def worker_seconds(self, trials: int, steps: int) -> float:
        """All trials, by as many workers, each of one process that trains a trial."""
        return self._start(trials) + math.ceil(trials / self.at_work) * steps * self.step_ms / 1e3

    def group_seconds(self, trials: int, steps: int) -> float:
        """All trials, in groups, by as many workers; infinite where a group gains nothing."""
        if self.group == 1:
            return math.inf
        each = min(self.group, math.ceil(trials / self.at_work))
        rounds = math.ceil(math.ceil(trials / each) / self.at_work)
        return self._start(trials) + rounds * each * steps * self.group_ms / 1e3

    def _start(self, trials: int) -> float:
        """Of several workers; one process is there already."""
        return self.start if min(trials, self.at_work) > 1 else 0.0

    def process_seconds(self, steps: int, evaluations: float) -> float:
        """What all ranks spend on so many steps, and on evaluations of so many seconds in one process."""
        return self.ranks * (steps * self.gang_ms / 1e3 + evaluations / self.at_work)

    def pays(self, trials: int, steps: int) -> bool:
        """Whether the gang is clearly faster than the same devices without one, also where its ranks wait."""
        without = min(self.worker_seconds(trials, steps), self.group_seconds(trials, steps))
        careful = replace(self, fixed_ms=WAITING * self.fixed_ms)
        return careful.gang_seconds(trials, steps) < CLEARLY * without

    def words(self, study: str, trials: int, steps: int) -> Iterator[str]:
        """What a gang takes and whether it is the better way for a study; nothing where neither matters."""
        if self.asked:
            yield f"a gang of {self.ranks} trains one trial at a time, without groups (--fuse): {self._step_words}"
            if trials:
                yield self._compared(study, trials, steps)
        elif trials and self.pays(trials, steps):
            yield (
                f"{study} would end sooner with a gang of {self.ranks} processes for each trial (--gang {self.ranks}), "
                f"with the same bits: {self._step_words}. {self._compared(study, trials, steps)}"
            )

    @property
    def _step_words(self) -> str:
        kind = "GPU" if self.on_gpu else "core"
        few = f"; only {self.places} of the ranks have a {kind} of their own" if self.places < self.ranks else ""
        return (
            f"a step takes {_ms(self.step_ms)} ms in one process, at best about {_ms(self.gang_ms)} ms in the gang: "
            f"{_ms(self.step_ms / self.at_work)} ms for its slices, {_ms(self.exchange_ms)} ms for its exchanges, of "
            f"{readable_bytes(round(self.exchanged))} at {readable_bytes(round(self.rate))} a second. An estimate from "
            f"what was measured here{few}"
        )

    def _compared(self, study: str, trials: int, steps: int) -> str:
        """The three ways to use the devices, and which one is the best here."""
        gang, workers = self.gang_seconds(trials, steps), self.worker_seconds(trials, steps)
        groups = self.group_seconds(trials, steps)
        many = f"the {trials} trials" if trials > 1 else "the trial"
        by_groups = (
            f"in groups of {self.group} (--fuse) {readable_seconds(groups)}"
            if self.group > 1
            else f"groups (--fuse): {self.why_alone}"
        )
        return (
            f"{many} of {study} take about {readable_seconds(gang)} in the gang, and without it "
            f"{readable_seconds(workers)} in {self._workers(trials)}; {by_groups}. {self._best(trials, steps)}"
        )

    def _workers(self, trials: int) -> str:
        count = min(trials, self.at_work)
        return f"{count} workers of one process" if count > 1 else "one process"

    def _best(self, trials: int, steps: int) -> str:
        gang, workers = self.gang_seconds(trials, steps), self.worker_seconds(trials, steps)
        groups = self.group_seconds(trials, steps)
        if self.pays(trials, steps):
            return "The gang is the better way here"
        if groups < min(workers, gang):
            return "Small trials in groups on one device are the better way here, without a gang"
        if gang < workers:
            return "The gang is hardly faster here, so leave it out"
        way = "Workers are" if min(trials, self.at_work) > 1 else "One process is"
        return f"{way} the better way here. A gang pays where steps are long, and fewer trials are left than devices"


def _ms(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
