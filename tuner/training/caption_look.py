"""What `shuffled` and `dropped` change, before anything trains: nothing, where a model cannot see it."""

import copy
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import torch

from tuner.design.captions import looking_at_captions
from tuner.design.hyperparameters import Choice, Value
from tuner.design.names import Name
from tuner.design.trial import Trial
from tuner.training.first_loss import left_as_it_was
from tuner.training.randomness import callers_generators_restored, seed_global_generators
from tuner.training.setup import TrainingSetup
from tuner.training.trial_run import TrialRun

MOST = 8  # [P] combinations of choices that are looked at
ROUNDING = 1e-4  # [P] of a loss and of the gradient of each parameter: the order of a sum changes less
NOISE = 1e-6  # [P] of the whole gradient: a parameter with less has none but rounding
MOVED = 0.05  # [P] by how much of itself, and at least, each trained parameter is moved before
_SEED = 0
_WHY = {
    "shuffle_caption": "all captions in another order; a mean of embeddings cannot see the order of words, and a model "
    "that reads positions can",
    "caption_dropout": "empty captions; does the model read them?",
    "caption_tag_dropout": "captions without any words; does the model read them?",
}
_CALL = {"shuffle_caption": "shuffled()", "caption_dropout": "dropped()", "caption_tag_dropout": "dropped(each=True)"}
Choices = tuple[tuple[str, Value], ...]


class _Update(NamedTuple):
    """A loss with the gradient of each trained parameter, the calls that changed captions, and whether one did."""

    loss: torch.Tensor
    gradients: tuple[torch.Tensor, ...]
    changed: bool


def unseen_captions(setup: TrainingSetup, trials: Sequence[Trial]) -> list[str]:
    """A sentence for each hyperparameter of captions that changes neither a first loss nor its gradient.

    One trial of each combination of choices is looked at, with a throw-away model. Writes nothing. Whatever else the
    augmentation draws is the same in all losses: see `looking_at_captions`.
    """
    if not (setup.study.augment and setup.workload.augments):
        return []
    same: dict[str, dict[Choices, str]] = {}
    for choices, trial in _one_of_each(setup, trials).items():
        with callers_generators_restored(setup.device), left_as_it_was(setup.workload), suppress(Exception):
            run = TrialRun(setup, trial)  # errors are the check's to tell
            for name, why in _looked_at(run).items():
                same.setdefault(name, {})[choices] = why
    return [
        f"{_shown(name, setup, trials)} changes nothing{_where(each)}: {next(filter(None, each.values()))}"
        for name, each in same.items()
        if any(each.values())
    ]


def _one_of_each(setup: TrainingSetup, trials: Sequence[Trial]) -> dict[Choices, Trial]:
    names = [one.name for one in setup.study.hyperparameters if isinstance(one.domain, Choice)]
    found: dict[Choices, Trial] = {}
    for trial in trials:
        values = dict(trial.point.values_by_name)
        found.setdefault(tuple((name, values[name]) for name in names if name in values), trial)
        if len(found) == MOST:
            break
    return found


def _looked_at(run: TrialRun) -> dict[str, str]:
    """The hyperparameters of captions that this trial has in use, with why each changes nothing; "" where it does."""
    with looking_at_captions() as look:
        _augmented(run)
    if not look.calls:
        return {}
    as_is, found = _update(run, None), dict[str, str]()
    for number, name in enumerate(look.calls):
        changed = _update(run, number)
        if not changed.changed:
            why = "no caption of a first batch has words that may change"
        elif _is_same(as_is, changed):
            why = f"the loss of a first batch and its gradient are the same with {_WHY[name]}"
        else:
            why = ""
        found[name] = why if found.get(name, why) else ""
    return found


def _augmented(run: TrialRun) -> Any:
    seed_global_generators(_SEED, run.setup.device)
    generator = torch.Generator(run.setup.device).manual_seed(_SEED)
    return run.setup.workload.augment(run.batches.fetched(0), run.point, generator)


def _update(run: TrialRun, acting: int | None) -> _Update:
    """The first update with one call acting alone; None: with the captions as they are."""
    model = _moved(_without_dropout(copy.deepcopy(run.model).train()))
    with looking_at_captions(acting) as look:
        batch = _augmented(run)
        seed_global_generators(_SEED, run.setup.device)
        # In float32 whatever the precision of the trial: what is rounded more is less alike.
        loss = run.setup.workload.loss(model, batch, run.point)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(loss, trained, allow_unused=True, materialize_grads=True)
    dense = tuple(one.to_dense() if one.is_sparse else one for one in gradients)
    return _Update(loss.detach(), dense, look.changed)


def _without_dropout(model: torch.nn.Module) -> torch.nn.Module:
    """The model without the noise that falls elsewhere where words have other places."""
    for module in model.modules():
        if isinstance(module, torch.nn.modules.dropout._DropoutNd):
            module.eval()
        elif isinstance(module, torch.nn.RNNBase | torch.nn.MultiheadAttention):
            module.dropout = 0.0
    return model


def _moved(model: torch.nn.Module) -> torch.nn.Module:
    """The model with all that is trained moved at random: a head, a gate, positions or a change of low rank that begin
    at zero may hide at the first step what the model sees from the second one on.
    """
    with torch.no_grad():
        for parameter in (one for one in model.parameters() if one.requires_grad and one.is_floating_point()):
            size = float(parameter.double().square().mean().sqrt()) if parameter.numel() else 0.0
            generator = torch.Generator(parameter.device).manual_seed(_SEED)
            noise = torch.empty_like(parameter).normal_(generator=generator)
            parameter.add_(noise, alpha=MOVED * (1.0 + size))
    return model


def _is_same(one: _Update, other: _Update) -> bool:
    """Whether two updates are equal up to rounding."""
    sizes = [float(gradient.double().norm()) for gradient in one.gradients]
    least = NOISE * max(sizes, default=0.0)
    apart = [float((a.double() - b.double()).norm()) for a, b in zip(one.gradients, other.gradients, strict=True)]
    loss, twin = float(one.loss), float(other.loss)
    return abs(loss - twin) <= ROUNDING * abs(loss) and all(
        difference <= ROUNDING * size + least for difference, size in zip(apart, sizes, strict=True)
    )


def _where(each: Mapping[Choices, str]) -> str:
    """With which choices it is so, in words; nothing where it is so with all."""
    there = [set(choices) for choices, why in each.items() if why]
    elsewhere = set[tuple[str, Value]]().union(*(choices for choices, why in each.items() if not why))
    if len(there) == len(each):
        return ""
    words = sorted({f"{name} = {value}" for choices in there for name, value in choices - elsewhere})
    return f" with {' or '.join(words)}" if words else " in some trials"


def _shown(name: str, setup: TrainingSetup, trials: Sequence[Trial]) -> str:
    """The hyperparameter by its name, or the call where the study has another name for it."""
    names = {given for trial in trials for given, _ in trial.point.values_by_name if Name.of(given).short == name}
    return " and ".join(sorted(names)) or f"{_CALL[name]} in {type(setup.workload).__name__}.augment"
