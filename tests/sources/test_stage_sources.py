"""An edit of one stage's workload leaves the other stages of its file as they are; what they share counts for both."""

import sys

import pytest

from tuner.sources.definitions import definitions_of
from tuner.sources.reached import Reached

STAGES = """
import torch
from torch import nn
from tuner import *

WIDTH = 4
DEPTH = 2
NOISE = torch.tensor(0.1)


def data():
    return torch.zeros(WIDTH)


def noisy(x):
    return deeper(x) + 0.1


def deeper(x):
    return x * DEPTH


def labels(x):
    return x > 0


class Base(Workload):
    batch_size = 8


class Auto(Base):
    def model(self, point):
        return nn.Linear(WIDTH, noisy(data()))


class Few(Base):
    def model(self, point):
        return nn.Linear(WIDTH, labels(data()))


SPACE = SearchSpace(learning_rate=log_uniform(1e-3, 1e-1))
START = best_of("pre")
pretraining = Campaign(Auto(), name="pre", rounds=[Round("q", trials=4, space=SPACE)])
campaign = Campaign(Few(), start_from=START, rounds=[Round("q", trials=4, space=SPACE)])
"""
AUTO, FEW = frozenset({"Auto", "Base"}), frozenset({"Few", "Base"})


def changed_for(own, old, new, source=STAGES):
    assert old in source
    before, after = (definitions_of(text.encode(), own) for text in (source, source.replace(old, new)))
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


@pytest.mark.parametrize(
    ("old", "new", "auto", "few"),
    [
        ("noisy(data())", "noisy(data() + 1)", {"method Auto.model"}, set()),
        ("deeper(x) + 0.1", "deeper(x) + 0.2", {"function noisy"}, set()),
        ("x * DEPTH", "x * DEPTH + 1", {"function deeper"}, set()),
        ("DEPTH = 2", "DEPTH = 3", {"value DEPTH"}, set()),
        ("labels(data())", "labels(data() + 1)", set(), {"method Few.model"}),
        ("x > 0", "x > 1", set(), {"function labels"}),
        ("torch.zeros(WIDTH)", "torch.ones(WIDTH)", {"function data"}, {"function data"}),
        ("WIDTH = 4", "WIDTH = 5", {"value WIDTH"}, {"value WIDTH"}),
        ("batch_size = 8", "batch_size = 9", {"class Base"}, {"class Base"}),
        ("torch.tensor(0.1)", "torch.tensor(0.2)", {"value NOISE"}, {"value NOISE"}),
        ("trials=4", "trials=8", set(), set()),
        ('best_of("pre")', 'best_of("pre", "encoder.*")', set(), set()),
    ],
)
def test_an_edit_changes_the_stages_that_use_it(old, new, auto, few):
    assert changed_for(AUTO, old, new) == auto
    assert changed_for(FEW, old, new) == few


def test_a_stage_that_is_added_changes_nothing_of_those_before():
    labels = STAGES[STAGES.index("def labels") : STAGES.index("class Base")]
    few = STAGES[STAGES.index("class Few") : STAGES.index("SPACE =")]
    lines = STAGES.replace(labels, "").replace(few, "").splitlines()
    alone = "\n".join(line for line in lines if not line.startswith(("campaign =", "START =")))
    assert "Few" not in alone
    assert definitions_of(alone.encode(), AUTO) == definitions_of(STAGES.encode(), AUTO)


@pytest.mark.parametrize(
    "reader",
    [
        "TABLE = {'other': Auto}",
        "def build(name):\n    return globals()[name]()",
        "class Third(Auto):\n    pass",
        "extra = Campaign(Few(inside=Auto), rounds=[])",
    ],
)
def test_a_class_that_anything_else_reads_counts_for_all(reader):
    source = STAGES.replace("SPACE =", f"{reader}\n\n\nSPACE =", 1)
    assert changed_for(FEW, "noisy(data())", "noisy(data() + 1)", source) == {"method Auto.model"}


def test_a_source_that_is_read_for_no_stage_counts_as_a_whole():
    assert changed_for(None, "noisy(data())", "noisy(data() + 1)") == {"method Auto.model"}


