"""LightningWorkload: a LightningModule, its data and the options of its Trainer, with the study around them.

Lightning is imported when a trial is trained, not when a study file is read.
"""

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from tuner.delegated.makers import parameters, takes_point
from tuner.design.objective import FitCriterion, Objective
from tuner.design.own_loop import OwnLoop
from tuner.errors import DeclarationError
from tuner.shown import quoted

PACKAGES = ("lightning", "pytorch_lightning")  # two names of one code
MAKERS = ("module", "datamodule", "train_dataloaders", "val_dataloaders", "trainer")
SCHEDULES = ("study", "module")
_OTHERS = ("select_by", "fitted_when", "batch_size", "evaluated", "schedule")
SPLITS = ("validation", "training")
ASKED = ("regularization_off", "trial")  # what a maker is given where it has a parameter of that name
# Options that the study decides, and what to do instead of giving them.
DECIDED = {
    "max_steps": "the length of a trial is that of the study: Round(..., max_train_steps=...), or the sweep",
    "min_steps": "a trial trains all of its steps (A11)",
    "max_epochs": "a length is in steps (A11): Round(..., max_train_steps=...), or the sweep",
    "min_epochs": "a length is in steps (A11): Round(..., max_train_steps=...)",
    "max_time": "a length is in steps, the same on every machine (A11): Round(..., max_train_steps=...)",
    "val_check_interval": "the study says when a trial is evaluated",
    "check_val_every_n_epoch": "the study says when a trial is evaluated",
    "num_sanity_val_steps": "a first look by the study replaces the sanity check",
    "fast_dev_run": "a first look by the study replaces it",
    "enable_checkpointing": "the study keeps the best and the latest checkpoints: tuner best",
    "default_root_dir": "each trial has a folder of its own: trainer.default_root_dir",
    "enable_progress_bar": "the study shows the progress of all trials",
    "accelerator": "the device is that of --device",
    "devices": "a trial trains on one device, that of --device; trials train side by side by --workers",
    "num_nodes": "a trial trains on one machine; trials train on several by tuner worker",
    "barebones": "it switches off the values of self.log, which the study records",
}
# Callbacks that decide what the study decides, by the names of their classes.
REPLACED = {
    "EarlyStopping": "a trial trains all of its steps (A11), and the best checkpoint is picked afterwards",
    "ModelCheckpoint": "the study keeps the best and the latest checkpoints: tuner best",
    "OnExceptionCheckpoint": "the study keeps the latest checkpoint, and goes on from it",
    "Timer": "a length is in steps, the same on every machine (A11)",
    "LearningRateFinder": "the study searches the learning rate",
    "BatchSizeFinder": "the batch size is the module's or the datamodule's own, the same in all trials",
    "StochasticWeightAveraging": "it sets learning rates of its own and counts epochs; WeightAveraging does neither",
}


class LightningWorkload(OwnLoop):
    """Trains a LightningModule by Lightning's own Trainer, as long and at the learning rates that the study says.

        LightningWorkload(module=lambda point: Net(point["width"]), datamodule=Digits, trainer=dict(precision=32),
                          select_by=minimize("validation/loss"))

    Or a subclass with methods of these names, `def module(self, point): ...`.

    module: makes the LightningModule of a trial from its point. datamodule: makes the LightningDataModule; or
        train_dataloaders and val_dataloaders make loaders; none of them where the module has its own.
    trainer: options of Trainer, or a function of the point that gives them, with callbacks made for each trial.
    Each function may take the point, and `regularization_off` and `trial` by these names.
    evaluated: which split each validation dataloader holds, ("validation", "training"), where there are several.
    schedule: "study": all optimizers follow the study's schedule, groups keep their ratio to the learning_rate of the
        point, and schedulers of the module are refused. "module": the module's own schedulers are kept; the study then
        does not know the rates, and draws no conclusions that need them.

    An update is a training batch after which an optimizer has stepped. Raises DeclarationError for what cannot be.
    """

    door = "lightning"
    evaluated: Sequence[str] = ()
    schedule: str = "study"

    def __init__(
        self,
        *,
        select_by: Objective | None = None,
        fitted_when: FitCriterion | None = None,
        batch_size: int | None = None,
        evaluated: Sequence[str] | None = None,
        schedule: str | None = None,
        **made_by: Any,
    ) -> None:
        super().__init__(select_by=select_by, fitted_when=fitted_when, batch_size=batch_size)
        if evaluated is not None:
            self.evaluated = tuple(evaluated) if isinstance(evaluated, list | tuple) else evaluated
        if schedule is not None:
            self.schedule = schedule
        self.made_by = {name: value for name, value in made_by.items() if value is not None}
        _check_declared(self)

    def train(self, trial: Any) -> None:
        """Train one trial by Lightning's Trainer. Raises WorkloadError for what Lightning, or the study, refuses."""
        import_module("tuner.delegated.lightning_loop").train(self, trial)

    @property
    def follows_schedule(self) -> bool:
        """Whether the optimizers follow the study's schedule; not where the module's own schedulers are kept."""
        return self.schedule == "study"

    def words(self) -> Mapping[str, str]:
        """What the page of a study says of how it trains."""
        of_trainer = self.maker("trainer")
        precision = of_trainer.get("precision", "32-true") if isinstance(of_trainer, Mapping) else "as trainer says"
        return {"optimizer": "that of the LightningModule", "precision": str(precision)}

    def maker(self, name: str) -> Any:
        """The function, method or options of this name; None where there are none."""
        return self.made_by.get(name, getattr(self, name, None))

    def made(self, name: str, point: Mapping[str, Any], trial: Any) -> Any:
        """What the function or method of this name makes for a trial; None without one."""
        maker = self.maker(name)
        return None if maker is None else maker(*[point][: takes_point(maker, ASKED)], **self._asked(maker, trial))

    def _asked(self, maker: Callable[..., Any], trial: Any) -> dict[str, Any]:
        """What is given by name. `trial.regularization_off` is read only by who asks for it."""
        wanted = [name for name in ASKED if name in parameters(maker)]
        return {name: trial if name == "trial" else getattr(trial, name) for name in wanted}


