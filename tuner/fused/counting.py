"""What code keeps in Python from one step to the next, and a recording would freeze."""

from collections.abc import Collection
from contextlib import suppress

import torch

from tuner.errors import NotFusible
from tuner.fused.sharing import copied
from tuner.fused.trial_tensor import TrialTensor
from tuner.training import python_state
from tuner.training.first_loss import left_as_it_was
from tuner.training.precision import computing
from tuner.training.python_state import changed
from tuner.training.trial_run import TrialRun

_EXAMPLES = 2


def remembered(owner: object, model: torch.nn.Module) -> dict[str, object]:
    """As `python_state.remembered`, with the stacked tensor in place of a tensor of all trials."""
    held = python_state.remembered(owner, model)
    return {name: one.stacked if isinstance(one, TrialTensor) else one for name, one in held.items()}


def check_evaluation(run: TrialRun, read: Collection[str]) -> None:
    """Raise NotFusible where an evaluation changes what a model remembers in Python, and training may read.

    `read`: the tensors, besides parameters and buffers, that training does read.
    """
    workload, model, change = run.setup.workload, copied(run.model).eval(), ""
    computing_so = computing(run.rule.precision, run.setup.device)
    with torch.no_grad(), left_as_it_was(workload), suppress(Exception), computing_so:  # an error shows when evaluated
        batch = run.setup.data.validation.first(_EXAMPLES)
        workload.metrics(model, batch)
        before = remembered(None, model)
        kept = {name: value for name, value in before.items() if isinstance(value, torch.Tensor) and name in read}
        versions = {name: value._version for name, value in kept.items()}
        workload.metrics(model, batch)
        written = (name for name, value in kept.items() if value._version != versions[name])
        change = changed(before, remembered(None, model), set(map(id, kept.values()))) or next(written, "")
    if change:
        raise NotFusible(f"each evaluation changes {change}, which a recording would freeze")
