"""Evaluating all trials of a group at once, where that gives the bits of evaluating each for itself."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import torch

from tuner.design.objective import Metric
from tuner.errors import Interrupted, NotFusible
from tuner.fused.graph import check_graph, simplify
from tuner.fused.group import Group
from tuner.fused.noise import Sites
from tuner.fused.operations import Operations, name_of
from tuner.fused.quick_kernels import quickened
from tuner.fused.recording import Batch, of_all, without_noise
from tuner.fused.rules_python import SharedValues
from tuner.fused.sharing import copied
from tuner.fused.tape import Tape, Watching
from tuner.fused.trial_tensor import TrialTensor
from tuner.training.batches import Split
from tuner.training.evaluation import check_going_on, gathering
from tuner.training.first_loss import left_as_it_was
from tuner.training.numerics import clock_of
from tuner.training.precision import computing, updating
from tuner.training.split_metrics import Gathered, split_measured, with_values
from tuner.training.tensor_digests import digest_of_tensors

SAMPLE = 8  # trials whose first evaluation is compared
CACHED_BYTES = 2 << 20  # of the largest value of the trials that are evaluated at once
FEW = 2  # examples, enough to see which kernels run
MOST_KEPT = 2 << 30  # [P] bytes of all trials that metrics of the whole split may read at once
OF_EVALUATION = frozenset({"_transformer_encoder_layer_fwd", "_native_multi_head_attention"})
Measured = dict[str, float]
Sums = dict[str, list[torch.Tensor]]
Rows = dict[str, torch.Tensor]  # [trials, examples, ...] by name


@dataclass(frozen=True, slots=True)
class _OfSplit:
    """What all trials measure on a split: the means of each, and the values that metrics of the whole split read."""

    split: Split
    means: list[dict[str, float]]
    rows: Rows


@dataclass(frozen=True, slots=True)
class _OfTrial:
    """What one trial measures. `each`: of each split, the values that its metrics of the whole split were given."""

    measured: Measured = field(default_factory=dict)
    each: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def bits(self) -> tuple[str, list[str]]:
        """Equal for the same bits. An AUC may stay the same where the scores do not."""
        return repr(self.measured), [digest_of_tensors(dict(values)) for values in self.each]


class GroupEvaluation:
    """Runs the metrics on the stacked model. Trusted only after a comparison with the ordinary evaluation.

    A few trials at a time: the values of many leave the caches, because a split is larger than a batch.
    """

    def __init__(self, group: Group) -> None:
        self.group = group
        self.refused = ""  # why each trial is evaluated for itself
        self._clock = clock_of(group.setup.device)
        self._alone: float | None = None  # seconds of a trial's own evaluation
        self._saved = 0.0  # seconds, so far
        self._at_once = 0  # trials; 0: not known yet
        self._recordings: dict[object, tuple[Any, list[str]]] = {}

    def of(self, trials: Sequence[int]) -> dict[int, Measured]:
        """What each of these trials would measure; empty where each should be evaluated for itself."""
        if self.refused or 2 * len(trials) < len(self.group.runs):
            return {}
        began = self._clock()
        try:
            if self._alone is None and (kernel := self._kernel_of_its_own()):
                self.refused = f"torch evaluates by {kernel}, whose bits no other kernel has"
                return {}
            measured = self._measured(trials)
            if self._alone is None:
                return self._compared(measured)
        except Interrupted:
            raise
        except Exception as error:  # the ordinary evaluation reports it
            self.refused = f"{type(error).__name__}: {error}"
            return {}
        self._saved += len(trials) * self._alone - (self._clock() - began)
        if self._saved < 0.0:
            self.refused = "not faster than each trial alone"
        return {trial: one.measured for trial, one in measured.items()}

    def _compared(self, together: Mapping[int, _OfTrial]) -> dict[int, Measured]:
        """The measurements, if some of the trials measure the same for themselves."""
        trials = list(together)
        alone: dict[int, Measured] = {}
        seconds = 0.0
        for trial in trials[:: max(1, -(-len(trials) // SAMPLE))]:
            began = self._clock()
            measured, tallies = self.group.runs[trial].evaluated()
            seconds += self._clock() - began
            alone[trial] = measured
            if _OfTrial(measured, [tally.each for tally in tallies]).bits != together[trial].bits:
                self.refused = "other bits than those of each trial alone"
        self._alone = seconds / max(1, len(alone))
        return alone if self.refused else {trial: one.measured for trial, one in together.items()}

    def _kernel_of_its_own(self) -> str:
        """The kernel by which torch evaluates a part of this model, but trains none, if there is one."""
        setup, model = self.group.setup, copied(self.group.runs[0].model).eval()  # some count their calls
        with torch.no_grad(), self._computing(), _Names() as seen:
            setup.workload.metrics(model, setup.data.validation.first(FEW))
        return next(iter(seen.names & OF_EVALUATION), "")

    def _measured(self, trials: Sequence[int]) -> dict[int, _OfTrial]:
        """What each of these trials measures, but for those whose `split_metrics` raise an error."""
        data = self.group.setup.data
        with ExitStack() as shown:
            for trial in trials:  # the rows of the others are evaluated with them, and nobody reads that
                shown.enter_context(self.group.runs[trial].shown())
            splits = [self._of_split(split) for split in (data.training_sample, data.validation)]
        found = {}
        for trial in trials:
            check_going_on(self.group.setup.stop)
            with suppress(Exception):  # the ordinary evaluation of this trial reports it
                found[trial] = self._of_trial(trial, splits)
        return found

    def _of_trial(self, trial: int, splits: Sequence[_OfSplit]) -> _OfTrial:
        """The means, and the metrics of the whole split, made as `TrialRun.evaluated` makes them."""
        workload, own = self.group.setup.workload, _OfTrial()
        if workload.declares("split_metrics"):
            self.group.runs[trial].seed_evaluation()  # the recorded metrics draw nothing
        for one in splits:
            # Copies: aligned as alone, and of the trial's own where split_metrics writes into them.
            own.each.append({name: rows[trial].clone() for name, rows in one.rows.items()})
            found = dict(one.means[trial])
            if workload.declares("split_metrics"):
                found |= with_values(split_measured(workload, own.each[-1], list(found)))
            own.measured.update({str(Metric(one.split.name, name)): value for name, value in found.items()})
        return own

    def _of_split(self, split: Split) -> _OfSplit:
        """The means of all averaged metrics over a split, for each trial, added up as `evaluate` does."""
        setup, trials = self.group.setup, len(self.group.runs)
        sums: Sums = {}
        total = 0
        gathered = gathering(setup.workload, split, trials)
        with updating(self.group.precision, setup.device), torch.inference_mode():
            for batch, count in split.in_order(setup.evaluation_batch_size):
                check_going_on(setup.stop)
                for name, parts in self._sums(Batch.shared(batch), count, gathered).items():
                    known = sums.get(name)
                    sums[name] = parts if known is None else [a + b for a, b in zip(known, parts, strict=True)]
                total += count
            rows = {} if gathered is None else gathered.of_trials(total)
            columns = [torch.stack(parts) for parts in sums.values()]
            means = (torch.stack(columns, dim=1) / total).tolist() if columns else [[]] * trials
        return _OfSplit(split, [dict(zip(sums, row, strict=True)) for row in means], rows)

    def _sums(self, batch: Batch, count: int, gathered: Gathered | None) -> Sums:
        """The sum of each averaged metric over a batch, for each trial; the values themselves go to `gathered`."""
        replay, names = self._recorded(batch, count)
        own, trials, at_once = self._own(), len(self.group.runs), self._at_once
        shared = self.group.model.shared.values()
        apart = self.group.setup.workload.not_averaged
        sums: Sums = {name: [] for name in names if name not in apart}
        for first in range(0, trials, at_once):
            begin = min(first, trials - at_once)  # the last ones together with some that were there before
            values = replay(*[tensor[begin : begin + at_once] for tensor in own], *shared, *batch.leaves)
            for name, each in zip(names, values, strict=True):
                if name in sums:
                    sums[name] += [row.sum() for row in each.to(torch.float64).unbind(0)][first - begin :]
                if gathered is not None:
                    gathered.add_rows(name, each[first - begin :], first)
            if gathered is not None and gathered.num_bytes > MOST_KEPT:
                raise NotFusible("the values that split_metrics reads are too many for all trials at once")
        return sums

    def _computing(self) -> AbstractContextManager[None]:
        """Within the block operations compute in the precision of the trials, which is one."""
        return computing(self.group.precision, self.group.setup.device)

    def _own(self) -> list[torch.Tensor]:
        """What each trial has its own of, [K, ...]."""
        model = self.group.model
        return [*model.stacks.values(), *(own.values for own in model.settings)]

    def _recorded(self, batch: Batch, count: int) -> tuple[Any, list[str]]:
        """The metrics as a graph for so many trials as are evaluated at once, and their names."""
        if not self._at_once:
            trials = len(self.group.runs)
            self._at_once = trials
            if self.group.setup.device.type == "cpu":
                tape, _ = self._run(batch, count, 1)
                self._at_once = evenly(trials, max(1, CACHED_BYTES // max(1, tape.largest)))
                tape.forget()
        key = batch.signature, tuple(self.group.model.shared)
        if key not in self._recordings:
            tape, metrics = self._run(batch, count, self._at_once)
            graph = tape.finished([values.stacked for values in metrics.values()])
            check_graph(graph, 0)
            simplify(graph)
            self._recordings[key] = quickened(graph, tape.constants).forward, list(metrics)
            tape.forget()
        return self._recordings[key]

    def _run(self, batch: Batch, count: int, trials: int) -> tuple[Tape, dict[str, TrialTensor]]:
        """The metrics of the first trials, and all that is computed on the way to them."""
        model, task = self.group.model, self.group.task
        with torch.inference_mode(False):
            inputs = [tensor[:trials].clone() for tensor in self._own()]  # nothing that is written into them stays
            shared = model.stand_ins()
        tape = Tape([*inputs, *shared.values(), *batch.leaves], of_all(shared, batch))
        operations = Operations(trials, task.rules, Sites(tape.add_input), care=task.care, shared=shared)
        named = {**dict(zip(model.stacks, inputs, strict=False)), **shared}
        model.install(named, inputs[len(model.stacks) :], operations)
        model.template.eval()
        workload = self.group.setup.workload
        with (
            torch.inference_mode(False), torch.no_grad(), left_as_it_was(workload),
            without_noise(tape, batch), tape, SharedValues(operations), self._computing(),
        ):  # fmt: skip
            given = batch.form.filled(iter(batch.leaves))
            metrics = workload.metrics(model.template, given)
            ragged = next((name for name, values in metrics.items() if isinstance(values, list | tuple)), "")
            if ragged:
                raise NotFusible(f"the metric {ragged!r} is a list of one tensor for each example")
            model.write_back(named, operations)
            stacked = {name: operations.trial(operations.stacked(values)) for name, values in metrics.items()}
        for name, values in stacked.items():
            shape = tuple(values.shape)
            if shape != (count,) and not (name in workload.not_averaged and shape[:1] == (count,)):
                raise NotFusible(f"the metric {name!r} is not one value for each example")
        return tape, stacked


class _Names(Watching):  # type: ignore[no-untyped-call]
    """Notes the names of the operations that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(name_of(func))
        return func(*args, **(kwargs or {}))


def evenly(trials: int, most: int) -> int:
    """How many at a time, about as many as may be, so that few have to be taken twice."""
    most = min(trials, most)
    return min(range(most // 2 + 1, most + 1), key=lambda size: (-(-trials // size) * size, -size))
