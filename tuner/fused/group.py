"""K trials that train in lockstep. Each keeps its own model, optimizer and records, as views of the stacks here."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from tuner.design.data import MOST_WIDTHS
from tuner.errors import NotFusible
from tuner.fused.averages import GroupAverages
from tuner.fused.cuda_graph import CapturedUpdates, Lanes, Rates, replay_in_lanes
from tuner.fused.noise import DropoutNoise
from tuner.fused.operations import Rules, WritesShared
from tuner.fused.optimizers import row_optimizer
from tuner.fused.recording import Batch, Recording, Task, record, written
from tuner.fused.rules import TABLE
from tuner.fused.stacking import StackedModel
from tuner.training.batches import TrainingBatches
from tuner.training.precision import computed, updating
from tuner.training.slices import shares_of
from tuner.training.stability import clip_factor
from tuner.training.tree_sum import tree_sum
from tuner.training.trial_run import TrialRun

MAX_RECORDINGS = MOST_WIDTHS  # forms of batches in one study; more mean that something is baked in that changes


@dataclass(frozen=True, slots=True)
class _Part:
    """A slice of an update: the recording of what it computes, its batch as leaves, and where dropout comes from."""

    leaves: tuple[torch.Tensor, ...]
    recording: Recording
    noise: DropoutNoise


@dataclass(frozen=True, slots=True)
class _Work:
    """An update: its slices, and the share of each of every trial, float64 [slices, K]; None where all are alike."""

    parts: list[_Part]
    shares: torch.Tensor | None = None

    @property
    def leaves(self) -> list[torch.Tensor]:
        """All that changes from update to update, but for dropout."""
        shares = [] if self.shares is None else [self.shares]
        return [*(leaf for part in self.parts for leaf in part.leaves), *shares]

    @property
    def recordings(self) -> tuple[int, ...]:
        return tuple(id(part.recording) for part in self.parts)

    def of(self, leaves: Sequence[torch.Tensor]) -> "_Work":
        """The same update of other leaves."""
        left = iter(leaves)
        parts = [_Part(tuple(next(left) for _ in part.leaves), part.recording, part.noise) for part in self.parts]
        return _Work(parts, next(left, None))


class Group:
    """Stacks the trials' models and optimizers. Raises NotFusible where they do not go together.

    Between two calls of `advance` every run is an ordinary TrialRun: it can be evaluated, saved, or go on alone.
    """

    def __init__(self, runs: Sequence[TrialRun], *, care: int = 0, rules: Rules = TABLE) -> None:
        self.runs = list(runs)
        self.setup = runs[0].setup
        self._augmented = self.setup.study.augment and self.setup.workload.augments
        self.live = list(range(len(runs)))  # trials that still train; the others are only carried along
        self._made = [0] * len(runs)  # updates of each trial in this group
        self.graphs = CapturedUpdates()
        self.lanes = Lanes(self.setup.device) if self.setup.device.type == "cuda" else None
        self._share_batches()
        self.model = StackedModel.of([run.model for run in runs])
        self.averages = GroupAverages(self.runs, self.model)
        constants, numbers = split_points([run.point for run in runs], self.setup.device)
        self.precision = runs[0].rule.precision  # of all: a name that differs leaves trials apart
        loss = computed(self.setup.workload.loss, self.precision, self.setup.device)
        self.task = Task(loss, self.model, len(runs), constants, numbers, care, rules)
        self._change: Callable[[Recording], Recording] = lambda recording: recording
        self._recordings: dict[object, tuple[Recording, DropoutNoise]] = {}
        self._dropouts: dict[object, DropoutNoise] = {}  # on a GPU, of slices after the first
        self._slices = _alike([run.rule.slices for run in runs])
        self._inputs = self.task.inputs
        self.trained: list[str] = []  # names of the parameters that the loss depends on
        recording, _ = self._recorded(self._batch(self._is_shared()))
        self.trained = recording.trained
        self.gradients = [torch.zeros_like(self.model.parameters[name]) for name in self.trained]
        used = self._used()
        own = [[run.parameters[place] for place in used] for run in runs]
        self.optimizer = row_optimizer([run.optimizer for run in runs], own, self.gradients)
        norm = torch.nn.utils.get_total_norm(self.optimizer.gradients[0])
        self.norms = norm.new_zeros(len(runs))  # of the last gradients, before clipping; a graph writes them here
        self._norms = self.norms.unbind(0)

    @property
    def ways(self) -> Mapping[str, str]:
        """How each operation is run: by a rule, by a loop over the trials, or (fast) by vmap."""
        return {name: way for recording, _ in self._recordings.values() for name, way in recording.ways.items()}

    @property
    def read(self) -> frozenset[str]:
        """Tensors that the loss reads and the code holds, besides parameters and buffers, by name."""
        return frozenset().union(*(recording.read for recording, _ in self._recordings.values()))

    @property
    def num_bytes(self) -> int:
        """Memory of the stacks, their gradients, averages and optimizer state, and of one pass through the loss.

        What is shared is an input of the pass, and counted there. While slices are added up, the sums of branches of
        their tree are kept besides.
        """
        stacks, gradients = (sum(one.nbytes for one in each) for each in (self.model.stacks.values(), self.gradients))
        sums = (self._slices - 1).bit_length()
        return stacks + (1 + sums) * gradients + self.optimizer.num_bytes + self.averages.num_bytes + self.pass_bytes

    @property
    def num_bytes_once(self) -> int:
        """The part of it that does not grow with the number of trials: what they share, and what is computed of it."""
        return max(recording.num_bytes_once for recording, _ in self._recordings.values())

    @property
    def pass_bytes(self) -> int:
        """Memory of all that one pass through the loss reads and computes."""
        return max(recording.num_bytes for recording, _ in self._recordings.values())

    def retire(self, trial: int) -> None:
        """A trial trains no more; its mates do not notice."""
        self.live.remove(trial)
        self.graphs.forget()

    def reclaim(self, trial: int) -> None:
        """Take over what the evaluation of a trial's own module may have replaced in it."""
        self.model.reclaim(trial, self.runs[trial].model)

    def advance(self, updates: int) -> int:
        """Train the live trials for so many updates, or to where the setup says stop; returns how many were made."""
        with updating(self.precision, self.setup.device):
            return self._advance(updates)

    def _advance(self, updates: int) -> int:
        losses: list[torch.Tensor] = []
        norms: list[torch.Tensor] = []
        clips = any(run.rule.clip_norm is not None for run in self.runs)
        shared, work = self._is_shared(), None
        self._settle()
        try:
            for _ in range(updates):
                if self.setup.stop():
                    break
                if not self.optimizer.captured and self._settle():  # an optimizer of the user's may write anywhere
                    work = None
                work = self._work(shared, work)
                with _mode(work.parts[0].recording):
                    losses.append(self._update(work))
                    if clips:
                        norms.append(self.norms.clone())
                    for trial in self.live:
                        self.runs[trial].step += 1
                        self._made[trial] += 1
                    self.averages.take(self.live)
        finally:
            if losses:
                self._hand_over(losses, norms)
        return len(losses)

    def transform(self, change: Callable[[Recording], Recording]) -> None:
        """Have every recording, those to come too, changed before it is replayed."""
        self._change = change
        self.graphs.forget()  # they compute what the recordings were
        self._recordings = {form: (change(recording), noise) for form, (recording, noise) in self._recordings.items()}

    def snapshot(self) -> Any:
        """Copies of everything that training changes: in the stacks, in the optimizers, and in the averages."""
        self.model.parted.clear()
        copies = {name: tensor.clone() for name, tensor in self.model.stacks.items()}
        changing = [tensor.clone() for tensor in self.optimizer.changing]
        return copies, changing, self.optimizer.kept(), self.averages.kept()

    def restore(self, kept: Any) -> None:
        """Go back to a snapshot that was taken before any update of this group."""
        stacks, changing, states, averages = kept
        self._settle()
        self.averages.restore(averages)
        for name, tensor in self.model.stacks.items():
            tensor.copy_(stacks[name] if name in stacks else self.model.parted[name])
        for tensor, copy in zip(self.optimizer.changing, changing, strict=True):
            tensor.copy_(copy)
        for trial, run in enumerate(self.runs):
            made = self._made[trial]
            run.step -= made
            run.batches.rewind()
            run.losses = run.losses[: len(run.losses) - made]
            run.norms = run.norms[: len(run.norms) - made]
            self.optimizer.forget(trial, run.rates[max(0, run.step - 1)], states)
            for parameter in run.parameters:
                parameter.grad = None
        self._made = [0] * len(self.runs)
        if not self._recordings:
            self._recorded(self._batch(self._is_shared()))

    def _changing(self) -> list[torch.Tensor]:
        return [*self.model.stacks.values(), *self.optimizer.changing]

    def _settle(self) -> bool:
        """Stack what a trial's own code has written into though it was shared. Returns whether there was something."""
        names = self.model.strayed(self.live)
        self._part(names)
        return bool(names)

    def _part(self, names: Collection[str]) -> None:
        if names:
            self.model.part(names)
            self._inputs = self.task.inputs
            self._recordings.clear()
            self._dropouts.clear()
            self.graphs.forget()

    def _work(self, shared: bool, last: _Work | None) -> _Work:
        """What the next update computes, and from which batch."""
        first = self.runs[self.live[0]]
        if last is not None and shared and first.batches.uniform and first.weigh is None:
            at, step = first.batches.at, first.step
            return _Work([_Part(at(step, v), part.recording, part.noise) for v, part in enumerate(last.parts)])
        parts, weights = [], []
        for number in range(self._slices):
            given = self._batches(shared, number)
            batch = Batch.shared(given[0]) if shared else Batch.of_each(given)
            parts.append(_Part(batch.leaves, *self._recorded(batch, number)))
            weights.append(None if first.weigh is None else [first.weigh(one) for one in given])
        return _Work(parts, None if first.weigh is None else self._shares(weights))

    def _shares(self, weights: Sequence[Any]) -> torch.Tensor:
        """The shares of all slices, float64 [slices, K]; weights: of each slice that of all trials, or of each."""
        of_each, first = [], self.runs[self.live[0]]
        for trial, own in enumerate(zip(*weights, strict=True)):
            shares = shares_of(own, self._slices, first.step)
            if shares.total is not None:
                run = self.runs[trial] if trial in self.live else first
                run.totals[run.step] = shares.total
            wide = [torch.as_tensor(one, dtype=torch.float64, device=self.norms.device) for one in shares.of_each]
            of_each.append(torch.stack(wide))
        return torch.stack(of_each, 1).expand(-1, len(self.runs)).contiguous()

    def _update(self, work: _Work) -> torch.Tensor:
        """One update of the live trials; losses [K] at the weights before it."""
        rates = [run.rule.rate(run.step) for run in self.runs]
        if self.setup.device.type == "cuda":  # a graph does not draw; each slice has masks of its own there
            for number, part in enumerate(work.parts):
                self._drawn(part, number)

        def compute(leaves: Sequence[torch.Tensor], at_rates: Rates) -> torch.Tensor:
            return self._compute(work.of(leaves))

        def apply(leaves: Sequence[torch.Tensor], at_rates: Rates) -> torch.Tensor:
            losses = compute(leaves, at_rates)
            self._step_all(at_rates)
            return losses

        if self.setup.device.type != "cuda":
            losses = self._compute(work)
            self._step_all(rates)
            return losses
        if self.optimizer.captured:
            key = (work.recordings, tuple(self.live), tuple(self.optimizer.begun))
            return self.graphs.update(key, work.leaves, rates, apply, [*self._changing(), *self.gradients, self.norms])
        changing = [*self.model.buffers.values(), *self.gradients]
        losses = self.graphs.update(work.recordings, work.leaves, rates, compute, changing)
        self._step_all(rates)
        return losses

    def _step_all(self, rates: Rates) -> None:
        """The optimizer steps of the live trials."""
        self.optimizer.count()
        if self.lanes is not None and torch.cuda.is_current_stream_capturing():
            self.lanes.run([partial(self._step, trial, rates[trial]) for trial in self.live])
        else:
            for trial in self.live:
                self._step(trial, rates[trial])

    def _compute(self, work: _Work) -> torch.Tensor:
        """Losses [K] at the present weights; gradients go to their place."""
        if len(work.parts) == 1:
            losses, *gradients = self._replayed(work.parts[0], 0)
        else:
            losses, *gradients = tree_sum(partial(self._leaf, work), range(len(work.parts)), _added)
        for place, gradient in zip(self.gradients, gradients, strict=True):
            place.copy_(gradient)
        return losses

    def _leaf(self, work: _Work, number: int) -> list[torch.Tensor]:
        """Losses [K] and gradients [K, ...] of a slice, times its share of each trial; see `WeightedSum`."""
        found = self._replayed(work.parts[number], number)
        if work.shares is None:
            return [one * (1.0 / len(work.parts)) for one in found]
        shares = work.shares[number]
        rows = [shares.view(-1, *[1] * (one.dim() - 1)) for one in found]
        parts = [one * row.to(one.dtype) for one, row in zip(found, rows, strict=True)]
        if shares.is_cuda or not bool(shares.all()):  # a graph cannot look
            parts = [part.masked_fill_(row == 0.0, 0.0) for part, row in zip(parts, rows, strict=True)]
        return parts

    def _replayed(self, part: _Part, number: int) -> Sequence[torch.Tensor]:
        """Losses [K] and gradients [K, ...] of a slice."""
        recording, on_gpu = part.recording, self.setup.device.type == "cuda"
        masks = part.noise.masks if on_gpu else self._drawn(part, number)
        inputs = (*self._inputs, *part.leaves, *masks)
        if self.lanes is not None and recording.compiled is None and torch.cuda.is_current_stream_capturing():
            return replay_in_lanes(recording.graph, self.lanes, inputs)  # type: ignore[no-any-return]
        return recording.replay(*inputs)  # type: ignore[no-any-return]

    def _drawn(self, part: _Part, number: int) -> list[torch.Tensor]:
        """The masks of a slice of this step."""
        return part.noise.draw([run.step for run in self.runs], number) if part.noise.sites else []

    def _step(self, trial: int, rate: float | torch.Tensor) -> None:
        limit = self.runs[trial].rule.clip_norm
        if limit is not None:
            self._clip(trial, limit)
        self.optimizer.step(trial, rate)

    def _clip(self, trial: int, limit: float) -> None:
        gradients = self.optimizer.gradients[trial]
        norm = torch.nn.utils.get_total_norm(gradients)
        self._norms[trial].copy_(norm)
        torch._foreach_mul_(gradients, clip_factor(norm, limit))

    def _hand_over(self, losses: list[torch.Tensor], norms: list[torch.Tensor]) -> None:
        """Give each run what its own loop would have left: losses, norms, gradients, optimizer state."""
        by_trial = torch.stack(losses).clone().unbind(1)
        norms_by_trial = torch.stack(norms).clone().unbind(1) if norms else ()
        for trial in self.live:
            run = self.runs[trial]
            run.losses += by_trial[trial].unbind(0)
            if run.rule.clip_norm is not None:
                run.norms += norms_by_trial[trial].unbind(0)
            parameters, gradients = self.optimizer.parameters[trial], self.optimizer.gradients[trial]
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            self.optimizer.write_back(trial, run.rates[run.step - 1])

    def _is_shared(self) -> bool:
        """Whether all live trials have the same batches from here on."""
        runs = [self.runs[trial] for trial in self.live]
        return not self._augmented and len({(id(run.batches), run.step) for run in runs}) == 1

    def _batch(self, shared: bool) -> Batch:
        """The first slice of the next batch: of all trials, or each trial's own."""
        given = self._batches(shared, 0)
        return Batch.shared(given[0]) if shared else Batch.of_each(given)

    def _batches(self, shared: bool, number: int) -> list[Any]:
        """A slice of the next batch: one of all trials, or each trial's own."""
        if shared:
            first = self.runs[self.live[0]]
            return [first.batches.at(first.step, number)]
        last = {trial: self._own_slice(self.runs[trial], number) for trial in self.live}
        spare = last[self.live[0]]
        return [last.get(trial, spare) for trial in range(len(self.runs))]

    def _own_slice(self, run: TrialRun, number: int) -> Any:
        return run.slice_at(min(run.step, len(run.rates) - 1), number)

    def _recorded(self, batch: Batch, number: int = 0) -> tuple[Recording, DropoutNoise]:
        """What a slice computes, and where its dropout comes from."""
        known = self._recordings.get(batch.signature)
        if known is None:
            if len(self._recordings) == MAX_RECORDINGS:
                raise NotFusible(f"batches of more than {MAX_RECORDINGS} forms")
            with updating(self.precision, self.setup.device):
                recording = self._change(self._record(batch))
            if self.trained and recording.trained != self.trained:
                raise NotFusible("which parameters the loss depends on, which is another for batches of another form")
            known = self._recordings[batch.signature] = (recording, self._noise(recording))
        if not number or self.setup.device.type != "cuda":
            return known
        key = batch.signature, number  # a graph reads the masks of all slices, so each has memory of its own
        if key not in self._dropouts:
            self._dropouts[key] = self._noise(known[0])
        return known[0], self._dropouts[key]

    def _noise(self, recording: Recording) -> DropoutNoise:
        seeds = [run.trial.seed for run in self.runs]
        return DropoutNoise(seeds, recording.sites, next(iter(self.model.parameters.values())))

    def _record(self, batch: Batch) -> Recording:
        """What the loss writes into is each trial's own; the loss of one trial alone shows nearly all of it."""
        if self.model.shared:
            self._part(written(self.runs[self.live[0]], batch.of_trial(self.live[0]), self.model.shared))
        while True:
            try:
                return record(self.task, batch)
            except WritesShared as error:
                if not error.names:
                    raise
                self._part(error.names)

    def _used(self) -> list[int]:
        """Places of the used parameters among those of a trial's optimizer."""
        names = [name for name, parameter in self.runs[0].model.named_parameters() if parameter.requires_grad]
        return [names.index(name) for name in self.trained]

    def _share_batches(self) -> None:
        """Trials with the same order of examples share one copy of it.

        A stream only where one batch serves all: whoever asks for a batch once more has to open it once more.
        """
        places = {(run.step, run.trial.data_seed) for run in self.runs}
        if self.setup.data.training.stream is not None and (self._augmented or len(places) > 1):
            return
        known: dict[int, TrainingBatches] = {}
        for run in self.runs:
            run.batches = known.setdefault(run.trial.data_seed, run.batches)
        for batches in known.values():
            sharing = sum(run.batches is batches for run in self.runs)
            batches.shared_by(sharing, repeated=self._augmented and sharing > 1)


