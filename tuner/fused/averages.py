"""The averages of the weights of stacked trials, moved by one call for all of them where all move alike."""

from collections.abc import Collection, Sequence

import torch

from tuner.fused.stacking import StackedModel
from tuner.training.trial_run import TrialRun


class GroupAverages:
    """Stacks the averages of K trials, of which some may have none; each trial's own are views of its row.

    stacks: [K, *shape] of each trained parameter, in the order of `Averages.parameters`; none where some trial has no
    averages, or where they are wider than the weights. Each trial's averages can be shown, saved and moved alone at
    any time.
    """

    def __init__(self, runs: Sequence[TrialRun], model: StackedModel) -> None:
        self.runs = runs
        self.stacks: list[torch.Tensor] = []
        self._weights: list[torch.Tensor] = []
        own = self._own = [run.averages for run in runs if run.averages is not None]
        if len(own) < len(runs):
            return
        self._weights = [model.parameters[name] for name in own[0].names]
        if [value.dtype for value in own[0].values] != [one.dtype for one in self._weights]:
            return
        self.stacks = [torch.stack(each) for each in zip(*(one.values for one in own), strict=True)]
        for averages, rows in zip(own, zip(*(stack.unbind(0) for stack in self.stacks), strict=True), strict=True):
            averages.values = list(rows)

    @property
    def num_bytes(self) -> int:
        """Memory of the averages of all trials."""
        return sum(averages.num_bytes for averages in self._own)

    def take(self, live: Collection[int]) -> None:
        """Move the averages of the live trials, each of which has just made another update.

        By one call for all rows where their shares are the same. The rows of trials that train no more move along:
        their states are saved already.
        """
        if not self._own:
            return
        moving = [(run.averages, run.step) for run in (self.runs[trial] for trial in live) if run.averages is not None]
        shares = {averages.rule.share(step) for averages, step in moving}
        if len(shares) == 1 and self.stacks:
            torch._foreach_lerp_(self.stacks, self._weights, shares.pop())
            return
        for averages, step in moving:
            averages.take(step)

    def kept(self) -> list[list[torch.Tensor]]:
        """Copies of all averages."""
        return [[value.clone() for value in averages.values] for averages in self._own]

    def restore(self, kept: Sequence[Sequence[torch.Tensor]]) -> None:
        """Go back to copies of them."""
        for averages, before in zip(self._own, kept, strict=True):
            for value, copy in zip(averages.values, before, strict=True):
                value.copy_(copy)
