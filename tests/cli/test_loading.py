"""data_workers on the command line: no part of what a study is, the same bits in every way of training, no orphans."""

import json
import os
import signal

import psutil
import pytest
from support.patience import wait_for
from support.processes import started, told
from support.records import CURVES, rows
from support.study_files import write_study

from tuner.cli.launch import fetching_words
from tuner.records import Price

DATASET = (
    "class Tiny(Workload):",
    """
import os, random, numpy as np

class Noisy(torch.utils.data.Dataset):
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        noise = torch.rand(6) + random.random() + np.random.rand()
        return self.x[index] + noise.float(), self.y[index]


class Tiny(Workload):
    data_workers = 0""",
)
SPLITS = ("training=(x[:50], y[:50]), validation=(x[50:], y[50:])",
          "training=Noisy(x[:50], y[:50]), validation=Noisy(x[50:], y[50:])")  # fmt: skip


@pytest.fixture
def write(tmp_path):
    def make(processes, name="tiny.py", **changes):
        dataset = (DATASET[0], DATASET[1].replace("data_workers = 0", f"data_workers = {processes}"))
        more = 'regime="not_compute_bound",'
        return write_study(tmp_path, name, **{"trials": 3, "steps": 40} | changes, more=more, replace=(dataset, SPLITS))

    return make


def test_another_number_of_processes_is_the_same_study_and_shares_its_prefixes(tuner, write, tmp_path):
    assert tuner("launch", write(0)).code == 0
    again = tuner("launch", write(4, trials=4))
    assert again.code == 0
    assert "changed" not in again.err, again.err
    assert tuner("launch", write('"auto"'), "--round", 2, "--max-train-steps", 80).code == 0
    trials = json.loads(tuner("trials", "tiny", "--round", 2, "-f", "json").out)
    assert max(trial["inherited"] for trial in trials) > 0, "the first steps are taken over"
    replay = tuner("replay", write(2), "--round", 1, "--trial", 0)
    assert (replay.code, "0 differ" in replay.out) == (0, True)


@pytest.mark.parametrize("more", [("--fuse", "off"), ("--fuse", "3"), ("--workers", "2", "--fuse", "off")])
def test_every_way_of_training_has_the_same_curves(tuner, write, tmp_path, monkeypatch, more):
    curves = []
    for processes, options in ((0, ("--fuse", "off")), (2, more)):
        folder = tmp_path / str(processes)
        folder.mkdir()
        monkeypatch.chdir(folder)
        assert tuner("launch", write(processes), *options).code == 0
        curves.append(rows(folder, CURVES))
    assert curves[0] == curves[1]
    assert len(curves[0]) > 100


@pytest.mark.parametrize(
    ("price", "words"),
    [
        (
            (102.0, 93.0, 0, 4),
            "fetching takes 93 of 102 ms of a step; data_workers = 4 would hide most of it, with the",
        ),
        ((100.0, 95.0, 0, 2), "data_workers = 2 would hide most of it"),
        ((100.0, 99.0, 0, 1), "data_workers = 1 would hide 1% of it"),
        ((102.0, 93.0, 0, 0), "fetching takes 93 of 102 ms of a step; trials that train together (--fuse) fetch each"),
        ((12.5, 93.0, 8, 8), "8 loading processes: a step takes 12.5 ms, and fetching its batch 93 ms of another"),
        ((1.5, 0.02, 4, 0), "fetching its batch 0.02 ms of another process; that is nothing to hide: data_workers = 0"),
        ((100.0, 2.0, 0, 0), ""),
        ((1.0, 0.0, 0, 0), ""),
    ],
)
def test_a_dry_run_says_what_fetching_costs_and_how_many_processes_would_hide_it(price, words):
    step, fetch, processes, useful = price
    said = fetching_words(Price(step, 1.0, 1, 1, fetch, processes, useful))
    assert words in said if words else said == ""


def test_a_dry_run_measures_the_fetching(tuner, write, tmp_path):
    slow = ("noise = torch.rand(6)", "import time; time.sleep(0.002); noise = torch.rand(6)")
    study = write(0)
    study.write_text(study.read_text().replace(*slow))
    said = tuner("launch", study, "--dry-run").err
    assert "fetching takes" in said
    assert "fetch each batch once" in said


def test_more_processes_than_cores_are_kept_and_warned_about(tuner, write, caplog, monkeypatch):
    monkeypatch.setattr("tuner.training.inspection.num_cores", lambda: 2)
    assert tuner("launch", write(3), "--dry-run").code == 0
    assert "data_workers = 3 starts 3 loading processes on 2 cores" in caplog.text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_of_a_command_saves_the_trial_and_leaves_no_process(write, tmp_path, number):
    process = started(tmp_path, "launch", write(2, steps=20000, trials=1), "--fuse", "off")
    inside = psutil.Process(process.pid)
    wait_for(lambda: len(inside.children(recursive=True)) >= 2, alive=[process])
    loading = [child.pid for child in inside.children(recursive=True)]
    for pid in (*loading, process.pid):
        os.kill(pid, number)
    code, err = told(process)
    assert (code, "Traceback" in err) == (130, False), err
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in loading))
    assert rows(tmp_path, "select state, attempt from trial") == [("waiting", 0)]
