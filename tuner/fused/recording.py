"""The loss of all trials, forward and backward, recorded as a flat graph that needs neither Python nor autograd."""

import random
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.fx import GraphModule

from tuner.errors import NotFusible
from tuner.fused.counting import remembered
from tuner.fused.graph import check_graph, drawing, simplify
from tuner.fused.noise import Site, Sites
from tuner.fused.obstacles import refusal
from tuner.fused.operations import RECOMPUTES, Operations, Rules
from tuner.fused.quick_kernels import quickened
from tuner.fused.rules import TABLE
from tuner.fused.rules_python import SharedValues
from tuner.fused.sharing import copied, holders, strayed
from tuner.fused.stacking import StackedModel
from tuner.fused.tape import Tape
from tuner.fused.trial_tensor import TrialTensor
from tuner.training.containers import Form, taken_apart
from tuner.training.copy_on_write import address, shown
from tuner.training.first_loss import left_as_it_was
from tuner.training.precision import computing
from tuner.training.python_state import changed
from tuner.training.randomness import callers_generators_restored
from tuner.training.trial_run import TrialRun

Loss = Callable[[Any, Any, Mapping[str, Any]], Any]


@dataclass(frozen=True, slots=True)
class Task:
    """What is recorded: the user's loss, the stacked model, each trial's point. `numbers` differ between trials."""

    loss: Loss
    model: StackedModel
    num_trials: int
    constants: Mapping[str, Any]
    numbers: Mapping[str, torch.Tensor]
    care: int = 0
    rules: Rules = field(default_factory=lambda: TABLE)

    @property
    def settings(self) -> list[torch.Tensor]:
        """The numbers, and what the model's modules themselves hold, of each trial."""
        return [*self.numbers.values(), *(own.values for own in self.model.settings)]

    @property
    def inputs(self) -> list[torch.Tensor]:
        """What a recording is given before the batch."""
        return [*self.model.stacks.values(), *self.settings, *self.model.shared.values()]


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as leaves and a form. `varying[i]`: whether leaf i is [K, ...], with each trial's own, or of all."""

    leaves: tuple[torch.Tensor, ...]
    varying: tuple[bool, ...]
    form: Form

    @classmethod
    def shared(cls, batch: Any) -> "Batch":
        leaves, form = taken_apart(batch)
        return cls(_only_tensors(leaves), (False,) * len(leaves), form)

    @classmethod
    def of_each(cls, batches: Sequence[Any]) -> "Batch":
        """The trials' own batches, which must have one form."""
        flat = [taken_apart(batch) for batch in batches]
        leaves = [_only_tensors(leaves) for leaves, _ in flat]
        if len({(form, *(leaf.shape for leaf in each)) for (_, form), each in zip(flat, leaves, strict=True)}) > 1:
            raise NotFusible("the batches of the trials have different forms")
        stacked = tuple(torch.stack(same) for same in zip(*leaves, strict=True))
        return cls(stacked, (True,) * len(stacked), flat[0][1])

    def of_trial(self, trial: int) -> Any:
        """The batch that one trial alone is given."""
        pairs = zip(self.leaves, self.varying, strict=True)
        return self.form.filled(iter([(leaf[trial] if varying else leaf).clone() for leaf, varying in pairs]))

    @property
    def signature(self) -> object:
        """Equal for batches that one recording serves."""
        return self.varying, self.form, tuple((leaf.shape, leaf.dtype) for leaf in self.leaves)


def _only_tensors(leaves: list[Any]) -> tuple[torch.Tensor, ...]:
    strange = [leaf for leaf in leaves if not isinstance(leaf, torch.Tensor)]
    if strange:
        raise NotFusible(
            f"a batch holds {type(strange[0]).__name__} {strange[0]!r:.40}, which a recording would freeze"
        )
    return tuple(leaves)


@dataclass(frozen=True, slots=True)
class Recording:
    """A graph from inputs to losses [K] and gradients [K, ...] of `trained`.

    Its inputs: (*parameters, *buffers, *numbers, *shared, *batch, *masks).
    """

    graph: GraphModule
    quick: GraphModule  # the same, by quicker kernels where there are some
    sites: list[Site]
    trained: list[str]
    ways: dict[str, str]
    num_bytes: int
    num_bytes_once: int  # the part of it that does not grow with the number of trials
    recurrent: bool  # oneDNN's recurrent layers keep what their backward needs only where gradients are on
    compiled: Callable[..., Any] | None = None  # the same computation, by torch.compile
    read: frozenset[str] = frozenset()  # tensors that the code holds besides parameters and buffers, by name

    @property
    def replay(self) -> Callable[..., Any]:
        return self.compiled or self.quick.forward


def record(task: Task, batch: Batch) -> Recording:
    """Run the loss of all trials once, forward and backward, and write down what is computed. Raises NotFusible."""
    try:
        return _settled(task, batch)
    except Exception as error:  # mostly code that does not support trial tensors
        if isinstance(error, NotFusible) and _in_checkpoint(error):
            raise NotFusible(RECOMPUTES) from error
        raise refusal(error, "while the loss was recorded") from error


def _in_checkpoint(error: Exception) -> bool:
    """Whether an error was raised by torch's older checkpoint of activations, or within one."""
    frames = traceback.extract_tb(error.__traceback__)
    return any(Path(frame.filename).parts[-3:] == ("torch", "utils", "checkpoint.py") for frame in frames)


