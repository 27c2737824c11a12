"""What `from tuner import ...` gives, and that it costs nothing heavy."""

import json
import subprocess
import sys

import pytest

import tuner

HEAVY = ("torch", "numpy", "pandas", "scipy", "matplotlib", "sqlalchemy", "optuna", "ray", "jinja2", "pydantic")


def modules_after(program: str) -> list[str]:
    """The top-level modules a fresh interpreter has loaded after a program."""
    listing = f"{program}\nimport json, sys\nprint(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_the_public_names_are_sorted_and_stand_once():
    assert list(tuner.__all__) == sorted(set(tuner.__all__))


@pytest.mark.parametrize("name", tuner.__all__)
def test_every_public_name_can_be_imported_and_is_documented(name):
    assert getattr(tuner, name).__doc__


def test_importing_tuner_imports_nothing_heavy():
    loaded = modules_after("import tuner")
    assert "tuner" in loaded
    assert [name for name in HEAVY if name in loaded] == []


def test_using_a_star_import_imports_nothing_heavy():
    """A study file is read by `tuner --help` and its like only when asked, but its imports should be cheap too."""
    loaded = modules_after("from tuner import *")
    assert [name for name in HEAVY if name in loaded] == []


@pytest.mark.parametrize(
    "part", ["budget.transfer", "budget.step_budget", "design.space", "design.campaign", "records"]
)
def test_what_is_declared_needs_no_torch(part):
    loaded = modules_after(f"import tuner.{part}")
    assert [name for name in HEAVY if name in loaded] == []


@pytest.mark.parametrize("part", ["analysis", "storage", "plots", "report", "design.quasi_random", "reading"])
def test_what_reads_records_runs_where_torch_is_not_installed(part):
    program = (
        "import importlib, pkgutil, sys\n"
        "class NoTorch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'torch':\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, NoTorch())\n"
        f"part = importlib.import_module('tuner.{part}')\n"
        "for found in pkgutil.walk_packages(getattr(part, '__path__', []), part.__name__ + '.'):\n"
        "    importlib.import_module(found.name)"
    )
    assert "torch" not in modules_after(program)


def test_the_version_is_that_of_the_project():
    pyproject = tuner.__file__.replace("tuner/__init__.py", "pyproject.toml")
    with open(pyproject, encoding="utf-8") as file:
        assert f'version = "{tuner.__version__}"' in file.read()
