"""What a command is: its words, and the files beside the study that these name."""

import pytest
from support.loaded import loaded

from tuner import Command, minimize
from tuner.delegated.engine import Delegated

FILES = {
    "study.py": "",
    "train.py": "import argparse, layers\nfrom package import net\n\nif __name__ == '__main__':\n    layers.train(1)\n",
    "layers.py": "def train(rate):\n    return rate\n",
    "package/__init__.py": "",
    "package/net.py": "from package.deep import thing\n",
    "package/deep.py": "thing = 1\n",
    "scripts/run.py": "import helper\n",
    "scripts/helper.py": "value = 1\n",
    "config.json": '{"depth": 3}',
    "other.py": "unused = 1\n",
    "task/__main__.py": "import layers\n",
}


@pytest.fixture
def folder(tmp_path):
    for name, content in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    return tmp_path


def code(folder, words):
    workload = Command(f"{words} {{max_train_steps}}", select_by=minimize("validation/loss"))
    return loaded(workload, folder / "kept", study_file=folder / "study.py", engine=Delegated).identity.code


def own(folder, words):
    return {label for label in code(folder, words) if label.partition("/")[0] != "tuner"} - {"the study file"}


IMPORTED = {"train.py", "layers.py", "package/__init__.py", "package/net.py", "package/deep.py"}


@pytest.mark.parametrize(
    ("words", "files"),
    [
        ("python train.py", IMPORTED),
        ("python -m train --config=config.json", IMPORTED | {"config.json"}),
        ("python scripts/run.py", {"scripts/run.py", "scripts/helper.py"}),
        ("python -m task", {"task/__main__.py", "layers.py"}),
        ("sh -c 'python train.py > out; cat config.json'", IMPORTED | {"config.json"}),
        ("python -m json.tool /etc/hostname nothing.py", set()),
    ],
)
def test_the_files_that_a_command_names_belong_to_it(folder, words, files):
    assert own(folder, words) == files


def test_a_program_imports_what_lies_beside_it_and_not_what_this_process_would(folder, tmp_path_factory, monkeypatch):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "helper.py").write_text("value = 2\n")
    monkeypatch.syspath_prepend(elsewhere)
    assert own(folder, "python scripts/run.py") == {"scripts/run.py", "scripts/helper.py"}


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        ("train.py", "layers.train(1)", "layers.train(2)"),
        ("layers.py", "return rate", "return -rate"),
        ("package/deep.py", "thing = 1", "thing = 2"),
        ("config.json", "3", "4"),
    ],
)
def test_a_change_is_seen_also_in_what_runs_as_the_program(folder, file, before, after):
    words = "python train.py --config config.json"
    first = code(folder, words)
    text = (folder / file).read_text()
    (folder / file).write_text(text.replace(before, after))
    assert code(folder, words) != first
    (folder / file).write_text(text)
    assert code(folder, words) == first


def test_another_file_and_another_comment_change_nothing(folder):
    first = code(folder, "python train.py")
    (folder / "other.py").write_text("unused = 2\n")
    (folder / "train.py").write_text("# said better\n" + FILES["train.py"])
    assert code(folder, "python train.py") == first
