"""Features combined: each trial has the same bits alone, in a group, stopped and resumed, and in whichever order."""

import random

import pytest
from support.combinations import STEPS, all_pairs, difference, drawn, study_of, workload_of
from support.drawing import disturb
from support.fusing import TrialsRecorder, meaning, trained_alone, trained_together
from support.tiny import StopAt, setting_for

from tuner.errors import NotFusible
from tuner.records import State
from tuner.rounds.plan import planned_trials

PAIRS = all_pairs()
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
    """Raise AssertionError where a way of training changes a bit. Why groups were refused, if any were."""
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
    return refused


@pytest.mark.parametrize("combination", PAIRS, ids=difference)
def test_every_two_features_together_keep_all_bits(combination, tmp_path):
    number = PAIRS.index(combination)
    check(combination, tmp_path, number, WAYS[number % 2 :][:1])


@pytest.mark.slow
@pytest.mark.parametrize("seed", DRAWN)
def test_features_combined_at_random_keep_all_bits(seed, tmp_path):
    check(drawn(seed), tmp_path, seed)
