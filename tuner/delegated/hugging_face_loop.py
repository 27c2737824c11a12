"""One trial, trained by the Trainer of Hugging Face: the study sets rates and evaluations, and keeps what it needs.

Where a trial goes on, the Trainer is told so by `resume_from_checkpoint`, with a folder that holds its
`trainer_state.json` alone: weights and optimizer are kept as objects (see `hugging_face_trainer`).
"""

import contextlib
import copy
import dataclasses
import logging
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sized
from difflib import get_close_matches
from functools import wraps
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file
from transformers.trainer import TRAINER_STATE_NAME

from tuner.delegated.hugging_face import FUNCTIONS, TrainerWorkload, called, check_words
from tuner.delegated.hugging_face_trainer import Over, StudiedTrainer
from tuner.delegated.kept import global_generators, set_global_generators
from tuner.delegated.makers import is_maker, takes_point
from tuner.delegated.trial import LoopTrial
from tuner.errors import DeclarationError, InputError, WorkloadError
from tuner.shown import quoted

_log = logging.getLogger(__name__)
_REGULARIZE = {"weight_decay": 0.0, "label_smoothing_factor": 0.0, "neftune_noise_alpha": None}
_NOISE = 1e-5  # relative: what a GPU may change in a loss from call to call
_MOST_SEED = 2**32  # NumPy takes no larger one
_FOLLOWS_METRICS = ("reduce_lr_on_plateau", "greedy")

_begun: "weakref.WeakSet[torch.nn.Module]" = weakref.WeakSet()  # models that a trial began with
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
            f"the Trainer ended after {trainer.state.global_step:,} of {trial.behind().planned_steps:,} updates, and a "
            "trial trains all of its steps (A11): a callback stopped it, or train_dataset gave no batch"
        )


def _check_not_random(trainer: StudiedTrainer) -> None:
    """Raise WorkloadError where the loss of one batch differs from call to call: the model drops at random."""
    model: Any = trainer.model
    before, weights = (
        global_generators(trainer.trial.device),
        {name: held.clone() for name, held in model.state_dict().items()},
    )
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    losses = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        with torch.no_grad():
            loss: Any = trainer.compute_loss(model.train(), dict(batch))
        losses.append(float(loss))
    model.load_state_dict(weights)
    set_global_generators(before, trainer.trial.device)
    if abs(losses[0] - losses[1]) > _NOISE * abs(losses[0]):
        raise WorkloadError(
            "the model that model_init returns trains at random (dropout), and a sweep trains without regularization "
            "(A22, A23), because it asks for the steps that fit the training set: give model_init the parameter "
            "regularization_off, and where it is true set the dropout of the model's config to 0"
        )


