"""A rank of a gang is killed at each place where it may be: its coordinator ends all and starts them again."""

import re
from pathlib import Path

import psutil
import pytest
from support.bench import Bench, Heard

import tuner

# One rank arms the failpoint, once, at its first update.
ARM = """
        import pathlib
        import torch.distributed as dist
        from tuner import failpoints
        if dist.is_initialized() and dist.get_rank() == {rank} and model.training:
            mark = pathlib.Path(__file__).with_name("armed")
            if not mark.exists():
                mark.touch()
                failpoints.arm("{place}=kill9")
        """
PLACES = {
    "gang-exchange@7": (0, 1),
    "gang-exchanged@7": (0, 1),
    "gang-reporting@2": (0, 1),
    "gang-heard@3": (1,),
    "ck-written@1": (0,),
    "ck-synced@2": (0,),
}


def bench(folder, place="", rank=0):
    return Bench(folder, trials=2, slices=4, loss=ARM.format(place=place, rank=rank).strip() if place else "")


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """What one process makes of the study."""
    made = bench(tmp_path_factory.mktemp("calm"))
    made.run(0)
    return made.rows()


def test_every_place_of_a_gang_where_it_may_fail_is_known_here():
    texts = [path.read_text() for path in (Path(tuner.__file__).parent / "training").glob("gang*.py")]
    there = {name for text in texts for name in re.findall(r'failpoint\("([^"]+)"\)', text)}
    assert there == {place.partition("@")[0] for place in PLACES if place.startswith("gang-")}


@pytest.mark.slow
@pytest.mark.parametrize(("place", "rank"), [(place, rank) for place, ranks in PLACES.items() for rank in ranks])
def test_a_rank_that_is_killed_there_loses_nothing_and_counts_one_attempt(place, rank, tmp_path, calm):
    heard, hurt = Heard(), bench(tmp_path, place, rank)
    hurt.run(1, gang=2, listener=heard)
    assert (tmp_path / "armed").exists()
    lost = [reason for _, _, reason in heard.ended if reason.startswith("lost: ")]
    assert len(lost) == 1
    assert lost[0].startswith(f"lost: rank {rank} of its gang was killed by signal 9")
    assert hurt.rows() == calm
    assert sorted(fence for (fence,) in hurt.rows("select fence from trial")) == [1, 2]
    assert not [one for one in psutil.Process().children(recursive=True) if one.status() != psutil.STATUS_ZOMBIE]
