"""What a user writes: model, data, loss and metrics that can be trained step by step.

A workload knows nothing of studies, budgets or optimizers. `loss` and `metrics` are pure functions of a model
and a batch: the model is called like a module, randomness comes from dropout or the given generator, nothing
is read back with `.item()`. So one workload can be trained alone, resumed, or beside others.
This module does not import torch: models and tensors are `Any` here.
"""

import inspect
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Literal

from tuner.design.data import Splits
from tuner.design.objective import FitCriterion, Objective
from tuner.errors import DeclarationError

Batch = Any  # of one entry of Splits: a tuple of tensors [examples, ...], or what a dataset's examples collate to


class Trainable:
    """What a campaign trains: a `Workload`, which this program trains, or an `OwnLoop`, which trains itself.

    batch_size: examples in one training step; 0 where that is not known.
    select_by: the validation metric that picks checkpoints and ranks trials, `minimize("validation/loss")`.
    fitted_when: when the training set counts as fitted, `at_most("training/error_rate", 0.0)`; needed by a sweep.
    """

    batch_size: int
    select_by: Objective
    fitted_when: FitCriterion | None = None

    def provenance(self) -> Mapping[str, Any]:
        """Facts about the data worth keeping with each launch: versions, digests, sizes. Plain JSON values."""
        return {}


class Workload(Trainable):
    """Subclass it and declare what is trained.

    batch_size: examples in one training step.
    select_by: the validation metric that picks checkpoints and ranks trials, `minimize("validation/loss")`.
    fitted_when: when the training set counts as fitted, `at_most("training/error_rate", 0.0)`; needed by a sweep.
    evaluation_batch_size: examples in one evaluation batch; at least `batch_size` is used.
    training_evaluation_examples: evaluate the training split on so many of its examples, drawn at random once for
        all, or the first ones of a stream; None: on all (D6, B42). A sweep judges by them whether the training set is
        fitted.
    data_workers: processes that fetch and collate batches of a dataset ahead of the training; 0: its own process does
        it, "auto": as many as hide the fetching, and as there are cores. The bits are the same.
    not_averaged: names of `metrics` that only `split_metrics` reads: kept for each example, without means and curves.
    split_metrics_device: "cpu", or "same": `split_metrics` gets its values on the device where the models train.
    no_decay: "vectors": weight decay leaves out the parameters with fewer than two dimensions (biases, norms); None:
        it decays all of them, as torch does.
    slices: the equal parts that each batch is cut into; each has its own dropout and augmentation and its own backward
        pass, and their gradients are added up in a fixed order. They decide the bits of a trial. None: 1, or what
        `micro_batch_size` says when a study is first launched.
    micro_batch_size: the most examples that are taken up at a time, where a whole batch does not fit into memory: one
        slice, or several that are fetched together and computed in turn; None: a whole batch. It changes no bit.
    """

    evaluation_batch_size: int = 1024
    training_evaluation_examples: int | None = None
    data_workers: int | Literal["auto"] = 0
    not_averaged: tuple[str, ...] = ()
    split_metrics_device: Literal["cpu", "same"] = "cpu"
    no_decay: Literal["vectors"] | None = None
    slices: int | None = None
    micro_batch_size: int | None = None

    def data(self) -> Splits:
        """The splits, the same at every call."""
        raise NotImplementedError(f"{type(self).__name__}.data must return Splits(training=..., validation=...)")

    def model(self, point: Mapping[str, Any]) -> Any:
        """A fresh torch module for a point; its initialization draws from the global generators."""
        raise NotImplementedError(f"{type(self).__name__}.model must return a torch.nn.Module")

    def loss(self, model: Any, batch: Batch, point: Mapping[str, Any]) -> Any:
        """The scalar to minimize on one training batch, penalty terms included."""
        raise NotImplementedError(f"{type(self).__name__}.loss must return a scalar tensor")

    def metrics(self, model: Any, batch: Batch) -> dict[str, Any]:
        """Metrics by name, each a tensor [examples]: one value per example, no penalty terms.

        The tool averages over a split, so that short batches are weighted right (B41). Those that are `not_averaged`
        are tensors [examples, ...] of any type, or lists of one tensor for each example.
        """
        raise NotImplementedError(f"{type(self).__name__}.metrics must return a dict of tensors [examples]")

    def augment(self, batch: Batch, point: Mapping[str, Any], generator: Any) -> Batch:
        """The batch, randomly changed, drawing from `generator` only. Off in a sweep (A22)."""
        return batch

    def collate(self, examples: Sequence[Any]) -> Batch:
        """A batch of some examples of a dataset or stream, on the CPU. Without it they are stacked, part by part.

        A batch is anything whose tensors the program finds (tuples, mappings, dataclasses), or an object with
        `.to(device)`. All batches of a split must have one form, their sizes may differ. Random numbers may come from
        the global generators, which are seeded from (data seed, epoch, first example).
        """
        raise NotImplementedError

    def num_examples(self, batch: Batch) -> int:
        """How many examples a batch holds, where `collate` leaves examples out or makes several of one.

        `metrics` then returns so many values, and all of them count alike in the mean over a split. Without it a batch
        holds as many examples as were taken for it.
        """
        raise NotImplementedError

    def lengths(self) -> Sequence[int]:
        """The length of each training example: batches are then made of examples of about one length.

        In each epoch the examples are put in random order and cut into parts of 50 batches; each part is sorted by
        length and cut into batches, and all batches are put in random order. So little has to be padded (`padded`).
        """
        raise NotImplementedError

    def split_metrics(self, each: Mapping[str, Any]) -> dict[str, float | None]:
        """Metrics of a whole split, by name, like AUC or F1. Called once for each evaluation and split.

        each: what `metrics` returned for all examples, by name, in the split's order: CPU tensors [examples, ...], in
        float64 where they are floats; lists of one tensor for each example where `metrics` returned lists.
        None stands for no value, of an AUC where one class is missing: nothing is recorded then.
        """
        raise NotImplementedError

    def parameter_groups(self, model: Any, point: Mapping[str, Any]) -> Sequence[Any]:
        """Groups of parameters with other rates or weight decay; the first that matches a parameter takes it.

        Made by `vectors`, `matching` and `by_depth`, or dicts with "params", "rate" and "decay"; both are multiples, of
        the step's learning rate and of `weight_decay`. What no group takes keeps both.
        """
        raise NotImplementedError

    def weight(self, batch: Batch) -> Any:
        """What the loss of a batch is a mean over: a number, or a tensor [] on the device. Without it the examples.

        The gradients of the slices of a batch are weighted by it. A loss that is a mean over tokens returns how many
        tokens count: `(batch[1] != IGNORED).sum()`.
        """
        raise NotImplementedError

    def shard(self, model: Any) -> Sequence[Any]:
        """Of a model that is trained in shards (`shard="fsdp2"`): its modules that are gathered one at a time.

        Without it the repeated blocks: the children of a ModuleList, a ModuleDict or a Sequential.
        """
        raise NotImplementedError

    @property
    def augments(self) -> bool:
        """Whether the subclass declares an augmentation."""
        return self.declares("augment")

    def declares(self, hook: str) -> bool:
        """Whether the subclass has its own method of this name."""
        return getattr(type(self), hook) is not getattr(Workload, hook)


