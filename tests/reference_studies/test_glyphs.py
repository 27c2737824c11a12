"""The study of letters and their names: its data, a few steps of a trial, and a short run to a decision."""

import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.tiny import MemoryRecorder, setting_for, train_alone

from tuner.design.study_file import load_campaign
from tuner.records import State
from tuner.rounds.plan import planned_trials, study_of_round
from tuner.training.caption_look import unseen_captions

ROOT = Path(__file__).parents[2]
FILE = ROOT / "studies/glyphs.py"

SHORT = '''"""The study of glyphs.py, shorter."""

from dataclasses import replace

import glyphs

helps, order, final = glyphs.campaign.rounds
campaign = replace(
    glyphs.campaign,
    production_steps=180,
    rounds=[replace(helps, trials=8, max_train_steps=80), replace(order, trials=8, max_train_steps=120), final],
    name="short",
)
'''


@pytest.fixture(scope="module")
def campaign():
    return load_campaign(FILE)[1]


@pytest.fixture(scope="module")
def study_file(campaign):
    return sys.modules[type(campaign.workload).__module__]


def test_a_caption_is_in_one_split_with_all_its_fonts(campaign):
    splits = campaign.workload.data()
    sizes = [len(split[0]) for split in (splits.training, splits.validation, splits.test)]
    assert sizes[0] > 10_000
    assert min(sizes) > 1000
    images = [split[0].reshape(-1, 256) for split in (splits.training, splits.validation, splits.test)]
    assert all(image.min() == 0.0 and image.max() == 1.0 for image in images)
    assert min(float(image.sum(1).min()) for image in images) > 0.0, "no letter without ink"


def test_the_captions_are_the_words_of_the_names(campaign, study_file):
    names = [name for _, name in study_file.letters()]
    splits, words = study_file.splits_and_words()
    part = study_file.parts_of(names)
    assert [len(split[0]) for split in splits] == [sum(part[name] == one for name in names) for one in range(3)]
    spoken = [
        {" ".join(words[word - 1] for word in row if word) for row in split[2].unique(dim=0).tolist()}
        for split in splits
    ]
    assert spoken[0] == {name for name in part if part[name] == 0}, "a training name has all its words"
    assert "LATIN SMALL LETTER E WITH ACUTE" in set().union(*spoken)
    assert "LastResortHE-Regular" not in study_file.FONTS
    known = campaign.workload.provenance()
    assert len(known["sha256 of the fonts"]) == 64
    assert known["letters"] == [len(split[0]) for split in splits]


def test_noise_is_drawn_in_training_and_the_same_in_every_evaluation(campaign, study_file):
    workload, batch = campaign.workload, tuple(part[:64] for part in campaign.workload.data().training)
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 1, 2)]
    first, again, other = (workload.augment(batch, {"captions": "no"}, generator)[1] for generator in generators)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert float((first - batch[0]).std()) == pytest.approx(study_file.NOISE, rel=0.02)
    assert torch.equal(workload.data().validation[1], workload.data().validation[1])


@pytest.mark.parametrize("number", [1, 2])
def test_a_few_steps_of_a_trial_end_in_the_metric_that_selects(number, campaign, tmp_path):
    study = study_of_round(replace(campaign, evaluations=2), number, 6)
    recorder = MemoryRecorder()
    setting = setting_for(study, tmp_path, campaign.workload)
    trials = planned_trials(study)
    update = train_alone(setting, recorder, recorder.claim(trials[0]))
    assert (update.state, update.step) == (State.COMPLETE, 6)
    assert math.isfinite(float.fromhex(recorder.measurements[6, "validation/loss"]))
    assert unseen_captions(setting, trials) == [], "the model sees captions, and their order"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_short_run_ends_in_a_decision_and_a_report(tmp_path):
    shutil.copytree(ROOT / "studies", tmp_path / "studies", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "studies" / "short.py").write_text(SHORT)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tuner", "run", "studies/short.py", "--yes"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    assert "Traceback" not in done.stdout + done.stderr
    assert "changes nothing" not in done.stderr
    assert "Result: take " in done.stdout
    assert "Which captions is best? " in done.stdout
    assert (tmp_path / "runs" / "short.html").exists()
    again = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (again.returncode, again.stdout) == (0, done.stdout), "nothing is trained again"
