"""What a loop keeps survives a checkpoint as it was, and what no checkpoint can hold is named."""

import io
import random
from collections import Counter, OrderedDict
from fractions import Fraction

import numpy as np
import pytest
import torch
from support.tiny import CPU

from tuner.delegated.files import KeptFiles, files_in
from tuner.delegated.kept import KeptObjects, as_it_was, global_generators, plain, set_global_generators
from tuner.errors import CorruptCheckpoint, WorkloadError
from tuner.training.checkpoints import state_in, write_state_to


def through_a_file(value):
    file = io.BytesIO()
    write_state_to(file, {"value": value})
    return state_in(file.getvalue())["value"]


VALUES = {
    "numbers": {"a": 1, 2: 3.5, "c": None, "d": True, "e": 2**127, "f": 1 + 2j, "g": b"\x00\xff", "h": "text"},
    "containers": [1, (2, [3]), {"four": (5,)}, OrderedDict(six=7)],
    "sets": {1, 2, (3, 4)},
    "a frozen set": frozenset({"a"}),
    "counts": Counter({"a": 2, 5: 1}),
    "keys": {(1, "a"): 2, None: 3},
    "types": {"dtype": torch.bfloat16},
    "a number of NumPy": np.float32(0.1),
    "a whole number of NumPy": np.int64(7),
    "nothing": {},
}


@pytest.mark.parametrize("name", VALUES)
def test_plain_values_come_back_from_a_file(name):
    value = VALUES[name]
    assert as_it_was(through_a_file(plain(value, "state"))) == value


@pytest.mark.parametrize(
    "array",
    [np.arange(6, dtype=np.uint32).reshape(2, 3), np.array(0.1), np.array([True, False]), np.zeros((0, 3), np.float16)],
)
def test_arrays_come_back_with_their_types_and_shapes(array):
    found = as_it_was(through_a_file(plain({"array": array}, "state")))["array"]
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert np.array_equal(found, array)


def test_tensors_come_back_and_views_do_not_take_their_whole_memory_along():
    whole = torch.arange(10_000.0)
    file = io.BytesIO()
    write_state_to(file, {"value": plain({"few": whole[:3]}, "state")})
    assert len(file.getvalue()) < 5_000
    assert torch.equal(state_in(file.getvalue())["value"]["few"], whole[:3])


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (Fraction(1, 3), "loader['deep'][1]"),
        (lambda: 1, "loader['deep'][1]"),
        (np.array(["text"]), "loader['deep'][1]"),
        (np.array([object()]), "loader['deep'][1]"),
        (np.array([1], dtype=np.dtype(int).newbyteorder()), "loader['deep'][1]"),
        (np.datetime64("2026-01-01"), "loader['deep'][1]"),
    ],
)
def test_what_no_checkpoint_holds_is_named_with_its_place(value, place):
    with pytest.raises(WorkloadError) as caught:
        plain({"deep": [0, value]}, "loader")
    assert str(caught.value).startswith(f"{place} is a {type(value).__name__}, which no checkpoint can hold")


def test_generators_of_all_kinds_go_on_where_they_were():
    def draws(generators):
        drawn = [float(torch.rand((), generator=generators[0])), float(generators[1].normal())]
        return [*drawn, float(generators[2].normal()), generators[3].gauss(0, 1)]

    def made(seed):
        bits = (np.random.PCG64, np.random.MT19937, np.random.Philox, np.random.SFC64)[seed % 4]
        legacy = np.random.RandomState(seed)
        return torch.Generator().manual_seed(seed), np.random.Generator(bits(seed)), legacy, random.Random(seed)

    for seed in range(4):
        kept = KeptObjects(CPU)
        used = made(seed)
        draws(used)  # which leaves the second of a pair of normal numbers in some
        for name, one in zip("abcd", used, strict=True):
            kept.add(name, one)
        state = through_a_file(kept.state())
        expected = [draws(used) for _ in range(3)]
        others, again = KeptObjects(CPU), made(seed + 4)
        others.load(state)
        for name, one in zip("abcd", again, strict=True):
            others.add(name, one)
        assert [draws(again) for _ in range(3)] == expected


def test_the_global_generators_go_on_where_they_were():
    def draws():
        return float(torch.randn(())), float(np.random.normal()), random.gauss(0, 1)

    draws()
    state = as_it_was(through_a_file(plain(global_generators(CPU), "generators")))
    expected = [draws() for _ in range(3)]
    set_global_generators(state, CPU)
    assert [draws() for _ in range(3)] == expected


def test_kept_files_come_back_and_none_leads_out_of_the_folder():
    def save(folder):
        (folder / "deep").mkdir()
        (folder / "deep" / "a.bin").write_bytes(bytes(range(256)))
        (folder / "empty").touch()

    found = {}
    files = KeptFiles()
    files.keep(save, lambda folder: None)
    state = through_a_file(files.state(3))
    again = KeptFiles()
    again.load(state)
    again.keep(save, lambda folder: found.update({name: bytes(one.tolist()) for name, one in files_in(folder).items()}))
    assert found == {"deep/a.bin": bytes(range(256)), "empty": b""}
    again.load({"../outside": torch.zeros(1, dtype=torch.uint8)})
    with pytest.raises(CorruptCheckpoint, match="leads out of its folder"):
        again.keep(save, lambda folder: None)
    nothing = KeptFiles()
    nothing.keep(lambda folder: None, lambda folder: None)
    with pytest.raises(WorkloadError, match="has written no file"):
        nothing.state(1)
