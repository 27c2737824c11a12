"""What a workload declares is checked as soon as a campaign is made of it."""

from collections.abc import Iterable

from tuner.design.adapters import foreign_word
from tuner.design.names import Name, is_of_portions, trainers_name
from tuner.design.objective import FitCriterion, Objective
from tuner.design.own_loop import OwnLoop
from tuner.design.words import check_attributes, meant_as
from tuner.design.workload import Trainable, Workload, check_methods, own_kinds
from tuner.errors import DeclarationError

MOST_DATA_WORKERS = 256  # processes of one trainer; more are a slip


def check_count(name: str, count: object, at_least: int = 1) -> None:
    """Raise DeclarationError for what is no whole number of at least so much."""
    if isinstance(count, bool) or not isinstance(count, int) or count < at_least:
        raise DeclarationError(f"{name} must be a whole number of at least {at_least}, got {count!r}")


def check_workload_declared(workload: Trainable) -> None:
    """Raise DeclarationError for a workload that no campaign can train, naming what is wrong."""
    name = type(workload).__name__
    if not isinstance(workload, Workload | OwnLoop):
        raise DeclarationError(
            f"a campaign needs an instance of a Workload or OwnLoop subclass, like Digits(), got {workload!r}"
        )
    kind: type[Trainable] = Workload if isinstance(workload, Workload) else OwnLoop
    for attribute, example in (("batch_size", "64"), ("select_by", 'minimize("validation/loss")')):
        if not hasattr(workload, attribute):
            found = meant_as(workload, attribute)
            hint = f", in place of {found}" if found else ""
            write = f"write {attribute} = {example} in the class"
            if not own_kinds(workload):  # made by calling one of ours
                write = f"give it: {name}(..., {attribute}={example})"
            raise DeclarationError(f"{name} declares no {attribute}; {write}{hint}")
    check_methods(workload, kind)
    check_count(f"{name}.batch_size", workload.batch_size, 1 if isinstance(workload, Workload) else 0)
    _check_selection(workload)
    if isinstance(workload, Workload):
        _check_hooks(workload)
    else:
        _check_loop(workload)


def check_names(workload: Trainable, names: Iterable[str]) -> None:
    """Raise DeclarationError for a hyperparameter of the spaces that the trainer knows under another name.

    A loop reads what it likes; only the rate of the study's schedule has to have its name.
    """
    for name in names:
        if isinstance(workload, Workload) and is_of_portions(Name.of(name).short):
            raise DeclarationError(
                f"{name} cannot be searched or fixed in a search space: batch_size is what is tuned; micro_batch_size "
                "is how it is computed. Write micro_batch_size = 32 in the class where a whole batch does not fit into "
                "memory (`slices` there decides what a trial computes, and no study compares it)"
            )
        if isinstance(workload, Workload) and (meant := foreign_word(Name.of(name).short)):
            raise DeclarationError(
                f"{name} is a word of kohya's trainers, which no part of this program reads; {meant}. For a "
                "hyperparameter of your own choose another name"
            )
        meant = trainers_name(name)
        if meant and isinstance(workload, Workload):
            raise DeclarationError(f"{name} is not known to the trainer and would change nothing; write {meant}")
        if meant == "learning_rate" and isinstance(workload, OwnLoop) and workload.follows_schedule is not False:
            raise DeclarationError(
                f"{name} is not known to the study, whose schedule gives the rate of each update and needs the name "
                f"{meant}: write {meant}, and read trial.rate(step), or trial.point['{meant}'] for its base"
            )


def _check_loop(workload: OwnLoop) -> None:
    name = type(workload).__name__
    check_count(f"{name}.num_examples", workload.num_examples, 0)
    if type(workload).train is OwnLoop.train and (found := meant_as(workload, "train")):
        raise DeclarationError(f"{name} has no train(self, trial), and nothing calls {name}.{found}: call it train")
    check_attributes(workload)


def _check_selection(workload: Trainable) -> None:
    name = type(workload).__name__
    if not isinstance(workload.select_by, Objective):
        raise DeclarationError(
            f'{name}.select_by is made by minimize("validation/loss") or maximize(...), got {workload.select_by!r}'
        )
    if workload.fitted_when is not None and not isinstance(workload.fitted_when, FitCriterion):
        raise DeclarationError(
            f'{name}.fitted_when is made by at_most("training/error_rate", 0.0), got {workload.fitted_when!r}'
        )


def _check_hooks(workload: Workload) -> None:
    name = type(workload).__name__
    check_count(f"{name}.evaluation_batch_size", workload.evaluation_batch_size)
    processes = workload.data_workers
    if processes != "auto" and (type(processes) is not int or not 0 <= processes <= MOST_DATA_WORKERS):
        raise DeclarationError(
            f'{name}.data_workers is a whole number from 0 to {MOST_DATA_WORKERS}, or "auto", got {processes!r}'
        )
    if workload.training_evaluation_examples is not None:
        check_count(f"{name}.training_evaluation_examples", workload.training_evaluation_examples)
    _check_not_averaged(workload)


def _check_not_averaged(workload: Workload) -> None:
    name, apart = type(workload).__name__, workload.not_averaged
    if not isinstance(apart, tuple | list) or not all(isinstance(one, str) for one in apart):
        example = repr((apart,)) if isinstance(apart, str) else '("score", "positive")'
        raise DeclarationError(f"{name}.not_averaged is a tuple of names of metrics, like {example}, got {apart!r}")
    if apart and not workload.declares("split_metrics"):
        raise DeclarationError(
            f"{name}.not_averaged names {', '.join(map(repr, apart))}, which nothing would read: declare "
            "split_metrics(self, each), or leave it out"
        )
    if workload.split_metrics_device not in ("cpu", "same"):
        raise DeclarationError(
            f"{name}.split_metrics_device is 'cpu', or 'same' for the device where the models train, got "
            f"{workload.split_metrics_device!r}"
        )
    for declared, metric in (("select_by", workload.select_by), ("fitted_when", workload.fitted_when)):
        if metric is not None and metric.measured.name in apart:
            raise DeclarationError(
                f"{name}.{declared} reads {metric.metric!r}, but not_averaged names {metric.measured.name!r}: it has "
                "no mean and no curve; name a metric that split_metrics returns, or one that is averaged"
            )
