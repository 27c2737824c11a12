"""The trial as a loop sees it: what to train, how long, at which rate; and who takes what is reported and kept."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import IterableDataset

from tuner.delegated.files import Load, Save
from tuner.delegated.trainee import LoopTrainee
from tuner.design.prefix import rates_of
from tuner.design.seeds import derived_seed
from tuner.errors import Infeasible, WorkloadError
from tuner.training.models import shown_point
from tuner.training.randomness import callers_generators_restored, seed_global_generators
from tuner.training.unread import Noting

_INITIAL = "initial_lr"
_WORD = 2**32 - 1  # the largest seed that NumPy, Lightning, Accelerate and transformers take


class StudySchedule(LRScheduler):
    """Sets the rate of each group to that of the study, times the ratio at which the group began.

    `rate(step)`: of an update. base: the rate of the point. first: the update that is made next. Raises WorkloadError
    where no group begins at the rate of the point: the loop would train at another one.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, rate: Callable[[int], float], base: float, first: int) -> None:
        self.rate, self.base, self.first = rate, base, first
        begin = [float(group.get(_INITIAL, group["lr"]) if first else group["lr"]) for group in optimizer.param_groups]
        if base not in begin:
            raise WorkloadError(
                f"no group of the optimizer begins at learning_rate = {base:g} of the point (they begin at "
                f"{', '.join(f'{one:g}' for one in begin)}); make it with lr=trial.point['learning_rate']"
            )
        for group, value in zip(optimizer.param_groups, begin, strict=True):
            group[_INITIAL] = value
        super().__init__(optimizer, last_epoch=first - 1 if first else -1)

    def get_lr(self) -> list[float | torch.Tensor]:
        """The rate of each group for the next update."""
        now = self.rate(self.last_epoch)
        return [now * (each / self.base) if each != self.base else now for each in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """Nothing: where it is follows from the step of the trial."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing is needed."""


class Listening(Protocol):
    """Takes what a loop says of its trial: the trainer of a study, or a first look."""

    @property
    def trainee(self) -> LoopTrainee: ...

    @property
    def due(self) -> tuple[int, ...]:
        """The numbers of updates after which the trial is evaluated, ascending."""
        ...

    @property
    def folder(self) -> Path:
        """A folder of the trial's own."""
        ...

    def reported(self, step: int, values: Mapping[str, Any]) -> None:
        """Take metrics after so many updates. Raises WorkloadError."""
        ...

    def arrived(self, step: int) -> bool:
        """So many updates are made, and evaluated where that is due; True where the loop has to end."""
        ...

    def alive(self) -> None:
        """The loop is at work."""
        ...


class LoopTrial:
    """One trial for `OwnLoop.train`.

    number, seed, data_seed: of the trial; seed what you draw from by them. Torch's, NumPy's and Python's own
        generators are seeded already.
    point: hyperparameter to value, `trial.point["learning_rate"]`.
    device: where to train, as --device says.
    folder: a folder of the trial's own, for files that are nobody else's; it stays when the trial is resumed.
    resumed: whether the trial goes on from a checkpoint.
    trying: whether this is a first look of a few steps, of which nothing is recorded.
    """

    def __init__(self, listener: Listening, *, trying: bool = False) -> None:
        trainee, setup = listener.trainee, listener.trainee.setup
        self._listener, self._trainee = listener, trainee
        self.read: set[str] = set()  # what the loop asked for
        self.trying = trying
        self.number = trainee.trial.number
        self.seed = trainee.trial.seed & _WORD
        self.data_seed = trainee.trial.data_seed & _WORD
        self.point: Mapping[str, Any] = Noting(shown_point(trainee.trial.point))
        self.device: torch.device = setup.device
        self.folder = listener.folder
        self.resumed = trainee.resumed
        self._rates = tuple(rates_of(trainee.trial)) if "learning_rate" in trainee.trial.point else ()
        self._due = frozenset(listener.due)
        self._in_step = False

    @property
    def step(self) -> int:
        """The update about to be made, counted from 0: so many are made already."""
        return self._trainee.step

    @property
    def max_train_steps(self) -> int:
        """The updates of the whole trial."""
        self.read.add("max_train_steps")
        return self._trainee.setup.study.budget.max_train_steps

    @property
    def evaluation_steps(self) -> tuple[int, ...]:
        """The numbers of updates after which an evaluation is due, ascending; the last one is the end of the trial."""
        self.read.add("evaluation_steps")
        return self._listener.due

    @property
    def regularization_off(self) -> bool:
        """Whether to train without augmentation, dropout and everything else that regularizes, as a sweep does."""
        self.read.add("regularization_off")
        return not self._trainee.setup.study.augment

    def keep(self, **objects: Any) -> None:
        """Keep objects with `state_dict` and `load_state_dict`: model, optimizer, loader; and generators.

        Where the trial goes on from a checkpoint, each gets its state back at once. The weights of `torch.nn.Module`s
        are what is kept of the best steps. Raises WorkloadError for what has no state.
        """
        for name, value in objects.items():
            self._trainee.kept.add(name, value)

    def keep_files(self, save: Save, load: Load) -> None:
        """Keep files instead of objects: `save(folder)` writes the state, `load(folder)` reads it back.

        As in `trial.keep_files(accelerator.save_state, accelerator.load_state)`. Where the trial goes on from a
        checkpoint, `load` is called at once.
        """
        self._trainee.files.keep(save, load)

    def steps(self) -> Iterator[int]:
        """The updates to be made, each as its number from 0: from where the trial is to its end, or to a stop."""
        self._trainee.kept.restore_generators()
        while not self._listener.arrived(self._trainee.step):
            self._in_step = True
            yield self._trainee.step
            self._in_step = False
            self._trainee.step += 1

    def batches(self, loader: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        """The updates to be made as `steps` gives them, each with its batch: over the loader again and again.

        The order of a pass follows from `data_seed` and the number of the pass. A resumed trial fetches again what
        came before in its pass, and goes on with the batch that was next. Raises WorkloadError for an empty loader.
        """
        drawn = _endless(loader, self.step, self.data_seed, self.device)
        for step in self.steps():
            yield step, next(drawn)

    def stepped(self, updates: int) -> bool:
        """Say that so many updates are made and evaluated where that is due; True: end now. In place of `steps`."""
        if updates < self._trainee.step:
            raise WorkloadError(f"the loop says that {updates} updates are made, after {self._trainee.step}")
        self._trainee.step = updates
        return self._listener.arrived(updates)

    def rate(self, step: int) -> float:
        """The learning rate of an update, as the study's schedule has it. Raises WorkloadError without a rate."""
        self.read.add("rate")
        if not self._rates:
            raise WorkloadError("the point has no learning_rate, so no schedule gives a rate; declare one in the space")
        return self._rates[min(max(step, 0), len(self._rates) - 1)]

    def scheduler(self, optimizer: torch.optim.Optimizer) -> StudySchedule:
        """A learning rate scheduler of torch's kind that follows the study's schedule: call `step()` after each update.

        Groups that begin at other rates keep their ratio to `learning_rate`.
        """
        return StudySchedule(optimizer, self.rate, float(self.point["learning_rate"]), self.step)

    def evaluates(self, step: int) -> bool:
        """Whether an evaluation is due after update `step` (counted from 0)."""
        self.read.add("evaluates")
        return step + 1 in self._due

    def report(self, metrics: Mapping[str, Any], *, step: int | None = None) -> None:
        """Report metrics by name, "validation/loss" and "training/error_rate": numbers, or tensors of one number.

        They count as measured after the update at hand, which is `step + 1` updates; or `step` updates where that is
        given. Raises WorkloadError where no evaluation is due there, and for what is no metric.
        """
        made = self._trainee.step + self._in_step if step is None else step
        self._listener.reported(made, metrics)

    def alive(self) -> None:
        """Say that the loop is at work, in a step that takes very long."""
        self._listener.alive()

    def infeasible(self, why: str) -> None:
        """End the trial because of its point, which is then no failure of the program. Raises Infeasible."""
        raise Infeasible(why)


def _endless(loader: Iterable[Any], start: int, data_seed: int, device: torch.device) -> Iterator[Any]:
    """The batches of a loader from number `start` on, pass after pass; passes before it are not fetched."""
    endless = isinstance(getattr(loader, "dataset", None), IterableDataset)  # its length may be a guess
    length = len(loader) if isinstance(loader, Sized) and not endless else 0
    number, skipped = divmod(start, length) if length else (0, start)
    while True:
        empty = True
        for batch in _passed(loader, number, derived_seed("pass", data_seed, number), device):
            empty = False
            if skipped:
                skipped -= 1
            else:
                yield batch
        if empty:
            raise WorkloadError("trial.batches(loader): the loader gives no batch; is its dataset empty?")
        number += 1


def _passed(loader: Iterable[Any], number: int, seed: int, device: torch.device) -> Iterator[Any]:
    """A pass over a loader, with the global generators and its own seeded until the first batch has its order."""
    with callers_generators_restored(device):  # a pass is the same whatever was drawn before it
        seed_global_generators(seed, device)
        by_batch = getattr(loader, "batch_sampler", None)
        for part in (loader, getattr(loader, "sampler", None), by_batch, getattr(by_batch, "sampler", None)):
            if isinstance(generator := getattr(part, "generator", None), torch.Generator):
                generator.manual_seed(seed)
            if callable(set_epoch := getattr(part, "set_epoch", None)):
                set_epoch(number)
        batches = iter(loader)
        first = list(islice(batches, 1))
    return chain(first, batches)
