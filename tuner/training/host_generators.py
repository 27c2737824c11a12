"""Python's and NumPy's global generators: seeded together, and asked in a fraction of a microsecond whether they moved.

To read its state by the public way takes 30 us of NumPy's and 10 us of Python's, more than a small training step can
spare. So where a generator stands is read from its memory: its position, which every draw moves, and two words of its
state, which change each time the position has gone once around. Nothing is written there.
"""

import ctypes
import random
from typing import Any, Protocol

import numpy as np
from numpy.random.mtrand import get_bit_generator

AT_REST = 0x5EED_0000_7E57_CA5E  # the seed at which they wait while nothing is known to draw from them
_WORD = 0xFFFF_FFFF
_HALF = 0x8000_0000


class _Place(Protocol):
    @property
    def value(self) -> Any: ...


class HostGenerators:
    """Both generators of this process. Only one training at a time may use them, as they are the process's own."""

    def __init__(self) -> None:
        self._of_python = _python_places(random._inst) if _python_is_known() else (_PythonState(), _Nothing())
        self._of_numpy: tuple[_Place, _Place] = (_NumpyState(), _Nothing())
        self._numpys: object = None
        self._seed: int | None = None  # None: not known, or not by one number
        self._at: tuple[object, ...] = (None,) * 4

    @property
    def touched(self) -> bool:
        """Whether anything drew from them, or seeded them, since `seed`."""
        (python, python_words), (numpy, numpy_words), at = self._of_python, self._of_numpy, self._at
        return not (
            python.value == at[0]
            and numpy.value == at[1]
            and python_words.value == at[2]
            and numpy_words.value == at[3]
            and get_bit_generator() is self._numpys
        )

    def seed(self, value: int, word: int | None = None) -> None:
        """Seed Python's generator with `value` (64 bits) and NumPy's with `word` (32 bits; made of `value` where None).

        NumPy's is never seeded as torch's, which is a generator of the same kind and would draw the same numbers.
        """
        random.seed(value)
        np.random.seed((value ^ _HALF) & _WORD if word is None else word)
        if get_bit_generator() is not self._numpys:  # at first, or where the user's code changed it
            self._numpys = get_bit_generator()
            known = _numpy_is_known(self._numpys)
            self._of_numpy = _numpy_places(self._numpys) if known else (_NumpyState(), _Nothing())
        if not isinstance(self._numpys, np.random.MT19937):  # its seed leaves the second of a pair of normal numbers
            np.random.set_state({**np.random.get_state(legacy=False), "has_gauss": 0, "gauss": 0.0})
        self._seed = value if word is None else None
        (python, python_words), (numpy, numpy_words) = self._of_python, self._of_numpy
        self._at = python.value, numpy.value, python_words.value, numpy_words.value

    def rest(self) -> None:
        """Seed them with AT_REST, if they are not there already."""
        if self._seed != AT_REST or self.touched:
            self.seed(AT_REST)

    def state(self) -> object:
        """What `restore` takes: the seed where they are untouched, which costs nothing; else the states themselves."""
        if self._seed is not None and not self.touched:
            return self._seed
        return random.getstate(), np.random.get_state(legacy=False)

    def mark(self) -> object:
        """The same, to be compared with a later one: they are equal where nothing was drawn or seeded in between."""
        state = self.state()
        return (state[0], _comparable(state[1])) if isinstance(state, tuple) else state

    def restore(self, state: Any) -> None:
        """Restore them to where they were when `state` was read."""
        if isinstance(state, tuple):
            of_python, of_numpy = state
            random.setstate(of_python)
            np.random.set_state(of_numpy)
            self._seed, self._at = None, (None,) * 4
        elif self._seed != state or self.touched:
            self.seed(state)


def _python_places(generator: random.Random) -> tuple[_Place, _Place]:
    """Position and two words of Python's Mersenne Twister, which stand behind the head of the object."""
    begin = id(generator) + object.__basicsize__
    return ctypes.c_int.from_address(begin), ctypes.c_uint64.from_address(begin + 8)


def _numpy_places(generator: Any) -> tuple[_Place, _Place]:
    """The same of NumPy's, whose address is public: 624 words, then the position."""
    begin = generator.ctypes.state_address
    return ctypes.c_int.from_address(begin + 4 * 624), ctypes.c_uint64.from_address(begin + 4)


def _python_is_known() -> bool:
    """Whether this interpreter keeps the state where `_python_places` looks for it."""
    generator = random.Random(1)
    for _ in range(3):
        position, words = _python_places(generator)
        state = generator.getstate()[1]
        if (position.value, words.value) != (state[-1], state[1] | state[2] << 32):
            return False
        generator.random()
    return True


def _numpy_is_known(used: object) -> bool:
    """Whether the generator in use is the one of NumPy's old functions, and kept where `_numpy_places` looks for it."""
    generator = np.random.MT19937(1)
    for _ in range(3):
        position, words = _numpy_places(generator)
        state: Any = generator.state["state"]
        if (position.value, words.value) != (state["pos"], int(state["key"][1]) | int(state["key"][2]) << 32):
            return False
        generator.random_raw()
    return isinstance(used, np.random.MT19937)


class _PythonState:
    """Python's state by the public way, for interpreters that keep it elsewhere."""

    @property
    def value(self) -> Any:
        return random.getstate()


class _NumpyState:
    """NumPy's state by the public way."""

    @property
    def value(self) -> Any:
        return _comparable(np.random.get_state(legacy=False))


def _comparable(state: Any) -> Any:
    if isinstance(state, dict):
        return {key: _comparable(value) for key, value in state.items()}
    return state.tobytes() if isinstance(state, np.ndarray) else state


class _Nothing:
    value = None


HOST = HostGenerators()
