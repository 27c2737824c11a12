"""Killed two hundred times while checkpoints go to a bucket: nothing is half visible, and no orphan stays."""

from pathlib import Path

import pytest
from crash.conftest import running
from support.needs import require
from support.object_store import object_server

__all__ = ["object_server"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(0)]  # the loop ends when nothing moves


@pytest.fixture(scope="module")
def lives():
    yield from running(Path(__file__).with_name("buckets.py"))


@pytest.fixture
def loop(lives, crash_folder, request):
    require("obstore", "moto")
    environment = request.getfixturevalue("object_server").environment
    return lambda mode, *numbers: lives.run(crash_folder, mode, [environment, *numbers], False)


@pytest.mark.parametrize("seed", [1, 2])
def test_kills_at_any_moment_leave_nothing_half_visible_and_no_orphan(seed, loop):
    found = loop("killed", 75, seed)
    assert found["wrong"] == []
    assert found["spooled"] == []
    assert found["kills"] >= 75


def test_kills_while_parts_are_sent_leave_nothing_half_visible(loop, object_server):
    found = loop("in_parts", 50, 3)
    assert found["wrong"] == []
    assert found["spooled"] == []
    assert found["whole"] >= 1
    assert b"<UploadId>" in object_server.request("GET", "place?uploads")  # the bucket's own rule deletes them
