"""`optimizer=` as a class or a function of the study file, from the launch to the replay."""

import json
import subprocess
import sys

import pytest
from support.study_files import TINY, write_study

FUNCTION = """

def make_optimizer(groups, point):
    return torch.optim.NAdam(groups, betas=(1 - point["one_minus_momentum"], 0.99))


class Tiny(Workload):"""
FUNCTION_IN_FILE = [
    ("\n\nclass Tiny(Workload):", FUNCTION),
    ("learning_rate=log_uniform(", "one_minus_momentum=uniform(0.1, 0.5), learning_rate=log_uniform("),
]
OF_FUNCTION = "optimizer=make_optimizer, regime='not_compute_bound',"
OF_CLASS = "optimizer=torch.optim.RMSprop, regime='not_compute_bound',"
BFGS = "\n\ndef bfgs(groups, point):\n    return torch.optim.LBFGS(groups[0]['params'])\n\n\nclass Tiny(Workload):"
LBFGS = [("\n\nclass Tiny(Workload):", BFGS)]


def values(tuner, name):
    return [row["last_value"] for row in json.loads(tuner("trials", name, "-f", "json").out)]


def test_a_function_of_the_study_file_trains_alone_in_groups_and_by_workers_and_is_replayed(tuner, tmp_path):
    found = []
    for name, options in {"one": ["--fuse", "1"], "group": ["--fuse", "3"], "many": ["--workers", "2"]}.items():
        study = write_study(tmp_path, f"{name}.py", trials=3, steps=30, more=OF_FUNCTION, replace=FUNCTION_IN_FILE)
        launched = tuner("launch", study, "--round", 1, *options)
        assert (launched.code, "nothing reads" in launched.err) == (0, False)
        found.append(values(tuner, name))
    assert found[0] == found[1] == found[2]
    assert len(set(found[0])) == 3
    replay = tuner("replay", study, "--round", 1, "--trial", 0)
    assert (replay.code, "0 differ" in replay.out) == (0, True)


def test_another_function_is_another_study_and_a_remark_is_not(tuner, tmp_path):
    def launched(*changes, trials):
        replace = [*FUNCTION_IN_FILE, *changes]
        return tuner("launch", write_study(tmp_path, trials=trials, steps=10, more=OF_FUNCTION, replace=replace))

    assert launched(trials=1).code == 0
    assert (
        launched(("    return torch.optim.NAdam", "    # a remark\n    return torch.optim.NAdam"), trials=2).code == 0
    )
    refused = launched(("0.99))", "0.98))"), trials=3)
    assert refused.code == 2
    assert "the study file: function make_optimizer changed" in refused.err


def test_the_code_of_a_function_in_another_file_counts_too(tuner, tmp_path):
    (tmp_path / "makers.py").write_text("import torch\n" + FUNCTION.partition("class")[0])
    imported = [("from tuner import *", "from tuner import *\nfrom makers import make_optimizer"), FUNCTION_IN_FILE[1]]
    assert tuner("launch", write_study(tmp_path, trials=1, steps=10, more=OF_FUNCTION, replace=imported)).code == 0
    (tmp_path / "makers.py").write_text("import torch\n" + FUNCTION.partition("class")[0].replace("0.99", "0.98"))
    refused = tuner("launch", write_study(tmp_path, trials=2, steps=10, more=OF_FUNCTION, replace=imported))
    assert (refused.code, "makers.py: function make_optimizer changed" in refused.err) == (2, True)


def test_a_class_of_torch_is_stored_by_its_name_and_reported(tuner, tmp_path):
    study = write_study(tmp_path, trials=3, steps=20, more=OF_CLASS)
    assert tuner("launch", study, "--round", 1, "--fuse", "3").code == 0
    assert tuner("report", "tiny", "-o", "page.html").code in (0, 3)
    assert "torch.optim.RMSprop" in (tmp_path / "page.html").read_text()
    changed = tuner(
        "launch", write_study(tmp_path, trials=3, steps=20, more="regime='not_compute_bound',"), "--round", 1
    )
    assert changed.code == 2
    assert "optimizer" in changed.err


@pytest.mark.parametrize(
    ("more", "replace", "told"),
    [
        ("optimizer=torch.optim.LBFGS,", (), "torch.optim.LBFGS cannot train here: its step needs a closure"),
        ("optimizer=bfgs,", LBFGS, "the function tiny.bfgs makes a LBFGS, which cannot train here"),
        ("optimizer='rmspropp',", (), "did you mean 'rmsprop'?"),
    ],
)
def test_what_cannot_train_is_one_error_and_nothing_is_written(tuner, tmp_path, more, replace, told):
    refused = tuner("launch", write_study(tmp_path, trials=1, steps=10, more=more, replace=replace))
    assert refused.code == 2
    assert told in refused.err
    assert "Traceback" not in refused.err
    assert not (tmp_path / "runs" / "checkpoints").exists()


TYPED = """
{study}
import tuner
tuner.launch(campaign, round=1, storage={storage!r})
"""


@pytest.mark.slow
def test_the_code_of_a_function_that_was_typed_into_an_interpreter_counts_too(tmp_path):
    """As in a notebook: there is no file to read it from."""

    def launched(beta2):
        text = TINY.format(trials=1, steps=5, low=1e-3, high=1e-1, more=f"name='typed', {OF_FUNCTION}")
        for old, new in FUNCTION_IN_FILE:
            text = text.replace(old, new.replace("0.99)", f"{beta2})"))
        script = TYPED.format(study=text, storage=str(tmp_path / "r.sqlite"))
        run = subprocess.run(
            [sys.executable, "-"], input=script, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        return run.returncode, run.stderr

    assert launched(0.99)[0] == 0
    code, said = launched(0.98)
    assert (code, "code without a file: function make_optimizer changed" in said) == (1, True), said
