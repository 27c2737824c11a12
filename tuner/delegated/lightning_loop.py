"""Trains one trial by Lightning's Trainer: our callback at its hooks, and our word after each update.

The batches, the optimizers, accumulation, precision and validation are Lightning's own. Ours are the learning rates,
the steps at which its validation runs, the end, and where its checkpoints go. Works with `lightning.pytorch` and
`pytorch_lightning`, whichever the module is of.
"""

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any, cast

import torch

from tuner.delegated.kept import Weighted
from tuner.delegated.lightning import MAKERS, LightningWorkload, check_callbacks, check_options
from tuner.delegated.lightning_data import DATA, Feed, Logged, check_data, draws_random_numbers, is_a, noting_trainer
from tuner.delegated.trial import LoopTrial
from tuner.errors import WorkloadError
from tuner.training.best import copied
from tuner.training.engine import Weights
from tuner.training.extra_state import frozen_in, state_dict_of

_PLACE = "the state of the trial"  # the path that Lightning is given; no file is at it
_NO_LIMIT = 2**62  # steps of optimizers, where Lightning counts those of each and the study counts updates
_NEVER = 2**62  # batches: no validation by Lightning's own count
_INITIAL = "initial_lr"
_LOGGERS = ("lightning", "lightning.pytorch", "lightning.fabric", "pytorch_lightning", "lightning_fabric")
# Entries of a checkpoint from which a module could be made again: ours is made from the point.
_NOT_KEPT = (
    "hparams_name",
    "hparams_type",
    "hyper_parameters",
    "datamodule_hparams_name",
    "datamodule_hyper_parameters",
)


class TrialState(Weighted):
    """The state of a trial: the checkpoint that Lightning makes of itself, where the loaders are, what was logged.

    `restored`: that of a checkpoint. averaged: the weights that were evaluated last, where those are not the module's.
    """

    def __init__(self) -> None:
        self.restored: dict[str, Any] | None = None
        self.session: LightningSession | None = None
        self.averaged: Weights | None = None

    def state_dict(self) -> dict[str, Any]:
        """In plain containers and tensors, as far as the module's own hooks put nothing else into it."""
        if self.session is None:
            raise WorkloadError("Lightning was asked for its state before it trained")
        return self.session.state()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Remember the state until Lightning asks for it."""
        self.restored = state

    def weights(self, into: Weights | None) -> Weights:
        """Those that were evaluated."""
        if self.session is None:
            raise WorkloadError("Lightning was asked for its weights before it trained")
        return copied(self.averaged or state_dict_of(self.session.module), into)

    def frozen(self) -> Weights:
        """Of the module; averaged weights are copies, and are compared with these when they are saved."""
        return {} if self.session is None else frozen_in(self.session.module)


def train(workload: LightningWorkload, trial: LoopTrial) -> None:
    """Train a trial to its end, or to a stop. Raises WorkloadError, and the errors of the user's code."""
    name, kept = type(workload).__name__, TrialState()
    made = {one: workload.made(one, trial.point, trial) for one in MAKERS if one != "trainer"}
    package = _package_of(name, made["module"])
    trial.carry_into(made["module"])
    trial.keep(lightning=kept)  # of a trial that is resumed, Lightning loads the state over what was carried
    check_data(name, {one: made[one] for one in DATA if workload.maker(one) is not None})
    wrong = import_module(f"{package}.utilities.exceptions").MisconfigurationException
    try:
        with _quiet():
            LightningSession(workload, trial, kept, made, package).fit()
    except wrong as error:
        raise WorkloadError(f"{name}: Lightning does not take what it was given: {error}") from error