def _settled(task: Task, batch: Batch) -> Recording:
    """What is recorded when everything is ready that code makes at its first call and remembers."""
    owner, model = getattr(task.loss, "__self__", None), task.model.template
    with left_as_it_was(owner):
        for _ in range(2):
            before = remembered(owner, model)
            recording = _record(task, batch)
            constants = {id(tensor) for tensor in recording.graph.state_dict(keep_vars=True).values()}
            change = changed(before, remembered(owner, model), constants)
            if not change:
                read = frozenset(name for name, value in before.items() if id(value) in constants)
                return replace(recording, read=read)
    raise NotFusible(f"the code changes {change}, at each step, which a recording would freeze")


def _record(task: Task, batch: Batch) -> Recording:
    parameters, buffers, numbers = _inputs(task)
    shared = task.model.stand_ins()
    tape = Tape([*parameters, *buffers, *numbers, *shared.values(), *batch.leaves], of_all(shared, batch))
    sites = Sites(tape.add_input)
    with without_noise(tape, batch), tape:
        losses, ways = _losses(task, (parameters, buffers, numbers, shared), batch, sites)
        sites_of_loss = len(sites.known)
        used, gradients = _gradients(task, losses, parameters)
    if len(sites.known) != sites_of_loss:
        raise NotFusible("dropout: drawn a second time for the gradients, by a checkpoint of activations say")
    graph = tape.finished([losses, *gradients])
    check_graph(graph, len(parameters) + len(buffers))
    simplify(graph)
    module, quick = GraphModule(tape.constants, graph), quickened(graph, tape.constants)
    recurrent = "mkldnn_rnn" in module.code
    recording = Recording(module, quick, sites.known, used, ways, tape.num_bytes, tape.num_bytes_once, recurrent)
    tape.forget()
    return recording


def written(run: TrialRun, batch: Any, names: Collection[str]) -> set[str]:
    """Which of these constants the loss of a trial alone writes into, or puts others in the place of.

    A copy of the model computes it, so nothing changes.
    """
    workload, model = run.setup.workload, copied(run.model).train()
    places = {name: place for name, place in holders(model).items() if name in names}
    before = {name: shown(held[key]) for name, (held, key) in places.items()}
    computing_so = computing(run.rule.precision, run.setup.device)
    with callers_generators_restored(run.setup.device), left_as_it_was(workload), suppress(Exception), computing_so:
        workload.loss(model, batch, run.point)  # an error shows when it is recorded
    return set(strayed(places, before, {name: address(one) for name, one in before.items()}))


def of_all(shared: Mapping[str, torch.Tensor], batch: Batch) -> list[torch.Tensor]:
    """The inputs of a recording that are no trial's own, where a model shares some."""
    leaves = [leaf for leaf, varying in zip(batch.leaves, batch.varying, strict=True) if not varying]
    return [*shared.values(), *leaves] if shared else []


@contextmanager
def without_noise(tape: Tape, batch: Batch) -> Iterator[None]:
    """Refuse random numbers of a global generator, which a recording would freeze, or all trials share."""
    before = _generators(batch)
    yield
    if _generators(batch) != before:
        raise NotFusible(f"{drawing(tape.graph)}: random numbers besides dropout, from a global generator")


def _generators(batch: Batch) -> list[object]:
    """The states of the global generators that the loss could draw from: torch's, NumPy's, Python's."""
    states = [torch.get_rng_state(), *(torch.cuda.get_rng_state(leaf.device) for leaf in batch.leaves if leaf.is_cuda)]
    of_numpy = np.random.get_state(legacy=False)["state"]
    return [
        *(state.numpy().tobytes() for state in states),
        of_numpy["pos"],
        of_numpy["key"].tobytes(),
        random.getstate(),
    ]


def _gradients(
    task: Task, losses: torch.Tensor, parameters: list[torch.Tensor]
) -> tuple[list[str], list[torch.Tensor]]:
    """Names and gradients of the parameters that the loss depends on.

    Torch leaves the others alone, weight decay included.
    """
    pairs = zip(task.model.parameters, parameters, strict=True)
    trained = {name: parameter for name, parameter in pairs if name in task.model.trained}
    found = torch.autograd.grad(losses.sum(), list(trained.values()), allow_unused=True)
    used = {name: gradient for name, gradient in zip(trained, found, strict=True) if gradient is not None}
    return list(used), list(used.values())


def _inputs(task: Task) -> tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
    """Parameters to differentiate by, and copies of what a run would change, so that recording changes nothing."""
    model = task.model
    parameters = [each.clone().requires_grad_(name in model.trained) for name, each in model.parameters.items()]
    buffers = [buffer.clone() for buffer in model.buffers.values()]
    return parameters, buffers, task.settings


def _losses(task: Task, inputs: Any, batch: Batch, sites: Sites) -> tuple[torch.Tensor, dict[str, str]]:
    """The losses [K] of all trials by the rules, and how each operation was run."""
    parameters, buffers, numbers, shared = inputs
    operations = Operations(task.num_trials, task.rules, sites, care=task.care, shared=shared)
    named = {**dict(zip(task.model.stacks, [*parameters, *buffers], strict=True)), **shared}
    task.model.install(named, numbers[len(task.numbers) :], operations)
    own = zip(task.numbers, numbers, strict=False)
    point = {**task.constants, **{name: TrialTensor(each, operations, is_number=True) for name, each in own}}
    pairs = zip(batch.leaves, batch.varying, strict=True)
    seen = [operations.trial(leaf) if varying else leaf for leaf, varying in pairs]
    task.model.template.train()
    with SharedValues(operations):
        loss = task.loss(task.model.template, batch.form.filled(iter(seen)), point)
    task.model.write_back(named, operations)
    if not isinstance(loss, TrialTensor) or loss.dim() != 0:
        shape = tuple(loss.shape) if isinstance(loss, torch.Tensor) else type(loss).__name__
        raise NotFusible(f"the loss is not one number for each trial, but {shape}")
    return loss.stacked, operations.ways
