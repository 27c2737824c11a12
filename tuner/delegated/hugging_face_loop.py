"""One trial, trained by the Trainer of Hugging Face: the study sets rates and evaluations, and keeps what it needs.

The Trainer is the user's own, with a few methods of its own overridden (`StudiedTrainer`). Its state is kept as
objects: weights, optimizer, scaler, and where it stands. Where a trial goes on, the Trainer is told so by
`resume_from_checkpoint`, with a folder that holds its `trainer_state.json` alone.
"""

import contextlib
import dataclasses
import inspect
import json
import logging
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from numbers import Real
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import has_length

from tuner.delegated.hugging_face import FUNCTIONS, TrainerWorkload, called, check_words, takes_point
from tuner.delegated.kept import KeptObjects
from tuner.delegated.trial import LoopTrial
from tuner.errors import DeclarationError, InputError, WorkloadError

_log = logging.getLogger(__name__)
_REGULARIZE = {"weight_decay": 0.0, "label_smoothing_factor": 0.0, "neftune_noise_alpha": None}
_TIMES = ("_runtime", "_samples_per_second", "_steps_per_second", "_model_preparation_time", "_jit_compilation_time")
_NOISE = 1e-5  # relative: what a GPU may change in a loss from call to call
_MOST_SEED = 2**32  # NumPy takes no larger one
_FOLLOWS_METRICS = ("reduce_lr_on_plateau", "greedy")

_once: "weakref.WeakKeyDictionary[TrainerWorkload, dict[str, Any]]" = weakref.WeakKeyDictionary()


def train(workload: TrainerWorkload, trial: LoopTrial) -> None:
    """Train one trial of a study. Raises WorkloadError where the Trainer does not do what was agreed."""
    making = Making(workload, trial)
    trainer = making.trainer()
    if trial.trying and trial.regularization_off and not making.asks_for_regularization:
        _check_not_random(trainer)
    with contextlib.ExitStack() as stack:
        resumed_from = None
        if trainer.place.restored is not None:
            resumed_from = stack.enter_context(tempfile.TemporaryDirectory())
            (Path(resumed_from) / TRAINER_STATE_NAME).write_text(trainer.place.restored["trainer"], encoding="utf-8")
        stack.enter_context(contextlib.suppress(Over))
        trainer.train(resume_from_checkpoint=resumed_from)
    if not trainer.over:
        raise WorkloadError(
            f"the Trainer ended after {trainer.state.global_step:,} of {trial.max_train_steps:,} updates, and a trial "
            "trains all of its steps (A11): a callback stopped it, or train_dataset gave no batch"
        )


class Over(Exception):
    """The trial had ended before an update was made."""


def _check_not_random(trainer: "StudiedTrainer") -> None:
    """Raise WorkloadError where the loss of one batch differs from call to call: the model drops at random."""
    model: Any = trainer.model
    generators = KeptObjects(trainer.trial.device)
    before, weights = generators.state(), {name: held.clone() for name, held in model.state_dict().items()}
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    losses = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        with torch.no_grad():
            loss: Any = trainer.compute_loss(model.train(), dict(batch))
        losses.append(float(loss))
    model.load_state_dict(weights)
    generators.load(before)
    generators.restore_generators()
    if abs(losses[0] - losses[1]) > _NOISE * abs(losses[0]):
        raise WorkloadError(
            "the model that model_init returns trains at random (dropout), and a sweep trains without regularization "
            "(A22, A23), because it asks for the steps that fit the training set: give model_init the parameter "
            "regularization_off, and where it is true set the dropout of the model's config to 0"
        )


