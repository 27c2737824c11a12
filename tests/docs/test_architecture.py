"""The picture of the layers in docs/architecture.md is the table of tests/house/test_layers.py."""

import re
from pathlib import Path

from house.test_layers import TABLE

PAGE = (Path(__file__).parents[2] / "docs/architecture.md").read_text(encoding="utf-8")
START, END = "<!-- layers: made by tests/docs/test_architecture.py -->", "<!-- end of layers -->"


def levels(table: dict[str, tuple[tuple[str, ...], tuple[str, ...]]]) -> dict[str, int]:
    """How high each part stands: one above the highest part that it imports."""
    found: dict[str, int] = {}
    for part, (known, _) in table.items():
        found[part] = 1 + max((found.get(other, 0) for other in known), default=0)
    return found


def picture(table: dict[str, tuple[tuple[str, ...], tuple[str, ...]]]) -> str:
    """The parts by height, the highest first, each row with the packages that its parts import."""
    heights = {part: height for part, height in levels(table).items() if not part.startswith("__")}
    rows = []
    for height in range(max(heights.values()), 0, -1):
        parts = [part for part in heights if heights[part] == height]
        packages = sorted({package for part in parts for package in table[part][1]})
        rows.append((" ".join(parts), ", ".join(packages)))
    width = max(len(parts) for parts, _ in rows)
    return "\n".join(f"{parts:<{width}}   {packages}".rstrip() for parts, packages in rows)


def test_the_picture_is_the_table_that_imports_are_held_to():
    shown = PAGE.split(START)[1].split(END)[0].strip()
    assert shown == f"```text\n{picture(TABLE)}\n```"


def test_every_part_is_described():
    described = {
        name for row in re.findall(r"^\| (`.+?`) \|", PAGE, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }
    inner = {"__init__", "__main__", "failpoints", "signals"}
    assert set(TABLE) - inner - described == set()
    assert described - set(TABLE) == set()


def test_a_part_stands_above_what_it_imports():
    table = {"a": ((), ()), "b": (("a",), ("numpy",)), "c": (("a", "b"), ())}
    assert levels(table) == {"a": 1, "b": 2, "c": 3}
    assert picture(table).splitlines() == ["c", "b   numpy", "a"]
