"""The command line, and Optuna studies made with Optuna itself."""

import math
import warnings

import optuna
import pytest
from optuna.exceptions import ExperimentalWarning
from support.shell import tuner

__all__ = ["tuner"]


def objective(trial):
    rate = trial.suggest_float("learning_rate", 1e-4, 1.0, log=True)
    dropout = trial.suggest_float("dropout", 0.0, 0.5)
    best = 0.1 + 0.1 * math.log10(rate / 1e-2) ** 2 + 0.05 * dropout
    for step in range(40):
        if rate > 0.5 and step == 10:
            trial.report(math.nan, step)
            return math.nan
        value = best + math.exp(-step / 4)
        trial.report(value, step)
        if trial.number == 3 and step == 20:
            raise optuna.TrialPruned
        if trial.number == 4 and step == 12:
            raise ValueError("a bug in the user's code")
    return value


@pytest.fixture(scope="session")
def optuna_url(tmp_path_factory):
    """`mine`: 30 trials of 40 steps; some diverge, one is pruned, one failed, one still waits."""
    url = f"sqlite:///{tmp_path_factory.mktemp('optuna')}/optuna.db"
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        memory = optuna.storages.InMemoryStorage()  # thousands of commits less; copied as a whole
        study = optuna.create_study(
            study_name="mine", storage=memory, direction="minimize", sampler=optuna.samplers.RandomSampler(seed=1)
        )
        study.optimize(objective, n_trials=30, catch=(ValueError,))
        study.enqueue_trial({"learning_rate": 1e-2, "dropout": 0.1})
        optuna.copy_study(from_study_name="mine", from_storage=memory, to_storage=url)
        optuna.create_study(study_name="two", storage=url, directions=["minimize", "maximize"])
    return url
