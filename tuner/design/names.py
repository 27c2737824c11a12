"""Names of hyperparameters: how a branch qualifies them, and which names a search space cannot use."""

import re
from functools import lru_cache
from typing import NamedTuple

from tuner.errors import DeclarationError

# Hyperparameters that reach a training only through its learning rates; a model never sees them.
OF_THE_SCHEDULE = ("warmup_steps", "decay_fraction")
# Averages of the weights change nothing in a training, so no model sees over how many steps they are.
EMA_STEPS = "ema_steps"
OF_THE_AVERAGES = (EMA_STEPS,)
# Columns of every table of trials; no hyperparameter can be called so.
TRIAL_COLUMNS = (
    "trial", "state", "reason", "origin", "seed", "data_seed", "steps", "inherited", "exact", "attempt",
    "numerics", "parameter_groups", "best_value", "best_step", "last_value",
)  # fmt: skip
# A budget in disguise (A11, D1), and the random seed (B14): never searched. Compared as lower-case letters only.
_BUDGET = re.compile(
    "((max|num|n|total|train|training|optimizer|global|production)*"
    "(timesteps|steps?|iterations?|iters?|updates?|batches))|tmax|((max|num|n|total|train|training)+(examples|time))"
)
_SEED_NAMES = frozenset(["randomstate", "rng", "rngstate"])
# How a batch is computed, under the names of several tools; what is tuned is its size.
_OF_PORTIONS = frozenset([
    "microbatchsize", "microbatch", "microbatches", "slices", "numslices", "numslice", "nslices",
    "gradientaccumulationsteps", "gradientaccumulation", "gradaccumsteps", "gradaccum", "gradaccumulation",
    "gradaccumulationsteps", "accumulategradbatches", "accumulationsteps", "accumsteps", "gradientaccumulations",
    "perdevicetrainbatchsize", "perdevicebatchsize",
])  # fmt: skip
# Early stopping under the names of ours and of other tools; compared as above.
_STOPPING = re.compile("patience(steps?|epochs?|evaluations?)?|early(stop|stopping|stopper)[a-z]*")
# What other tools call the hyperparameters of the trainer: searched under these names, they would change nothing.
_TRAINER_NAMES = {
    "lr": "learning_rate",
    "learningrate": "learning_rate",
    "wd": "weight_decay",
    "weightdecay": "weight_decay",
    "beta1": "one_minus_beta1",
    "beta2": "one_minus_beta2",
    "batchsize": "batch_size",
    "optim": "optimizer",
}


class Name(NamedTuple):
    """The name of a hyperparameter: `short`, and the value of its parent as `branch`, "" outside of branches.

    Written as text the two are joined by a dot: "sgd.learning_rate". So a stored study, a table and a point hold it.
    """

    branch: str
    short: str

    @classmethod
    @lru_cache(maxsize=1024)
    def of(cls, text: str) -> "Name":
        """The parts of a written name; the last dot ends the branch."""
        branch, _, short = text.rpartition(".")
        return cls(branch, short)

    def __str__(self) -> str:
        return f"{self.branch}.{self.short}" if self.branch else self.short

    @property
    def is_of_the_schedule(self) -> bool:
        """Whether the hyperparameter only shapes the learning rate schedule."""
        return self.short in OF_THE_SCHEDULE

    @property
    def is_of_the_averages(self) -> bool:
        """Whether the hyperparameter only says how weights are averaged."""
        return self.short in OF_THE_AVERAGES

    @property
    def is_shown(self) -> bool:
        """Whether a model that is trained here may read the hyperparameter."""
        return not (self.is_of_the_schedule or self.is_of_the_averages)


def refuse_name(name: str) -> None:
    """Raise DeclarationError for a name that branches would make, a budget, early stopping, a seed and a column."""
    if "." in name:
        raise DeclarationError(
            f"{name!r} has a dot, which is for hyperparameters inside branches(...); write {name.replace('.', '_')!r}"
        )
    refuse_budget_or_seed(name)
    _refuse_stopping(name)
    refuse_column(name)


def is_of_portions(name: str) -> bool:
    """Whether a name says in how many parts a batch is computed, here or in another tool."""
    return letters_of(name) in _OF_PORTIONS


def is_of_stopping(name: str) -> bool:
    """Whether a name says when trials stop early, here or in another tool."""
    return _STOPPING.fullmatch(letters_of(name)) is not None


def trainers_name(name: str) -> str:
    """What the trainer calls a hyperparameter that has the name of another tool; "" for any other name."""
    meant = _TRAINER_NAMES.get(letters_of(name), "")
    return "" if name == meant else meant


def refuse_column(name: str) -> None:
    """Raise DeclarationError for the name of a column that every table of trials has, and for an empty name."""
    if name in TRIAL_COLUMNS or not name.strip():
        raise DeclarationError(
            f"{name!r} cannot name a hyperparameter: every table of trials has such a column; rename it"
        )


def refuse_budget_or_seed(name: str) -> None:
    """Raise DeclarationError when a name would search the step budget or the seed (A11, B14, D1)."""
    plain = letters_of(name)
    if _BUDGET.fullmatch(plain) or "epoch" in plain:
        raise DeclarationError(
            f"{name} is a step budget and cannot be searched or fixed in a search space: all trials of a study take "
            "the same max_train_steps (A11); declare it on the round, and read the best-step plot to refine it. "
            "If it is something else, give it a name that says so"
        )
    if plain in _SEED_NAMES or plain.startswith("seed") or plain.endswith(("seed", "seeds")):
        raise DeclarationError(
            f"{name} is a random seed and is never tuned (B14): a lucky seed is no hyperparameter; "
            "use Campaign(seed=...) and replicates"
        )


def _refuse_stopping(name: str) -> None:
    """Raise DeclarationError when a name would search how early trials stop: then they are not equally long (A11)."""
    if is_of_stopping(name):
        raise DeclarationError(
            f"{name} would stop some trials of a study before others, and a search compares them after the same number "
            "of steps (A11): the best checkpoint of each is chosen afterwards, so it is not needed. The last round may "
            "have it, Round(..., promote=2, patience_steps=500). If it is something else, give it a name that says so "
            "(plateau_patience, say)"
        )


def letters_of(name: str) -> str:
    """A name as it is compared with others: lower-case letters and digits alone."""
    return re.sub("[^a-z0-9]", "", name.lower())
