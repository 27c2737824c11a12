"""A look at a study's models before they are trained: the weights they start from, and the code that runs for them.

A model is built at the middle of the search space, for each of its architectures: for every combination of values of
the choices that `model(point)` reads, MOST of them at most. Of a range the middle counts.
"""

import itertools
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import torch

from tuner.design.hyperparameters import Choice, Hyperparameter, Value
from tuner.design.identity import InitialWeights
from tuner.design.points import Point
from tuner.design.seeds import derived_seed
from tuner.design.study import Study
from tuner.design.workload import Workload
from tuner.errors import TunerError, WorkloadError
from tuner.sources.running import Seen, watched
from tuner.training.evaluation import Tally
from tuner.training.first_loss import first_loss
from tuner.training.groups import trained_groups
from tuner.training.models import initial_weights, model_at, shown_point
from tuner.training.numerics import numerics_of_weights
from tuner.training.precision import computing
from tuner.training.randomness import callers_generators_restored, seed_global_generators
from tuner.training.setup import TrainingSetup
from tuner.training.unread import Noting

MOST = 8  # [P] architectures of a study whose initial weights are looked at
_SEED = derived_seed("first look", 0)
NOT_BUILT = "not built"  # where the model rejects the middle of the space, or cannot be made there


def points_of_architectures(study: Study, workload: Workload) -> list[dict[str, Value]]:
    """The middle point of each architecture of a study, the first MOST of them."""
    middle = _middle(study, {})
    noting = Noting(shown_point(Point.of(middle)))
    with callers_generators_restored(torch.device("cpu")), suppress(Exception):  # errors are the check's to tell
        model_at(workload, noting, _SEED)
    read = [one for one in study.hyperparameters if isinstance(one.domain, Choice) and _is_read(one, noting.read)]
    choices = [one.domain.choices for one in read if isinstance(one.domain, Choice)]
    found: dict[str, dict[str, Value]] = {}
    for values in itertools.islice(itertools.product(*choices), MOST * MOST):
        point = _middle(study, dict(zip([one.name for one in read], values, strict=True)))
        found.setdefault(repr(point), point)
    return list(found.values())[:MOST]


def _is_read(hyperparameter: Hyperparameter, read: set[str]) -> bool:
    return bool({hyperparameter.name, hyperparameter.short_name} & read)


def _middle(study: Study, chosen: Mapping[str, Value]) -> dict[str, Value]:
    return study.space.values_by(lambda one: chosen.get(one.name, one.domain.value_at(0.5)))


def first_look(
    setup: TrainingSetup, points: Sequence[Mapping[str, Value]], seen: Seen, *, tried: bool = False
) -> tuple[InitialWeights, ...]:
    """The weights at each point, built from one seed; `seen` notes the code that runs for the model and a batch.

    tried: an evaluation was tried at these points before, and is not again.
    """
    found = []
    with callers_generators_restored(setup.device):
        for point in points:
            with watched(seen):
                model, digest = _built(setup, point)
            found.append(InitialWeights(dict(point), digest, numerics_of_weights(setup.packages).text))
            if model is None:
                continue
            with watched(seen), suppress(Exception):  # errors are the check's to tell
                loss = _first_loss(setup, model, point)
                found[-1] = replace(found[-1], loss=loss, loss_under=setup.numerics.text)
                if not tried:
                    _evaluated(setup, model, point)
    return tuple(found)


def check_repeatable_weights(setup: TrainingSetup, looked_at: Sequence[InitialWeights]) -> None:
    """Raise WorkloadError when a model that is built once more from the same seed has other weights."""
    with callers_generators_restored(setup.device):
        for before in looked_at[:1]:
            _, digest = _built(setup, before.point)
            if digest == before.digest:
                continue
            name = type(setup.workload).__name__
            raise WorkloadError(
                f"{name}.model(point) gives other initial weights at each call, from the same seed; a trial could "
                "neither be repeated nor go on as it began: draw them from the global generators of torch, numpy or "
                "Python, which are seeded for it, and not from a generator of your own without a seed"
            )


def _built(setup: TrainingSetup, point: Mapping[str, Value]) -> tuple[torch.nn.Module | None, str]:
    try:
        shown = shown_point(Point.of(point))
        model = model_at(setup.workload, shown, _SEED, setup.data.training, setup.inherited)
        digest = initial_weights(model)
    except TunerError:
        return None, NOT_BUILT
    except Exception as error:
        return None, f"{NOT_BUILT}: {type(error).__name__}"
    with suppress(Exception):  # errors are the check's to tell
        trained_groups(setup.workload, model, shown)
    return model, digest


def _first_loss(setup: TrainingSetup, model: torch.nn.Module, point: Mapping[str, Value]) -> str:
    """The digest of the loss of a first batch of the training; "" where a second time gives another one."""
    workload, device = setup.workload, setup.device
    shown, model = shown_point(Point.of(point)), model.to(device)
    found = set()
    for _ in range(2):
        seed_global_generators(_SEED, device)
        batch = setup.data.training.first(setup.study.slice_examples)
        if setup.study.augment and workload.augments:
            batch = workload.augment(batch, shown, torch.Generator(device).manual_seed(0))
        with computing(setup.study.precision_of(Point.of(point)), device):
            found.add(first_loss(workload, model, batch, shown, _SEED, device))
    return found.pop() if len(found) == 1 else ""


def _evaluated(setup: TrainingSetup, model: torch.nn.Module, point: Mapping[str, Value]) -> None:
    split, workload = setup.data.validation, setup.workload
    tally = Tally(workload, split)
    batch, count = split.some(2 if tally.gathered is None else setup.study.slice_examples)
    with torch.no_grad(), computing(setup.study.precision_of(Point.of(point)), setup.device):
        tally.add(workload.metrics(model.eval(), batch), count)
    with torch.no_grad():
        tally.of_split()
