"""Features combined: the same bits alone, in a group, resumed, from inherited steps, by workers, and when replayed."""

import random
import sys
from dataclasses import replace

import pytest
from support.combinations import STEPS, TRIALS, all_pairs, difference, drawn, study_of, workload_of, write_study
from support.drawing import disturb
from support.fusing import TrialsRecorder, meaning, trained_alone, trained_together
from support.prefixes import bench, longer
from support.shell import tuner
from support.tiny import StopAt, setting_for

from benchmarks.digests import digests
from tuner.errors import NotFusible
from tuner.execution.replay import replayed
from tuner.records import State
from tuner.rounds.plan import planned_trials

__all__ = ["tuner"]

PAIRS = all_pairs()
LONG = 30  # steps
OTHER_FORMS = "the batches of the trials have different forms"
DRAWN = range(1_000, 1_120)  # seeds of the longer suite


class Trained:
    """The trials of a combination in one folder, trained in parts."""

    def __init__(self, combination, folder):
        self.combination, self.folder = combination, folder
        self.study = study_of(combination)
        self.trials = planned_trials(self.study)
        self.recorder = TrialsRecorder()
        self.refused = []

    def alone(self, trials, workers, stop=None):
        for trial in trials:
            trained_alone(self._setting(workers, stop), [trial], self.recorder)

    def together(self, trials, workers, stop=None):
        """In a group; where that is refused, whatever was trained until then is kept, and each goes on alone."""
        disturb()
        try:
            trained_together(self._setting(workers, stop), trials, self.recorder)
        except NotFusible as error:
            self.refused.append(str(error))
            self.alone([one for one in trials if not self.recorder.state(one).finished], workers, stop)

    def _setting(self, workers, stop):
        changes = {} if stop is None else {"stop": StopAt(stop + 1)}
        return setting_for(self.study, self.folder, workload_of(self.combination, workers), **changes)

    def meaning(self, trial):
        return meaning(self.recorder, self.folder, trial)


def whole(way, stops, others):
    way.together(way.trials, None)


def begun_together(way, stops, others):
    """A group; then its first trial goes on alone, and the others in another group; the loading changes each time."""
    way.together(way.trials, None, stops[0])
    way.alone(way.trials[:1], others[0], stops[1] - stops[0])
    way.together(way.trials[1:], others[1])
    way.alone(way.trials[:1], 0)


def begun_alone(way, stops, others):
    """Two trials that were stopped alone, at different steps, and a new one end in a group."""
    way.alone(way.trials[:1], None, stops[2])
    way.alone(way.trials[1:2], others[0], stops[0])
    way.together(way.trials, others[1])


WAYS = (begun_together, begun_alone, whole)


def check(combination, folder, seed, ways=WAYS):
    """Raise AssertionError where a way of training changes a bit, or where a group is refused without need.

    Batches by length may have other forms for trials that stand at different steps.
    """
    print(f"seed {seed}: {combination}")  # noqa: T201 - shown where the test fails
    rng = random.Random(seed)
    alone = Trained(combination, folder / "alone")
    alone.alone(alone.trials, 0)
    assert {alone.recorder.state(trial) for trial in alone.trials} == {State.COMPLETE}
    refused = []
    for train in ways:
        way = Trained(combination, folder / train.__name__)
        others = rng.sample([count for count in (0, 1, 3) if count != combination.data_workers], 2)
        train(way, sorted(rng.sample(range(1, STEPS), 3)), others)
        for trial in way.trials:
            assert way.meaning(trial) == alone.meaning(trial), f"{train.__name__}, trial {trial.number}: {combination}"
        refused += way.refused
    assert set(refused) <= ({OTHER_FORMS} if combination.source == "lengths" else set()), combination


@pytest.mark.parametrize("combination", PAIRS, ids=difference)
def test_every_two_features_together_keep_all_bits(combination, tmp_path):
    number = PAIRS.index(combination)
    check(combination, tmp_path, number, WAYS[number % 2 :][:1])


@pytest.mark.slow
@pytest.mark.parametrize("seed", DRAWN)
def test_features_combined_at_random_keep_all_bits(seed, tmp_path):
    check(drawn(seed), tmp_path, seed)


def fusings(combination, rng):
    """Two ways of training a study; batches by length are a form of their own for trials with other data seeds."""
    return rng.sample(["off", "auto"] if combination.source == "lengths" else ["off", "auto", 3], 2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2_000, 2_040))
def test_a_longer_trial_takes_over_the_first_steps_of_features_combined_and_is_replayed(seed, tmp_path):
    rng = random.Random(seed)
    combination = replace(drawn(seed), schedule=rng.choice(["constant", "constant_then_decay"]))
    print(f"seed {seed}: {combination}")  # noqa: T201 - shown where the test fails
    short, stops = study_of(combination), [rng.randint(1, 20) for _ in range(rng.randint(0, 2))]
    trials = [replace(one, pins=(one.schedule.decay_start or STEPS,)) for one in planned_trials(short)]
    long = replace(short, name="round-2", budget=short.budget.lengthened(LONG, 5), round=2)
    after = [longer(trial, LONG) for trial in trials]
    first, second = fusings(combination, rng)
    with bench(tmp_path / "shared", workload_of(combination)) as shared:
        shared.train(short, trials, stops=stops, fuse=first, commit_seconds=rng.choice([0.0, 1e9]))
        shared.workload = workload_of(combination, rng.choice([0, 1, 3]))
        row = shared.train(long, after, stops=stops, fuse=second)
        assert shared.inherited(row) == [trials[0].pins[0]] * TRIALS
        found = [shared.meaning(row, trial.number) for trial in after]
        again = replayed(shared.ledger, row, 0, workload_of(combination, rng.choice([0, 1, 3])), device="cpu")
        assert (again.different, again.causes, again.values > 0) == (0, (), True)
    with bench(tmp_path / "scratch", workload_of(combination, 0)) as scratch:
        row = scratch.train(long, after)
        assert scratch.inherited(row) == [0] * TRIALS
        assert found == [scratch.meaning(row, trial.number) for trial in after], combination


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3_000, 3_010))
def test_worker_processes_keep_the_bits_of_features_combined(seed, tuner, tmp_path, monkeypatch):
    combination = drawn(seed)
    print(f"seed {seed}: {combination}")  # noqa: T201 - shown where the test fails
    monkeypatch.setenv("PYTHONPATH", ":".join(map(str, sys.path)))
    study, found = write_study(tmp_path, combination), {}
    for name, options in {
        "alone": ["--fuse", "off"], "group": ["--fuse", "auto"], "workers": ["--fuse", "off", "--workers", "2"],
    }.items():  # fmt: skip
        storage = tmp_path / name / "t.sqlite"
        storage.parent.mkdir()
        launched = tuner("launch", study, "--round", 1, "--storage", storage, *options)
        assert launched.code == 0, launched.err
        found[name] = digests(sys.executable, storage.parent)
    assert len(found["alone"]) == TRIALS
    assert found["alone"] == found["group"] == found["workers"]
