"""What makes a source another one, and what does not: by definition, so that a change can be named."""

import ast

import pytest

from tuner.sources.definitions import definitions_of, text_of

STUDY = '''
"""A study."""
import math
from torch import nn
from tuner import *
from blocks import net

WIDTH = 64
TRIALS = 24
GRID = [1e-3, 1e-2]


def steps(trials):
    return 10 * trials


def helper(x):
    """What it does."""
    return x + WIDTH


class Net(Workload):
    batch_size = 8

    def model(self, point):
        return nn.Linear(WIDTH, 2)


SPACE = SearchSpace(learning_rate=log_uniform(1e-3, 1e-1))
ROUNDS = [Round("q", trials=TRIALS, max_train_steps=steps(TRIALS), space=SPACE), Round("r", promote=2)]
campaign = Campaign(Net(), rounds=ROUNDS, sweep=Sweep(learning_rates=GRID))

if __name__ == "__main__":
    print("never in a study")
'''


def changed(old, new, source=STUDY):
    assert old in source
    before, after = (definitions_of(text.encode()) for text in (source, source.replace(old, new)))
    names = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    return names - {"order of values"} if len(names) > 1 else names


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("WIDTH = 64", "WIDTH  =  64  # a remark"),
        ('"""What it does."""', '"""Something else."""\n    # and a remark'),
        ('"""A study."""', ""),
        ("return x + WIDTH", "return (x\n            + WIDTH)"),
        ("import math\nfrom torch import nn", "from torch import nn\nimport math"),
        ("from tuner import *", "from tuner import Campaign, Round, SearchSpace, Sweep, Workload, log_uniform"),
        ('Round("q"', 'Round("another question"'),
        ("TRIALS = 24", "TRIALS = 32"),
        ("GRID = [1e-3, 1e-2]", "GRID = [1e-3]"),
        ("10 * trials", "20 * trials"),
        ("1e-1)", "1.0)"),
        ("never in a study", "at all"),
        ("class Net", "\n\n\nclass Net"),
    ],
)
def test_remarks_formatting_and_the_declaration_change_nothing(old, new):
    assert changed(old, new) == set()


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("WIDTH = 64", "WIDTH = 65", "value WIDTH"),
        ("return x + WIDTH", "return x - WIDTH", "function helper"),
        ("nn.Linear(WIDTH, 2)", "nn.Linear(WIDTH, 3)", "method Net.model"),
        ("batch_size = 8", "batch_size = 9", "class Net"),
        ("class Net(Workload)", "class Net(Workload, object)", "class Net"),
        ("from blocks import net", "from blocks import other as net", "imports"),
        ("import math", "import math\nprint(1)", "other statements"),
        ("def helper", "@cached\ndef helper", "function helper"),
        ("return nn", "return - nn", "method Net.model"),
    ],
)
def test_a_change_is_named(old, new, named):
    assert changed(old, new) == {named}


@pytest.mark.parametrize("read", ["SPACE", "ROUNDS", "TRIALS", "GRID", "steps(3)"])
def test_what_the_workload_reads_too_counts_although_it_serves_the_declaration(read):
    source = STUDY.replace("return nn.Linear(WIDTH, 2)", f"return nn.Linear(WIDTH, 2), {read}")
    old, new = {
        "SPACE": ("log_uniform(1e-3, 1e-1)", "log_uniform(1e-3, 1.0)"), "ROUNDS": ('"q"', '"another"'),
        "TRIALS": ("TRIALS = 24", "TRIALS = 25"), "GRID": ("[1e-3, 1e-2]", "[1e-3]"), "steps(3)": ("10 *", "20 *"),
    }[read]  # fmt: skip
    assert changed(old, new, source) != set()


LOADED = STUDY.replace("TRIALS = 24", "TRIALS = 24\nWORKERS = 4").replace(
    "batch_size = 8", "batch_size = 8\n    data_workers = WORKERS"
)
BY_HAND = STUDY.replace("    def model", "    def __init__(self):\n        self.data_workers = 4\n\n    def model")


@pytest.mark.parametrize(
    ("source", "old", "new"),
    [
        (LOADED, "WORKERS = 4", "WORKERS = 2 * 4"),
        (LOADED, "data_workers = WORKERS", "data_workers: int = WORKERS"),
        (LOADED.partition("SPACE")[0], "WORKERS = 4", "WORKERS = 8"),
        (BY_HAND, "self.data_workers = 4", "self.data_workers = 8"),
        (STUDY, "\n\nSPACE", "\n\nNet.data_workers = 4\n\nSPACE"),
    ],
)
def test_the_number_of_loading_processes_changes_nothing_however_it_is_written(source, old, new):
    assert changed(old, new, source) == set()


@pytest.mark.parametrize(
    ("source", "old", "new", "named"),
    [
        (LOADED.replace("WIDTH, 2", "WIDTH, WORKERS"), "WORKERS = 4", "WORKERS = 8", "value WORKERS"),
        (BY_HAND, "self.data_workers = 4", "self.data_workers = self.depth = 4", "method Net.__init__"),
        (BY_HAND, "self.data_workers = 4", "data_workers = 4", "method Net.__init__"),
        (LOADED.replace("WORKERS = 4", "WORKERS = count(nn)"), "count(nn)", "count(nn, 1)", "value WORKERS"),
    ],
)
def test_what_is_more_than_the_number_of_loading_processes_counts(source, old, new, named):
    assert changed(old, new, source) == {named}


@pytest.mark.parametrize(
    "helper",
    ["WIDE = configure(blocks)", "WIDE = setattr(nn, 'x', 1)", "WIDE = open('f').read()", "def WIDE():\n    nn.x = 1"],
)
def test_a_helper_of_the_declaration_that_could_change_something_else_counts(helper):
    source = STUDY.replace("TRIALS = 24", f"TRIALS = 24\n{helper}").replace(
        "trials=TRIALS", "trials=TRIALS + bool(WIDE)"
    )
    new = helper.replace("blocks", "other").replace("1", "2").replace("'f'", "'g'")
    assert changed(helper, new, source) == {"function WIDE" if helper.startswith("def") else "value WIDE"}


def test_values_in_another_order_are_another_source():
    assert changed("WIDTH = 64\nTRIALS = 24", "TRIALS = 24\nWIDTH = 64") == set(), "one of them is not code"
    source = STUDY.replace("WIDTH = 64", "WIDTH = 64\nDEPTH = WIDTH")
    assert changed("WIDTH = 64\nDEPTH = WIDTH", "DEPTH = WIDTH\nWIDTH = 64", source) == {"order of values"}


def test_a_name_that_is_defined_twice_counts_twice():
    assert changed("def helper(x):", "def helper(x):\n    return 0\n\ndef helper(x):") == {"function helper"}


@pytest.mark.parametrize("source", ["f'{x!r:>{width}} and {y}'", "a.b[1:2, ...] = yield", "lambda *a, **k: (a, k)"])
def test_the_text_of_syntax_has_no_places_in_it(source):
    text = text_of(ast.parse(source))
    assert "lineno" not in text
    assert text == text_of(ast.parse(f"\n\n{source}"))


def test_what_is_no_python_is_said():
    with pytest.raises(SyntaxError):
        definitions_of(b"def (")
