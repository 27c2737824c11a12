"""A Trainer of Hugging Face that a study follows: the study sets rates and evaluations, and keeps what it needs.

It is the user's own class with a few methods overridden. Its state is kept as objects: weights, optimizer, scaler, and
where it stands. Files are written by none of them.
"""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from numbers import Real
from typing import Any

import torch
import transformers
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import has_length

from tuner.delegated.kept import global_generators, set_global_generators
from tuner.delegated.trial import LoopTrial

_TIMES = ("_runtime", "_samples_per_second", "_steps_per_second", "_model_preparation_time", "_jit_compilation_time")


class Over(Exception):
    """The trial had ended before an update was made."""


class Place:
    """Where a Trainer stands, as plain values.

    restored: what a checkpoint held. epoch, taken: the pass over the data, and the batches taken of it. at_epoch: the
    global generators when it began; at_fetch: when the batch was fetched that waits to be trained on.
    """

    def __init__(self, trainer: "StudiedTrainer", device: torch.device) -> None:
        self.trainer = trainer
        self.device = device
        self.restored: dict[str, Any] | None = None
        self.epoch, self.taken = 0, 0
        self.at_epoch: dict[str, Any] = {}
        self.at_fetch: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """Everything the rest depends on, besides weights and optimizer."""
        self.trainer.store_flos()
        return {
            "trainer": _text(self.trainer),
            "epoch": self.epoch,
            "taken": self.taken,
            "at_epoch": self.at_epoch,
            "at_fetch": self.at_fetch,
            "now": global_generators(self.device),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Remember it, until the Trainer comes to where it stood."""
        self.restored = state

    def put_back(self, when: str) -> None:
        """Put the global generators where they were then."""
        if self.restored is not None and self.restored[when]:
            set_global_generators(self.restored[when], self.device)


def _text(trainer: "StudiedTrainer") -> str:
    """What `trainer_state.json` of a checkpoint holds, the states of callbacks included."""
    held: dict[str, Any] = {}
    for one in (*trainer.callback_handler.callbacks, trainer.control):
        if isinstance(one, ExportableState):
            held.setdefault(type(one).__name__, []).append(one.state())
    found = {name: one if len(one) > 1 else one[0] for name, one in held.items()}
    return json.dumps({**dataclasses.asdict(trainer.state), "stateful_callbacks": found})


class Following(transformers.TrainerCallback):
    """The last callback: it decides when to evaluate, and says that the trial is at work."""

    def __init__(self, trainer: "StudiedTrainer") -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """All that is kept has its state: a trial may end before its first update."""
        self.trainer.arrive()
        if self.trainer.over:
            raise Over

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A pass over the data begins."""
        self.trainer.begin_epoch()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """An update was made: evaluate it where that is due."""
        control.should_evaluate = self.trainer.trial.evaluates(state.global_step - 1)
        control.should_save = False
        self.trainer.trial.alive()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A pass over the data ended: nothing is due by that."""
        control.should_evaluate = control.should_save = False

    def on_prediction_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A batch was evaluated."""
        self.trainer.trial.alive()


class StudiedTrainer(transformers.Trainer):
    """A Trainer that a study follows: made as any Trainer, then told `follow(trial)`.

    goes_on: the trial is resumed, and the generators are not yet where they were. passes: begun over the data, here.
    said: the updates of which the study knows. over: the trial ends here.
    """

    trial: LoopTrial
    place: Place

    def follow(self, trial: LoopTrial, *, keeps_schedule: bool) -> None:
        """Train for this trial. What is kept gets its state here, but for the optimizer, which is not made yet."""
        self.trial, self.keeps_schedule, self.over = trial, keeps_schedule, False
        self.measured: dict[str, float] | None = None
        self.said = -1
        self.place = Place(self, trial.device)
        trial.keep(model=self.model, place=self.place)
        self.goes_on, self.passes = self.place.restored is not None, 0
        if self.place.restored is not None:
            self.place.epoch, self.place.taken = self.place.restored["epoch"], self.place.restored["taken"]
        self.add_callback(Following(self))

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """The schedule of the study, or of the arguments; here the optimizer is made, and gets its state."""
        made: Any = self.optimizer if optimizer is None else optimizer
        scheduler: Any = None
        if self.keeps_schedule:
            scheduler = super().create_scheduler(num_training_steps, optimizer)
            self.trial.keep(optimizer=made, scheduler=scheduler)
        else:
            scheduler = self.lr_scheduler = self.trial.scheduler(made)  # type: ignore[assignment]  # as good
            self._created_lr_scheduler = True
            self.trial.keep(optimizer=made)
        if getattr(self.accelerator, "scaler", None) is not None:
            self.trial.keep(scaler=self.accelerator.scaler)
        return scheduler  # type: ignore[no-any-return]

    def _load_from_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the kept model has its weights."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Nothing: they have their states."""

    def _load_scaler(self, checkpoint: str | None) -> None:
        """Nothing, as above."""

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Nothing: the generators are put back where it is exact, see `begin_epoch` and `fetching`."""

    def _init_training_state(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        """Passes over the data that are trained, and batches of this one; a stream has no length to tell them by."""
        epochs, batches = super()._init_training_state(*args, **kwargs)
        if self.goes_on and has_length(self.train_dataset):
            self.place.epoch, self.place.taken = epochs, batches
        return (self.place.epoch, self.place.taken) if self.goes_on else (epochs, batches)

    def begin_epoch(self) -> None:
        """A pass over the data begins: note the generators; where it is gone on with, put them where they were."""
        place = self.place
        if self.goes_on and not self.passes:
            if place.taken:
                place.put_back("at_epoch")
            else:
                self._put_back_now()
        else:
            self._put_back_now()  # the pass that was gone on with had no batch left
            place.epoch, place.taken = place.epoch + (self.passes > 0), 0
        self.passes += 1
        place.at_epoch = global_generators(place.device)

    def _put_back_now(self) -> None:
        if self.goes_on:
            self.place.put_back("now")
            self.goes_on = False

    def fetching(self, number: int) -> None:
        """Batch `number` of a pass is fetched next, by this process: what its examples draw is put back, too.

        One batch is always fetched ahead: a checkpoint holds the generators as they were before that.
        """
        if self.goes_on and self.passes == 1:
            if number == self.place.taken:
                self.place.put_back("at_fetch")
            elif number == self.place.taken + 1:
                self._put_back_now()
        self.place.at_fetch = global_generators(self.place.device)

    def get_train_dataloader(self) -> torch.utils.data.DataLoader[Any]:
        """That of the Trainer; it says when a batch is fetched."""
        loader = super().get_train_dataloader()
        sampler = getattr(loader, "batch_sampler", None)
        if sampler is not None and self.args.dataloader_num_workers == 0:
            _watch(sampler, self.fetching)
        return loader

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """The batches of one update, counted."""
        found = super().get_batch_samples(epoch_iterator, num_batches, device)
        if found[0]:
            self._put_back_now()
        self.place.taken += len(found[0])
        return found

    def _evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As that of the Trainer, but it leaves the generators as they were: how often is measured changes nothing."""
        before = global_generators(self.place.device)
        self.measured = super()._evaluate(*args, **kwargs)
        set_global_generators(before, self.place.device)
        return self.measured

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        """After an update, and after a pass: report what was measured, and hear whether to end."""
        super()._maybe_log_save_evaluate(*args, **kwargs)
        if self.state.global_step != self.said and not self.over:
            self.arrive()

    def arrive(self) -> None:
        """So many updates are made: say so."""
        self.said = self.state.global_step
        if self.measured is not None:
            self.trial.report(self._metrics(self.measured), step=self.said)
            self.measured = None
        self.over = self.trial.stepped(self.said)
        self.control.should_training_stop = self.control.should_training_stop or self.over

    def _metrics(self, found: Mapping[str, Any]) -> dict[str, float]:
        """Values by the names of a study: `eval_loss` is validation/loss, `eval_training_loss` training/loss."""
        splits = list(self.eval_dataset) if isinstance(self.eval_dataset, dict) else []
        metrics = {}
        for name, value in found.items():
            named = name.removeprefix("eval_")
            if named == name or named.endswith(_TIMES) or f"_{named}" in _TIMES or not isinstance(value, Real):
                continue
            split = next((one for one in splits if named.startswith(f"{one}_")), "" if splits else "validation")
            if split:
                metrics[f"{split}/{named.removeprefix(f'{split}_') if splits else named}"] = float(value)
        return metrics


def _watch(sampler: Any, fetching: Callable[[int], None]) -> None:
    """Call `fetching(number)` before each batch that a loader fetches by this sampler, in this process."""
    kind = type(sampler)

    def watched(self: Any) -> Iterator[Any]:
        for number, batch in enumerate(kind.__iter__(self)):
            fetching(number)
            yield batch

    with contextlib.suppress(TypeError):  # of a class that is not Python's
        sampler.__class__ = type(kind.__name__, (kind,), {"__iter__": watched})
