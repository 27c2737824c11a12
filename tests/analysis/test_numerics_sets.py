"""Which trials were trained under which Numerics, in words."""

from dataclasses import replace

import pandas as pd
from support.tiny import tiny_study

from tuner.analysis.frames import frames_of
from tuner.analysis.numerics_sets import crossing_of, crossing_words, numerics_sets, other_than_before
from tuner.records import Numerics, State, TrialRecord, UnreadableTrial

HERE = Numerics.of({"torch": "2.13", "cpu_capability": "AVX512", "processor": "GenuineIntel avx2"})
OLDER = Numerics.of({"torch": "2.13", "cpu_capability": "AVX512"})  # before the processor was recorded
THERE = Numerics.of({"torch": "2.12", "cpu_capability": "AVX2", "processor": "GenuineIntel avx2"})


def trials(*under):
    named = [UnreadableTrial(number, 0, 0, "") for number in range(len(under))]
    return [TrialRecord(n, named[n], State.COMPLETE, "", 10, 1, one) for n, one in enumerate(under)]


def test_sets_are_numbered_by_their_first_trial_and_unknown_values_are_no_difference():
    sets, numbers = numerics_sets(trials(None, OLDER, THERE, HERE, replace(HERE, exact=False), THERE))
    assert sets == (OLDER, THERE)
    assert numbers == [None, 1, 2, 1, 1, 2]
    assert numerics_sets([]) == ((), [])


def test_one_set_is_not_worth_a_word_and_several_say_how_many_trials_and_what_differs():
    assert crossing_of(trials(OLDER, HERE, None)) == ""
    told = crossing_of(trials(HERE, THERE, THERE))
    assert told.startswith(
        "under 2 sets of Numerics, 1 trial under set 1, 2 under set 2 (kernels of torch AVX2, not AVX512; "
        "torch 2.12, not 2.13): a comparison between them crosses machines"
    )


def frames(*under):
    curves = pd.DataFrame({"trial": [], "step": [], "metric": [], "value": []}).astype({"trial": int, "step": int})
    return frames_of(tiny_study(), trials(*under), curves)


def test_a_round_says_what_is_new_against_the_round_before():
    first, same, other = frames(HERE), frames(OLDER), frames(HERE, THERE)
    assert other_than_before(first, same) == ""
    assert other_than_before(first, other) == "kernels of torch AVX2, not AVX512; torch 2.12, not 2.13"
    assert other_than_before(other, first) == "", "those are known already"
    assert other_than_before(frames(None), other) == "", "nothing is known of the round before"
    assert crossing_words(first) == ""
    assert crossing_words(other).startswith("under 2 sets of Numerics, 1 trial under set 1, 1 under set 2 (kernels")
    assert other.trials["numerics"].tolist() == [1, 2]
