"""The study file that the README shows is whole: it runs as it stands there."""

import re
from pathlib import Path

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_the_study_of_the_readme_can_be_launched(tuner, tmp_path):
    (text,) = re.findall(r"```python\n(import torch\n.*?)```", README, re.DOTALL)
    file = tmp_path / "tumors.py"
    file.write_text(text, encoding="utf-8")
    run = tuner("launch", file, "--max-train-steps", 60)
    assert run.code == 0, run.err
    assert "tumors round-1: 24 complete" in run.err
