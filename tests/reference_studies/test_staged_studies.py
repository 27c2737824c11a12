"""The studies of stages: what each carries fits what it starts from; the slow suite runs them short, to the end."""

import os
import shutil
import subprocess
import sys
from fnmatch import fnmatchcase
from itertools import combinations
from pathlib import Path

import pytest
import torch

from tuner.design.stages import chain_to
from tuner.design.study_file import load_stages
from tuner.rounds.plan import planned_trials, study_of_round

ROOT = Path(__file__).parents[2]
STUDIES = ROOT / "studies"
CHAINS = {
    "few_labels": {"digits-few-labels": ["digits-denoised", "digits-head", "digits-few-labels"]},
    "few_labels_many": {"digits-900-labels": ["digits-900-labels-head", "digits-900-labels"]},
    "stdlib_staged": {
        "topics": ["stdlib-pretrained", "topics"],
        "topics-adapters": ["stdlib-pretrained", "topics-adapters"],
    },
}

SHORT = '''"""The stages of {name}.py, shorter."""

from dataclasses import replace

import {name} as study

from tuner import Campaign


def short(campaign, source=None):
    rounds = [
        replace(one, trials=one.trials and 3, max_train_steps=one.max_train_steps and 20) for one in campaign.rounds
    ]
    start = campaign.start_from and replace(campaign.start_from, source=source)
    production = campaign.production_steps and 60
    return replace(campaign, rounds=rounds, start_from=start, production_steps=production, warmup_steps=2)


{stages}
'''
SHORT_STAGES = {
    "few_labels": (
        "pretraining = short(study.pretraining)\n"
        "head = short(study.head, pretraining)\n"
        "campaign = short(study.campaign, head)\n"
    ),
    "stdlib_staged": (
        "pretraining = short(study.pretraining)\n"
        "adapters = short(study.adapters, pretraining)\n"
        "campaign = short(study.campaign, pretraining)\n"
    ),
}


def first_point(campaign):
    return planned_trials(study_of_round(campaign, 1, 100))[0].point


@pytest.mark.parametrize("name", CHAINS)
def test_every_stage_carries_what_the_one_before_it_has_with_the_same_shape(name):
    stages = load_stages(STUDIES / f"{name}.py")
    for last, chain in CHAINS[name].items():
        assert [stage.name for stage in chain_to(stages, last)] == chain
    models = {one.name: one.campaign.workload.model(first_point(one.campaign)).state_dict() for one in stages}
    carried = 0
    for stage in stages:
        start = stage.campaign.start_from
        if start is None or start.campaign not in models:
            continue
        there, here = models[start.campaign], models[stage.name]
        for key, tensor in here.items():
            if fnmatchcase(key, start.parameters) and not fnmatchcase(key, start.fresh):
                assert tensor.shape == there[key].shape, key
                carried += 1
    assert carried >= 4


def test_an_adapted_model_trains_its_adapters_alone_and_begins_as_the_pretrained_one():
    stages = {one.name: one.campaign for one in load_stages(STUDIES / "stdlib_staged.py")}
    point = dict(first_point(stages["topics-adapters"])) | {"rank": 6}
    torch.manual_seed(0)
    adapted = stages["topics-adapters"].workload.model(point)
    plain = stages["topics"].workload.model(point)
    plain.load_state_dict({key: adapted.state_dict()[key] for key in plain.state_dict()})
    text = stages["topics"].workload.data().validation[:4].long()
    assert torch.equal(adapted(text), plain(text))
    trained = sum(one.numel() for one in adapted.parameters() if one.requires_grad)
    assert trained == 6 * (16 * 24 + 192) + 6 * (192 + 24), "r (d_in + d_out) of each of the two matrices"


def test_the_few_labels_are_balanced_and_no_image_is_in_two_splits():
    campaign = load_stages(STUDIES / "few_labels.py")[-1].campaign
    data = campaign.workload.data()
    assert torch.bincount(data.training[1]).tolist() == [3] * 10
    parts = [{tuple(image.tolist()) for image in images} for images, _ in (data.training, data.validation, data.test)]
    assert [len(one & other) for one, other in combinations(parts, 2)] == [0, 0, 0]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", SHORT_STAGES)
def test_a_short_run_of_all_stages_ends_in_a_decision_and_is_not_trained_again(name, tmp_path):
    shutil.copytree(STUDIES, tmp_path / "studies", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "studies" / "short.py").write_text(SHORT.format(name=name, stages=SHORT_STAGES[name]))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tuner", "run", "studies/short.py", "--yes"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    told = done.stdout + done.stderr
    assert done.returncode == 0, told[-5000:]
    assert "Traceback" not in told
    assert "Result: take " in done.stdout, told[-3000:]
    last = load_stages(STUDIES / f"{name}.py")[-1].name
    assert (tmp_path / "runs" / f"{last}.html").exists()
    again = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr[-3000:]
    assert again.stdout == done.stdout, "nothing is trained again"
