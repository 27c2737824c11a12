"""Workers on a Ray cluster: killed, drained, stopped, without their head; the same rows and bits as one process."""

import os
import random
import signal
import tempfile

import psutil
import pytest
from support.loop_files import LOOP
from support.patience import wait_for
from support.ray_studies import CURVES, Study

from tuner.execution.fork_server import private_folder

KILLS = 10
pytestmark = [pytest.mark.slow, pytest.mark.timeout(0), pytest.mark.needs("ray", "postgresql")]


@pytest.fixture
def study(tmp_path, cluster, url):
    made = Study(tmp_path / "ray", cluster, url)
    yield made
    made.close()


@pytest.fixture(scope="module")
def alone(tmp_path_factory, cluster):
    """The curves of one process without Ray."""
    folder = tmp_path_factory.mktemp("alone")
    made = Study(folder, cluster, f"sqlite:///{folder}/l.sqlite")
    code, err = made.ended(made.start(workers=0))
    assert code == 0, err
    return [tuple(row) for row in made.rows(CURVES)]


def test_actors_killed_ten_times_train_the_same_bits(study, alone):
    """SIGKILL of an actor at random steps; Ray starts it again, and the Ledger goes on."""
    source, launch = random.Random(5), study.start()
    for _ in range(KILLS):
        study.wait_for_steps(source.randrange(1, 150), alive=[launch])
        wait_for(lambda: study.seats(), alive=[launch])
        victim = source.choice(study.seats())
        victim.kill()
        wait_for(lambda victim=victim: not victim.is_running() or victim.status() == psutil.STATUS_ZOMBIE)
    code, err = study.ended(launch)
    assert code == 0, err
    assert study.rows(CURVES) == alone
    assert study.rows("select distinct state from trial") == [("complete",)]
    wait_for(lambda: not study.below())
    assert not list(private_folder().glob(f"ray-{launch.pid}-*.code")), "the sent folder is removed after its workers"


def test_a_node_that_goes_down_has_its_trials_saved_and_counts_no_attempt(study, alone, cluster):
    launch = study.start(workers=4)
    study.wait_for_steps(200, alive=[launch])
    cluster.drain("127.0.0.3")
    try:
        err = ""
        for line in launch.stderr:
            err += line
            if "a machine goes down" in line:
                break
        code, more = study.ended(launch)
        assert code == 0, err + more
    finally:
        cluster.kill_node("127.0.0.3")
        cluster.add_node(4)
    assert study.rows(CURVES) == alone
    assert study.rows("select max(attempt) from trial") == [(1,)]


def test_a_signal_saves_and_the_same_command_goes_on(study, alone):
    launch = study.start()
    study.wait_for_steps(200, alive=[launch])
    launch.send_signal(signal.SIGTERM)
    code, err = study.ended(launch)
    assert code == 130, err
    assert study.rows("select max(attempt) from trial where state = 'waiting'") == [(0,)]
    wait_for(lambda: not study.seats())
    code, err = study.ended(study.start())
    assert code == 0, err
    assert study.rows(CURVES) == alone


def test_a_command_that_is_killed_goes_on_when_it_is_run_again(study, alone):
    launch = study.start()
    study.wait_for_steps(200, alive=[launch])
    launch.kill()
    launch.communicate()
    wait_for(lambda: not study.seats())
    wait_for(lambda: not study.below())
    code, err = study.ended(study.start())
    assert code == 0, err
    assert study.rows(CURVES) == alone


def test_a_loop_of_ones_own_has_the_curves_that_it_has_without_ray(study, cluster, tmp_path):
    alone = Study(tmp_path / "alone", cluster, f"sqlite:///{tmp_path}/alone/l.sqlite")
    for one, workers in ((alone, 0), (study, 2)):
        (one.folder / "tiny.py").write_text(LOOP)
        code, err = one.ended(one.start(workers=workers))
        assert code == 0, err
    assert study.rows(CURVES) == alone.rows(CURVES)
    assert len(study.rows(CURVES)) == 8
    alone.close()


def test_more_than_a_node_has_is_refused_and_an_address_without_a_cluster(study):
    for options, said in (
        (["--cpus", "64"], "no node of the Ray cluster has 64 CPUs for a worker"),
        (["--gpus", "1"], "has 1 CPU and 1 GPU for a worker"),
        (["--engine", "ray://127.0.0.2:1"], "no Ray cluster can be used at 127.0.0.2:1"),
    ):
        code, err = study.ended(study.start(*options))
        assert code == 2, err
        assert said in err
        assert study.rows("select count(*) from trial where state <> 'waiting'") in ([], [(0,)])


def test_code_outside_of_the_shipped_folder_is_refused_before_training(study, tmp_path):
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    (outside / "far_away.py").write_text("def scale(x):\n    return x * 1.0\n")
    file = study.folder / "tiny.py"
    file.write_text(file.read_text().replace("\n\nclass Tiny", "\nimport far_away\n\n\nclass Tiny"))
    study.cluster.environment["PYTHONPATH"] = str(outside)
    try:
        code, err = study.ended(study.start())
    finally:
        del study.cluster.environment["PYTHONPATH"]
    assert code == 2, err
    assert "no module far_away, which the study imports from" in err
    assert study.rows("select count(*) from measurement") == [(0,)]


def test_without_its_head_the_command_pauses_and_goes_on_when_it_is_back(study, alone, cluster):
    launch = study.start()
    study.wait_for_steps(200, alive=[launch])
    cluster.kill_node("127.0.0.2")
    try:
        code, err = study.ended(launch)
        assert code == 75, err
        assert "the Ray cluster is gone" in err
    finally:
        cluster.close()
        cluster.start_head()
    code, err = study.ended(study.start())
    assert code == 0, err
    assert study.rows(CURVES) == alone


@pytest.fixture
def short():
    """A folder with a short name: Ray's sockets lie in it, whose paths have at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        yield folder


def test_a_cluster_of_its_own_listens_on_loopback_only(tmp_path, short):
    study = Study(tmp_path / "own", None, f"sqlite:///{tmp_path}/own/l.sqlite", steps=20_000)
    home = tmp_path / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    study.cluster = type("Own", (), {"environment": environment | {
        "HOME": str(home), "RAY_TMPDIR": short, "OMP_NUM_THREADS": "1",
    }, "address": ""})()  # fmt: skip
    launch = study.start("--engine", "ray", "--workers", "2", workers=0)
    try:
        study.wait_for_steps(1, alive=[launch])
        family = psutil.Process(launch.pid).children(recursive=True)
        listening = [
            found.laddr.ip for one in family for found in one.net_connections() if found.status == psutil.CONN_LISTEN
        ]
        assert len(listening) >= 4
        assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}
        assert (home / ".ray" / "auth_token").exists()
        launch.send_signal(signal.SIGINT)
        code, err = study.ended(launch)
        assert code == 130, err
        assert f"Ray writes a token for its clusters into {home}/.ray/auth_token" in err
        assert "listens on loopback only" in err
        wait_for(lambda: not [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE])
    finally:
        study.close()