def _added(one: list[torch.Tensor], other: list[torch.Tensor]) -> list[torch.Tensor]:
    torch._foreach_add_(one, other)
    return one


def _alike(slices: Sequence[int]) -> int:
    """The slices of the batches of all trials. Raises NotFusible where they differ."""
    if len(set(slices)) > 1:
        raise NotFusible(f"the batches of the trials have different numbers of slices: {sorted(set(slices))}")
    return slices[0]


def _mode(recording: Recording) -> AbstractContextManager[Any]:
    """Without autograd, as far as the kernels of a recording go along with that."""
    if recording.recurrent:
        return torch.enable_grad()
    return torch.inference_mode() if recording.compiled is None else torch.no_grad()


def split_points(
    points: Sequence[Mapping[str, Any]], device: torch.device
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """What all points share, and the floats in which they differ. Raises NotFusible for anything else that differs."""
    constants: dict[str, Any] = {}
    numbers: dict[str, torch.Tensor] = {}
    for name, value in points[0].items():
        values = [point.get(name) for point in points]
        if all(type(each) is type(value) and each == value for each in values):
            constants[name] = value
        elif all(isinstance(each, float) for each in values):
            numbers[name] = torch.tensor(values, dtype=torch.float64, device=device)
        else:
            raise NotFusible(f"hyperparameter {name!r} differs between the trials and is no float: {values[:3]}")
    return constants, numbers
