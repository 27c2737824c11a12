"""Where a part of the machine is missing, a slow test fails and any other is skipped."""

import re
from pathlib import Path

import pytest
from support import needs

TOLD = "it is not installed: apt-get install it"
SKIPS = re.compile(r"importorskip\(|pytest\.skip\(|skipif\((?!sys\.platform)")
ALLOWED = {  # a GPU, a disk and users: no slow test is skipped for them
    "support/gpu.py",
    "fused/test_gpu.py",
    "cli/test_disks.py",
    "cli/test_bad_input.py",
}


@pytest.mark.parametrize(
    "marks", [pytest.param("not slow"), pytest.param("slow", marks=pytest.mark.slow)], ids=["quick", "slow"]
)
@pytest.mark.parametrize("asked", ["by its mark", "by a fixture"])
def test_a_missing_part_skips_a_quick_test_and_fails_a_slow_one(asked, marks, request, monkeypatch):
    monkeypatch.setitem(needs.PARTS, "it", (lambda: False, TOLD))
    request.node.add_marker(pytest.mark.needs("it"))
    ends = pytest.fail.Exception if marks == "slow" else pytest.skip.Exception
    with pytest.raises(ends, match=TOLD):
        needs.begin(request.node) if asked == "by its mark" else needs.require("it")


def test_a_part_that_is_there_stops_nothing(request, monkeypatch):
    monkeypatch.setitem(needs.PARTS, "it", (lambda: True, TOLD))
    request.node.add_marker(pytest.mark.needs("it"))
    needs.begin(request.node)


def test_no_test_is_skipped_in_another_way():
    tests = Path(__file__).parents[1]
    found = {
        path.relative_to(tests).as_posix()
        for path in tests.rglob("*.py")
        if path != Path(__file__) and SKIPS.search(path.read_text(encoding="utf-8"))
    }
    assert found == ALLOWED
