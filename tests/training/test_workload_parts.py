"""Which part of a workload changed: each change moves the digest of its own part and of no other."""

import importlib.util

import pytest
import torch
from support.tiny import tiny_study

from tuner.design.prefix import base_digest
from tuner.execution.identifying import Identifier
from tuner.rounds.plan import planned_trials
from tuner.training.workload_digests import workload_parts

SOURCE = """
import torch
from torch import nn
from tuner import Splits, Workload, matching, minimize

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x):
        return torch.relu(self.layer(x))

class Small(Workload):
    batch_size = 8
    select_by = minimize("validation/loss")
    width = 4
    no_decay = "vectors"

    def parameter_groups(self, model, point):
        return [matching("layer.weight", decay=0.0)]

    def data(self):
        x = torch.arange(32.0).reshape(8, 4)
        return Splits(training=(x[:4],), validation=(x[4:],))

    def model(self, point):
        return Block()

    def loss(self, model, batch, point):
        return model(batch[0]).mean()

    def metrics(self, model, batch):
        return {"loss": model(batch[0]).mean(1)}

    def augment(self, batch, point, generator):
        return batch
"""


def identifier_of(folder, source):
    path = folder / f"made_{abs(hash(source))}.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    identifier = Identifier(module.Small())
    identifier.data(torch.device("cpu"))
    return identifier


def parts_of(folder, source):
    identifier = identifier_of(folder, source)
    return workload_parts(identifier.workload, identifier.whole)


def test_what_a_workload_does_about_batches_is_a_part_where_it_is_declared(tmp_path):
    collating = (
        SOURCE
        + """
    def collate(self, examples):
        return examples

    def lengths(self):
        return [1, 2, 3, 4]
"""
    )
    data = "Splits(training=(x[:4],), validation=(x[4:],))"
    collating = collating.replace(data, "Splits(training=list(zip(x[:4])), validation=list(zip(x[4:])))")
    before = parts_of(tmp_path, collating)
    assert {"collate", "batches by length"}.isdisjoint(parts_of(tmp_path, SOURCE))
    other = parts_of(tmp_path, collating.replace("return examples", "return examples[::-1]"))
    assert {name for name in before if before[name] != other[name]} == {"collate"}
    sorted_otherwise = parts_of(tmp_path, collating.replace("[1, 2, 3, 4]", "[4, 3, 2, 1]"))
    changed = {name for name in before if before[name] != sorted_otherwise[name]}
    assert changed == {"batches by length", "training data"}


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("torch.relu(self", "torch.tanh(self", {"architecture"}),
        ("return Block()", "return nn.Sequential(Block())", {"architecture"}),
        (
            "loss(self, model, batch, point):\n        return",
            "loss(self, model, batch, point):\n        return 2 *",
            {"loss"},
        ),
        ("generator):\n        return batch", "generator):\n        return (batch[0] + 1,)", {"augmentation"}),
        ("training=(x[:4],)", "training=(x[1:5],)", {"training data"}),
        ("width = 4", "width = 8", {"attribute width"}),
        ("decay=0.0", "decay=0.5", {"optimizer parameter groups"}),
        ('no_decay = "vectors"', "no_decay = None", {"attribute no_decay"}),
        ("batch_size = 8", "batch_size = 4", set()),  # declared: told apart by its own name
        ("class Small", "# a remark\nclass Small", set()),
    ],
)
def test_a_change_moves_the_digest_of_its_own_part(tmp_path, old, new, part):
    assert old in SOURCE
    before, after = parts_of(tmp_path, SOURCE), parts_of(tmp_path, SOURCE.replace(old, new))
    assert {name for name in before | after if before.get(name) != after.get(name)} == part


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('no_decay = "vectors"', "no_decay = None"),
        ("decay=0.0", "decay=0.5"),
        ('matching("layer.weight"', 'matching("layer.*"'),
        ("        return batch\n", '        return batch\n\nSmall.no_decay = "none of them"\n'),
    ],
)
def test_other_groups_are_another_start_of_every_prefix(tmp_path, old, new):
    assert old in SOURCE
    study = tiny_study()
    trial = planned_trials(study)[0]
    before, after = (identifier_of(tmp_path, source) for source in (SOURCE, SOURCE.replace(old, new)))
    digests = {base_digest(study, trial, identifier.whole.fingerprint) for identifier in (before, after)}
    assert len(digests) == 2
