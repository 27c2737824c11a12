"""The mean of several best weights of one trial: for an export, after the training is over."""

from collections.abc import Mapping, Sequence

import torch

from tuner.design.trial import Trial
from tuner.training.best import snapshot
from tuner.training.denormals import denormals_as_zero
from tuner.training.evaluation import tallied
from tuner.training.extra_state import load_weights
from tuner.training.models import build_model
from tuner.training.precision import computing
from tuner.training.randomness import callers_generators_restored, seed_global_generators
from tuner.training.setup import TrainingSetup
from tuner.training.update import Draws, draw_seed

Weights = Mapping[str, torch.Tensor]


def mean_weights(kept: Sequence[Weights], model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The mean of the trained parameters of `kept`, computed in float64; all else is that of the first.

    So buffers are of the first: the running statistics of BatchNorm are no means of those of others. `model`: one that
    was built as theirs. Raises LookupError where they do not have the same names.
    """
    named = model.named_parameters(remove_duplicate=False)
    trained = {name for name, one in named if one.requires_grad and (one.is_floating_point() or one.is_complex())}
    mean = dict(kept[0])
    for name in trained & mean.keys():
        first = mean[name]
        wide = torch.complex128 if first.is_complex() else torch.float64
        mean[name] = torch.stack([one[name].to(wide) for one in kept]).mean(0).to(first.dtype)
    return mean


def evaluated_mean(
    setup: TrainingSetup, trial: Trial, kept: Sequence[Weights], step: int
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """The mean of kept weights as a best checkpoint has them, and what it measures on the validation split.

    `step`: that of the first, by which the generators are seeded that metrics may draw from.
    """
    with callers_generators_restored(setup.device), denormals_as_zero(setup.device):
        model = build_model(setup, trial)
        load_weights(model, mean_weights(kept, model), setup.device)
        seed_global_generators(draw_seed(Draws.EVALUATION, trial.seed, step), setup.device)
        with computing(setup.precision_of(trial), setup.device):
            size = setup.evaluation_batch_size
            tally = tallied(setup.workload, model, setup.data.validation, batch_size=size, stop=setup.stop)
        return snapshot(model), tally.measured()
