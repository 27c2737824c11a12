"""What the page says of a winner with fresh seeds: its rival's median, and a better single seed with what decides."""

from types import SimpleNamespace

from analysis.test_headline import promoted

from tuner.analysis.headline import headline
from tuner.analysis.study_frames import ranked_trials
from tuner.report.winner import _fresh_rivals


def doubts(*trials):
    frames = promoted(*trials)
    study = SimpleNamespace(frames=frames, study=frames.study, launches=())
    return _fresh_rivals(study, headline(frames), ranked_trials(frames))


def test_the_rival_and_a_lucky_single_seed_are_told():
    told = doubts((4, "same seed", 0.03), (7, "same seed", 0.02), (4, "fresh seeds", 0.04), (9, "fresh seeds", 0.05))
    assert told == [
        "The next configuration with fresh seeds, that of trial 3, had 0.05 with one.",
        "Trial 1 reached 0.02 with one seed, selected; fresh seeds of both decide: tuner adopt STUDY_FILE --candidate "
        "round-2/1 --baseline round-2/0",
    ]


def test_more_fresh_seeds_of_the_rival_are_told_by_their_median():
    told = doubts((4, "fresh seeds", 0.04), (9, "fresh seeds", 0.05), (9, "fresh seeds", 0.07))
    assert told == [
        "The next configuration with fresh seeds, that of trial 1, had a median of 0.06 over 2 fresh seeds."
    ]


def test_nothing_is_told_where_nothing_else_was_trained():
    assert doubts((4, "same seed", 0.03), (4, "fresh seeds", 0.04)) == []
