"""The recipes for SLURM on a SLURM of one node: time limits, preemption and requeues change no bit of the records."""

import shlex
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from support.needs import require
from support.patience import wait_for
from support.slow_study import new_database, records, rows, steps, write_slow
from support.slurm import Slurm

from tuner.cli.exit_codes import Exit

AGAIN = {int(one) for one in Exit if one.requeue}
NEVER = {int(one) for one in Exit if not one.requeue} - {0}
KILLED = {128 + 9, 128 + 15}
ROOT = Path(__file__).parents[2]
RUN, WORKERS, GANGS = (ROOT / f"docs/recipes/slurm-{name}.sh" for name in ("run", "workers", "gangs"))
WORKER = "worker study.py --until campaign --wait-for-launch 86400 --idle-timeout 3600"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(0), pytest.mark.needs("slurm")]


@pytest.fixture(scope="module")
def slurm():
    require("slurm")
    made = Slurm()
    yield made
    made.close()


class Site:
    """A shared folder with a study and an environment, and a database: what the recipes have to be told of."""

    def __init__(self, slurm, server, folder, slices=1):
        self.slurm, self.folder = slurm, folder
        for name in ("study", "bin"):
            (folder / name).mkdir(parents=True)
        write_slow(folder / "study", slices)
        self.url = new_database(server, f"slurm_{folder.parent.name}_{folder.name}".lower())
        self.program("tuner", f'exec {shlex.quote(sys.executable)} -m tuner "$@"')
        (folder / "activate").write_text(f"export PATH={folder}/bin:$PATH PYTHONPATH={ROOT} SLOWLY=1.5\n")

    def program(self, name, text):
        (self.folder / "bin" / name).write_text(f"#!/bin/bash\n{text}\n")
        (self.folder / "bin" / name).chmod(0o755)

    def submit(self, recipe, *options, replace=()):
        """Submit a recipe with nothing changed in its text but what names this site, and `replace`; its id."""
        changed = recipe.read_text()
        for old, new in (
            *replace,
            ("/shared/study", self.folder / "study"),
            ("/shared/venv/bin/activate", self.folder / "activate"),
            ("/shared/checkpoints", self.folder / "checkpoints"),
            ("postgresql://tuner@db.example.org/tuner", self.url),
        ):
            assert old in changed, old
            changed = changed.replace(old, str(new))
        (self.folder / recipe.name).write_text(changed)
        return self.slurm.submit(self.folder / recipe.name, f"--chdir={self.folder}", "--cpus-per-task=1", *options)

    def said(self):
        """What the jobs printed, by the name of the file."""
        return {path.name: path.read_text(errors="replace") for path in sorted(self.folder.glob("*.log"))}

    def moves(self):
        """What changes while its jobs get on."""
        return steps(self.url), self.said()


@pytest.fixture
def site(slurm, server, tmp_path):
    return Site(slurm, server, tmp_path / "site")


def urgent(folder):
    """A job that takes the whole node from all others."""
    script = folder / "urgent.sh"
    script.write_text("#!/bin/bash\n#SBATCH --partition=urgent --exclusive --output=/dev/null\ntrue\n")
    return script


def test_time_limits_and_preemption_give_the_records_of_one_process(slurm, server, alone, tmp_path):
    killed, warned = Site(slurm, server, tmp_path / "killed"), Site(slurm, server, tmp_path / "warned")
    limits = {killed: ("--time=1", "--signal=CONT@1"), warned: ("--time=3",)}  # without and with a warning
    jobs = {
        site: [site.submit(WORKERS, "--array=0-1", *limit), site.submit(RUN, *limit)] for site, limit in limits.items()
    }
    every = [job for both in jobs.values() for job in both]
    moves = lambda: [site.moves() for site in limits]  # noqa: E731
    restarts = lambda site: [number for job in jobs[site] for number in slurm.restarts(job)]  # noqa: E731
    wait_for(lambda: all(steps(site.url)[0] > 30 for site in limits), moves=moves)
    before = restarts(killed) + restarts(warned)
    slurm.submit(urgent(tmp_path))
    over = lambda: all(map(slurm.ended, every))  # noqa: E731
    wait_for(lambda: min(restarts(killed)) >= 3 or over(), moves=moves)
    for job in every:  # on a machine that is busy a minute might be over before anything is trained, again and again
        slurm.asked("scontrol", "update", f"JobId={job}", "TimeLimit=600", check=False)
    wait_for(over, moves=moves)
    for site in limits:
        # Not by the state: a job that ends well after its limit, before it is killed, is TIMEOUT.
        assert {one["ExitCode"] for job in jobs[site] for one in slurm.shown(job)} == {"0:0"}, site.said()
        assert records(site.url) == alone
        assert rows(site.url, "select max(attempt) from trial") == [(1,)], "a stop is no failed attempt"
    assert min(restarts(killed)) >= 3, "killed three times by the time limit"
    assert max(before) < max(restarts(warned))
    said = str(killed.said())
    assert "DUE TO TIME LIMIT" in said
    assert "DUE TO PREEMPTION" in said


def test_what_would_end_the_same_way_is_not_started_again(slurm, site):
    (site.folder / "study/study.py").write_text("campaign = 1\n")
    jobs = [site.submit(RUN), site.submit(WORKERS, "--array=0-1")]
    wait_for(lambda: all(map(slurm.ended, jobs)), moves=site.moves)
    ended = [one for job in jobs for one in slurm.shown(job)]
    assert [(one["JobState"], one["ExitCode"], one["Restarts"]) for one in ended] == [("FAILED", "2:0", "0")] * 3


