"""The memory that one trial takes while it trains: what it is made of, whether it fits, and what would."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tuner.shown import readable_bytes

_SHARDED = 'shard="fsdp2" in the Campaign, with --gang, keeps only a part of the model in each of several processes'
SHARE = 0.9  # [P] of the free memory that an advice fills: other programs, and what no allocator counts, need the rest


@dataclass(frozen=True, slots=True)
class StepMemory:
    """Bytes that a trial holds at once in an update, on the device that it trains on.

    parameters: trained and frozen. gradients: of all trained parameters. optimizer: its state after a step. buffers: of
    the model. batch: the examples of an update. activations: what the loss of so many `examples` holds for its
    gradient. peak: the most that an update takes beyond parameters, optimizer, buffers and batch: gradients,
    activations and temporary tensors as they come and go. batch_size: examples of an update. kept: copies that the
    program holds, of the best weights and of a state that is being saved. free: memory that the trial could take, what
    it holds already included. whole: the update was made with a whole batch, and not worked out from portions of it.
    weights: trained values, not bytes of them; 0 where that is not known. exchange: buffers for the gradients that the
    processes of a gang exchange.
    """

    parameters: int
    gradients: int
    optimizer: int
    buffers: int
    batch: int
    activations: int
    examples: int
    batch_size: int
    peak: int
    kept: int = 0
    free: int = 0
    whole: bool = True
    weights: int = 0
    exchange: int = 0

    @property
    def standing(self) -> int:
        """What stays from one update to the next, with the batch."""
        return self.parameters + self.optimizer + self.buffers + self.batch + self.kept + self.exchange

    @property
    def temporary(self) -> int:
        """What the highest point of an update takes beyond gradients and activations."""
        return max(0, self.peak - self.gradients - self.activations)

    @property
    def needed(self) -> int:
        """At the highest point of an update."""
        return self.standing + self.peak

    def needed_with(self, examples: int) -> int:
        """The same with so many examples of each batch at a time: activations grow with them, nothing else does.

        From two portions on, gradients are held of one that is computed and of those that are added up.
        """
        sums = max(0, -(-self.batch_size // examples) - 1).bit_length()
        growing = (self.activations + self.temporary) * examples // max(1, self.examples)
        return self.standing + (1 + sums) * self.gradients + growing

    def in_shards(self, world: int) -> "StepMemory":
        """The same where each of `world` processes has a part of the model alone, and gathers the rest as it goes."""
        gradients = -(-self.gradients // world)
        return replace(
            self, parameters=-(-self.parameters // world), gradients=gradients, optimizer=-(-self.optimizer // world),
            peak=self.peak - self.gradients + gradients, weights=-(-self.weights // world),
        )  # fmt: skip

    @property
    def fits(self) -> bool:
        """Whether the memory that is free is enough."""
        return self.needed <= self.free

    @property
    def micro_batch_size(self) -> int:
        """The largest part of what is computed at a time now that fits into the free memory; 0 where none does."""
        smaller = (size for size in _divisors(self.examples) if size < self.examples)
        return next((size for size in smaller if self.needed_with(size) <= SHARE * self.free), 0)

    @property
    def _each(self) -> str:
        """The optimizer's state of each trained value, in brackets."""
        return f" ({self.optimizer / self.weights:.3g} bytes a parameter)" if self.weights else ""

    @property
    def words(self) -> str:
        """What a trial takes, for a person."""
        examples = f" ({self.examples:,} example{'s' * (self.examples != 1)})"
        parts = (
            ("parameters", self.parameters, ""), ("gradients", self.gradients, ""),
            ("optimizer state", self.optimizer, self._each), ("buffers", self.buffers, ""), ("batch", self.batch, ""),
            ("activations", self.activations, examples), ("temporary tensors", self.temporary, ""),
            ("copies of weights that are kept", self.kept, ""), ("buffers of the exchange", self.exchange, ""),
        )  # fmt: skip
        told = ", ".join(f"{what} {readable_bytes(size)}{more}" for what, size, more in parts if size)
        return f"a trial needs about {readable_bytes(self.needed)} of memory while it trains: {told}"

    def advice(self, owner: str) -> str:
        """Why memory ends and what to write. `owner`: the class of the workload."""
        free = f"{readable_bytes(self.free)} {'is' if self.free >= 1000 else 'are'} free"
        needed = (
            f"the step needs about {readable_bytes(self.needed)} (activations {readable_bytes(self.activations)} for "
            f"{self.examples:,} examples); {free}"
        )
        size = self.micro_batch_size
        if size:
            line, name = f"micro_batch_size = {size}", ""
            if self.examples < self.batch_size:  # less than a slice is not computed at a time
                line = f"slices = {self.batch_size // size}"
                name = ", and give the campaign another name, because what a trial computes depends on its slices"
            then = readable_bytes(self.needed_with(size))
            return f"{needed}; {line} would need about {then}: write {line} in {owner}{name}"
        least = min(_divisors(self.batch_size), key=self.needed_with)
        if self.needed_with(least) <= SHARE * self.free:  # a batch that has no smaller part, as of one example
            return f"{needed}; make the model smaller, or recompute activations in it (torch.utils.checkpoint)"
        if least >= self.examples:
            return (
                f"{needed}; fewer examples at a time would not need less, because it is not activations that fill it: "
                f"parameters {readable_bytes(self.parameters)}, gradients {readable_bytes(self.gradients)}, optimizer "
                f"state {readable_bytes(self.optimizer)}; take a smaller model, or an optimizer with less state; "
                f"{_SHARDED}"
            )
        examples = "one example" if least == 1 else f"{least:,} examples"
        return (
            f"{needed}; {examples} at a time would still need about {readable_bytes(self.needed_with(least))}: take a "
            "smaller model, an optimizer with less state, or recompute activations (torch.utils.checkpoint); "
            f"{_SHARDED}"
        )


def _divisors(number: int) -> Iterator[int]:
    """The numbers that divide it, the largest first."""
    return (one for one in range(number, 0, -1) if number % one == 0)