HEAD, TAIL = STAGES[: STAGES.index("class Auto")], STAGES[STAGES.index("class Few") :]


@pytest.mark.parametrize(
    ("body", "old", "new"),
    [
        ("    depth = torch.manual_seed(3)", "seed(3)", "seed(4)"),
        ("    torch.backends.cudnn.benchmark = True", "True", "False"),
        ("    for one in range(3): data()", "range(3)", "range(4)"),
        ("    def __init__(self): torch.set_default_dtype(torch.float64)", "float64", "float16"),
        ("    def __init__(self):\n        global WIDTH\n        WIDTH = 7", "= 7", "= 8"),
        ("    def __init__(self): torch.backends.seen = 7", "= 7", "= 8"),
        ("    def depth(self, x=torch.manual_seed(3)): return x", "seed(3)", "seed(4)"),
        ("    @torch.compile(dynamic=True)\n    def depth(self): return 3", "True", "False"),
    ],
)  # fmt: skip
def test_what_a_class_does_while_the_file_is_loaded_counts_for_all(body, old, new):
    source = f"{HEAD}class Auto(Base):\n{body}\n\n\n{TAIL}"
    assert changed_for(FEW, old, new, source), "this decides bits of the other stage, too"


@pytest.mark.parametrize(
    "reader",
    [
        "import sys\n\n\ndef build():\n    return getattr(sys.modules[__name__], 'Au' + 'to')",
        "def build():\n    return Base.__subclasses__()[0]",
        "from importlib import import_module as found\n\n\ndef build():\n    return found(__name__)",
        "class Registry(type):\n    pass",
        "REGISTRY = {}\n\n\nclass Listed(Base):\n    def __init_subclass__(cls):\n        REGISTRY[cls.__name__] = cls",
    ],
)
def test_a_class_that_is_found_without_its_name_counts_for_all(reader):
    source = STAGES.replace("class Auto(Base)", f"{reader}\n\n\nclass Auto(Base)")
    source = source.replace(
        "class Auto(Base)",
        "class Auto(Base, metaclass=Registry)"
        if "Registry(" in reader
        else "class Auto(Listed)"
        if "Listed" in reader
        else "class Auto(Base)",
    )
    changed = changed_for(FEW, "WIDTH, noisy(data())", "WIDTH, noisy(data() + 1)", source)
    assert changed == {"method Auto.model"}


def test_a_workload_that_a_function_makes_is_read_with_that_function():
    made = """def make(width):
    class Few(Base):
        def model(self, point):
            return nn.Linear(width, 3)

    return Few()


"""
    source = STAGES.replace(STAGES[STAGES.index("class Few") : STAGES.index("SPACE =")], made)
    source = source.replace("Campaign(Few()", "Campaign(make(2)")
    assert changed_for(FEW, "(width, 3)", "(width, 5)", source) == {"function make"}
    assert changed_for(FEW, "deeper(x) + 0.1", "deeper(x) + 0.2", source) == set()


def test_modules_that_only_the_other_stage_builds_are_left_out():
    net = (
        "class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.one = nn.Linear(3, 4)"
    )
    source = STAGES.replace("class Auto", f"{net}\n\n\nclass Auto").replace("noisy(data())", "noisy(Net())")
    assert changed_for(FEW, "nn.Linear(3, 4)", "nn.Linear(3, 5)", source) == set()
    assert changed_for(AUTO, "nn.Linear(3, 4)", "nn.Linear(3, 5)", source) == {"method Net.__init__"}


def test_a_file_that_is_imported_by_what_it_imports_counts_as_a_whole(tmp_path):
    (tmp_path / "stages.py").write_text(STAGES.replace("import torch\n", "import beside\nimport torch\n", 1))
    (tmp_path / "beside.py").write_text("def other():\n    import stages\n    return stages.Auto")
    sys.path.insert(0, str(tmp_path))
    try:
        code = Reached(tmp_path / "stages.py", FEW).code["the study file"]
    finally:
        sys.path.remove(str(tmp_path))
    assert "method Auto.model" in code
    (tmp_path / "beside.py").write_text("def other():\n    return 3")
    assert "method Auto.model" not in Reached(tmp_path / "stages.py", FEW).code["the study file"]
