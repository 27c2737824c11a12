"""Data are told apart by all they hold in memory, and by examples from everywhere of a dataset."""

from itertools import pairwise

import pytest
import torch
from torch.utils.data import Dataset, Subset, TensorDataset

from tuner.training import tensor_digests
from tuner.training.batches import Split
from tuner.training.data_digests import EXAMPLES, data_digest, spread

CPU = torch.device("cpu")


class Listed(Dataset):
    """A dataset whose examples hold more than tensors of floats; `asked` counts how many were fetched."""

    def __init__(self, labels):
        self.labels = list(labels)
        self.asked = 0

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        self.asked += 1
        inner = {"half": torch.full((2,), self.labels[index], dtype=torch.bfloat16), "name": f"example {index}"}
        return {"x": torch.zeros(3), "inner": inner, "pair": (index, 0.5)}


def digest(data):
    return data_digest(Split("training", data, CPU))


def test_equal_data_have_one_digest_and_a_relabelled_set_another():
    labels = [number % 7 for number in range(1000)]
    assert digest(Listed(labels)) == digest(Listed(labels))
    assert digest(Listed(labels)) != digest(Listed(labels[:-1]))
    assert digest(Listed(labels)) != digest(Listed([label + 1 for label in labels]))


@pytest.mark.parametrize("changed", [range(8, 50), range(500, 542), range(990, 1000), [0], [999]])
def test_a_change_anywhere_in_a_dataset_shows(changed):
    labels = [0] * 1000
    for index in changed:
        labels[index] = 1
    assert digest(Listed(labels)) != digest(Listed([0] * 1000))


@pytest.mark.slow
def test_of_a_small_dataset_every_example_counts_and_of_a_large_one_a_bounded_number_is_fetched():
    for place in range(EXAMPLES):
        labels = [int(index == place) for index in range(EXAMPLES)]
        assert digest(Listed(labels)) != digest(Listed([0] * EXAMPLES))
    large = Listed([0] * 100_000)
    digest(large)
    assert large.asked == EXAMPLES


@pytest.mark.parametrize("count", [1, 2, EXAMPLES, EXAMPLES + 1, 1000, 1_234_567])
def test_the_sample_is_spread_over_all_examples_and_always_the_same(count):
    drawn = spread(count)
    assert drawn == spread(count) == sorted(set(drawn))
    assert (drawn[0], drawn[-1], len(drawn)) == (0, count - 1, min(count, EXAMPLES))
    gaps = [after - before for before, after in pairwise(drawn)]
    assert max(gaps, default=0) <= 2 * (count // EXAMPLES + 1)


@pytest.mark.parametrize(
    "wrap", [lambda x: x, lambda x: TensorDataset(*x), lambda x: Subset(TensorDataset(*x), range(90))]
)
def test_of_tensors_in_memory_every_value_counts(wrap):
    x, y = torch.randn(100, 3, generator=torch.Generator().manual_seed(0)), torch.zeros(100)
    other = y.clone()
    other[57] = 1
    assert digest(wrap((x, y))) == digest(wrap((x.clone(), y.clone()))) != digest(wrap((x, other)))
    assert digest(wrap((x, y))) != digest(wrap((x.double(), y)))


def test_a_subset_of_other_examples_is_other_data():
    whole = TensorDataset(torch.arange(10.0))
    assert digest(Subset(whole, [1, 2, 3])) != digest(Subset(whole, [1, 2, 4]))


def whole_digest(tensor):
    return tensor_digests.digest_of_tensors({"x": tensor})


@pytest.mark.parametrize("where", [0, 1, 12_345, 99_990, 100_002])
def test_of_a_large_tensor_a_change_anywhere_shows_too(monkeypatch, where):
    monkeypatch.setattr(tensor_digests, "WHOLE_BYTES", 1000)
    monkeypatch.setattr(tensor_digests, "BLOCKS", 4)
    monkeypatch.setattr(tensor_digests, "BLOCK_BYTES", 16)
    monkeypatch.setattr(tensor_digests, "_PIECE", 999)
    tensor = (torch.arange(100_003) % 251).to(torch.uint8)
    changed = tensor.clone()
    changed[where] += 1
    assert whole_digest(tensor) == whole_digest(tensor.clone()) != whole_digest(changed)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(0), torch.tensor(3.0), torch.zeros(2, 3).T, torch.zeros(2, dtype=torch.complex64).conj(),
        torch.tensor([[0, 1.0], [2, 0]]).to_sparse(), torch.tensor([float("nan")]), torch.tensor([True]),
        torch.zeros(3, dtype=torch.bfloat16),
    ],
)  # fmt: skip
def test_tensors_of_every_kind_have_a_digest(tensor):
    assert whole_digest(tensor) == whole_digest(tensor.clone())
