"""What `tuner` shows of itself: to `help`, to an editor, to a type checker and to `import *`."""

import json
import pydoc
import re
import subprocess
import sys
import textwrap

import pytest

import tuner

HEAVY = {"torch", "pandas", "matplotlib", "sqlalchemy", "optuna", "rich"}


def test_a_star_import_brings_the_words_of_a_study_file_and_no_function_of_the_api():
    program = "from tuner import *; import json, sys; print(json.dumps([sorted(dir()), sorted(sys.modules)]))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    names, modules = json.loads(done.stdout)
    assert {"Campaign", "Round", "log_uniform"} <= set(names)
    assert set(names) & set(tuner._API) == set()
    assert set(modules) & HEAVY == set()


def test_training_that_is_not_ours_is_declared_without_what_trains_it():
    """The packages come when a trial is trained: a study file of any door can be read where they are not installed."""
    declare = """
from tuner import *
class Mine(OwnLoop):
    select_by = minimize("validation/loss")
    def train(self, trial): ...
by = {"select_by": minimize("validation/loss")}
doors = [
    Mine(),
    LightningWorkload(module=lambda point: None, datamodule=lambda: None, **by),
    TrainerWorkload(model_init=lambda: None, train_dataset=[], eval_dataset=[], **by),
    Command("train --lr {learning_rate} --steps {max_train_steps} --at {evaluation_steps}", **by),
]
space = SearchSpace(learning_rate=log_uniform(1e-4, 1e-1))
for door in doors:
    Campaign(door, production_steps=100, rounds=[Round("one", trials=4, max_train_steps=50, space=space)])
import json, sys
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""
    done = subprocess.run([sys.executable, "-c", declare], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = set(json.loads(done.stdout))
    assert "tuner" in found
    assert found & {*HEAVY, "lightning", "pytorch_lightning", "transformers", "accelerate", "datasets"} == set()


def test_what_reads_is_imported_without_torch():
    program = (
        "import sys\n"
        "class NoTorch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'torch': raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, NoTorch())\n"
        "import tuner; trains = ('tuner.api.training', 'tuner.api.asking', 'tuner.api.stability')\n"
        "[getattr(tuner, name) for name, module in tuner._API.items() if module not in trains]"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_an_editor_is_shown_the_words_and_the_api_and_nothing_else():
    assert dir(tuner) == sorted([*tuner.__all__, *tuner._API, "__version__"])
    assert all(callable(getattr(tuner, name)) for name in tuner._API)
    with pytest.raises(AttributeError, match="no attribute 'runn'"):
        getattr(tuner, "runn")  # noqa: B009 - what is tested


def test_help_shows_the_public_api_only():
    text = pydoc.render_doc(tuner, renderer=pydoc.plaintext)  # type: ignore[attr-defined]  # not in its stub
    described, _, rest = text.partition("PACKAGE CONTENTS")
    for name in set(tuner._API) - {"CampaignRecords"}:
        assert f"tuner.{name}(" in described, name
    shown = set(re.findall(r"^    (?:class )?([A-Za-z_]\w*)(?:\(| = )", rest[rest.index("CLASSES") :], re.MULTILINE))
    assert {"Campaign", "log_uniform"} <= shown
    assert shown <= {*tuner.__all__, "__all__"}


def _by_name(revealed: str) -> str:
    """A type as mypy prints it, without modules, and with the members of a union in one order."""
    short = re.sub(r"[\w.]+\.", "", revealed)
    return re.sub(r"[\w ]+(?: \| \w+)+", lambda union: " | ".join(sorted(union[0].strip().split(" | "))), short)


def test_the_api_is_typed_and_an_editor_completes_the_records(tmp_path):
    """mypy sees the same names and types as a person who runs them; nothing is Any."""
    snippet = tmp_path / "snippet.py"
    snippet.write_text(
        textwrap.dedent("""
            import tuner
            reveal_type(tuner.load("digits"))
            reveal_type(tuner.load("digits").frames(round=1).trials)
            reveal_type(tuner.load("digits").best().point)
            reveal_type(tuner.check("digits"))
            reveal_type(tuner.run("digits.py", yes=True, workers="auto", fuse="off").best)
            reveal_type(tuner.sweep("digits.py").steps)
            reveal_type(tuner.export("digits", "csv", "folder"))
            reveal_type(tuner.export("digits", "optuna", "folder"))
            reveal_type(tuner.plot("axes", "digits"))
            tuner.run("digits.py", fuze="off")
            tuner.runn
        """)
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", "", "--no-error-summary", str(snippet)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    told = re.findall(r'Revealed type is "(.+)"', checked.stdout)
    assert [_by_name(one) for one in told] == [
        "CampaignRecords",
        "DataFrame",
        "dict[str,None | bool | float | int | str]",
        "list[Finding]",
        "None | Winner",
        "None | int",
        "list[Path]",
        "Exported",
        "Figure",
    ]
    assert 'Unexpected keyword argument "fuze"' in checked.stdout
    assert 'Module has no attribute "runn"' in checked.stdout
