"""Two kinds of machine by real processes: torch without its vector kernels gives other bits, and says so of itself."""

import json
import os
import subprocess
import sys

import pytest
from support.records import rows
from support.study_files import write_study
from support.tiny import Tiny, tiny_study

from tuner.errors import StudyChanged
from tuner.execution.backend import Job
from tuner.execution.loaded_workload import LoadedWorkload
from tuner.execution.machine import Machine
from tuner.execution.other_numerics import OtherNumerics
from tuner.records import Claim, Numerics, TrialUpdate
from tuner.rounds.plan import planned_trials
from tuner.storage.store import open_ledger

OTHER = {"ATEN_CPU_CAPABILITY": "default"}
# Data that torch does not draw, and a process that stops itself where the environment says so.
REPLACE = (
    ("import torch\n", "import os\nimport random\nimport signal\nimport torch\n"),
    ("generator = torch.Generator().manual_seed(0)", "draw = random.Random(0)"),
    ("torch.randn(80, 6, generator=generator)",
     "torch.tensor([[draw.gauss(0, 1) for _ in range(6)] for _ in range(80)])"),
    ("        logits = model(batch[0])\n        wrong",
     "        stop_here()\n        logits = model(batch[0])\n        wrong"),
    ("class Tiny", "LOOKS = []\n\n\ndef stop_here():\n    LOOKS.append(1)\n"
     "    if len(LOOKS) == int(os.environ.get('STOP_AT', '0')):\n"
     "        os.kill(os.getpid(), signal.SIGINT)\n\n\nclass Tiny"),
)  # fmt: skip


def study_file(folder, more="", **given):
    folder.mkdir(exist_ok=True)
    return write_study(folder, steps=60, trials=3, more=more, replace=REPLACE, **given)


def command(folder, *arguments, **variables):
    environment = {name: value for name, value in os.environ.items() if name not in ("TUNER_STORAGE", *OTHER)}
    environment |= {"OMP_NUM_THREADS": "1", "COLUMNS": "200"} | variables
    given = [sys.executable, "-m", "tuner", *map(str, arguments)]
    return subprocess.run(given, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)


def trials(folder):
    return json.loads(command(folder, "trials", "tiny", "-f", "json").stdout)


