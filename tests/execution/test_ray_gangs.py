"""Gangs on a Ray cluster: ranks in actors of their own, killed, stopped and refused; the bits of one process."""

import signal
from contextlib import suppress

import psutil
import pytest
from support.patience import wait_for
from support.ray_studies import BEST, CURVES, Study

STEPS, TRIALS = 1500, 2
# Each batch in four slices; and a file beside the study, by its relative path.
CHANGES = [
    ("    batch_size = 8\n", "    batch_size = 8\n    micro_batch_size = 2\n"),
    ("        x = torch.randn(", "        assert os.path.exists('beside.txt')\n        x = torch.randn("),
]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(0), pytest.mark.needs("ray", "postgresql")]


@pytest.fixture
def study(tmp_path, cluster, url):
    made = Study(tmp_path / "ray", cluster, url, steps=STEPS, trials=TRIALS, replace=CHANGES)
    (made.folder / "beside.txt").touch()
    yield made
    made.close()


@pytest.fixture(scope="module")
def alone(tmp_path_factory, cluster):
    """The curves of one process without Ray, and the digests of its best weights."""
    folder = tmp_path_factory.mktemp("alone")
    made = Study(folder, cluster, f"sqlite:///{folder}/l.sqlite", steps=STEPS, trials=TRIALS, replace=CHANGES)
    (made.folder / "beside.txt").touch()
    code, err = made.ended(made.start(workers=0))
    assert code == 0, err
    return records(made)


def records(study):
    return study.rows(CURVES), study.rows(BEST)


@pytest.mark.parametrize("gang", [2, 4])
def test_a_gang_has_the_curves_and_weights_of_one_process(study, alone, gang):
    """Two ranks have room on one node, four take both."""
    launch = study.start("--gang", str(gang), workers=1)
    study.wait_for_steps(10, alive=[launch])
    assert len(study.seats()) == gang
    code, err = study.ended(launch)
    assert code == 0, err
    assert records(study) == alone
    assert study.rows("select distinct attempt from trial") == [(1,)]
    wait_for(lambda: not study.below() and not study.seats())


def actor(study, rank):
    """The actor of a rank of a gang of two: Ray shows what the other rank than 0 does as the title of its process."""
    titles = {}
    for one in study.seats():
        with suppress(psutil.Error):
            titles[one] = " ".join(one.cmdline())
    found = [one for one, title in titles.items() if ("RaySeat.follow" in title) == bool(rank)]
    return found[0] if len(titles) == 2 and len(found) == 1 else None


@pytest.mark.parametrize("rank", [1, 0])
def test_an_actor_that_is_killed_ends_its_gang_and_another_goes_on(study, alone, rank):
    """Rank 1, of which Ray tells the driver, and rank 0, whose coordinator is gone: one attempt more, not two."""
    launch = study.start("--gang", "2", workers=1)
    study.wait_for_steps(100, alive=[launch])
    study.held.touch()  # the ranks that live are busy in the user's code
    wait_for(lambda: actor(study, rank), alive=[launch])
    before = {one.pid for one in study.seats()}
    actor(study, rank).kill()
    gone = lambda: not any(psutil.pid_exists(pid) and is_alive(pid) for pid in before)  # noqa: E731
    wait_for(gone, alive=[launch])
    claimed = "select attempt from trial where fence = 2"
    wait_for(lambda: study.rows(claimed), alive=[launch])
    assert study.rows(claimed) == [(2,)], "the claim of the gang that is gone counts, and no step was made since"
    study.held.unlink()
    code, err = study.ended(launch)
    assert code == 0, err
    assert err.count("a worker is replaced") == 1, err
    assert records(study) == alone
    assert sorted(study.rows("select fence from trial")) == [(1,), (2,)]
    wait_for(lambda: not study.below())


def is_alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_signal_saves_the_trial_of_a_gang_and_one_process_goes_on(study, alone):
    launch = study.start("--gang", "2", workers=1)
    study.wait_for_steps(100, alive=[launch])
    launch.send_signal(signal.SIGTERM)
    code, err = study.ended(launch)
    assert code == 130, err
    assert study.rows("select max(attempt) from trial where state = 'waiting'") == [(0,)]
    wait_for(lambda: not study.seats())
    code, err = study.ended(study.start(workers=0))
    assert code == 0, err
    assert records(study) == alone


def test_a_node_of_any_rank_that_goes_down_has_the_trial_saved_and_counts_no_attempt(study, alone, cluster):
    launch = study.start("--gang", "4", workers=1)  # on both nodes
    study.wait_for_steps(100, alive=[launch])
    cluster.drain("127.0.0.3")
    try:
        err = ""
        for line in launch.stderr:
            err += line
            if "a machine goes down" in line:
                break
        wait_for(lambda: not study.seats(), alive=[launch], moves=study.moves)
        assert study.rows("select max(attempt) from trial where state = 'waiting'") == [(0,)]
        cluster.kill_node("127.0.0.3")
    finally:
        cluster.add_node(4)  # of another address: here the gang goes on
    code, more = study.ended(launch)
    assert code == 0, err + more
    assert records(study) == alone
    assert study.rows("select distinct attempt from trial") == [(1,)]


def test_a_gang_that_no_node_or_not_all_nodes_have_room_for_is_refused(study):
    for options, said in (
        (["--gang", "8"], "a gang of 8 needs 1 CPU for each rank, and the Ray cluster has room for 4 ranks"),
        (["--gang", "2", "--cpus", "64"], "no node of the Ray cluster has 64 CPUs for a rank of a gang of 2"),
        (["--gang", "2", "--gpus", "1"], "has 1 CPU and 1 GPU for a rank of a gang of 2"),
        (["--gang", "2", "--cpus", "0"], "--cpus 0 and --gpus 0 reserve no place for a rank of a gang"),
    ):
        code, err = study.ended(study.start(*options, workers=1))
        assert code == 2, err
        assert said in err
    assert study.rows("select count(*) from trial where state <> 'waiting'") in ([], [(0,)])
