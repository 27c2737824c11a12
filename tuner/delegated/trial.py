"""The trial as a loop sees it: what to train, how long, at which rate; and who takes what is reported and kept."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, Protocol

import torch
from torch.optim.lr_scheduler import LRScheduler

from tuner.delegated.batches import Batches
from tuner.delegated.files import Load, Save
from tuner.delegated.setup import LoopSetup
from tuner.delegated.trainee import LoopTrainee
from tuner.design.prefix import rates_of
from tuner.design.seeds import short_seed
from tuner.design.words import no_such_word
from tuner.errors import Infeasible, WorkloadError
from tuner.training.inherited import StartWeights
from tuner.training.models import shown_point
from tuner.training.randomness import seed_global_generators
from tuner.training.unread import Noting

_INITIAL = "initial_lr"
STARTED = "the weights to start from"  # among what a loop has asked for
_EXITED = "the loop called sys.exit({code}); it must return, or raise an error: it is called once for each trial"


class StudySchedule(LRScheduler):
    """Sets the rate of each group to that of the study, times the ratio at which the group began.

    `rate(step)`: of an update. base: the rate of the point. first: the update that is made next. Raises WorkloadError
    where no group begins at the rate of the point: the loop would train at another one.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, rate: Callable[[int], float], base: float, first: int) -> None:
        self.rate, self.base, self.first = rate, base, first
        rates = [group.get(_INITIAL, group["lr"]) if first else group["lr"] for group in optimizer.param_groups]
        begin = [_as_number(one, base) for one in rates]
        if base not in begin:
            raise WorkloadError(
                f"no group of the optimizer begins at learning_rate = {base:g} of the point (they begin at "
                f"{', '.join(f'{one:g}' for one in begin)}); make it with lr=trial.point['learning_rate']"
            )
        for group, value in zip(optimizer.param_groups, begin, strict=True):
            group[_INITIAL] = value
        super().__init__(optimizer, last_epoch=first - 1 if first else -1)

    def set_now(self) -> None:
        """Set the rate of the next update, where a state that was loaded meanwhile holds that of another trial."""
        for group, now in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(now)
            else:
                group["lr"] = now

    def get_lr(self) -> list[float | torch.Tensor]:
        """The rate of each group for the next update."""
        now = self.rate(self.last_epoch)
        return [now * (each / self.base) if each != self.base else now for each in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """Nothing: where it is follows from the step of the trial."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing is needed."""


def _as_number(rate: float | torch.Tensor, base: float) -> float:
    """A rate as a number: `base` where it is a tensor of that, in fewer digits."""
    if isinstance(rate, torch.Tensor) and rate.item() == torch.tensor(base, dtype=rate.dtype).item():
        return base
    return float(rate)


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

    @property
    def over(self) -> bool:
        """Whether the trial has ended, or was stopped."""
        ...

    def reported(self, step: int, values: Mapping[str, Any]) -> None:
        """Take metrics after so many updates. Raises WorkloadError."""
        ...

    def arrived(self, step: int) -> bool:
        """So many updates are made, and evaluated where that is due; True where the loop has to end."""
        ...

    def alive(self, reached: int = 0) -> None:
        """The loop is at work, and has made so many updates, of which not all are kept yet."""
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
        self.read = trainee.asked  # what the loop asked for, also before it was resumed
        self.trying = trying
        self.number = trainee.trial.number
        self.seed = short_seed(trainee.trial.seed)
        self.data_seed = short_seed(trainee.trial.data_seed)
        self.point: Mapping[str, Any] = Noting(shown_point(trainee.trial.point, averages=True))
        self.device: torch.device = setup.device
        self.folder = listener.folder
        self.resumed = trainee.resumed
        self._max_train_steps = setup.study.budget.max_train_steps
        self._rates = tuple(rates_of(trainee.trial)) if "learning_rate" in trainee.trial.point else ()
        self._due = frozenset(listener.due)
        self._in_step = self._begun = self._closed = False
        self._keeping = False  # whether the loop has kept anything
        self._stepping = False  # whether the loop says by `stepped` where it is
        self._asked_after = 0  # the last evaluation that the loop was told is due, in updates
        self._batches: dict[str, Batches] = {}
        self._schedulers: list[StudySchedule] = []
        self.fault: Exception | None = None  # the first error raised to the loop, which may have caught it

    def __getattr__(self, name: str) -> NoReturn:
        """Called for what a trial does not have: say what a word of Optuna's, Ray's or W&B's is called here."""
        keep = "trial.keep(model=model, optimizer=optimizer) before the first step keeps and restores them"
        raise AttributeError(no_such_word(name, "trial.report({'validation/loss': value})", keep))

    @contextmanager
    def _remembered(self) -> Iterator[None]:
        """An error raised within counts, even where the loop catches it. Raises it again at every later call."""
        if self.fault is not None:
            raise self.fault
        if self._closed:
            raise WorkloadError(f"the handle of trial {self.number} was used after its train had returned")
        try:
            yield
        except Exception as error:
            self.fault = error
            raise

    @property
    def step(self) -> int:
        """The update about to be made, counted from 0: so many are made already."""
        return self._trainee.step

    @property
    def max_train_steps(self) -> int:
        """The updates of the whole trial."""
        self.read.add("max_train_steps")
        return self._max_train_steps

    @property
    def over(self) -> bool:
        """Whether the trial has ended, or was stopped: the loop has to end."""
        return self._listener.over

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

    def carry_into(self, model: torch.nn.Module) -> bool:
        """Carry the weights of an earlier stage into a model that was just made, as `Campaign(start_from=...)` says.

        By the names of its state dict, before `keep`, which gives a resumed trial its own weights back. Nothing is done
        where the study starts from nothing, as a control from scratch does: False. Raises WorkloadError where a carried
        tensor is missing or has another shape, after `keep`, and after the first step.
        """
        with self._remembered():
            inherited = self._start("carry_into(model)")
            if inherited is not None:
                inherited.into(getattr(model, "_orig_mod", model), self.point)
        return inherited is not None

    @property
    def start_weights(self) -> Mapping[str, torch.Tensor] | None:
        """The carried weights of an earlier stage by their names here, on the CPU, to be copied by the loop itself.

        None where the study starts from nothing. `carry_into` does the same for a module, and compares the names.
        """
        with self._remembered():
            inherited = self._start("start_weights")
            return None if inherited is None else inherited.mapped(self.point)

    @property
    def start_file(self) -> Path | None:
        """A file of `start_weights` in the format of safetensors, in the folder of the trial; None without a start."""
        with self._remembered():
            inherited = self._start("start_file")
            return None if inherited is None else inherited.file_in(self.folder, self.point)

    def _start(self, word: str) -> StartWeights | None:
        """What the study starts from; it is noted that the loop has taken it."""
        self.read.add(STARTED)
        self._check_not_begun(word)
        if self._keeping:
            raise WorkloadError(
                f"trial.{word} is called after trial.keep: carry the weights first, because keep gives a trial that is "
                "resumed its own weights back, which would be lost"
            )
        return self._trainee.setup.inherited

    def keep(self, **objects: Any) -> None:
        """Keep objects with `state_dict` and `load_state_dict`: model, optimizer, loader; and generators.

        Where the trial goes on from a checkpoint, each gets its state back at once. The weights of `torch.nn.Module`s
        are what is kept of the best steps. Raises WorkloadError for what has no state, where a state does not fit, and
        after the first step.
        """
        with self._remembered():
            self._check_not_begun("keep")
            self._keeping = True
            for name, value in objects.items():
                self._trainee.kept.add(name, value)

    def keep_files(self, save: Save, load: Load) -> None:
        """Keep files instead of objects: `save(folder)` writes the state, `load(folder)` reads it back.

        As in `trial.keep_files(accelerator.save_state, accelerator.load_state)`. Where the trial goes on from a
        checkpoint, `load` is called at once.
        """
        with self._remembered():
            self._check_not_begun("keep_files")
            self._keeping = True
            self._trainee.files.keep(save, load)

    def _check_not_begun(self, what: str) -> None:
        if self._begun:
            raise WorkloadError(
                f"trial.{what} is called after the first step; keep and carry everything before it, because there a "
                "trial that is resumed gets its states back"
            )

    def batches(self, loader: Any, *, name: str = "loader") -> Iterator[Any]:
        """An endless iterator over the batches of a loader, which goes on exactly where it was: `next(batches)`.

        Its place is part of what is kept. A loader with `state_dict` and `load_state_dict` goes on by its own state. Of
        any other the pass is begun again with the random numbers that it had, and what was used is discarded. Samplers
        with `set_epoch` are told the number of the pass. name: tells apart the loaders of a loop with several. Take a
        batch within a step. Raises WorkloadError for what cannot be iterated over again.
        """
        known = self._batches.get(name)
        if known is not None and known.loader is loader:
            return known
        with self._remembered():
            if known is not None:
                raise WorkloadError(
                    f"trial.batches is given two loaders with the name {name!r}; where there are two, name them: "
                    "trial.batches(loader, name='unlabelled'); and make each once, before the first step"
                )
            self._check_not_begun("batches")
            made = self._batches[name] = Batches(loader, name, self.device, self.alive)
            self._trainee.kept.replays.add(f"trial.batches({name})")
            self._trainee.kept.add(f"trial.batches({name})", made)
        return made

    def steps(self) -> Iterator[int]:
        """The updates to be made, each as its number from 0: from where the trial is to its end, or to a stop.

        Raises WorkloadError where a step is begun in the middle of another one.
        """
        trainee, arrived = self._trainee, self._listener.arrived
        with self._remembered():
            self._check_between_steps()
            self._begin(generators=True)
        while True:
            if self.fault is not None:
                raise self.fault
            try:
                over = arrived(trainee.step)
            except Exception as error:
                self.fault = error
                raise
            if over:
                return
            self._in_step = True
            yield trainee.step
            self._in_step = False
            trainee.step += 1

    def _check_between_steps(self) -> None:
        if self._in_step:
            raise WorkloadError(
                f"trial.steps() is called again while step {self.step} of an earlier call is not over; call it once: "
                "steps = trial.steps(), and for a loop in a loop: step = next(steps)"
            )

    def _begin(self, *, generators: bool) -> None:
        if self._begun:
            return
        if any(one.drawn for one in self._batches.values()):
            raise WorkloadError(
                "a batch of trial.batches was taken before the first step, so a trial that is resumed would lose it: "
                "for step in trial.steps(): batch = next(batches), or zip(trial.steps(), trial.batches(loader))"
            )
        self._begun = True
        self._trainee.kept.begin(generators=generators)
        for scheduler in self._schedulers:
            scheduler.set_now()
        self._trainee.files.begin(resumed=self.resumed)

    def restore_generators(self) -> None:
        """Put the random generators where they were when the trial was saved: for `stepped`; `steps` does so itself.

        All that is kept must be kept before.
        """
        with self._remembered():
            self._begin(generators=True)

    def stepped(self, updates: int) -> bool:
        """Say that so many updates are made and evaluated where that is due; True: end now. In place of `steps`.

        Raises WorkloadError where updates go backwards, go on after the end, or have passed an evaluation.
        """
        with self._remembered():
            self._begin(generators=False)
            self._stepping = True
            before = self._trainee.step
            if updates < before:
                begin = ": begin to count at trial.step, where a trial that is resumed goes on" if self.resumed else ""
                raise WorkloadError(f"the loop says that {updates} updates are made, after {before}{begin}")
            if self._listener.over and updates > before:
                raise WorkloadError(
                    f"the loop goes on to {updates} updates after it was told to end at {before}: "
                    "if trial.stepped(step + 1): break"
                )
            self._trainee.step = updates
            return self._listener.arrived(updates)

    def rate(self, step: int) -> float:
        """The learning rate of an update, as the study's schedule has it. Raises WorkloadError without a rate."""
        self.read.add("rate" if step <= self._trainee.step + 1 else "rates ahead")
        rates = self._rates
        if 0 <= step < len(rates):
            return rates[step]
        with self._remembered():
            if not rates:
                raise WorkloadError(
                    "the point has no learning_rate, so no schedule gives a rate; declare one in the space"
                )
        return rates[0 if step < 0 else -1]

    def scheduler(self, optimizer: torch.optim.Optimizer) -> StudySchedule:
        """A learning rate scheduler of torch's kind that follows the study's schedule: call `step()` after each update.

        Groups that begin at other rates keep their ratio to `learning_rate`.
        """
        self.rate(0)  # raises where there is none
        with self._remembered():
            made = StudySchedule(optimizer, self.rate, float(self.point["learning_rate"]), self.step)
        self._schedulers.append(made)
        return made

    def evaluates(self, step: int) -> bool:
        """Whether an evaluation is due after update `step` (counted from 0).

        Raises WorkloadError for a step beyond the end of the trial, or after it was told to end.
        """
        self.read.add("evaluates" if step <= self._trainee.step else "evaluation_steps")
        if step >= self._max_train_steps or (self._listener.over and step >= self._trainee.step):
            with self._remembered():
                ended = f"{min(self._trainee.step, self._max_train_steps):,}"
                of = " updates of a first look" if self.trying else f" of {self._max_train_steps:,} updates"
                raise WorkloadError(
                    f"the loop goes on to step {step} after the end of its trial, which was told to end after "
                    f"{ended}{of}: for step in trial.steps()"
                )
        due = step + 1 in self._due
        if due:
            self._asked_after = step + 1
        return due

    def report(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Report metrics by name, "validation/loss" and "training/error_rate": numbers, or tensors of one number.

        They count as measured after the update at hand, which is `step + 1` updates; or `step` updates where that is
        given. After the end, or a stop, nothing is taken. Raises WorkloadError where no evaluation is due there, and
        for what is no metric.
        """
        with self._remembered():
            made = self._trainee.step + self._in_step if step is None else step
            if made not in self._due and step is None and self._asked_after > made and self._stepping:
                raise WorkloadError(
                    f"trial.report follows trial.evaluates({self._asked_after - 1}), and the trial was told of {made} "
                    f"updates: a loop that does not use trial.steps() says which it reports of, as in "
                    f"trial.report({{...}}, step={self._asked_after}), and calls trial.stepped then"
                )
            self._listener.reported(made, metrics)

    def alive(self, reached: int = 0) -> None:
        """Say that the loop is at work, in a step that takes very long; or has made more updates than are kept yet."""
        self._listener.alive(reached)

    def infeasible(self, why: str) -> None:
        """End the trial because of its point, which is then no failure of the program. Raises Infeasible."""
        with self._remembered():
            raise Infeasible(why)

    def behind(self) -> LoopTrainee:
        """For the adapters of this package, which hand on what they find there: that is not noted as asked for."""
        return self._trainee

    def due_behind(self) -> tuple[int, ...]:
        """As `evaluation_steps`, for the adapters of this package: it is not noted that the loop has asked."""
        return self._listener.due

    def train_with(self, setup: LoopSetup) -> None:
        """Seed the generators, let the loop of the workload train, and raise what it was told and has caught.

        A loop that breaks out after the report of the last step has trained all of it.
        """
        seed_global_generators(self.seed, setup.device)
        try:
            setup.workload.train(self)
            if self._in_step and self.fault is None and self.step + 1 == self._listener.due[-1]:
                self._in_step = False
                self.stepped(self.step + 1)
        except SystemExit as error:  # would end this program, and say nothing
            exited = RuntimeError(_EXITED.format(code=error.code)).with_traceback(error.__traceback__)
            raise self.fault or exited from error
        except Exception as error:
            if self.fault is not None and error is not self.fault:
                raise self.fault from error
            raise
        finally:
            self._closed = True
        if self.fault is not None:
            raise self.fault
