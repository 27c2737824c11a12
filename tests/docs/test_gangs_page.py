"""docs/how-to/gangs.md says what the code does: the tree of the picture, the words of a dry run, what is refused."""

import re
from pathlib import Path

import pytest

from tuner.design.micro_batches import check_declared_gang
from tuner.design.workload import Workload
from tuner.errors import InputError
from tuner.records.gang_price import GangPrice
from tuner.training.gang import Gang
from tuner.training.gang_sums import BUCKET
from tuner.training.tree_sum import tree_sum

PAGE = (Path(__file__).parents[2] / "docs/how-to/gangs.md").read_text(encoding="utf-8")


def blocks(language="text"):
    found = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return [source for its, source in found if its == language]


def declared():
    """The class of the page."""
    (source,) = [one for one in blocks("python") if one.startswith("class ")]
    names = {"Workload": Workload}
    exec(source, names)
    return names["Digits"]


def test_the_class_of_the_page_takes_the_gangs_that_the_page_says():
    workload = declared()()
    for ranks in (1, 2, 4, 8):
        check_declared_gang(workload, ranks)
    with pytest.raises(InputError, match="--gang 8"):
        check_declared_gang(workload, 16)


def joined(one, other):
    return f"({one} {other})"


def shares(world, slices=8):
    """The slices of each rank, by the gang's own rule."""
    found = []
    for rank in range(world):
        gang = object.__new__(Gang)
        gang.rank, gang.world = rank, world
        found.append(gang.share(slices))
    return found


@pytest.mark.parametrize("world", [1, 2, 4])
def test_the_picture_is_the_tree(world):
    whole = tree_sum(str, range(8), joined)
    assert whole == "(((0 1) (2 3)) ((4 5) (6 7)))"
    branches = [tree_sum(str, share, joined) for share in shares(world)]
    assert tree_sum(branches.__getitem__, range(world), joined) == whole
    picture = next(one for one in blocks() if one.startswith("slice"))
    row = next(line for line in picture.splitlines() if line.startswith(f"{world} rank"))
    said = [list(map(int, re.findall(r"\d+", ranks))) for ranks in re.findall(r"\[(.+?)\]", row)]
    assert said == [list(share) for share in shares(world)]


def test_a_dry_run_says_the_words_of_the_page():
    said = next(one for one in blocks() if one.startswith("a gang of 2 trains"))
    why = "240 steps of training are too few for a probe"
    price = GangPrice(2, 2, 194.0, 1_700_000, 1.22e9, 0.0, 1.5, why_alone=why)
    assert " ".join(said.split()) == " ".join(price.words("round-1", 6, 40))


def test_the_buffers_are_as_large_as_the_page_says():
    (size,) = re.findall(r"two buffers of at most (\d+) MB", PAGE)
    assert round(BUCKET / 1e6) == int(size)
