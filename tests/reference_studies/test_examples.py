"""The studies of studies/examples: each trains a few steps in the default suite, and is run short by the slow one."""

import math
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.tiny import MemoryRecorder, setting_for, train_alone

from tuner.design.campaign import Campaign
from tuner.design.study_file import load_campaign
from tuner.design.workload import Workload
from tuner.records import State
from tuner.rounds.plan import planned_trials, study_of_round

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "studies" / "examples"
PAGES = ROOT / "docs" / "examples"
NEEDED = {"lightning_module": "lightning", "graphs_geometric": "torch_geometric"}
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))
STUDIES = [
    pytest.param(
        name,
        marks=[pytest.mark.needs(NEEDED[name]), pytest.mark.filterwarnings("default")] if name in NEEDED else [],
    )
    for name in NAMES
]  # warnings are those of other packages

SHORT = '''"""The study of {name}.py, shorter."""

from dataclasses import replace

import {name} as example

searched, final = example.campaign.rounds
length = None if example.campaign.sweep else {length}
campaign = replace(
    example.campaign,
    production_steps=length and 2 * length,
    sweep=example.campaign.sweep and replace(example.campaign.sweep, seeds=1),
    evaluations=20,
    rounds=[replace(searched, trials={trials}, max_train_steps=length), final],
    name="short",
)
'''


def loaded(name) -> Campaign:
    return load_campaign(EXAMPLES / f"{name}.py")[1]


@pytest.mark.parametrize("name", STUDIES)
def test_a_few_steps_of_a_trial_end_in_the_metric_that_selects(name, tmp_path):
    campaign = loaded(name)
    study = study_of_round(replace(campaign, evaluations=2), 1, 6)
    recorder = MemoryRecorder()
    setting = setting_for(study, tmp_path, campaign.workload)
    update = train_alone(setting, recorder, recorder.claim(planned_trials(study)[0]))
    assert (update.state, update.step) == (State.COMPLETE, 6)
    last = {metric: float.fromhex(value) for (step, metric), value in recorder.measurements.items() if step == 6}
    assert math.isfinite(last[str(campaign.workload.select_by.measured)])
    if campaign.workload.fitted_when is not None:
        assert math.isfinite(last[str(campaign.workload.fitted_when.measured)])
    assert isinstance(campaign.workload, Workload)
    assert not {f"validation/{each}" for each in campaign.workload.not_averaged} & set(last)


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_finds_its_budget_and_ends_in_a_final_round(name):
    campaign = loaded(name)
    assert (campaign.sweep is None) != (campaign.production_steps is None), "by a sweep, or by what is declared"
    searched, final = campaign.rounds
    assert 6 <= searched.trials <= 16
    assert final.promote


def rows_of_the_table():
    """By study, the words of its row in docs/examples/index.md."""
    rows = re.findall(r"^\| .+? \| \[.+?\]\((\w+)\.md\) \| (.+) \|$", (PAGES / "index.md").read_text(), re.MULTILINE)
    return {name: re.findall(r"`([^`]+)`", words) for name, words in rows}


def test_every_study_has_a_page_and_a_row_with_words_that_it_uses():
    rows = rows_of_the_table()
    assert sorted(rows) == [name for name in NAMES if name != "graphs_geometric"]  # shown on the page of graphs
    for name, words in rows.items():
        page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
        assert f"../../studies/examples/{name}.py" in page, "the page includes the file"
        assert f"studies/examples/{name}.py" in page
        source = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
        assert words
        assert [word for word in words if word not in source] == [], name


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", STUDIES)
def test_a_short_run_ends_in_a_decision_and_a_report(name, tmp_path):
    shutil.copytree(EXAMPLES, tmp_path / "studies", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "studies" / "short.py").write_text(SHORT.format(name=name, trials=4, length=60))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tuner", "run", "studies/short.py", "--yes"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    told = done.stdout + done.stderr
    assert done.returncode == 0, told[-5000:]
    assert "Traceback" not in told
    assert "Result: take " in done.stdout, told[-3000:]
    assert not loaded(name).sweep or "learning_rate: fitted" in done.stderr, told[-3000:]
    assert (tmp_path / "runs" / "short.html").exists()
    again = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr[-3000:]
    assert again.stdout == done.stdout, "nothing is trained again"
