"""The page about precisions: its example runs, and what it says of numbers is so."""

import re
from pathlib import Path

from support.shell import tuner

import tuner as api
from tuner.design.update_words import PRECISIONS
from tuner.training.loss_scale import GROWTH_AFTER, MOST_SKIPPED, START

__all__ = ["tuner"]
PAGE = (Path(__file__).parents[2] / "docs/how-to/precision.md").read_text(encoding="utf-8")
EXAMPLE, QUESTION = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
WORDS = " ".join(PAGE.split())


def test_the_example_is_priced_and_trained(tuner, tmp_path):
    text = EXAMPLE.replace("trials=16, max_train_steps=300", "trials=2, max_train_steps=30")
    assert text != EXAMPLE
    (tmp_path / "digits.py").write_text(text)
    (command,) = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    dry = tuner(*command.split()[1:])
    assert dry.code == 0, dry.err
    found = re.search(r"bf16 is (\S+)x of float32 on this processor, in steps a second", " ".join(dry.err.split()))
    assert found
    assert "bf16 is 0.4x of float32 on this processor, in steps a second: it saves no time here" in WORDS
    launched = tuner("launch", "digits.py", "--round", 1)
    assert launched.code == 0, launched.err


def test_the_question_is_declared_so():
    known = vars(api) | {"SearchSpace": api.SearchSpace}
    names = {name: getattr(api, name) for name in api.__all__} | known
    exec(QUESTION, names)
    assert names["question"].scientific == ("precision",)


def test_the_numbers_of_the_page():
    assert f"It begins at {START:,.0f}, is doubled after {GROWTH_AFTER:,} updates in a row" in WORDS
    assert f"After {MOST_SKIPPED} in a row the scale is 2^-4." in WORDS
    assert START / 2**MOST_SKIPPED == 2.0**-4
    rows = re.findall(r'^\| `"(\w+)"` \|', PAGE, re.MULTILINE)
    assert rows == list(PRECISIONS)
