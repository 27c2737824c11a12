"""The ruler of `make measure`, held against a package that is counted by hand."""

from pathlib import Path

import pytest

import tuner
from benchmarks.measure import STEPS, frames_of_a_step, measure

SOURCES = {
    "__init__.py": '"""A package."""\n',
    "base.py": '"""Lowest."""\n\n# a comment\nTEXT = """two\nlines"""\n\n\n'
    'def name():\n    """Says\n    much."""\n    return 1\n',
    "left.py": "from small.base import name\n\n\ndef _once():\n    return name()\n\n\ndef _twice():\n    return 2\n\n\n"
    "def use():\n    return _once() + _twice() + _twice()\n",
    "right.py": "def late():\n    from small.left import use\n\n    return use\n\n\nclass Same: ...\n",
    "part/__init__.py": "from small.part.inner import go\n",
    "part/inner.py": "TABLE = {'go': 'small.part.outer:run'}\n\n\n"
    "def go():\n    from small.part import outer\n\n    return outer\n\n\nclass Same: ...\n",
    "typed.py": "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from small.right import late\n",
    "part/outer.py": "from small.part import inner\nfrom small import base\n\n\ndef run(): ...\n",
}


@pytest.fixture
def small(tmp_path):
    for name, source in SOURCES.items():
        path = tmp_path / "small" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    return tmp_path / "small"


def test_a_package_is_measured_as_a_person_counts_it(small):
    figures, listed = measure(small, with_frames=False)
    assert figures["modules"] == "6"
    # base: TEXT on two lines, def, return; left: import and three functions; then as many lines as there are
    assert figures["lines of code"] == str(4 + 7 + 4 + 5 + 3 + 1 + 3)
    assert figures["private functions named once in their module"] == "1 (50%)"
    assert figures["imports inside functions"] == "2"
    assert figures["public class names defined twice"] == "1"
    assert listed["exactly one importer"] == ["small.left", "small.part.outer"]
    assert figures["import cycles, imports at the top only"] == "0"
    assert listed["cycles"] == ["small.part.__init__ small.part.inner small.part.outer"]


@pytest.mark.slow
@pytest.mark.parametrize("command", STEPS.values(), ids=list(STEPS))
def test_the_frames_of_a_step_are_those_of_its_training(command):
    frames = frames_of_a_step(Path(tuner.__file__).parent, command)
    assert frames[0].startswith("cli/")
    assert frames[-1].startswith("training/")
    assert len(frames) <= 20
