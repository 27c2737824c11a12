"""A limit of the machine is a pause that names the limit, and a number no float holds is one clear error."""

import errno
import json
import resource
import sqlite3
import subprocess
import sys

import pytest
from support.study_files import write_study

from tuner.budget.step_budget import StepBudget
from tuner.cli.exit_codes import machine_limit
from tuner.design.hyperparameters import choice, integers, log_uniform, uniform
from tuner.errors import DeclarationError
from tuner.interchange.table_space import read_space

LIMITS = [
    (OSError(errno.EMFILE, "Too many open files", "x"), "ulimit -n"),
    (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
    (OSError(errno.EFBIG, "File too large"), "ulimit -f"),
    (OSError(errno.EROFS, "Read-only file system"), "read-only"),
    (OSError(errno.EAGAIN, "Resource temporarily unavailable"), "ulimit -u"),
    (MemoryError(), "memory ran out"),
    (RuntimeError("can't start new thread"), "ulimit -u"),
    (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: not enough memory"),
     "memory ran out"),
    (sqlite3.OperationalError("disk is full"), "the disk is full"),
    (ImportError("libtorch.so: cannot open shared object file: Too many open files"), "ulimit -n"),
]  # fmt: skip


@pytest.mark.parametrize(("error", "told"), LIMITS, ids=[f"{type(one).__name__} {one}"[:50] for one, _ in LIMITS])
def test_a_limit_of_the_machine_is_named(error, told):
    assert told in machine_limit(error)
    wrapped = ValueError("of a library")
    wrapped.__cause__ = error
    assert told in machine_limit(wrapped)


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("No space"), FileNotFoundError(2, "x"), RuntimeError("x")])
def test_what_is_no_limit_is_none(error):
    assert machine_limit(error) is None


@pytest.mark.slow
def test_few_open_files_are_a_pause(tuner, tmp_path):
    study = write_study(tmp_path, trials=2, steps=20)
    assert tuner("launch", study).code == 0
    program = [sys.executable, "-c", "from tuner.cli import main; main()"]

    def few_files():
        resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))

    for arguments in (["launch", str(study)], ["report", "tiny"]):
        run = subprocess.run([*program, *arguments], cwd=tmp_path, preexec_fn=few_files, capture_output=True, text=True,
                             check=False)  # fmt: skip
        assert run.returncode in (0, 75), run.stderr
        assert "unexpected" not in run.stderr
        assert run.returncode == 0 or "ulimit -n" in run.stderr


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: uniform(0, 10**400), "got a whole number of 1,329 bits"),
        (lambda: uniform(-1e308, 1e308), r"within ±1e\+300"),
        (lambda: integers(0, 10**400), "got a whole number of 1,329 bits"),
        (lambda: integers(0, 2**63), r"±2\^53"),
        (lambda: log_uniform(float("nan"), 1), "finite"),
        (lambda: uniform(0, float("inf")), "finite"),
        (lambda: choice(1, 10**400), "got a whole number of 1,329 bits"),
        (lambda: StepBudget(2**63 - 1, 1), "9,223,372,036,854,775,807 evaluations"),
    ],
)
def test_numbers_that_no_float_or_list_holds_are_refused(make, told):
    with pytest.raises(DeclarationError, match=told):
        make()


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        ({"x": {"kind": "float", "low": 0, "high": 1, "parent": ["x"], "parent_value": "a"}}, "parent is the name of"),
        ({"x": {"kind": "float", "low": 0, "high": 10**400}}, "1,329 bits"),
        ({"x": {"kind": "float", "low": 0, "high": 1, "family": ["x"]}}, "family is one of"),
    ],
)
def test_a_space_file_is_refused_by_name(declared, told, tmp_path):
    file = tmp_path / "space.json"
    file.write_text(json.dumps(declared))
    with pytest.raises(DeclarationError, match=told) as raised:
        read_space(file)
    assert "space.json: x" in str(raised.value)
