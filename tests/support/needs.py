"""What a test needs of the machine: where it is missing, a slow test fails, and any other is skipped; both say why.

Either `@pytest.mark.needs("git")`, or `require("postgresql")` in a fixture of one test.
"""

import importlib.util
import shutil
import subprocess
from functools import cache

import pytest
from storage.postgres import programs

from support.slurm import slurm

NAMESPACE = ["unshare", "-pf", "--kill-child", "--mount-proc"]
NOBODY = ["unshare", "--user", "--map-user=12345", "--map-group=12345"]  # a user that has no name, and no capabilities


@cache
def namespaces_can_be_made():
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*NAMESPACE, *NOBODY, "true"], capture_output=True, check=False).returncode == 0


def browser():
    return shutil.which("chromium") or shutil.which("google-chrome")


def pgbouncer():
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")


def compiler():
    from tuner.fused.making import cpp_compiler  # with torch, which most tests that ask for nothing need not

    return cpp_compiler()


def module(name):
    return lambda: importlib.util.find_spec(name) is not None


PARTS = {  # part: whether it is there, and what is said where it is not
    "postgresql": (programs, "PostgreSQL is not installed: apt-get install -y postgresql"),
    "pgbouncer": (pgbouncer, "pgbouncer is not installed: apt-get install -y pgbouncer"),
    "slurm": (slurm, "SLURM is not installed: apt-get install -y slurm-wlm munge"),
    "skypilot": (module("sky"), "skypilot is not installed: pip install skypilot, in an environment of its own"),
    "shellcheck": (lambda: shutil.which("shellcheck"), "shellcheck is not installed: apt-get install -y shellcheck"),
    "chromium": (browser, "no Chromium is installed: apt-get install -y chromium"),
    "compiler": (compiler, "no C++ compiler is installed: apt-get install -y g++"),
    "git": (lambda: shutil.which("git"), "git is not installed: apt-get install -y git"),
    "namespaces": (
        namespaces_can_be_made,
        "no namespace of process ids and of users can be made: it takes root and `unshare` (util-linux)",
    ),
    **{
        name: (module(name), f"{name} is not installed: pip install 'tuner[examples]'")
        for name in ("lightning", "torch_geometric", "datasets", "webdataset", "transformers", "accelerate", "sklearn")
    },
    "bitsandbytes": (module("bitsandbytes"), "bitsandbytes is not installed: pip install 'tuner[bnb]'"),
    "schedulefree": (module("schedulefree"), "schedulefree is not installed: pip install 'tuner[test]'"),
    "obstore": (module("obstore"), "obstore is not installed: pip install 'tuner[objects]'"),
    "moto": (module("moto"), "moto is not installed: pip install 'tuner[test]'"),
    "peft": (module("peft"), "peft is not installed: pip install 'tuner[test]'"),
    "ray": (module("ray"), "ray is not installed: pip install 'tuner[ray]'"),
    "pyarrow": (module("pyarrow"), "pyarrow is not installed: pip install 'tuner[parquet]'"),
}
_running = []  # the test that is being set up or run


def begin(item):
    """A test begins: what its marks name has to be there."""
    _running[:] = [item]
    for mark in item.iter_markers("needs"):
        require(*mark.args)


def require(*parts):
    """Skip the test that runs, or fail where it is a slow one, if a part is missing."""
    for part in parts:
        there, told = PARTS[part]
        if not there():
            (pytest.fail if _running[0].get_closest_marker("slow") else pytest.skip)(told)