def _package_of(name: str, module: Any) -> str:
    """The package that a module's LightningModule is of."""
    kinds = type(getattr(module, "_orig_mod", module)).__mro__
    package = next((one.__module__.partition(".core.")[0] for one in kinds if one.__name__ == "LightningModule"), None)
    if package is None:
        raise WorkloadError(f"{name}.module must return a LightningModule, got {type(module).__name__}")
    if getattr(module, "_trainer", None) is not None:
        raise WorkloadError(
            f"{name}.module returns the module of another trial; it must make a new one: module=lambda point: Net(...)"
        )
    return package


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's notes and hints; its errors are raised all the same."""
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    try:
        for name in levels:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(pytorch_)?lightning(_fabric)?(\..*)?$")
            warnings.filterwarnings("ignore", message=r".*(does not have many workers|is not resumable|LeafSpec)")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


class LightningSession:
    """One trial in Lightning's hands.

    logged: what was logged since the last evaluation. due: the validation at hand is one of the study's. stepped: the
    steps of optimizers that Lightning had counted after the last update.
    """

    def __init__(
        self, workload: LightningWorkload, trial: LoopTrial, kept: TrialState, made: dict[str, Any], package: str
    ) -> None:
        self.workload, self.trial, self.kept, self.made = workload, trial, kept, made
        self.name = type(workload).__name__
        self.module = getattr(made["module"], "_orig_mod", made["module"])
        self.logged = Logged(self.name, workload.evaluated)
        self.memory = _memory(package)
        self.feeds: list[Feed] = []
        self.due, self.stepped, self.rated_for = False, 0, -1
        self.trainer = self._trainer(import_module(package))
        self.loop = self.trainer.fit_loop.epoch_loop
        self.averages = any(is_a(one, "WeightAveraging") for one in self.trainer.callbacks)
        kept.session = self
        self._take_places()

    def _trainer(self, package: Any) -> Any:
        options = self._options()
        automatic = self.module.automatic_optimization
        ours = {
            "max_steps": self.trial.behind().planned_steps if automatic else _NO_LIMIT,
            "max_epochs": -1,
            "val_check_interval": _NEVER,
            "check_val_every_n_epoch": None,
            "num_sanity_val_steps": 0,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "default_root_dir": str(self.trial.folder),
            "callbacks": [_callback(package, self), *_listed(options.pop("callbacks", None))],
            "plugins": [*_listed(options.pop("plugins", None)), self.memory],
            **_device(self.trial.device),
        }
        try:
            trainer = noting_trainer(package.Trainer, self.trial.read)(
                **{"enable_model_summary": False, "logger": False, **options, **ours}
            )
        except (TypeError, ValueError) as error:
            raise WorkloadError(f"{self.name}: Trainer does not take its options: {error}") from error
        self._check_one_process(trainer, options.get("strategy", "auto"))
        return trainer

    def _options(self) -> dict[str, Any]:
        """The options of Trainer for this trial: nothing in them is shared with another one."""
        given = self.workload.maker("trainer")
        if isinstance(given, Mapping):
            try:
                return copy.deepcopy(dict(given))
            except Exception as error:
                raise WorkloadError(
                    f"{self.name}: trainer holds what cannot be copied for each trial ({type(error).__name__}: "
                    f"{error}); give a function that makes it: trainer=lambda point: dict(...)"
                ) from error
        made = self.workload.made("trainer", self.trial.point, self.trial)
        if not isinstance(made, Mapping | None):
            raise WorkloadError(f"{self.name}.trainer must return a dict of options, got {type(made).__name__}")
        check_options(self.name, made or {}, WorkloadError)
        return dict(made or {})

    def _check_one_process(self, trainer: Any, strategy: Any) -> None:
        launcher = trainer.strategy.launcher
        if launcher is None and trainer.world_size == 1:
            return
        word = strategy if isinstance(strategy, str) else type(strategy).__name__
        how = (
            "starts the command line again in other processes, and each would begin the study"
            if "Subprocess" in type(launcher).__name__
            else "trains in processes of its own, from which nothing comes back to the study before they end"
        )
        raise WorkloadError(
            f"{self.name}: strategy = {word!r} {how}; leave it out, and train trials side by side by --workers, or "
            "train one trial over several processes by Command(...)"
        )

    def _take_places(self) -> None:
        """What has no public hook: after an update and its validation, and before the first batch of a run."""
        advance_end, load_loaders = self.loop.on_advance_end, self.trainer.fit_loop._load_combined_loader_states
        log = self.module.log

        def after_batch(fetcher: Any) -> None:
            self.after_batch(lambda: advance_end(fetcher))

        def loaders_made() -> None:
            load_loaders()
            self.go_on_in_loaders()

        def noted(name: str, value: Any, *arguments: Any, **named: Any) -> None:
            log(name, value, *arguments, **named)
            self.note(name, value)

        self.loop.on_advance_end = after_batch
        self.trainer.fit_loop._load_combined_loader_states = loaders_made
        self.module.log = noted
        # A signal is the study's: it stops the trial after an update.
        self.trainer._signal_connector.register_signal_handlers = lambda: None

    def fit(self) -> None:
        """Train. Raises WorkloadError where Lightning ends before the study said so."""
        restored = self.kept.restored
        if restored is not None:
            self.memory.held = restored["checkpoint"]
            self.logged.sums = restored["logged"]
        self.trainer.fit(
            self.made["module"],
            train_dataloaders=self.made["train_dataloaders"],
            val_dataloaders=self.made["val_dataloaders"],
            datamodule=self.made["datamodule"],
            ckpt_path=None if restored is None else _PLACE,
        )
        if not self.trial.over:
            raise WorkloadError(
                f"{self.name}: Lightning ended after {self.trial.step:,} updates, before the end of the trial; a trial "
                "trains all of its steps (A11): something set trainer.should_stop, or there are no training batches"
            )

    # What Lightning tells us.

    def begins(self) -> None:
        """Everything is made and restored, and nothing is trained yet."""
        check_callbacks(self.name, self.trainer.callbacks, WorkloadError)
        self._check_validation()
        self._check_schedulers()
        if self.workload.follows_schedule:
            self._check_rates()
        if self.trial.regularization_off:
            self._check_switched_off()
        self.stepped = self.trainer.global_step
        self.trial.restore_generators()
        if self.kept.restored is not None:
            self._go_on(self.kept.restored)
            self.kept.restored = None
        if self.trial.stepped(self.trial.step):
            self._end()

    def _go_on(self, restored: dict[str, Any]) -> None:
        for feed, state in zip(self.feeds, restored["feeds"], strict=True):
            feed.settle(state)
        if restored["ended"]:  # no batch is left in the pass; Lightning sees that where a validation would be due
            self.trainer.val_check_batch = self.loop.batch_progress.total.ready
        if restored["ended"] or self.trial.step == 0:
            self.loop._batches_that_stepped -= 1  # Lightning counts one that was not trained with

    def set_rates(self) -> None:
        """The learning rate of the update at hand, for each group of each optimizer."""
        step = self.trial.step
        if step == self.rated_for or not self.workload.follows_schedule:
            return
        rate, base = self.trial.rate(step), float(self.trial.point["learning_rate"])
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                begun = group.setdefault(_INITIAL, float(group["lr"]))
                now = rate if begun == base else rate * (begun / base)
                if isinstance(group["lr"], torch.Tensor):
                    group["lr"].fill_(now)
                else:
                    group["lr"] = now
        self.rated_for = step

    def note(self, name: str, value: Any) -> None:
        """The module, or a callback, has logged a value."""
        if self.trainer.validating:
            self.logged.names.add(name)
        elif self.in_batch:
            self.logged.trained(name, value)

    in_batch = False  # values that are logged of a whole pass are not of a batch

    def after_batch(self, validate_if_due: Any) -> None:
        """A batch was trained with: let Lightning validate if this update is due, and tell the study."""
        self.in_batch = False
        made = self.trainer.global_step > self.stepped
        self.due = made and self.trial.evaluates(self.trial.step)
        batches = self.loop.batch_progress.total.ready
        self.trainer.val_check_batch = batches if self.due else _NEVER
        validate_if_due()
        if not made:
            return
        self.stepped = self.trainer.global_step
        if self.due:
            self._report()
        if self.trial.stepped(self.trial.step + 1):
            self._end()

    def _report(self) -> None:
        self.due = False
        if not self.logged.validated:
            raise WorkloadError(
                f"{self.name}: a validation logged nothing; in validation_step: self.log('val_loss', loss)"
            )
        self.trial.report(self.logged.metrics(), step=self.trial.step + 1)

    def _end(self) -> None:
        """Have Lightning end now, without another validation."""
        self.loop.max_steps = self.trainer.global_step

    def validated(self) -> None:
        """A validation has ended; its metrics are whole."""
        if self.due:
            self.logged.take(self.trainer.callback_metrics)

    def evaluated_weights(self) -> None:
        """The weights of a validation are still in place, before averaged ones are put away."""
        if self.due and self.averages:
            self.kept.averaged = copied(state_dict_of(self.module), self.kept.averaged)

    # State.

    def state(self) -> dict[str, Any]:
        """What the rest of the trial depends on, besides the global generators."""
        self.trainer.save_checkpoint(_PLACE)
        checkpoint = {key: value for key, value in self.memory.held.items() if key not in _NOT_KEPT}
        self.memory.held = {}
        feeds = [feed.state() for feed in self.feeds]
        progress = self.loop.batch_progress
        ended = bool(progress.is_last_batch) or progress.current.ready == self.trainer.num_training_batches
        logged = {name: list(held) for name, held in self.logged.sums.items()}
        return {"checkpoint": checkpoint, "feeds": feeds, "logged": logged, "ended": ended}

    def go_on_in_loaders(self) -> None:
        """The loaders are made: have those without a state of their own go on where the trial is."""
        combined = self.trainer.fit_loop._combined_loader
        _check_fetching(self.name, self.module)
        flat = list(combined.flattened)
        places = [place for place, loader in enumerate(flat) if not _has_state(loader)]
        known = [limit != float("inf") for limit in combined.limits]
        sized = any(known) if combined._mode == "min_size" else all(known)
        self.feeds = [Feed(flat[place], self.trial.device, sized) for place in places]
        for place, feed in zip(places, self.feeds, strict=True):
            flat[place] = feed
            self._check_workers(feed.loader)
        combined.flattened = flat
        restored = self.kept.restored
        if restored is None or restored["ended"]:
            return
        for feed, state in zip(self.feeds, restored["feeds"], strict=True):
            feed.go_on(state, self.trainer.current_epoch)

    # What is refused.

    def _check_workers(self, loader: Any) -> None:
        if getattr(loader, "persistent_workers", False) and draws_random_numbers(loader, self.trial.device) is not None:
            raise WorkloadError(
                f"{self.name}: the dataset of the train dataloader draws random numbers in persistent workers, whose "
                "states no checkpoint holds, so no trial could go on exactly; leave persistent_workers out"
            )

    def _check_validation(self) -> None:
        loaders = [one for one in self.trainer.num_val_batches if one] if self.trainer.enable_validation else []
        if not loaders:
            raise WorkloadError(
                f"{self.name}: there is no validation, which picks checkpoints; the module needs validation_step, and "
                "there must be a val_dataloader"
            )
        evaluated = self.workload.evaluated
        if len(loaders) != len(evaluated) and (evaluated or len(loaders) > 1):
            raise WorkloadError(
                f"{self.name}: there are {len(loaders)} validation dataloaders, and evaluated names the splits of "
                f'{len(evaluated)}; say which each of them holds: evaluated=("validation", "training")'
            )

    def _check_schedulers(self) -> None:
        own = [type(one.scheduler).__name__ for one in self.trainer.lr_scheduler_configs]
        if own and self.workload.follows_schedule:
            raise WorkloadError(
                f"{self.name}: configure_optimizers returns a scheduler ({', '.join(own)}), and the study sets the "
                'learning rate of each step; return the optimizers alone, or keep it with schedule="module", which '
                "draws no conclusions that need the rates"
            )

    def _check_rates(self) -> None:
        self.trial.rate(0)  # raises without a rate
        base = float(self.trial.point["learning_rate"])
        groups = [group for optimizer in self.trainer.optimizers for group in optimizer.param_groups]
        begun = [float(group.get(_INITIAL, group["lr"])) for group in groups]
        if base not in begun:
            raise WorkloadError(
                f"{self.name}: no optimizer of {type(self.module).__name__} begins at learning_rate = {base:g} of the "
                f"point (they begin at {', '.join(f'{one:g}' for one in begun) or 'none'}); make them with the rate of "
                'the point, or keep their own with schedule="module"'
            )

    def _check_switched_off(self) -> None:
        """A sweep trains without regularization: refuse what is seen of it."""
        way = "read it from the point, or give module= the parameter regularization_off"
        for place, one in self.module.named_modules():
            rate: Any = getattr(one, "p", 0.0)
            if "Dropout" in type(one).__name__ and rate:
                self._still_on(f"{type(one).__name__}(p={rate:g}) at {place!r}", way)
        decays = [group.get("weight_decay", 0) for each in self.trainer.optimizers for group in each.param_groups]
        if any(decays):
            self._still_on(f"weight_decay = {max(decays):g}", way)
        for feed in self.feeds:
            drawn = draws_random_numbers(feed.loader, self.trial.device)
            if drawn is not None:
                self._still_on(
                    f"augmentation: example {drawn} of the training data is another one each time",
                    "give datamodule= (or train_dataloaders=) the parameter regularization_off",
                )

    def _still_on(self, what: str, way: str) -> None:
        raise WorkloadError(
            f"{self.name} still trains with {what} where a sweep trains without augmentation and regularization "
            f"(A22, A23), because it asks for the steps that fit the training set: {way}"
        )