def _checked(compute_metrics: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, whose result is held to be metrics by name."""

    @wraps(compute_metrics)
    def measured(*given: Any, **named: Any) -> Any:
        found = compute_metrics(*given, **named)
        if not isinstance(found, Mapping):
            raise WorkloadError(
                f"compute_metrics returns {type(found).__name__}, and must return metrics by name: "
                '{"accuracy": 0.9}, which is recorded as validation/accuracy'
            )
        return found

    return measured


class Making:
    """Makes what one trial needs of what the study file says."""

    def __init__(self, workload: TrainerWorkload, trial: LoopTrial) -> None:
        self.workload, self.trial = workload, trial
        self.name = type(workload).__name__
        self.asks_for_regularization = False

    def trainer(self) -> StudiedTrainer:
        """The Trainer of the trial, with its model as a checkpoint has it."""
        arguments, parts = self._arguments(), {name: self._part(name) for name in self.workload.parts}
        parts.pop("arguments_class", None)
        if parts.get("compute_metrics") is not None:
            parts["compute_metrics"] = _checked(parts["compute_metrics"])
        kind = self._kind(parts.pop("trainer_class", transformers.Trainer))
        transformers.set_seed(arguments.seed)  # as Trainer does before it calls a model_init of its own
        callbacks = self._callbacks(parts.pop("callbacks", None) or [])
        if callbacks or kind is not StudiedTrainer:
            self.trial.read.add("max_steps")  # they are given it, and nobody sees whether they read it
        trainer = kind(
            model=self._model(),
            args=arguments,
            train_dataset=self._not_empty("train_dataset", self._data("train_dataset")),
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
        return self._called(part) if is_maker(part) and name not in FUNCTIONS else part

    def _kind(self, base: type) -> Any:
        """The user's class of Trainer, followed by the study."""
        if not isinstance(base, type) or not issubclass(base, transformers.Trainer):
            raise WorkloadError(
                f"{self.name}(trainer_class=...) takes a subclass of transformers.Trainer, got {base!r}"
            )
        return StudiedTrainer if base is transformers.Trainer else type(base.__name__, (StudiedTrainer, base), {})

    def _callbacks(self, found: Any) -> list[Any]:
        """The callbacks of the trial: those of a list are copied, so that no trial gets those of another."""
        callbacks = _checked_callbacks(self.name, found)
        if is_maker(self.workload.parts.get("callbacks")):
            return callbacks
        try:
            return copy.deepcopy(callbacks)
        except Exception as error:
            raise WorkloadError(
                f"{self.name}: callbacks hold what cannot be copied for each trial ({type(error).__name__}: {error}); "
                "give a function that makes them: callbacks=lambda: [...]"
            ) from error

    def _model(self) -> torch.nn.Module:
        model = self._called(self.workload.model_init)
        if not isinstance(model, torch.nn.Module):
            raise WorkloadError(f"{self.name}.model_init must return a model, got {type(model).__name__}")
        if model in _begun:
            raise WorkloadError(
                f"{self.name}.model_init returns the model of another trial; every trial begins with a fresh one: "
                "lambda point: ..., which makes it"
            )
        _begun.add(model)
        self.trial.carry_into(model)
        return model

    def _data(self, name: str) -> Any:
        """A dataset: as it is, or what a function returns, which is called once unless it takes the point."""
        given = getattr(self.workload, name)
        if not is_maker(given):
            return given
        if takes_point(given, ("regularization_off",)):
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
        for one in found.values() if isinstance(found, dict) else [found]:
            self._not_empty("eval_dataset", one)
        return found

    def _not_empty(self, name: str, dataset: Any) -> Any:
        """The dataset; WorkloadError where there is none, or no example in it."""
        if dataset is None:
            raise WorkloadError(f"{self.name}(...): the function {name} returned None; it must return the dataset")
        if isinstance(dataset, str) or not (hasattr(dataset, "__getitem__") or hasattr(dataset, "__iter__")):
            raise WorkloadError(
                f"{self.name}({name}=...) is a dataset or a function that returns one, got {type(dataset).__name__}"
            )
        if isinstance(dataset, Sized) and not len(dataset):
            raise WorkloadError(f"{self.name}(...): {name} has no examples; is it loaded, or filtered, as you meant?")
        return dataset

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
                "different smoothings cannot be compared; select by a value of compute_metrics, "
                'select_by=maximize("validation/accuracy")'
            )
        plateau = str(words.get("lr_scheduler_type", ""))
        if plateau in _FOLLOWS_METRICS:
            raise WorkloadError(
                f"lr_scheduler_type={plateau!r} follows metrics, and the study, not the Trainer, decides when they are "
                "measured: take a schedule that follows the steps alone"
            )

    def _decided(self, words: Mapping[str, Any]) -> dict[str, Any]:
        """What the study decides, and the quiet of a trial among many."""
        trial, on_cpu = self.trial, self.trial.device.type == "cpu"
        return {
            "output_dir": str(trial.folder),
            "max_steps": trial.behind().planned_steps,
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


def _checked_callbacks(name: str, given: Any) -> list[Any]:
    """What is given, held to be callbacks that leave the length of a trial alone."""
    for one in given if isinstance(given, list | tuple) else [None]:
        kind = one if isinstance(one, type) else type(one)
        if not issubclass(kind, transformers.TrainerCallback):
            raise WorkloadError(
                f"{name}(callbacks=...) takes a list of TrainerCallback classes, or a function that returns one, got "
                f"{quoted(given)}"
            )
        if issubclass(kind, transformers.EarlyStoppingCallback):
            raise WorkloadError(
                f"callbacks include {kind.__name__}, and a trial trains all of its steps (A11), so that trials can be "
                "compared; the best weights are kept anyway: leave it out"
            )
    return list(given)


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
        made = called(processing, point, lambda: False) if is_maker(processing) else processing
        made.save_pretrained(str(folder))
