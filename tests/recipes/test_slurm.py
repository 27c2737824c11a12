"""The recipes for SLURM on a SLURM of one node: time limits, preemption and requeues change no bit of the records."""

import os
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import ProgrammingError
from storage.postgres import Server
from support.needs import require
from support.patience import all_said, wait_for
from support.processes import started
from support.slurm import Slurm
from support.study_files import write_study

from tuner.storage.engine import parsed_url

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "docs/recipes"
RUN, WORKERS = RECIPES / "slurm-run.sh", RECIPES / "slurm-workers.sh"
# A step takes as long as the environment says, after those of the first look; and no two trials are stacked.
LOSS = "return F.cross_entropy(model(batch[0]), batch[1])"
SLOW_LOSS = """calls.append(0)
        loss = F.cross_entropy(model(batch[0]), batch[1])
        if len(calls) > 20 and float(loss.detach()) == float(loss.detach()):
            time.sleep(float(os.environ.get("SLOWLY", "0")))
        return loss"""
CALLS = "\nimport os\nimport time\n\ncalls = []\n\n\nclass Tiny"
SWEEP = "    sweep=Sweep(learning_rate=log_grid(1e-3, 1.0), start_steps=100, max_steps=800, seeds=2),\n"
CURVES = (
    "select study.name, number, trial.state, trial.step, metric.name, measurement.step, value_kind, value "
    "from measurement join trial on trial.id = trial_id join study on study.id = study_id "
    "join metric on metric.id = metric_id order by 1, 2, 5, 6"
)
BEST = (
    "select study.name, number, checkpoint.step, digest from checkpoint "
    "join checkpoint_file on checkpoint_file.id = file_id join trial on trial.id = trial_id "
    "join study on study.id = study_id where checkpoint.kind = 'best' order by 1, 2, 4"
)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(0), pytest.mark.needs("slurm")]


@pytest.fixture(scope="module")
def slurm():
    require("slurm")
    made = Slurm()
    yield made
    made.close()


@pytest.fixture(scope="module")
def server():
    require("postgresql")
    made = Server()
    yield made
    made.close()


def rows(url, query):
    engine = create_engine(parsed_url(url))
    try:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(query))]
    finally:
        engine.dispose()


class Site:
    """A shared folder with a study and an environment, and a database: what the recipes have to be told of."""

    def __init__(self, slurm, server, folder, name):
        self.slurm, self.folder = slurm, folder / name
        (self.folder / "study").mkdir(parents=True)
        write(self.folder / "study")
        engine = create_engine(parsed_url(server.url), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"create database {name}"))
        engine.dispose()
        self.url = f"{server.url.rpartition('/')[0]}/{name}"
        command = f"#!/bin/bash\nexec {shlex.quote(sys.executable)} -m tuner \"$@\"\n"
        (self.folder / "bin").mkdir()
        (self.folder / "bin/tuner").write_text(command)
        (self.folder / "bin/tuner").chmod(0o755)
        (self.folder / "activate").write_text(f"export PATH={self.folder}/bin:$PATH PYTHONPATH={ROOT} SLOWLY=1.5\n")

    def submit(self, recipe, *options):
        """Submit a recipe with nothing changed in its text but what names this site."""
        changed = recipe.read_text()
        changed = changed.replace(" --until campaign --wait-for-launch 86400 --idle-timeout 3600", "")  # XXX
        for old, new in (
            ("/shared/study", self.folder / "study"),
            ("/shared/venv/bin/activate", self.folder / "activate"),
            ("/shared/checkpoints", self.folder / "checkpoints"),
            ("postgresql://tuner@db.example.org/tuner", self.url),
        ):
            assert old in changed, old
            changed = changed.replace(old, str(new))
        (self.folder / recipe.name).write_text(changed)
        return self.slurm.submit(self.folder / recipe.name, f"--chdir={self.folder}", "--cpus-per-task=1", *options)

    def steps(self):
        """Steps that are committed; 0 before the tables exist."""
        try:
            return rows(self.url, "select coalesce(sum(step), 0) from trial")[0][0]
        except ProgrammingError:
            return 0

    def printed(self):
        return {path.name: path.read_text(errors="replace") for path in sorted(self.folder.glob("*.log"))}


def urgent(folder):
    """A job that takes the whole node from all others."""
    script = folder / "urgent.sh"
    script.write_text("#!/bin/bash\n#SBATCH --partition=urgent --exclusive --output=/dev/null\ntrue\n")
    return script


def write(folder):
    replace = [(LOSS, SLOW_LOSS), ("\n\nclass Tiny", CALLS), (SWEEP, "")]
    return write_study(folder, "study.py", trials=4, steps=60, replace=replace)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The records of one process without SLURM."""
    folder = tmp_path_factory.mktemp("alone")
    write(folder)
    run = started(folder, "run", "study.py", "--yes", OMP_NUM_THREADS="1")
    _, err = all_said(run)
    assert run.returncode == 0, err
    url = f"sqlite:///{folder}/runs/tuner.sqlite"
    return rows(url, CURVES), rows(url, BEST)


def test_time_limits_and_preemption_give_the_records_of_one_process(slurm, server, alone, tmp_path):
    killed, warned = (Site(slurm, server, tmp_path, name) for name in ("killed", "warned"))
    jobs = []
    for site, limit in ((killed, ("--time=1", "--signal=CONT@1")), (warned, ("--time=3",))):
        jobs.append(site.submit(RUN, *limit))
    wait_for(lambda: killed.steps() > 0 and warned.steps() > 0)  # XXX
    for site, limit in ((killed, ("--time=1", "--signal=CONT@1")), (warned, ("--time=3",))):
        jobs.append(site.submit(WORKERS, "--array=0-1", *limit))
    moves = lambda: [slurm.log(), *(site.printed() for site in (killed, warned))]  # noqa: E731
    wait_for(lambda: all(min(slurm.restarts(job)) >= 1 for job in jobs), moves=moves)
    slurm.submit(urgent(tmp_path))
    wait_for(lambda: all(slurm.ended(job) for job in jobs), moves=moves)
    print(killed.printed(), warned.printed())
    for site in (killed, warned):
        assert (rows(site.url, CURVES), rows(site.url, BEST)) == alone
        assert rows(site.url, "select max(attempt) from trial") == [(1,)], "a stop is no failed attempt"
