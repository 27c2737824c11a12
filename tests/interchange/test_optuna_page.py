"""docs/get-started/quickstart-optuna.md: its example is made, its commands run, and what it quotes is what they say."""

import re
import runpy
import shlex
import warnings
from pathlib import Path

from support.shell import tuner

__all__ = ["tuner"]
PAGE = (Path(__file__).parents[2] / "docs" / "get-started" / "quickstart-optuna.md").read_text(encoding="utf-8")


def blocks(kind):
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


def test_the_commands_of_the_page_end_in_what_it_says(tuner, tmp_path):
    (example,) = blocks("python")
    (tmp_path / "example.py").write_text(example, encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna's own
        runpy.run_path("example.py")
    said = {}
    for line in "".join(blocks("sh")).splitlines():
        program, *arguments = shlex.split(line)
        assert program == "tuner"
        done = tuner(*arguments)
        said[line] = done.out + done.err
        assert done.code == (3 if arguments[0] == "check" else 0), said[line]
    checked = re.sub(r"\s+", " ", said["tuner check mine"])
    assert "lr: expand_high" in checked
    assert blocks("text")[0].strip() in checked, "the line to paste"
    assert re.search(r"pruned of round-1: \w+_pruned", checked)
    assert "chosen by TPE" in checked or "as a model-based sampler" in checked
    strengths = re.findall(r"(?:n_layers|units_\d|dropout): ok \((\w+) evidence\)", checked)
    assert len(strengths) >= 3
    assert "strong" not in strengths
    best = tuner("best", "mine").out
    assert re.search(r"study\.enqueue_trial\(study\.trials\[\d+\]\.params\)", best)
    page = (tmp_path / "runs" / "mine.html").read_text(encoding="utf-8")
    assert "n_layers &gt;= 2" in page
    assert "use_dropout = True" in page
    back = tuner("import", "optuna", "out.log", "--study", "back")
    assert (back.code, "imported 40 new of 40" in back.err) == (0, True)
    assert tuner("check", "back", "--fail-on", "none").code == 0
