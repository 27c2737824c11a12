"""Validation inputs among earlier training inputs: exact counts, by hand, for each form of an example."""

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, Subset, TensorDataset

from tuner.design.data import Stream
from tuner.training import input_hashes as module
from tuner.training.batches import Split
from tuner.training.input_hashes import in_memory, input_hashes

CPU = torch.device("cpu")
X = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(60) % 3


class Listed(Dataset):
    def __init__(self, examples):
        self.examples = examples

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        return self.examples[index]


def found(training, validation):
    known = input_hashes(Split("training", training, CPU)).as_set("pre")
    return input_hashes(Split("validation", validation, CPU)).among(known)


def counts(training, validation):
    one = found(training, validation)
    return one.found, one.compared


@pytest.mark.parametrize(
    ("training", "validation"),
    [
        ((X[:40],), (X[33:], LABELS[33:])),  # unlabelled, then labelled: rows 33 to 39 are in both
        ((X[:40], LABELS[:40]), (X[33:], LABELS[33:] + 7)),  # the label is no input
        ((X[:40],), TensorDataset(X[33:], LABELS[33:])),
        (Subset(TensorDataset(X, LABELS), list(range(40))), (X[33:],)),
        (Listed([(x, 1) for x in X[:40]]), Listed([{"image": x, "label": 2} for x in X[33:]])),
        (Listed([x.numpy() for x in X[:40]]), (X[33:],)),
        ((X[:40],), (torch.eye(3)[LABELS[33:]], X[33:])),  # one-hot labels come first, and repeat
    ],
)
def test_inputs_are_counted_whatever_holds_them(training, validation):
    assert counts(training, validation) == (7, 27)


def test_equal_labels_and_equal_masks_are_no_leak():
    tokens = torch.randint(0, 1000, (60, 16), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(16) < (torch.arange(60) % 5 + 4)[:, None]).long()
    first = Listed([{"ids": one, "mask": two, "label": 1} for one, two in zip(tokens[:40], mask[:40], strict=True)])
    later = Listed([{"mask": two, "ids": one, "label": 1} for one, two in zip(tokens[40:], mask[40:], strict=True)])
    assert counts(first, later) == (0, 20)
    assert counts((X[:40], LABELS[:40]), (X[40:], LABELS[40:])) == (0, 20)


def test_constant_and_empty_inputs_do_not_count():
    rows = X.clone()
    rows[:10], rows[45:50] = 0.0, 2.5
    assert counts((rows[:48],), (rows[44:],)) == (1, 11)  # row 44 is in both; 45 to 49 are constant
    assert counts((torch.zeros(4, 0),), (torch.zeros(3, 0),)) == (0, 0)


def test_every_repeated_validation_input_counts():
    assert counts((X[:10],), (torch.cat([X[5:15], X[5:7]]),)) == (7, 12)


def test_type_and_shape_are_part_of_an_input():
    assert counts((X,), (X.double(),)) == (0, 60)
    assert counts((X,), (X.reshape(60, 5, 1),)) == (0, 60)
    assert counts((X.double(),), (X.double().flip(1),)) == (0, 60)
    assert counts((X.to(torch.bfloat16),), (X.to(torch.bfloat16)[:9],)) == (9, 9)
    signs = torch.tensor([[1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64) * 3.7
    assert counts((signs[:1] * torch.tensor([1.0, 2.0]),), (signs[1:] * torch.tensor([1.0, 2.0]),)) == (0, 1)


def test_texts_are_inputs_too():
    words = [f"a sentence of {number} words" for number in range(30)]
    pairs = [{"text": one, "label": 1} for one in words]
    assert counts(Listed(pairs[:20]), Listed(pairs[15:])) == (5, 15)


def test_of_many_inputs_a_sample_by_their_hashes_is_kept_and_both_splits_sample_alike(monkeypatch):
    """Where 1 of 4 is kept, a quarter of the validation inputs is compared, and all of those that leak are found."""
    monkeypatch.setattr(module, "KEPT", 500)
    many = torch.randn(2000, 8, generator=torch.Generator().manual_seed(2))
    one = found((many,), (many[:1000],))
    assert one.found == one.compared
    assert 200 < one.compared < 300
    assert (one.among, one.of_all, one.examples) == (2000, 2000, 1000)
    other = found((many[:1500],), (many[1000:],))
    assert 0.4 < other.found / other.compared < 0.6


def test_large_tensors_and_datasets_are_looked_at_in_part_and_it_is_said(monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 20 * 20)
    assert found((X,), (X,)).words == (
        "20 of 20 validation inputs (100%) occur among the training inputs of pre, of which 20 were looked at"
    )
    monkeypatch.setattr(module, "MOST_FETCHED", 10)
    fetched = input_hashes(Split("training", Listed(list(X)), CPU))
    assert (fetched.looked_at, fetched.examples) == (10, 60)
    stream = input_hashes(Split("training", Stream(lambda start: iter(X[start:])), CPU))
    assert (stream.looked_at, stream.examples) == (10, None)


def test_pieces_of_a_tensor_have_the_hashes_of_the_whole(monkeypatch):
    whole = input_hashes(Split("training", (X,), CPU)).parts[0].hashes
    monkeypatch.setattr(module, "_PIECE", 45)
    assert np.array_equal(input_hashes(Split("training", (X,), CPU)).parts[0].hashes, whole)
    assert len(np.unique(whole)) == 60


def test_only_tensors_in_memory_cost_no_example():
    assert in_memory(Split("training", (X,), CPU))
    assert in_memory(Split("training", TensorDataset(X), CPU))
    assert not in_memory(Split("training", Listed(list(X)), CPU))
