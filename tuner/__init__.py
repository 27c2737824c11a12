"""`tuner`: the Deep Learning Tuning Playbook as a program.

A study file declares a `Campaign`: a `Workload`, a `Sweep` and `Round`s over a `SearchSpace`. Everything a study
file needs is imported from here, and nothing heavy comes with it.
"""

from importlib import import_module
from typing import Any

from tuner.budget.families import constant, constant_then_decay, cosine, inverse_sqrt, linear
from tuner.design.campaign import Campaign, Round, Sweep
from tuner.design.hyperparameters import choice, fixed, integers, log_grid, log_uniform, uniform
from tuner.design.objective import at_least, at_most, maximize, minimize
from tuner.design.space import SearchSpace, branches
from tuner.design.workload import Splits, Workload
from tuner.errors import Infeasible

__version__ = "0.1.0"


def load(study: str, storage: str | None = None) -> Any:
    """The `CampaignRecords` of a campaign, by its name or its study file; `storage`: a path or URL.

    Raises StorageError when it was not launched. pandas and matplotlib come with it, and not with `import *`.
    """
    return import_module("tuner.reading").load(study, storage)


def __getattr__(name: str) -> Any:
    if name == "CampaignRecords":
        return import_module("tuner.reading").CampaignRecords
    raise AttributeError(f"module 'tuner' has no attribute {name!r}")


__all__ = [
    "Campaign",
    "Infeasible",
    "Round",
    "SearchSpace",
    "Splits",
    "Sweep",
    "Workload",
    "at_least",
    "at_most",
    "branches",
    "choice",
    "constant",
    "constant_then_decay",
    "cosine",
    "fixed",
    "integers",
    "inverse_sqrt",
    "linear",
    "load",
    "log_grid",
    "log_uniform",
    "maximize",
    "minimize",
    "uniform",
]