def _check_declared(workload: LightningWorkload) -> None:
    """Raise DeclarationError for what no trial could be trained with."""
    name = type(workload).__name__
    if not any(find_spec(package) for package in PACKAGES):
        raise DeclarationError(f"{name} needs Lightning, which is not installed: pip install 'tuner[lightning]'")
    unknown = [one for one in workload.made_by if one not in MAKERS]
    if unknown:
        near = get_close_matches(unknown[0], [*MAKERS, *_OTHERS], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise DeclarationError(
            f"{name} knows no argument {unknown[0]!r}; it has {', '.join([*MAKERS, *_OTHERS])}{hint}"
        )
    if workload.maker("module") is None:
        raise DeclarationError(
            f"{name} needs a function that makes the LightningModule of a trial: module=lambda point: Net(**point)"
        )
    for one in MAKERS:
        _check_maker(name, one, workload.maker(one))
    if workload.schedule not in SCHEDULES:
        raise DeclarationError(f'{name}: schedule is "study" or "module", got {workload.schedule!r}')
    _check_evaluated(name, workload.evaluated)
    if isinstance(options := workload.maker("trainer"), Mapping):
        check_options(name, options, DeclarationError)


def _check_maker(name: str, one: str, maker: Any) -> None:
    is_module = hasattr(maker, "training_step") and not isinstance(maker, type)  # which can be called, too
    if maker is None or (callable(maker) and not is_module) or (one == "trainer" and isinstance(maker, Mapping)):
        return
    if one == "trainer":
        raise DeclarationError(
            f"{name}: trainer is a dict of options of Trainer, or a function of the point that gives one, got "
            f"{type(maker).__name__}"
        )
    raise DeclarationError(
        f"{name}: {one} is a function that makes it for each trial, got {type(maker).__name__}; trials must not share "
        f"one: {one}=lambda{' point' if one == 'module' else ''}: {type(maker).__name__}(...)"
    )


def _check_evaluated(name: str, evaluated: Any) -> None:
    fine = isinstance(evaluated, tuple | list) and all(one in SPLITS for one in evaluated)
    if not fine or len(set(evaluated)) < len(evaluated):
        raise DeclarationError(
            f'{name}: evaluated names the split of each validation dataloader once, ("validation", "training"), got '
            f"{evaluated!r}; the test split never selects anything (D31)"
        )
    if evaluated and "validation" not in evaluated:
        raise DeclarationError(f'{name}: evaluated needs "validation", which picks checkpoints, got {evaluated!r}')


def check_options(name: str, options: Mapping[str, Any], kind: type[Exception]) -> None:
    """Raise `kind` for options of Trainer, or callbacks, that decide what the study decides."""
    decided = [f"{one} = {quoted(options[one])} ({DECIDED[one]})" for one in options if one in DECIDED]
    if decided:
        raise kind(f"{name}: trainer has {'; '.join(decided)}: leave {'it' if len(decided) == 1 else 'them'} out")
    if options.get("limit_val_batches", 1) == 0:
        raise kind(f"{name}: limit_val_batches = 0 leaves nothing to pick checkpoints by; leave it out")
    callbacks = options.get("callbacks") or ()
    check_callbacks(name, callbacks if isinstance(callbacks, list | tuple) else [callbacks], kind)


def check_callbacks(name: str, callbacks: Sequence[Any], kind: type[Exception]) -> None:
    """Raise `kind` for callbacks of Lightning's that decide what the study decides."""
    refused: dict[str, str] = {}
    for callback in callbacks:
        made = callback if isinstance(callback, type) else type(callback)
        known = next((one.__name__ for one in made.__mro__ if one.__name__ in REPLACED), None)
        if known is not None:
            refused[made.__name__] = REPLACED[known]
        elif made is callback or not hasattr(callback, "on_train_start"):
            told = made.__name__ if made is callback else quoted(callback)
            raise kind(
                f"{name}: callbacks of trainer are objects of Lightning's Callback, got {told}: callbacks=[One()]"
            )
    if refused:
        told = "; ".join(f"the callback {one} is refused: {why}" for one, why in refused.items())
        raise kind(f"{name}: {told}; leave {'it' if len(refused) == 1 else 'them'} out")