def _check_fetching(name: str, module: Any) -> None:
    if "dataloader_iter" in module.training_step.__code__.co_varnames:
        raise WorkloadError(
            f"{name}: {type(module).__name__}.training_step takes dataloader_iter, so nobody knows which batches it "
            "has taken when a trial is stopped; take the batch: training_step(self, batch, batch_idx)"
        )


def _has_state(loader: Any) -> bool:
    return all(callable(getattr(loader, one, None)) for one in ("state_dict", "load_state_dict"))


def _listed(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


def _device(device: torch.device) -> dict[str, Any]:
    kind = "gpu" if device.type == "cuda" else device.type
    return {"accelerator": kind, "devices": [device.index or 0] if kind == "gpu" else 1}


def _callback(package: Any, session: LightningSession) -> Any:
    """Our callback, of the package's class. It comes before others, so that averaged weights are still in place."""

    class StudyCallback(package.Callback):  # type: ignore[misc]
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            session.begins()

        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            session.in_batch = True
            session.set_rates()

        def on_validation_batch_end(self, *arguments: Any, **named: Any) -> None:
            session.trial.alive()

        def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            session.evaluated_weights()

        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            session.validated()

    return StudyCallback()


def _memory(package: str) -> Any:
    """Where Lightning's checkpoints go and come from: memory, so that nothing is unpickled."""
    kind = cast(type, import_module(f"{package}.plugins.io").CheckpointIO)

    class Memory(kind):  # type: ignore[misc,valid-type]
        def __init__(self) -> None:
            self.held: dict[str, Any] = {}

        def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
            if path == _PLACE:
                self.held = checkpoint

        def load_checkpoint(self, path: Any, *arguments: Any, **named: Any) -> dict[str, Any]:
            held, self.held = self.held, {}
            return held

        def remove_checkpoint(self, path: Any) -> None:
            """Nothing is written."""

    return Memory()
