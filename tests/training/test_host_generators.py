"""Python's and NumPy's global generators: whether they moved is known exactly, and where they were is found again."""

import random

import numpy as np
import pytest

from tuner.training import host_generators
from tuner.training.host_generators import HostGenerators

DRAWS = {
    "random": random.random, "gauss": lambda: random.gauss(0, 1), "shuffle": lambda: random.shuffle([1, 2, 3]),
    "bits": lambda: random.getrandbits(1), "python once around": lambda: random.getrandbits(32 * 624),
    "python seeded": lambda: random.seed(3), "rand": np.random.rand, "normal": np.random.normal,
    "permutation": lambda: np.random.permutation(3), "numpy once around": lambda: np.random.bytes(4 * 624),
    "numpy twice around": lambda: np.random.bytes(8 * 624), "numpy seeded": lambda: np.random.seed(3),
}  # fmt: skip


@pytest.fixture(params=["by their memory", "by their public states"])
def generators(request, monkeypatch):
    before = random.getstate(), np.random.get_state()
    if request.param == "by their public states":
        monkeypatch.setattr(host_generators, "_python_is_known", lambda: False)
        monkeypatch.setattr(host_generators, "_numpy_is_known", lambda used: False)
    yield HostGenerators()
    random.setstate(before[0])
    np.random.set_state(before[1])


def states():
    return random.getstate(), repr(np.random.get_state(legacy=False))


def test_the_memory_of_this_interpreter_is_read():
    assert host_generators._python_is_known()
    assert host_generators._numpy_is_known(np.random.mtrand._rand._bit_generator)


@pytest.mark.parametrize("draw", DRAWS)
def test_whatever_is_drawn_is_noticed(draw, generators):
    assert generators.touched, "before they were seeded nothing is known"
    generators.seed(1 << 62 | 5)
    assert not generators.touched
    DRAWS[draw]()
    assert generators.touched
    generators.rest()
    assert not generators.touched
    DRAWS[draw]()
    assert generators.touched


def test_an_untouched_state_is_a_seed_and_any_state_is_found_again(generators):
    generators.seed(77)
    fresh, kept = states(), generators.state()
    assert kept == 77
    random.gauss(0, 1)
    np.random.normal()
    halves, whole = states(), generators.state()  # each holds the second of a pair
    np.random.normal()
    generators.restore(kept)
    assert states() == fresh
    generators.restore(whole)
    assert states() == halves
    assert generators.touched
    generators.seed(5, 6)  # no one number stands for these
    by_two = states()
    kept = generators.state()
    generators.rest()
    generators.restore(kept)
    assert states() == by_two


def test_numpy_never_draws_what_torch_draws_at_the_same_seed(generators):
    generators.seed(123)
    assert np.random.get_state()[1][0] != 123


@pytest.mark.parametrize("kind", [np.random.PCG64, np.random.Philox, np.random.MT19937])
def test_another_generator_that_numpy_was_given_is_seeded_and_watched_too(kind, generators):
    generators.seed(3)
    mine = np.random.mtrand.get_bit_generator()
    np.random.mtrand.set_bit_generator(kind(0))
    try:
        assert generators.touched
        np.random.normal()  # leaves the second of a pair
        before, kept = states(), generators.state()
        drawn = []
        for _ in range(2):
            generators.rest()
            assert not generators.touched
            drawn.append(np.random.normal())
            assert generators.touched
        assert drawn[0] == drawn[1]
        generators.restore(kept)
        assert states() == before
    finally:
        np.random.mtrand.set_bit_generator(mine)
