"""`--gang`: what it may not go together with; and ranks that were started together, as by torchrun."""

import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import closing

import psutil
import pytest
from support.patience import wait_for
from support.processes import told
from support.records import CURVES, rows
from support.study_files import write_study

import tuner as package
from tuner.errors import InputError

slow = pytest.mark.slow
BATCH = "batch_size = 8"
SLICES = [(BATCH, "batch_size, slices = 8, 4")]
SEARCHED = [
    (BATCH, "batch_size, micro_batch_size = 8, 2"),
    ("dropout=uniform", "batch_size=choice(8, 12), dropout=uniform"),
]
OWN_LOOP = """
from tuner import *


class Loop(OwnLoop):
    select_by = minimize("validation/loss")

    def train(self, trial):
        trial.report(trial.max_train_steps, {{"validation/loss": 1.0}})


campaign = Campaign(Loop(), rounds=[Round("a test", trials=4, max_train_steps=20, space=SearchSpace(
    learning_rate=log_uniform(1e-3, 1.0)))])
"""
CASES = {
    "no power of two": (SLICES, ["--gang", 3], "--gang is a power of two from 1 to 1024"),
    "none": (SLICES, ["--gang", 0], "--gang is a power of two"),
    "one slice": ([], ["--gang", 2], "write slices = 8 in Tiny. That changes the bits of its trials once"),
    "too few slices": (SLICES, ["--gang", 8], "Tiny.slices = 4, and each rank computes as many: say --gang 4"),
    "some batch size": (SEARCHED, ["--gang", 4], "the 6 slices of 2 examples of batch_size = 12 in round-1"),
    "a group": (SLICES, ["--gang", 2, "--fuse", 4], "--fuse 4 trains 4 trials in one process, and --gang 2 trains one"),
    "cores": ([(BATCH, "batch_size, slices = 8, 8")], ["--gang", 8], "this machine has 1 core, and more than 4 ranks"),
    "gangs": (SLICES, ["--gang", 2, "--workers", 3], "6 ranks, this machine has 1 core, .* say --workers 2 at most"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_gang_that_cannot_be_is_one_clear_error_before_anything_is_written(case, tuner, tmp_path, monkeypatch):
    changes, options, message = CASES[case]
    monkeypatch.setattr("tuner.system.num_cores", lambda: 1)
    run = tuner("launch", write_study(tmp_path, replace=changes), *options)
    assert (run.code, run.err.count("error:")) == (2, 1), run.err
    assert re.search(message, " ".join(run.err.split()))
    assert not (tmp_path / "runs").exists()


def rows_written(folder):
    """Whether a study was written, or a checkpoint."""
    database = folder / "runs" / "tuner.sqlite"
    return (database.exists() and rows(folder, "select * from study")) or list(folder.glob("runs/checkpoints/**/*.pt"))


@pytest.mark.parametrize("command", ["launch", "worker", "sweep", "adopt", "stability", "exploit", "budget-curve"])
def test_a_loop_of_ones_own_and_a_wrong_number_are_refused_by_every_command_that_trains(command, tuner, tmp_path):
    (tmp_path / "loop.py").write_text(OWN_LOOP.replace("{{", "{").replace("}}", "}"))
    if command == "launch":
        run = tuner("launch", "loop.py", "--gang", 2)
        assert run.code == 2, run.err
        assert "--gang 2 shares the slices of each batch among 2 processes, and Loop.train makes its own" in run.err
    run = tuner(command, "loop.py", "--gang", 6)
    assert run.code == 2, run.err
    assert "--gang is a power of two" in run.err


@pytest.mark.parametrize("command", [["best", "tiny"], ["replay", "tiny.py", "-t", "0"], ["check", "tiny"], ["verify"]])
def test_commands_that_do_not_train_have_no_gang(command, tuner, tmp_path):
    run = tuner(*command, "--gang", 2)
    assert run.code == 2
    assert "No such option: --gang" in run.err


def test_a_campaign_that_is_an_object_has_no_gang(tmp_path):
    write_study(tmp_path, replace=SLICES, more='name="tiny",')
    space: dict[str, object] = {}
    exec(compile((tmp_path / "tiny.py").read_text(), "tiny.py", "exec"), space)
    with pytest.raises(InputError, match=r"each worker process loads the study file"):
        package.launch(space["campaign"], storage=str(tmp_path / "a.sqlite"), gang=2)
    with pytest.raises(InputError, match=r"power of two"):
        package.launch(tmp_path / "tiny.py", storage=str(tmp_path / "a.sqlite"), gang=3)


def test_a_dry_run_of_a_gang_trains_nothing(tuner, tmp_path):
    run = tuner("launch", write_study(tmp_path, replace=SLICES), "--gang", 2, "--dry-run")
    assert run.code == 0, run.err
    assert not rows_written(tmp_path)


# Each rank waits in its 20th slice until the test lets it go on.
LOSS = "return F.cross_entropy(model(batch[0]), batch[1])"
GATE = f"""import os, pathlib, sys, time
        folder = pathlib.Path(__file__).parent
        calls.append("fork_server" in sys.argv[0] and model.training)
        if sum(calls) == 20:
            (folder / f"here-{{os.environ['RANK']}}-{{os.getpid()}}").touch()
            while not (folder / "go").exists():
                time.sleep(0.01)
        {LOSS}"""
GATED = [*SLICES, (LOSS, GATE), ("\n\nclass Tiny", "\n\ncalls = []\n\n\nclass Tiny")]
STATES = "select state, attempt from trial order by number"


class Started:
    """The commands of two ranks, started together by the environment alone, as srun starts them."""

    def __init__(self, folder, *arguments, files=("tiny.py", "tiny.py")):
        with closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            self.place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
        self.folder = folder
        self.commands = [self.start(rank, "launch", file, *arguments) for rank, file in enumerate(files)]

    def start(self, rank, *arguments):
        environment = os.environ | self.place | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        return subprocess.Popen(
            [sys.executable, "-m", "tuner", *map(str, arguments)], cwd=self.folder, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def gated(self):
        """The process of each rank, once both wait in their updates."""
        wait_for(lambda: len(list(self.folder.glob("here-*"))) == 2, alive=self.commands)
        self.family = [one for command in self.commands for one in psutil.Process(command.pid).children(recursive=True)]
        found = dict(path.name.split("-")[1:] for path in self.folder.glob("here-*"))
        return [psutil.Process(int(found[rank])) for rank in ("0", "1")]

    def go(self):
        """Let them go on; the exit code and the words of each rank. No process is left."""
        (self.folder / "go").touch()
        ended = [told(command) for command in self.commands]
        wait_for(lambda: not [one for one in self.family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE])
        return ended


@pytest.fixture(scope="module")
def curves(tmp_path_factory):
    """What one process makes of the study."""
    folder = tmp_path_factory.mktemp("alone")
    write_study(folder, trials=2, replace=SLICES)
    done = subprocess.run([sys.executable, "-m", "tuner", "launch", "tiny.py"], cwd=folder, check=False)
    assert done.returncode == 0
    return rows(folder, CURVES)


@slow
def test_torchrun_starts_the_ranks_of_one_worker(tmp_path, curves):
    write_study(tmp_path, trials=2, replace=SLICES)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "-m",
        "tuner",
        "launch",
        "tiny.py",
    ]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert rows(tmp_path, CURVES) == curves
    assert rows(tmp_path, STATES) == [("complete", 1)] * 2


@slow
def test_ranks_that_were_started_together_serve_study_after_study(tmp_path):
    """The first sweep, then round 1: each study session starts a gang, and the commands of both ranks outlive it."""
    write_study(
        tmp_path, trials=2, replace=[*SLICES, ('Round("the best", promote=2),', "")], more="production_steps=60,"
    )
    ranks = Started(tmp_path, "--round", 1)
    assert [told(command)[0] for command in ranks.commands] == [0, 0]
    again = Started(tmp_path, "--round", 1)  # nothing is left: no gang is started
    assert [told(command)[0] for command in again.commands] == [0, 0]


# Of (command 0, process 0, command 1, process 1): who gets which signal, and the exit codes of both commands.
DEEDS = {
    "a process of rank 1 is killed": ((3,), "SIGKILL", (75, 75)),
    "a process of rank 0 is killed": ((1,), "SIGKILL", (75, 75)),
    "the command of rank 1 is killed": ((2,), "SIGKILL", (75, -9)),
    "the command of rank 0 is killed": ((0,), "SIGKILL", (-9, 75)),
    "rank 1 alone is to end": ((2,), "SIGTERM", (130, 130)),
    "rank 0 alone is to end": ((0,), "SIGTERM", (130, 130)),
    "all are to end": ((0, 1, 2, 3), "SIGTERM", (130, 130)),
}


@slow
@pytest.mark.parametrize("case", DEEDS)
def test_whatever_befalls_a_rank_all_end_and_the_attempt_is_counted_once(case, tmp_path, tuner, curves):
    who, name, codes = DEEDS[case]
    write_study(tmp_path, trials=2, replace=GATED)
    ranks = Started(tmp_path)
    first, second = ranks.gated()
    known = [psutil.Process(ranks.commands[0].pid), first, psutil.Process(ranks.commands[1].pid), second]
    for place in who:
        known[place].send_signal(getattr(signal, name))
    (code_0, words_0), (code_1, words_1) = ranks.go()
    assert (code_0, code_1) == codes, words_0 + words_1
    assert "Traceback" not in words_0 + words_1
    attempts = [attempt for _, attempt in rows(tmp_path, STATES)]
    assert attempts == [int(name == "SIGKILL"), 0]
    assert tuner("launch", "tiny.py").code == 0
    assert rows(tmp_path, CURVES) == curves


@slow
def test_wrong_input_of_ranks_that_were_started_together_is_the_error_of_all(tmp_path):
    write_study(tmp_path, trials=2, replace=SLICES)
    write_study(tmp_path, "other.py", trials=2, replace=[*SLICES, ("ReLU", "GELU")])
    ended = [told(command) for command in Started(tmp_path, "--gang", 4).commands]
    assert [code for code, _ in ended] == [2, 2]
    assert all("--gang 4, and 2 processes were started together" in words for _, words in ended)
    ended = [told(command) for command in Started(tmp_path, files=("tiny.py", "other.py")).commands]
    assert [code for code, _ in ended] == [2, 2], ended
    assert "on rank 1:" in ended[0][1]
    assert "is not what was launched" in ended[0][1]
    ended = [told(command) for command in Started(tmp_path, "--round", 7).commands]
    assert [code for code, _ in ended] == [2, 2]
    assert rows(tmp_path, STATES) == [("waiting", 0)] * 2