def own_kinds(workload: Trainable) -> list[type]:
    """The user's own classes of a workload, its own class first; none where it was made by calling one of ours."""
    kinds = [kind for kind in type(workload).__mro__ if issubclass(kind, Trainable)]
    return [kind for kind in kinds if kind.__module__.partition(".")[0] != "tuner"]


def words_of(kind: type[Trainable]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The attributes and the methods that a subclass of `kind` may declare, those of its bases first."""
    kinds = [one for one in reversed(kind.__mro__) if issubclass(one, Trainable)]
    attributes = dict.fromkeys(name for one in kinds for name in one.__annotations__)
    methods = dict.fromkeys(
        name
        for one in kinds
        for name, value in vars(one).items()
        if inspect.isfunction(value) and not name.startswith("_") and name != "declares"
    )
    return tuple(attributes), tuple(methods)


def check_methods(workload: Trainable, kind: type[Trainable] = Workload) -> None:
    """Raise DeclarationError where a subclass has something that cannot be called by the name of a method."""
    for name in words_of(kind)[1]:
        if not callable(given := getattr(workload, name)):
            takes = ", ".join(inspect.signature(getattr(kind, name)).parameters)
            raise DeclarationError(
                f"{type(workload).__name__}.{name} is a {type(given).__name__}, and must be a method: "
                f"def {name}({takes})"
            )


def misspelt(workload: Trainable, kind: type[Trainable] = Workload) -> dict[str, str]:
    """Names that a subclass declares and nothing reads, and which attribute or method of `kind` each may mean.

    Only what the subclass does not declare can be meant, by a method a method: `losses` beside `loss`, and
    `length = 128`, are names of the user's own.
    """
    own = {
        name: callable(value)
        for one in own_kinds(workload)
        for name, value in vars(one).items()
        if not name.startswith("_")
    }
    attributes, methods = words_of(kind)
    hooks = dict.fromkeys(attributes, False) | dict.fromkeys(methods, True)
    found = {}
    for name, is_method in sorted(own.items()):
        alike = [hook for hook, method in hooks.items() if method is is_method and hook not in own]
        if not hasattr(kind, name) and (close := get_close_matches(name, alike, n=1, cutoff=0.85)):
            found[name] = close[0]
    return found