class Making:
    """Makes what one trial needs of what the study file says."""

    def __init__(self, workload: TrainerWorkload, trial: LoopTrial) -> None:
        self.workload, self.trial = workload, trial
        self.name = type(workload).__name__
        self.asks_for_regularization = False

    def trainer(self) -> "StudiedTrainer":
        """The Trainer of the trial, with its model as a checkpoint has it."""
        arguments, parts = self._arguments(), {name: self._part(name) for name in self.workload.parts}
        parts.pop("arguments_class", None)
        kind = self._kind(parts.pop("trainer_class", transformers.Trainer))
        transformers.set_seed(arguments.seed)  # as Trainer does before it calls a model_init of its own
        callbacks = [*(parts.pop("callbacks", None) or [])]
        _refuse_early_stopping(callbacks)
        trainer = kind(
            model=self._model(),
            args=arguments,
            train_dataset=self._data("train_dataset"),
            eval_dataset=self._splits(),
            callbacks=callbacks,
            **{name: part for name, part in parts.items() if part is not None},
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.follow(self.trial, keeps_schedule=self.workload.schedule == "arguments")
        return trainer  # type: ignore[no-any-return]  # made of a class that is known when it runs

    def _off(self) -> bool:
        self.asks_for_regularization = True
        return self.trial.regularization_off

    def _called(self, function: Callable[..., Any]) -> Any:
        return called(function, self.trial.point, self._off)

    def _part(self, name: str) -> Any:
        part = self.workload.parts[name]
        makes = inspect.isfunction(part) or inspect.ismethod(part)
        return self._called(part) if makes and name not in FUNCTIONS else part

    def _kind(self, base: type) -> Any:
        """The user's class of Trainer, followed by the study."""
        if not isinstance(base, type) or not issubclass(base, transformers.Trainer):
            raise WorkloadError(
                f"{self.name}(trainer_class=...) takes a subclass of transformers.Trainer, got {base!r}"
            )
        return StudiedTrainer if base is transformers.Trainer else type(base.__name__, (StudiedTrainer, base), {})

    def _model(self) -> torch.nn.Module:
        model = self._called(self.workload.model_init)
        if not isinstance(model, torch.nn.Module):
            raise WorkloadError(f"{self.name}.model_init must return a model, got {type(model).__name__}")
        return model

    def _data(self, name: str) -> Any:
        """A dataset: as it is, or what a function returns, which is called once unless it takes the point."""
        given = getattr(self.workload, name)
        if not (inspect.isfunction(given) or inspect.ismethod(given)):
            return given
        if takes_point(given):
            return self._called(given)
        held = _once.setdefault(self.workload, {})
        if name not in held:
            held[name] = self._called(given)
        return held[name]

    def _splits(self) -> Any:
        """The data to evaluate on. Raises WorkloadError for a split that no metric is named after."""
        found = self._data("eval_dataset")
        if isinstance(found, dict) and (set(found) - {"training", "validation"} or "validation" not in found):
            raise WorkloadError(
                f"{self.name}(eval_dataset=...) is one dataset, the validation split, or a dict "
                f'{{"validation": ..., "training": ...}}, got a dict of {", ".join(map(repr, found))}; the test split '
                "never selects anything (D31)"
            )
        return found

    def _arguments(self) -> transformers.TrainingArguments:
        kind = self.workload.parts.get("arguments_class", transformers.TrainingArguments)
        if not isinstance(kind, type) or not issubclass(kind, transformers.TrainingArguments):
            raise WorkloadError(f"{self.name}(arguments_class=...) takes a subclass of TrainingArguments, got {kind!r}")
        known = {field.name for field in dataclasses.fields(kind) if field.init}
        words = self._words(known)
        try:
            arguments = kind(**words, **self._decided(words))
        except (TypeError, ValueError, ImportError) as error:
            raise WorkloadError(f"{kind.__name__} does not take the args of {self.name}: {error}") from error
        _refuse_processes(arguments)
        _place(arguments, self.trial.device)
        return arguments

    def _words(self, known: set[str]) -> dict[str, Any]:
        """What the study file says, and what the point says of training arguments."""
        said = self._called(self.workload.args) if callable(self.workload.args) else self.workload.args
        keeps_schedule = self.workload.schedule == "arguments"
        try:
            check_words(said, keeps_schedule)
        except DeclarationError as error:
            raise WorkloadError(str(error)) from None
        for name in said:
            if name not in known:
                near = get_close_matches(name, known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise WorkloadError(f"args of {self.name} name {name!r}, which no training argument is{hint}")
        words = dict(said)
        for name in known & set(self.trial.point):
            value = self.trial.point[name]
            if name != "learning_rate" and words.get(name, value) != value:
                raise WorkloadError(
                    f"{name} is a hyperparameter of the space and stands in args of {self.name} too, as "
                    f"{words[name]!r}; leave it out there"
                )
            words[name] = value
        self._check_point(words, keeps_schedule)
        if self.trial.regularization_off and not callable(self.workload.args):
            words |= {name: off for name, off in _REGULARIZE.items() if name in words}
        return words

    def _check_point(self, words: Mapping[str, Any], keeps_schedule: bool) -> None:
        decided = {name: self.trial.point[name] for name in words if name in set(self.trial.point)}
        try:
            check_words({name: value for name, value in decided.items() if name != "learning_rate"}, keeps_schedule)
        except DeclarationError as error:
            raise WorkloadError(f"the space has a hyperparameter of this name, and {error}") from None
        if "label_smoothing_factor" in decided and self.workload.select_by.metric == "validation/loss":
            raise WorkloadError(
                "label_smoothing_factor is searched, and the Trainer smooths the labels of eval_loss, too: losses at "
                "different smoothings say nothing of each other; select by a value of compute_metrics, "
                'select_by=maximize("validation/accuracy")'
            )
        plateau = str(words.get("lr_scheduler_type", ""))
        if plateau in _FOLLOWS_METRICS:
            raise WorkloadError(f"lr_scheduler_type={plateau!r} follows metrics, and the Trainer reads them otherwise")

    def _decided(self, words: Mapping[str, Any]) -> dict[str, Any]:
        """What the study decides, and the quiet of a trial among many."""
        trial, on_cpu = self.trial, self.trial.device.type == "cpu"
        return {
            "output_dir": str(trial.folder),
            "max_steps": trial.max_train_steps,
            "seed": trial.seed % _MOST_SEED,
            "data_seed": trial.data_seed % _MOST_SEED,
            "eval_strategy": "no",
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "use_cpu": on_cpu,
            **({} if "logging_strategy" in words or "logging_steps" in words else {"logging_strategy": "no"}),
            **({} if "dataloader_pin_memory" in words else {"dataloader_pin_memory": not on_cpu}),
        }


def _refuse_early_stopping(callbacks: list[Any]) -> None:
    for one in callbacks:
        kind = one if isinstance(one, type) else type(one)
        if issubclass(kind, transformers.EarlyStoppingCallback):
            raise WorkloadError(
                f"callbacks hold {kind.__name__}, and a trial trains all of its steps (A11), so that trials can be "
                "compared; the best weights are kept anyway: leave it out"
            )


def _refuse_processes(arguments: transformers.TrainingArguments) -> None:
    if arguments.world_size > 1:
        raise WorkloadError(
            f"the Trainer was started as one of {arguments.world_size} processes (torchrun, accelerate launch), and a "
            "trial of TrainerWorkload trains in one: start tuner by itself, and let tuner.Command start torchrun"
        )


def _place(arguments: transformers.TrainingArguments, device: torch.device) -> None:
    """Train on the device of the trial alone: of itself a Trainer takes the first GPU, and uses them all."""
    if device.type != "cuda":
        return
    index = device.index if device.index is not None else torch.cuda.current_device()
    chosen = torch.device("cuda", index)
    if arguments.device != chosen:
        torch.cuda.set_device(chosen)
        arguments.distributed_state.device = chosen
        arguments.__dict__["_setup_devices"] = chosen
    arguments._n_gpu = 1


class Place:
    """Where a Trainer stands, as plain values.

    restored: what a checkpoint held. epoch, taken: the pass over the data, and the batches taken of it. at_epoch: the
    global generators when it began; at_fetch: when the batch was fetched that waits to be trained on.
    """

    def __init__(self, trainer: "StudiedTrainer", device: torch.device) -> None:
        self.trainer = trainer
        self.generators = KeptObjects(device)
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
            "now": self.generators.state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Remember it, until the Trainer comes to where it stood."""
        self.restored = state

    def put_back(self, when: str) -> None:
        """Put the global generators where they were then."""
        if self.restored is not None and self.restored[when]:
            self.generators.load(self.restored[when])
            self.generators.restore_generators()


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
        place.at_epoch = place.generators.state()

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
        self.place.at_fetch = self.place.generators.state()

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
        self.measured = super()._evaluate(*args, **kwargs)
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


def save_pretrained(workload: TrainerWorkload, point: Mapping[str, Any], weights: Path, folder: Path) -> None:
    """See `TrainerWorkload.save_pretrained`."""
    model: Any = called(workload.model_init, point, lambda: False)
    try:
        model.load_state_dict(load_file(str(weights)))
    except (RuntimeError, OSError) as error:
        raise InputError(f"{weights} does not hold the weights of the model of this point: {error}") from None
    model.save_pretrained(str(folder))
    processing = workload.parts.get("processing_class")
    if processing is not None:
        made = called(processing, point, lambda: False) if inspect.isfunction(processing) else processing
        made.save_pretrained(str(folder))