def test_each_exit_code_is_answered_as_the_page_says(slurm, site):
    """Also of the last task of an array, whose job id is that of the whole array."""
    codes = [0, *sorted(NEVER), *sorted(AGAIN | KILLED)]
    others = "scontrol show job -o $SLURM_ARRAY_JOB_ID | grep -Ec 'JobState=(COMPLETED|FAILED)'"
    site.program(
        "tuner",
        f"""[ $SLURM_RESTART_COUNT ] && exit 0
        codes=({" ".join(map(str, codes))})
        if [ $SLURM_ARRAY_TASK_ID = {len(codes) - 1} ]; then  # until all others have ended, some of them twice
            while (($({others}) < {len(codes) - 1})); do sleep 1; done
        fi
        exit ${{codes[$SLURM_ARRAY_TASK_ID]}}""",
    )
    job = site.submit(WORKERS, f"--array=0-{len(codes) - 1}")
    wait_for(lambda: slurm.ended(job), moves=site.moves)
    ended = {int(one["ArrayTaskId"]): one for one in slurm.shown(job)}
    for task, code in enumerate(codes):
        again = code in AGAIN | KILLED
        assert ended[task]["Restarts"] == str(int(again)), (code, site.said())
        assert ended[task]["ExitCode"] == f"{0 if again else code}:0"


def test_a_cancelled_job_saves_and_does_not_come_back(slurm, site):
    job = site.submit(RUN)
    wait_for(lambda: steps(site.url)[0] > 5, moves=site.moves)
    slurm.asked("scancel", job)
    wait_for(lambda: slurm.ended(job) or slurm.restarts(job) != [0], moves=site.moves)
    (shown,) = slurm.shown(job)
    assert (shown["JobState"], shown["Restarts"]) == ("CANCELLED", "0"), site.said()
    ((state, attempt, _),) = rows(site.url, "select state, attempt, step from trial where step > 0")
    assert (state, attempt) == ("waiting", 0)


def test_a_chain_goes_on_where_nothing_can_be_requeued(slurm, site, alone):
    site.program("scontrol", "exit 127")  # as in a container
    (site.folder / "activate").write_text((site.folder / "activate").read_text().replace("SLOWLY=1.5", "SLOWLY=0.8"))
    link = ("--array=0", "--job-name=chain", "--dependency=singleton", "--no-requeue")
    chain = [site.submit(WORKERS, *link, f"--time={minutes}") for minutes in (1, 60, 60)]
    run = site.submit(RUN)
    wait_for(lambda: all(map(slurm.ended, [run, *chain])), moves=site.moves)
    ended = [slurm.shown(job)[0] for job in (run, *chain)]
    assert [one["JobState"] for one in ended] == ["COMPLETED", "FAILED", "COMPLETED", "COMPLETED"], site.said()
    assert ended[1]["ExitCode"] == "130:0"
    starts = [one["StartTime"] for one in ended[1:]]
    assert starts == sorted(set(starts)), "one after the other"
    assert records(site.url) == alone


def ranks(slurm):
    """The commands of a gang, by their ranks."""
    mine, found = f"SLURM_CONF={slurm.folder / 'slurm.conf'}", {}
    for process in psutil.process_iter(["cmdline"]):
        with suppress(psutil.Error):
            if (process.info["cmdline"] or [])[1:4] == ["-m", "tuner", "run"]:
                environment = process.environ()
                if environment.get("SLURM_CONF") == mine.partition("=")[2] and "RANK" in environment:
                    found[int(environment["RANK"])] = process
    return found


def test_a_gang_that_is_preempted_and_loses_a_rank_has_the_records_of_one_process(
    slurm, server, alone_in_slices, tmp_path
):
    site = Site(slurm, server, tmp_path / "gang", slices=4)
    (site.folder / "activate").write_text((site.folder / "activate").read_text().replace("SLOWLY=1.5", "SLOWLY=0.1"))
    size = ["--array=0", "--nodes=1", "--ntasks-per-node=2", "--gres=gpu:2", "--mem=4G", "--time=600"]
    job = site.submit(GANGS, *size, replace=[(WORKER, "run study.py --yes")])
    wait_for(lambda: steps(site.url)[0] > 5, moves=site.moves)
    first = ranks(slurm)[1]
    slurm.submit(urgent(tmp_path))
    wait_for(lambda: ranks(slurm).get(1, first) != first, moves=site.moves)  # those that are preempted take a while
    assert slurm.restarts(job) == [1]
    assert rows(site.url, "select max(attempt) from trial") == [(0,)], "a stop is no attempt"
    begun = steps(site.url)
    wait_for(lambda: steps(site.url)[0] > begun[0], moves=site.moves)
    ranks(slurm)[1].kill()
    wait_for(lambda: slurm.restarts(job) == [2], moves=site.moves)
    wait_for(lambda: slurm.ended(job), moves=site.moves)
    (shown,) = slurm.shown(job)
    assert (shown["JobState"], shown["ExitCode"], shown["Restarts"]) == ("COMPLETED", "0:0", "2"), site.said()
    assert records(site.url) == alone_in_slices


def test_a_gang_that_would_end_the_same_way_is_not_started_again(slurm, site):
    (site.folder / "study/study.py").write_text("campaign = 1\n")
    job = site.submit(GANGS, "--array=0", "--nodes=1", "--ntasks-per-node=2", "--gres=gpu:2", "--mem=4G")
    wait_for(lambda: slurm.ended(job), moves=site.moves)
    (shown,) = slurm.shown(job)
    assert (shown["JobState"], shown["ExitCode"], shown["Restarts"]) == ("FAILED", "2:0", "0"), site.said()
