"""Whether a workload can be trained with the same bits twice on a GPU: tested and reported before its trials train."""

import logging
import re
from dataclasses import replace

from tuner.design.trial import Trial
from tuner.training.numerics import allow_unrepeatable, is_repeatable
from tuner.training.randomness import callers_generators_restored
from tuner.training.setup import TrainingSetup
from tuner.training.trial_run import TrialRun

logger = logging.getLogger(__name__)
_settled: set[tuple[type, str]] = set()  # workloads and shapes of trials that were tried in this process


def settle_determinism(setup: TrainingSetup, trial: Trial) -> str:
    """One update and one evaluation of a throw-away copy; names the operation that has no deterministic kernel.

    Such operations are allowed from then on, because no trial could be trained without; the Numerics record it, and a
    trial that is resumed is marked `exact=false`. Empty on the CPU, where all kernels are deterministic.
    """
    known = (type(setup.workload), trial.shape_group)
    if setup.device.type == "cpu" or known in _settled or not is_repeatable(setup.device):
        return ""
    _settled.add(known)
    try:
        with callers_generators_restored(setup.device):
            run = TrialRun(replace(setup, stop=lambda: False), trial)
            run.advance(1)
            run.evaluate()
    except Exception as error:
        found = re.search(r"(.+?) does not have a deterministic implementation", str(error))
        if found is None:
            return ""  # any other error appears in the trial itself
        operation = found[1]
    else:
        return ""
    allow_unrepeatable()
    logger.warning("%s has no deterministic kernel on this device: resumed trials will not be bit-exact", operation)
    return operation
