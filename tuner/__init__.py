"""`tuner`: the Deep Learning Tuning Playbook as a program.

A study file declares a `Campaign`: a `Workload`, a `Sweep` and `Round`s over a `SearchSpace`. `from tuner import *`
brings these words, and nothing heavy comes with them.

The commands of `tuner` are functions of this module, with results as objects. Each is imported when it is first used;
`help(tuner.run)` shows its arguments and an example.

    tuner.run(campaign)             the whole playbook: sweep, rounds, findings, report
    tuner.sweep(campaign)           find the step budget
    tuner.launch(campaign, round=1) train one round
    tuner.asking(campaign, round=1) ask for trials that are trained elsewhere, and tell what came out
    tuner.stability(campaign)       does instability limit the learning rate, and which warmup helps?
    tuner.plan(campaign)            trials, steps, time and disk before anything is trained
    tuner.load("digits")            the records: trials, curves, findings and plots (CampaignRecords)
    tuner.check("digits")           every question of the playbook, answered
    tuner.best("digits")            the best configuration
    tuner.best_steps("digits")      was the step budget right?
    tuner.boundaries("digits")      were the ranges wide enough?
    tuner.plot("axes", "digits")    a figure
    tuner.write_report("digits")    one HTML page
    tuner.export_weights(...)       the best weights as a safetensors file
    tuner.export(...)               an Optuna study, or tables
    tuner.import_optuna(...)        read an Optuna study
    tuner.import_table(...)         read histories of runs
"""

from importlib import import_module
from typing import TYPE_CHECKING

from tuner.adapters.lora import merged, with_lora
from tuner.budget.by_share import by_share
from tuner.budget.families import (
    constant,
    constant_then_decay,
    cosine,
    exponential,
    inverse_sqrt,
    linear,
    pieces,
    polynomial,
    step_drops,
)
from tuner.budget.step_budget import epochs, examples
from tuner.delegated.command import Command
from tuner.delegated.hugging_face import TrainerWorkload
from tuner.delegated.lightning import LightningWorkload
from tuner.design.campaign import Campaign, Sweep
from tuner.design.captions import dropped, shuffled
from tuner.design.data import Splits, Stream, few_widths, padded
from tuner.design.hyperparameters import choice, fixed, integers, log_grid, log_uniform, uniform
from tuner.design.objective import at_least, at_most, maximize, minimize
from tuner.design.own_loop import OwnLoop
from tuner.design.parameter_groups import by_depth, matching, vectors
from tuner.design.round import Round
from tuner.design.space import SearchSpace, branches
from tuner.design.stages import best_of, weights_from
from tuner.design.workload import Workload
from tuner.errors import Infeasible
from tuner.registry import register

__version__ = "0.1.0"


# The Python API: each function by the module that defines it. `from tuner import *` brings `__all__` alone.
_API = {
    "asking": "tuner.api.asking",
    "best": "tuner.api.records",
    "best_steps": "tuner.api.records",
    "boundaries": "tuner.api.records",
    "check": "tuner.api.records",
    "export": "tuner.api.records",
    "import_optuna": "tuner.api.records",
    "import_table": "tuner.api.records",
    "plot": "tuner.api.records",
    "write_report": "tuner.api.records",
    "export_weights": "tuner.api.training",
    "launch": "tuner.api.training",
    "plan": "tuner.api.training",
    "run": "tuner.api.training",
    "sweep": "tuner.api.training",
    "stability": "tuner.api.stability",
    "CampaignRecords": "tuner.reading",
    "load": "tuner.reading",
}

if TYPE_CHECKING:
    from tuner.api.asking import asking as asking
    from tuner.api.records import best as best
    from tuner.api.records import best_steps as best_steps
    from tuner.api.records import boundaries as boundaries
    from tuner.api.records import check as check
    from tuner.api.records import export as export
    from tuner.api.records import import_optuna as import_optuna
    from tuner.api.records import import_table as import_table
    from tuner.api.records import plot as plot
    from tuner.api.records import write_report as write_report
    from tuner.api.stability import stability as stability
    from tuner.api.training import export_weights as export_weights
    from tuner.api.training import launch as launch
    from tuner.api.training import plan as plan
    from tuner.api.training import run as run
    from tuner.api.training import sweep as sweep
    from tuner.reading import CampaignRecords as CampaignRecords
    from tuner.reading import load as load
else:

    def __getattr__(name):
        """Import a function of the Python API when it is first used."""
        if name not in _API:
            raise AttributeError(f"module 'tuner' has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_API[name]), name)
        return value


def __dir__() -> list[str]:
    return sorted([*__all__, *_API, "__version__"])


__all__ = [
    "Campaign",
    "Command",
    "Infeasible",
    "LightningWorkload",
    "OwnLoop",
    "Round",
    "SearchSpace",
    "Splits",
    "Stream",
    "Sweep",
    "TrainerWorkload",
    "Workload",
    "at_least",
    "at_most",
    "best_of",
    "branches",
    "by_depth",
    "by_share",
    "choice",
    "constant",
    "constant_then_decay",
    "cosine",
    "dropped",
    "epochs",
    "examples",
    "exponential",
    "few_widths",
    "fixed",
    "integers",
    "inverse_sqrt",
    "linear",
    "log_grid",
    "log_uniform",
    "matching",
    "maximize",
    "merged",
    "minimize",
    "padded",
    "pieces",
    "polynomial",
    "register",
    "shuffled",
    "step_drops",
    "uniform",
    "vectors",
    "weights_from",
    "with_lora",
]