def curves(folder):
    asked = "select t.number, m.step, m.value from measurement m join trial t on t.id = m.trial_id order by 1, 2, 3"
    return rows(folder, asked)


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A folder whose study was begun on this machine: the second trial was stopped in its middle."""
    folder = tmp_path_factory.mktemp("begun")
    study_file(folder)
    first = command(folder, "launch", "tiny.py", "--fuse", "off", STOP_AT="75")
    assert first.returncode == 130, first.stderr
    assert trials(folder)[0]["state"] == "complete"
    return folder


def copied(begun, folder, **given):
    for path in begun.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            target = folder / path.relative_to(begun)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    study_file(folder, **given)
    return folder


@pytest.mark.slow
def test_the_other_kind_of_machine_trains_what_is_left_marks_it_and_says_it_once(begun, tmp_path):
    folder = copied(begun, tmp_path / "marked")
    left = [one["trial"] for one in trials(folder) if one["state"] != "complete"]
    half = [one["trial"] for one in trials(folder) if one["state"] == "waiting" and one["steps"]]
    assert half
    second = command(folder, "launch", "tiny.py", "--fuse", "off", **OTHER)
    assert second.returncode == 0, second.stderr
    assert second.stderr.count("was begun under other Numerics (kernels of torch DEFAULT, not AVX") == 2
    assert "round-1 was begun" in second.stderr
    assert f"trial {half[0]} of round-1 was begun" in second.stderr
    found = trials(folder)
    assert [one["numerics"] for one in found] == [2 if one["trial"] in left else 1 for one in found]
    assert [one["exact"] for one in found] == [one["trial"] not in half for one in found]
    told = command(folder, "trials", "tiny").stderr
    assert told.count("were trained under 2 sets of Numerics, 1 trial under set 1, 2 under set 2") == 1
    assert "crosses machines" in told
    command(folder, "report", "tiny", "-o", "page.html")
    assert (folder / "page.html").read_text().count("2 sets of Numerics") == 1

    alone = tmp_path / "alone"
    study_file(alone)
    assert command(alone, "launch", "tiny.py", "--fuse", "off").returncode == 0
    differ = {number for number, *_ in set(curves(folder)) ^ set(curves(alone))}
    assert differ == set(left), "the kernels do give other bits, and only the marked trials have them"
    assert [one["numerics"] for one in trials(alone)] == [1, 1, 1]
    assert "Numerics" not in command(alone, "trials", "tiny").stderr


@pytest.mark.slow
def test_worker_processes_mark_too_and_the_coordinator_says_it_once(begun, tmp_path):
    folder = copied(begun, tmp_path / "workers")
    second = command(folder, "worker", "tiny.py", "--fuse", "off", "--workers", 2, **OTHER)
    assert second.returncode == 0, second.stderr
    assert second.stderr.count("round-1 was begun under other Numerics") == 2
    assert second.stderr.count(" of round-1 was begun under other Numerics") == 1
    assert sorted(one["numerics"] for one in trials(folder)) == [1, 2, 2]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [(), ("--workers", 2)])
def test_a_study_that_refuses_lets_nothing_be_claimed_there(begun, tmp_path, workers):
    folder = copied(begun, tmp_path / "refused", more='other_numerics="refuse",')
    before = [(one["trial"], one["state"], one["steps"], one["attempt"]) for one in trials(folder)]
    refused = command(folder, "worker", "tiny.py", "--fuse", "off", *workers, **OTHER)
    assert refused.returncode == 2, refused.stderr
    assert "kernels of torch DEFAULT, not AVX" in refused.stderr
    assert "nothing was claimed here" in refused.stderr
    assert [(one["trial"], one["state"], one["steps"], one["attempt"]) for one in trials(folder)] == before
    here = command(folder, "worker", "tiny.py", "--fuse", "off", *workers)
    assert here.returncode == 0, here.stderr
    assert [(one["state"], one["exact"], one["numerics"]) for one in trials(folder)] == [("complete", True, 1)] * 3


@pytest.mark.slow
def test_no_prefix_is_taken_over_from_the_other_kind(begun, tmp_path):
    folder = copied(begun, tmp_path / "prefixes")
    assert command(folder, "launch", "tiny.py", "--fuse", "off").returncode == 0
    there = copied(folder, tmp_path / "there")
    for where, variables in ((folder, {}), (there, OTHER)):
        longer = command(where, "launch", "tiny.py", "--round", 2, "--max-train-steps", 120, "--fuse", "off",
                         **variables)  # fmt: skip
        assert longer.returncode == 0, longer.stderr
    asked = "select sum(inherited_steps) from trial t join study s on s.id = t.study_id where s.name = 'round-2'"
    assert rows(folder, asked)[0][0] > 0
    assert rows(there, asked) == [(0,)]


@pytest.mark.slow
def test_data_that_torch_draws_are_other_data_there_and_the_error_says_why(tmp_path):
    write_study(tmp_path, steps=60, trials=2)
    assert command(tmp_path, "launch", "tiny.py", "--fuse", "off").returncode == 0
    refused = command(tmp_path, "launch", "tiny.py", "--trials", 3, "--fuse", "off", **OTHER)
    assert refused.returncode == 2
    assert "training data changed" in refused.stderr
    assert "other Numerics than the one that started it: kernels of torch DEFAULT" in refused.stderr


# What one process can show: Numerics are given.

HERE = Numerics.of({"torch": "2.13", "cpu_capability": "AVX512", "processor": "GenuineIntel avx2"})
THERE = Numerics.of({"torch": "2.12", "cpu_capability": "AVX512", "processor": "AuthenticAMD avx2"})


@pytest.fixture
def job(tmp_path):
    """A function: the job of a study, under a rule, as another process would see it."""
    with open_ledger(str(tmp_path / "ledger.sqlite")) as ledger:
        study = tiny_study()
        row = ledger.start_study("tiny", study, "same", trials=planned_trials(study))

        def made(rule="mark"):
            return Job(ledger, row, LoadedWorkload(Tiny(), Machine(tmp_path, "cpu", other_numerics=rule)))

        yield made


def trained_under(job, numerics):
    (claimed,) = job.ledger.claim(job.row, worker="host:1:a", lease_seconds=60.0)
    job.ledger.record([TrialUpdate(claimed.trial_id, claimed.fence, 3, numerics=numerics)])
    return claimed


def test_the_refusal_names_every_difference_and_the_way_out(job):
    refusing = job("refuse")
    OtherNumerics(refusing, HERE, tells=True).check()
    trained_under(refusing, HERE)
    with pytest.raises(StudyChanged) as told:
        OtherNumerics(refusing, THERE, tells=True).check()
    words = str(told.value)
    assert "processor AuthenticAMD avx2, not GenuineIntel avx2; torch 2.12, not 2.13" in words
    assert 'write other_numerics="mark"' in words
    OtherNumerics(refusing, HERE, tells=True).check()


def test_a_rule_that_is_declared_later_refuses_a_study_that_is_mixed_already(job):
    marking, refusing = job(), job("refuse")
    OtherNumerics(marking, HERE, tells=True).check()
    trained_under(marking, HERE)
    trained_under(marking, THERE)
    with pytest.raises(StudyChanged, match="has trial 1, trained under other Numerics"):
        OtherNumerics(refusing, HERE, tells=True).check()


def test_of_two_who_begin_at_once_one_is_refused_with_its_claim_in_hand(job):
    first, second = (OtherNumerics(job("refuse"), one, tells=True) for one in (HERE, THERE))
    first.check()
    second.check()  # nobody has claimed yet, so it decides
    trained_under(job(), THERE)
    second.check_claimed()
    with pytest.raises(StudyChanged):
        first.check_claimed()


def test_it_is_said_once_a_process_whatever_the_number_of_studies_and_trials(job, caplog):
    mine = job()
    OtherNumerics(mine, HERE, tells=True).check()
    begun = trained_under(mine, HERE)
    caplog.clear()
    for _ in range(2):
        others = OtherNumerics(mine, THERE, tells=True)
        others.check()
        from_there = Claim(begun.trial_id, 2, begun.trial, 1, begun_under=HERE.text)
        others.note([from_there])
    assert len(caplog.records) == 1, "a claim without a saved state goes on from nothing"
    OtherNumerics(job(), THERE, tells=False).check()
    assert len(caplog.records) == 1, "a worker leaves it to its coordinator"


def test_a_rule_that_is_no_rule_and_one_that_contradicts_the_command(tuner_in):
    folder, tuner = tuner_in
    study_file(folder, more='other_numerics="ignore",')
    wrong = tuner("plan", "tiny.py")
    assert wrong.code == 2
    assert "got 'ignore'" in wrong.err
    study_file(folder, more='other_numerics="refuse",')
    both = tuner("launch", "tiny.py", "--allow-inexact")
    assert both.code == 2
    assert "leave one of them out" in both.err
    assert not (folder / "runs").exists()


@pytest.fixture
def tuner_in(tmp_path, tuner):
    return tmp_path, tuner
